"""A customer's turns to an intent, and to items; a person where the model is not sure."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sie_jax.data import sentences
from sie_jax.data.sentences import SentenceEncoder
from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.models.intents import FILE as INTENTS
from sie_jax.models.intents import IntentModel
from sie_jax.retrieval.selection import Effects, Selection
from sie_jax.serving.finding import Chain, Hit

FILE, CHAIN, OF_INTENTS, ENCODER = "assistant.json", "chain", "intents", "encoder"
LAST, ALL, RARE, TURNS, WORDS = (
    *("last", "all", "all but frequent words", "selected turns", "selected words"),
)
"""Which part of a chat a search is asked with. Of several last turns, the number is added."""


class Answer(NamedTuple):
    """What a sentence wants, how sure that is, and whether a person had better answer."""

    intent: str
    confidence: float
    handed_over: bool


@dataclasses.dataclass(frozen=True)
class Assistant:
    """What answers a customer.

    chain: what finds items, None without chats. asks: how a search is asked, one of LAST, ALL,
    RARE, TURNS, WORDS or `last N`. selection: for RARE, TURNS and WORDS. intents: None without.
    encoder: of the sentences, where intents read vectors. threshold: the least confidence of an
    answer.
    """

    chain: Chain | None = None
    asks: str = ALL
    selection: Selection | None = None
    intents: IntentModel | None = None
    encoder: SentenceEncoder | None = None
    threshold: float = 0.0

    def query(self, turns: Sequence[str]) -> str:
        """What the search is asked with."""
        return asked(turns, self.asks, self.selection)

    def find(self, turns: Sequence[str], *, count: int = 10) -> list[Hit]:
        """The items for the turns of a chat; UserError where the folder has no chain."""
        if self.chain is None:
            raise UserError("the assistant learnt from no chats: it finds no items")
        return self.chain.hits(self.query(turns), count=count)

    def answer(self, text: str) -> Answer:
        """What a sentence wants; UserError where the folder has no intents."""
        if self.intents is None:
            raise UserError("the assistant learnt from no intents: it knows none")
        vectors = None
        if self.encoder is not None:
            vectors = sentences.encode(self.encoder, [text])
        (shares,) = self.intents.probabilities([text], vectors)
        best = int(shares.argmax())
        sure = float(shares[best])
        return Answer(self.intents.names[best], sure, sure < self.threshold)

    def save(self, folder: Path) -> None:
        """Leaves what `load` reads."""
        selection = None if self.selection is None else told_of(self.selection)
        told = {"asks": self.asks, "selection": selection, "threshold": self.threshold}
        write_json(folder / FILE, told)
        if self.chain is not None:
            (folder / CHAIN).mkdir()
            self.chain.save(folder / CHAIN)
        if self.intents is not None:
            (folder / OF_INTENTS).mkdir()
            self.intents.save(folder / OF_INTENTS)
            if self.encoder is not None:
                sentences.save(self.encoder, folder / OF_INTENTS / ENCODER)

    @classmethod
    def load(cls, folder: str | Path) -> "Assistant":
        """The assistant in the folder model/ of a run; UserError where it cannot be read."""
        folder = Path(folder)
        try:
            told = read_json(folder / FILE)
            selection = told["selection"]
            intents, encoder = folder / OF_INTENTS, folder / OF_INTENTS / ENCODER
            return cls(
                chain=Chain.load(folder / CHAIN) if (folder / CHAIN).is_dir() else None,
                asks=told["asks"],
                selection=None if selection is None else selection_of(selection),
                intents=IntentModel.load(intents) if (intents / INTENTS).exists() else None,
                encoder=sentences.load(encoder) if encoder.is_dir() else None,
                threshold=float(told["threshold"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder} is no folder of an assistant ({reason}): give the folder model/ that a "
                "run of recipe conversation left"
            ) from None


def asked(turns: Sequence[str], how: str, selection: Selection | None) -> str:
    """What a search is asked with, of the turns of a chat; `how` as `Assistant.asks`."""
    if how in (RARE, TURNS, WORDS):
        assert selection is not None
        if how == RARE:
            return selection.rare_words(turns)
        return " ".join(selection.kept_turns(turns)) if how == TURNS else selection.query(turns)
    if how == ALL:
        return " ".join(turns)
    count = int(how.removeprefix(LAST) or 1)
    return " ".join(turns[-count:])


def told_of(selection: Selection) -> dict[str, Any]:
    """A selection as JSON; the numbers are exact."""
    return dataclasses.asdict(selection)


def selection_of(told: dict[str, Any]) -> Selection:
    """What `told_of` gave; KeyError or TypeError for anything else."""

    def effects(fields: dict[str, Any]) -> Effects:
        lists = {name: tuple(fields[name]) for name in ("names", "values", "chats")}
        return Effects(float(fields["constant"]), **lists)

    return Selection(effects(told["turns"]), effects(told["words"]), tuple(told["frequent"]))
