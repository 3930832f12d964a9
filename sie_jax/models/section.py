"""The section `model`: a checkpoint to start from, or the size of a BERT with random weights."""

import dataclasses

from sie_jax import sections
from sie_jax.errors import UserError
from sie_jax.models.bert import REMAT

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """A checkpoint folder to start from, or the size of a BERT that starts from random weights."""

    pretrained: str = ""  # a Hugging Face folder to start from; empty: random weights
    hidden_size: int = 128  # the width, where weights are random; so are the next three
    num_hidden_layers: int = 2  # layers of the encoder
    num_attention_heads: int = 4  # attention heads of each layer
    intermediate_size: int = 512  # width of the feed-forward part of each layer
    dropout: float = 0.1  # the dropout rate of training steps
    dtype: str = "float32"  # the type of the computation: float32 or bfloat16
    remat: str = "none"  # dots or layers: less memory, more computation (sie_jax.models.bert.REMAT)

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            sections.at_least(f"model.{field}", getattr(self, field), 1)
        sections.at_least("model.intermediate_size", self.intermediate_size, 1)
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}: change one of them"
            )
        sections.between("model.dropout", self.dropout, 0.0, 0.99)
        sections.one_of("model.dtype", self.dtype, DTYPES)
        sections.one_of("model.remat", self.remat, REMAT)
