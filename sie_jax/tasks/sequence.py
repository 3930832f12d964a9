"""A user's history, and the next item after each of its events."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sie_jax.models.histories import PADDING
from sie_jax.tasks.task import Batch, Example, LossFunction, SeparateTask, key_of

TRUNCATED, REWEIGHTED = DENOISING = ("truncated", "reweighted")
POWER = 0.2
"""The power of the probability by which `reweighted` weighs a step."""

Outputs = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class NextItem(SeparateTask):
    """The next item of a history, by a `HistoryModel`.

    The loss of row i, a stretch of one user's events, is

        ℓ_i = 1/T̄ Σ_t −log ( exp(z_t,y) / Σ_j exp(z_t,j) )      over its steps t that predict one

    with y the item that came next and j all items. T̄ is the mean number of steps of a row, so that
    the mean loss of a batch is about that of a step, and each step counts alike. With `negatives`
    N, a training step takes N items drawn evenly, the same for a whole batch, in place of all:
    Σ_j becomes exp(z_y) + I/N Σ_n exp(z_n) over those that are not y, which is unbiased for the
    sum (Jean et al. 2015, "On using very large target vocabulary"). Without dropout all items
    count, in gradients too.

    A row is an example: what its gradient is exactly, all passes and steps are told by
    `per_example`. Two tasks are equal only where they are one, since arrays belong to them.

    texts: the vectors of all items' texts, row 0 of none; None where the model has no text.
    id_dropout: the share of the items whose ids a row does not see in a training step, so that
    texts alone have to do, as they have to for an item that nobody met before.
    denoising: which steps count less, none where "": `truncated` leaves out the `rate` of a batch's
    steps with the highest loss, where the share rises from 0 to `rate` in the first tenth of the
    training; `reweighted` multiplies each step by (exp z_y / Σ_j exp z_j)^POWER, held fixed.
    (Wang et al. 2021, "Denoising implicit feedback for recommendation".) A truncated loss reads the
    whole batch: it has no contribution of one row.
    steps: T̄.
    """

    graphdef: nnx.GraphDef
    items: int
    steps: float
    texts: np.ndarray | None = None
    negatives: int = 0
    id_dropout: float = 0.0
    denoising: str = ""
    rate: float = 0.0

    features: ClassVar[tuple[str, ...]] = ("items", "events", "gaps")
    output_scores: ClassVar[tuple[str, ...]] = ("loss",)
    meets: ClassVar[tuple[str, ...]] = ("outputs", "gradients", "optimizer")

    def outputs(
        self,
        params: Any,
        example: Example,
        *,
        key: jax.Array | None = None,
        drawn: jax.Array | None = None,
    ) -> Outputs:
        """`losses` `[T]` of the steps, and which of them predict something: `there` `[T]`.

        drawn: the items that are taken in place of all.
        """
        model, texts = nnx.merge(self.graphdef, params), self._texts
        known, own = self._known(key)
        states = model(example["items"], example["events"], example["gaps"], texts, known, key=own)
        items, target = example["items"], example["targets"]
        own_items = model.weights_of_own(items)
        asked = model.asked_of_texts(states, items, texts)
        right = model.logits_of(states, target, asked, texts, known)
        if own_items is not None:
            right = right + jnp.sum(own_items * (items == target[:, None]), -1)
        if drawn is None:
            logits = model.logits(states, asked, texts, known)
            if own_items is not None:
                logits = logits.at[:, items].add(own_items)
            total = jax.nn.logsumexp(logits, axis=-1)
        else:
            others = model.logits_of(states, drawn, asked, texts, known)
            if own_items is not None:
                others = others + own_items @ (items[:, None] == drawn).astype(others.dtype)
            others = others + jnp.log(self.items / len(drawn))
            others = jnp.where(drawn == target[:, None], -jnp.inf, others)
            total = jnp.logaddexp(right, jax.nn.logsumexp(others, axis=-1))
        there = target != PADDING
        return {"losses": jnp.where(there, total - right, 0.0), "there": there}

    def couple(self, outputs: Outputs, batch: Batch) -> jax.Array:
        losses = outputs["losses"]
        if self.denoising == REWEIGHTED:
            losses = losses * jax.lax.stop_gradient(jnp.exp(-POWER * losses))
        elif self.denoising == TRUNCATED and losses.ndim == 2:
            losses = losses * self._kept(losses, outputs["there"], batch)
        return jnp.sum(losses, -1) / self.steps

    def _kept(self, losses: jax.Array, there: jax.Array, batch: Batch) -> jax.Array:
        """1 for the steps that stay, 0 for the share of a batch with the highest losses."""
        there = there & batch["mask"][:, None]
        share = self.rate * jnp.minimum(1.0, 10 * batch["progress"][0])
        values = jnp.sort(jnp.where(there, jax.lax.stop_gradient(losses), jnp.inf).reshape(-1))
        count = jnp.sum(there)
        last = jnp.maximum(count - jnp.floor(share * count).astype(int) - 1, 0)
        return jnp.where(losses <= values[last], 1.0, 0.0)

    def loss(self, dropout_key: jax.Array | None = None) -> LossFunction:
        drawn = self._drawn(dropout_key)

        def loss(params: Any, example: Example) -> tuple[jax.Array, Outputs]:
            key = key_of(example, dropout_key)
            outputs = self.outputs(params, example, key=key, drawn=drawn)
            return self.couple(outputs, example), outputs

        return loss

    def outputs_of(self, params: Any, batch: Batch, dropout_key: jax.Array | None) -> Outputs:
        drawn = self._drawn(dropout_key)

        def one(params: Any, example: Example) -> Outputs:
            return self.outputs(params, example, key=key_of(example, dropout_key), drawn=drawn)

        return jax.vmap(one, in_axes=(None, 0))(params, batch)

    def _drawn(self, key: jax.Array | None) -> jax.Array | None:
        """The items that stand for all in this step."""
        if key is None or not self.negatives:
            return None
        key = jax.random.fold_in(key, 2**31 - 1)  # no row has this number
        return jax.random.randint(key, (self.negatives,), 1, self.items + 1)

    def _known(self, key: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
        """Which items' ids a row sees, all where None, and the key of its dropout."""
        if key is None or not self.id_dropout:
            return None, key
        ours, own = jax.random.split(key)
        return jax.random.bernoulli(ours, 1 - self.id_dropout, (self.items + 1,)), own

    @property
    def _texts(self) -> jax.Array | None:
        return None if self.texts is None else jnp.asarray(self.texts)

    def rematerialises(self, params: Any) -> bool:
        """It keeps all of its forward pass."""
        return False

    @property
    def num_labels(self) -> int:
        """What came next is one of all items."""
        return self.items

    def score(self, name: str, outputs: Outputs, batch: Batch) -> jax.Array:
        """Its one score is the loss."""
        assert name in self.output_scores
        return self.couple(outputs, batch)

    def embed(self, params: Any, batch: Batch) -> jax.Array:
        """The vector after the last event."""
        model = nnx.merge(self.graphdef, params)
        states = model(batch["items"], batch["events"], batch["gaps"], self._texts)
        last = jnp.maximum(jnp.sum(batch["items"] != PADDING, -1) - 1, 0)
        return jnp.take_along_axis(states, last[:, None, None], 1)[:, 0]

    def logits(self, params: Any, batch: Batch, known: jax.Array | None = None) -> jax.Array:
        """The logit `[B, I + 1]` of each item after the last event.

        known: whether each item's id is to be used `[I + 1]`; one that nobody met in training has
        an id that says nothing.
        """
        model, texts = nnx.merge(self.graphdef, params), self._texts
        return jax.vmap(
            lambda items, events, gaps: model.last_logits(items, events, gaps, texts, known)
        )(batch["items"], batch["events"], batch["gaps"])

    def head(self, params: Any) -> str:
        """The table of items, by which all of them are scored."""
        return "items"

    def columns(self, outputs: Outputs) -> dict[str, jax.Array]:
        """Nothing: what is predicted of a row is a whole list (`passes.recommend`)."""
        return {}
