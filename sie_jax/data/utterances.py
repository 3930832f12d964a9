"""Sentences of customers with what they want: the section `intents`, and the tables it reads."""

import dataclasses
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax import remote, sections
from sie_jax.data import readers, splitting
from sie_jax.data.readers import files, parquet
from sie_jax.data.readers.records import FIXES, Wanted, rejected
from sie_jax.data.schema import REJECTED_SCHEMA, SPLITS
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS

FIX = "name columns that are there with --config.intents.FIELD=COLUMN"
_STREAM = 8  # of the split's draws


@dataclasses.dataclass(slots=True, kw_only=True)
class IntentsConfig:
    """Where sentences with intents come from, and how a model of them is judged."""

    path: str = ""  # the training table; empty: there are no intents. gs:// and s3:// too
    validation_path: str = ""  # the table to choose by; empty: a share of the first
    test_path: str = ""  # the table to judge by; likewise
    text: str = "text"  # the column with the sentence
    intent: str = "intent"  # the column with what it wants
    pretrained: str = ""  # a sentence-transformers or BERT folder whose vectors are read too
    validation: float = 0.1  # share of the sentences, where there is no table
    test: float = 0.2  # likewise
    # examples of each intent with which models are compared too, as where labels are few
    few: tuple[int, ...] = (1, 3, 10)
    seeds: int = 5  # how often these are drawn
    accuracy: float = 0.99  # of what is answered; what is less sure is handed to a person
    seed: int = 0  # of what is drawn

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        if not self.path:
            return
        for name in ("text", "intent"):
            if not getattr(self, name):
                raise UserError(f"intents.{name} is empty: name the column that holds it")
        splitting.check_shares(self.validation, self.test)
        for count in self.few:
            sections.at_least("intents.few", count, 1)
        sections.at_least("intents.seeds", self.seeds, 2)
        sections.between("intents.accuracy", self.accuracy, 0.0, 1.0)

    @property
    def paths(self) -> dict[str, str]:
        """What is read, by the name of its field."""
        fields = {
            "intents": self.path,
            "intents.validation": self.validation_path,
            "intents.test": self.test_path,
            "intents.pretrained": self.pretrained,
        }
        return {name: path for name, path in fields.items() if path}

    def read(self) -> "Utterances":
        """The sentences, each in one split.

        A sentence that stands in two tables keeps the first split of test, validation and train: a
        test sentence is not trained on. Raises UserError where a split has none, or an intent of
        validation or test has no training sentence.
        """
        parts = [read_table(self.path, self.text, self.intent)]
        splits = [np.full(len(parts[0].texts), SPLITS[0], object)]
        generator = np.random.default_rng([self.seed, _STREAM])
        drawn = splitting.drawn(
            generator, len(parts[0].texts), validation=self.validation, test=self.test
        )
        for split, path in (("validation", self.validation_path), ("test", self.test_path)):
            if path:
                parts.append(read_table(path, self.text, self.intent))
                splits.append(np.full(len(parts[-1].texts), split, object))
            else:
                splits[0][drawn == split] = split
        return _joined(parts, np.concatenate(splits), self.path)


class Utterances(NamedTuple):
    """N sentences. texts, intents, split: of each. unreadable: rows left out. repeated: of these,
    how many sentences came again."""

    texts: list[str]
    intents: list[str]
    split: np.ndarray
    unreadable: pa.Table
    repeated: int = 0

    def of(self, split: str) -> tuple[list[str], list[str]]:
        """The texts and intents of a split."""
        places = np.flatnonzero(self.split == split).tolist()
        return [self.texts[one] for one in places], [self.intents[one] for one in places]


def read_table(path: str, text: str, intent: str) -> Utterances:
    """The sentences of a table: CSV, TSV, JSON lines or Parquet, in no split.

    What is left out, with the reason: `no_text`, `no_intent`, and records that are not rows.

    Raises UserError where the path or a column is wrong, or no row can be used.
    """
    path = remote.local(path)
    flags = {f"--config.intents.{name}": (column,) for name, column in (("text", text),)}
    flags |= {"--config.intents.intent": (intent,)}
    texts: list[str] = []
    intents: list[str] = []
    left_out: list[dict[str, Any]] = []
    first = 0
    for file in files.find(path):
        for piece, broken in readers.columns(
            file, Wanted((text, intent), FIX, flags=flags), CHUNK_ROWS
        ):
            left_out += [rejected(file, record) for record in broken]
            columns = [
                pc.utf8_trim_whitespace(parquet.texts(piece[name])).to_pylist()
                for name in (text, intent)
            ]
            for row, (one, wanted) in enumerate(zip(*columns, strict=True)):
                if one and wanted:
                    texts.append(one)
                    intents.append(wanted)
                    continue
                reason = "no_intent" if one else "no_text"
                place = f"{file.name}:{first + row}"
                left_out.append({"example_id": place, "text": one or "", "reason": reason})
            first += piece.num_rows
    if not texts:
        reasons = Counter(row["reason"] for row in left_out).most_common()
        found = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        fix = FIXES.get(reasons[0][0], "mend them, or name other columns") if reasons else ""
        raise UserError(
            f"{path} has no sentence that can be used ({found}): {fix}"
            if found
            else f"{path} has no sentences: give a table with a header and rows"
        )
    unreadable = pa.Table.from_pylist(left_out, schema=REJECTED_SCHEMA)
    return Utterances(texts, intents, np.full(len(texts), "", object), unreadable)


def _joined(parts: list[Utterances], split: np.ndarray, path: str) -> Utterances:
    texts = [one for part in parts for one in part.texts]
    intents = [one for part in parts for one in part.intents]
    rank = {name: place for place, name in enumerate(reversed(SPLITS))}
    kept: dict[str, int] = {}
    for place in sorted(range(len(texts)), key=lambda one: rank[str(split[one])]):
        kept.setdefault(" ".join(texts[place].casefold().split()), place)
    places = sorted(kept.values())
    made = Utterances(
        [texts[one] for one in places],
        [intents[one] for one in places],
        split[places],
        pa.concat_tables([part.unreadable for part in parts]),
        len(texts) - len(places),
    )
    for name in SPLITS:
        if not (made.split == name).any():
            raise UserError(f"{path}: no sentence is left in {name}: give more of them")
    known = set(made.of(SPLITS[0])[1])
    for name in SPLITS[1:]:
        if unknown := sorted(set(made.of(name)[1]) - known):
            raise UserError(
                f"{path}: the intent {unknown[0]!r} of {name} has no training sentence: add some, "
                "or take it out"
            )
    return made
