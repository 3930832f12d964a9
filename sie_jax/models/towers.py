"""Towers: one encoder that makes a unit vector of each text, and its sentence-transformers folder.

A folder of sentence-transformers lists its modules in modules.json: the encoder (in Hugging Face
layout), the pooling that makes one vector of its hidden states, and as a rule normalisation.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from transformers import PretrainedConfig

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.models import families, huggingface
from sie_jax.models.base import EncoderModel, training_flops

MODULES, LENGTHS = "modules.json", "sentence_bert_config.json"
POOLING = Path("1_Pooling") / "config.json"
POOLINGS = {"mean": "mean_tokens", "cls": "cls_token"}
"""The poolings that towers have, and the words of the folder's `pooling_mode_…` for them."""

LONGEST = 128  # the most tokens of a text where the folder does not say
_SMALLEST = 1e-24  # of a squared norm: that of sentence-transformers, whose norm is at least 1e-12
_SPECIAL = 2  # [CLS] and [SEP], which every text has
_TOKENIZER = "tokenizer_config.json"
_PACKAGE = "sentence_transformers.models"
_PATHS = {"Transformer": "", "Pooling": str(POOLING.parent), "Normalize": "2_Normalize"}


class Towers(EncoderModel):
    """An encoder of single texts, which query and item share: two towers of the same weights.

        vector = pooled / ‖pooled‖        pooled = mean of h_t over the text's tokens, or h_0

    with h_t the encoder's last hidden states, [CLS] and [SEP] included. The relevance of an item is
    the cosine of its vector and the query's: the bi-encoder of Reimers and Gurevych 2019
    ("Sentence-BERT"). Vectors are float32 whatever `dtype` is.

    Like the encoder it holds `nnx.Param` and nothing else, and takes any leading shape. It has no
    pooler of the encoder's own, so that every parameter moves the vectors.

    Args:
      config: transformers' configuration of a family in `models.families`.
      pooling: of POOLINGS.
      max_length: the most tokens of a text, special ones included; it is kept, not enforced.
      dtype: the compute dtype of the encoder, float32 or bfloat16.
      rngs: initialises as the encoder does.

    Raises:
      UserError: the encoder refuses the configuration.
    """

    segments = 1

    def __init__(
        self,
        config: PretrainedConfig,
        *,
        pooling: str = "mean",
        max_length: int = LONGEST,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}: give one of {', '.join(POOLINGS)}")
        self.pooling, self.max_length = pooling, max_length
        super().__init__(config, dtype=dtype, rngs=rngs)
        setattr(self.encoder, self.architecture.pooler, None)

    def __call__(
        self,
        input_ids: Int[Array, "*leading T"],
        attention_mask: Int[Array, "*leading T"] | Bool[Array, "*leading T"],
        *,
        deterministic: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading hidden"]:
        """The vectors of texts, of norm 1; 0 where a text has no token.

        `attention_mask` is True or nonzero at real tokens. Other arguments and errors are those of
        `FlaxBert.__call__`.
        """
        hidden = self.encoder(
            input_ids, None, attention_mask, deterministic=deterministic, key=key
        ).astype(jnp.float32)
        real = (attention_mask != 0)[..., None]
        if self.pooling == "cls":
            pooled = hidden[..., 0, :] * real[..., 0, :]
        else:
            # the sum has the direction of the mean, and only the direction is left
            pooled = jnp.sum(jnp.where(real, hidden, 0), -2)
        square = jnp.sum(pooled**2, -1, keepdims=True)
        # the root of a clamped square has a derivative at 0, which the norm has not
        return pooled / jnp.sqrt(jnp.maximum(square, _SMALLEST))

    def step_flops(self, rows: int, length: int) -> int | None:
        """FLOPs of a training step on `rows` pairs (`base.training_flops`), an upper bound.

        length: places of a query and its item together. Attention, a small part of the whole, is
        counted as if the two were one text.
        """
        return training_flops(rows, self.encoder.products(length), 0)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: DTypeLike = jnp.float32
    ) -> tuple[Towers, tuple[str, ...]]:
        """Read a folder of sentence-transformers, or of a plain encoder.

        Heads and a pooler in the folder are not read: the pooling takes their place.

        Returns:
          The model, and one sentence for each thing that the folder does not say and that was
          assumed: without `1_Pooling/config.json` the pooling is the mean.

        Raises:
          UserError: the folder holds no encoder, it asks for another pooling than those of
            POOLINGS, or it has further modules (a dense layer, say).
        """
        folder = Path(folder)
        _check_modules(folder)
        pooling, notes = "mean", []
        if (folder / POOLING).is_file():
            pooling = _pooling(folder / POOLING)
        else:
            notes.append(f"{folder} has no {POOLING}: the mean over tokens was assumed.")
        config, family, checkpoint = huggingface.open_folder(folder, families.FAMILIES)
        longest = min(_longest(folder) or LONGEST, config.max_position_embeddings)
        options: dict[str, Any] = {"pooling": pooling, "max_length": longest, "dtype": dtype}
        with huggingface.named(folder):
            model = nnx.eval_shape(  # abstract: every parameter is read, none is initialised
                lambda: cls(config, **options, rngs=nnx.Rngs(0))
            )
        report = huggingface.load(model, checkpoint)
        replaced = [f"{family.stored(part)}." for part in (family.pooler, family.classifier)]
        ignored = [name for name in report.ignored if not any(part in name for part in replaced)]
        return model, (*notes, *huggingface.LoadReport([], ignored).notes(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that sentence-transformers reads, with the same vectors.

        The tokenizer, which it needs too, is for the caller to save there.
        """
        folder = Path(folder)
        huggingface.save(self.encoder, folder, "Model")
        modes = {f"pooling_mode_{word}": name == self.pooling for name, word in POOLINGS.items()}
        for path in filter(None, _PATHS.values()):
            (folder / path).mkdir(exist_ok=True)
        write_json(folder / POOLING, {"word_embedding_dimension": self.config.hidden_size, **modes})
        write_json(
            folder / LENGTHS,
            {
                "max_seq_length": self.max_length,
                "do_lower_case": False,
                # or transformers would report that it makes one up
                "model_args": {"add_pooling_layer": False},
            },
        )
        write_json(
            folder / MODULES,
            [
                {"idx": idx, "name": str(idx), "path": path, "type": f"{_PACKAGE}.{kind}"}
                for idx, (kind, path) in enumerate(_PATHS.items())
            ],
        )


def is_towers(folder: str | Path) -> bool:
    """Whether a folder says that it is of sentence-transformers."""
    return (Path(folder) / MODULES).is_file()


def _check_modules(folder: Path) -> None:
    """Raises UserError for a module that towers do not have."""
    if not is_towers(folder):
        return
    modules = _json(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(one, dict) for one in modules):
        raise UserError(
            f"{folder / MODULES} is no list of modules: copy that of the checkpoint again"
        )
    kinds = [str(one.get("type")).rpartition(".")[2] for one in modules]
    if unknown := [kind for kind in kinds if kind not in _PATHS]:
        raise UserError(
            f"{folder / MODULES} has the module {', '.join(unknown)}: give a checkpoint with the "
            f"modules {', '.join(_PATHS)} alone"
        )


def _longest(folder: Path) -> int | None:
    """The most tokens of a text; new versions of the library leave that to the tokenizer."""
    stated = {LENGTHS: "max_seq_length"}
    if is_towers(folder):
        stated[_TOKENIZER] = "model_max_length"
    for file, name in stated.items():
        value = _fields(folder / file).get(name) if (folder / file).is_file() else None
        if value is None:
            continue
        if not isinstance(value, int | float) or not _SPECIAL < value < math.inf:
            raise UserError(f"{folder / file}: {name} is {value!r}: give a number of tokens")
        return int(value)
    return None


def _pooling(path: Path) -> str:
    """The one pooling that the file asks for, in the words of new versions or of old ones."""
    fields = _fields(path)
    asked = fields.get("pooling_mode")
    if asked is None:
        asked = sorted(
            name.removeprefix("pooling_mode_")
            for name, value in fields.items()
            if name.startswith("pooling_mode_") and value
        )
    asked = asked if isinstance(asked, list) else [asked]
    found = [name for name, word in POOLINGS.items() if asked in ([name], [word])]
    if not found:
        raise UserError(
            f"{path} asks for pooling by {', '.join(map(str, asked)) or 'nothing'}: give a "
            f"checkpoint that pools by {' or by '.join(POOLINGS.values())}"
        )
    return found[0]


def _fields(path: Path) -> dict[str, Any]:
    fields = _json(path)
    if not isinstance(fields, dict):
        raise UserError(f"{path} is not a JSON object: copy that of the checkpoint again")
    return fields


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
