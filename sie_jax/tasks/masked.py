"""Pretraining on plain text: hidden words to be named, and pairs that may have been exchanged."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sie_jax.importance import outputs as scores
from sie_jax.tasks.masking import Vocabulary, exchange_items, mask_words
from sie_jax.tasks.task import Batch, Example, Task


class Sums(NamedTuple):
    """What one row, or each row of a batch, adds to the loss and to what is measured.

    The loss of its masked tokens and their number; the loss of its pair, whether the model was
    right about the pair, and whether it was asked at all.
    """

    masked_loss: jax.Array
    masked_tokens: jax.Array
    pair_loss: jax.Array
    pair_correct: jax.Array
    pairs: jax.Array


# compared by identity: a vocabulary holds arrays
@dataclasses.dataclass(frozen=True, eq=False)
class Masked(Task):
    """The two tasks of BERT (Devlin et al. 2019, section 3.1) on texts with one part or two.

    An example's `label` is the group of its first text, −1 where the row has no second one. What is
    hidden and exchanged is drawn for a batch (`sums`), and anew with every key.

    graphdef: of a `PretrainingModel`. vocabulary: of the tokenizer.
    """

    graphdef: nnx.GraphDef
    vocabulary: Vocabulary

    features: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask")

    def outputs(self, params: Any, example: Example, *, key: jax.Array | None = None) -> Sums:
        """The sums of a row that `sums` has drawn for: what it has hidden, and in which places.

        `exchanged` and `asked` say whether the row has another's item, and whether that is known.
        """
        words, pair = nnx.merge(self.graphdef, params)(
            *(example[name] for name in self.features),
            example["positions"],
            deterministic=key is None,
            key=key,
        )
        chosen = example["chosen"] & example["mask"]
        losses = jnp.where(chosen, scores.loss(words, example["targets"]), 0.0)
        belongs = example["exchanged"].astype(jnp.int32)  # class 0: the two belong together
        asked = example["asked"]
        return Sums(
            losses.sum(),
            chosen.sum(),
            jnp.where(asked, scores.loss(pair, belongs), 0.0),
            asked & (pair.argmax() == belongs),
            asked.astype(jnp.int32),
        )

    def couple(self, outputs: Sums, batch: Batch) -> jax.Array:
        """One loss for the batch: the mean over its masked tokens plus the mean over its pairs."""
        return self.parts(outputs)["loss"]

    def parts(self, sums: Sums) -> dict[str, jax.Array]:
        """`loss`, which is `masked_loss` + `pair_loss`, and the `losses` `[B]` of the rows.

        Each mean is over what the batch has of its kind, padding left out: 0 where it has none.
        """
        masked = _mean(sums.masked_loss, sums.masked_tokens)
        pair = _mean(sums.pair_loss, sums.pairs)
        losses = sums.masked_loss / jnp.maximum(sums.masked_tokens, 1) + sums.pair_loss
        return {"loss": masked + pair, "masked_loss": masked, "pair_loss": pair, "losses": losses}

    def sums(self, params: Any, batch: Batch, key: jax.Array, *, dropout: bool) -> Sums:
        """The sums `[B]` of a batch's rows. `key` says what is hidden and exchanged."""
        key_exchange, key_mask, key_dropout = jax.random.split(key, 3)
        batch, exchanged, asked = exchange_items(key_exchange, batch, self.vocabulary)

        def of_row(example: Example, exchanged: jax.Array, asked: jax.Array) -> Sums:
            row = example["row"]
            masked = mask_words(
                jax.random.fold_in(key_mask, row),
                example["input_ids"],
                example["attention_mask"],
                self.vocabulary,
            )
            drawn = example | masked._asdict() | {"exchanged": exchanged, "asked": asked}
            key = jax.random.fold_in(key_dropout, row) if dropout else None
            return self.outputs(params, drawn, key=key)

        return jax.vmap(of_row)(batch, exchanged, asked)


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    return jnp.sum(total) / jnp.maximum(jnp.sum(count), 1)
