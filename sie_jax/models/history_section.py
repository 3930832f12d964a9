"""The section `model` of a recommender: the sizes of the network that reads histories."""

import dataclasses

from sie_jax import remote, sections
from sie_jax.errors import UserError
from sie_jax.models.histories import HistoryShape

NO_TEXT, WORDS, ENCODER = TEXTS = ("", "words", "encoder")


@dataclasses.dataclass(slots=True, kw_only=True)
class HistoryModelConfig:
    """The sizes of the network that reads histories, and what it knows of items."""

    hidden_size: int = 64  # the width
    num_hidden_layers: int = 2  # blocks of attention
    num_attention_heads: int = 2  # attention heads of each block
    max_length: int = 50  # the most events of a history that are read, the latest ones
    dropout: float = 0.4  # the dropout rate of training steps
    events: bool = False  # whether it reads what kind of event each was
    gaps: bool = False  # whether it reads the time since the event before
    # words or encoder: what it knows of items beside their ids, by the words of their texts or by
    # the vectors of model.pretrained; empty: nothing
    text: str = NO_TEXT
    pretrained: str = ""  # a sentence-transformers or BERT folder, for model.text=encoder
    id_dropout: float = 0.0  # share of the items whose ids a training step hides, with model.text

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            sections.at_least(f"model.{field}", getattr(self, field), 1)
        sections.at_least("model.max_length", self.max_length, 2)
        sections.between("model.dropout", self.dropout, 0.0, 0.99)
        sections.between("model.id_dropout", self.id_dropout, 0.0, 0.99)
        sections.one_of("model.text", self.text, TEXTS)
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}: change one of them"
            )
        if (self.text == ENCODER) != bool(self.pretrained):
            raise UserError(
                "model.pretrained and model.text=encoder go together: give both or neither"
            )
        if self.id_dropout and not self.text:
            raise UserError(
                "model.id_dropout hides ids, and without model.text nothing else is known of an "
                "item: set --config.model.text=words, or leave it out"
            )

    def folder(self) -> str:
        """The local folder of the encoder of texts, "" without one."""
        return remote.local(self.pretrained) if self.pretrained else ""

    def shape(self, *, items: int, events: int, copies: bool) -> HistoryShape:
        """The sizes of the model, for so many items and types of events.

        copies: whether what a history has may come again.
        """
        return HistoryShape(
            items=items,
            hidden=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            length=self.max_length,
            events=events if self.events else 1,
            gaps=self.gaps,
            text=bool(self.text),
            copies=copies,
            dropout=self.dropout,
        )
