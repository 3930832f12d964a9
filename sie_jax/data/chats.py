"""Chats of customers: what each said in turn, and which items he chose in the end."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sie_jax import remote, sections
from sie_jax.data import items as catalogues
from sie_jax.data import readers, splitting
from sie_jax.data.readers import files, parquet
from sie_jax.data.readers.records import FIXES, Wanted, number, rejected
from sie_jax.data.schema import REJECTED_SCHEMA, SPLITS
from sie_jax.data.sources.market import MarketConfig, generate
from sie_jax.data.sources.market.behaviour import chats as generated
from sie_jax.errors import UserError
from sie_jax.tables.spool import CHUNK_ROWS, write_parquet

MARKET, TABLE = SOURCES = ("market", "table")
FILE, ITEMS = "chats.parquet", "items.parquet"
FIX = "name columns that are there with --config.data.columns.FIELD=COLUMN"
FLAG = "--config.data.columns."
_STREAM = 7  # of the split's draws


@dataclasses.dataclass(slots=True, kw_only=True)
class ChatColumnsConfig:
    """The names of a table's columns, a row for each turn; empty where it has none."""

    conversation: str = "conversation"  # the column with the conversation's id
    turn: str = "turn"  # a number by which its turns are ordered; empty: the rows' order
    role: str = "role"  # who speaks; empty: the customer alone
    text: str = "text"  # what is said
    chosen: str = "chosen"  # the ids of the items that were chosen, with blanks between them


@dataclasses.dataclass(slots=True, kw_only=True)
class ChatsConfig:
    """Where chats come from, what can be chosen in them, and which are kept for the test."""

    source: str = MARKET  # market, or table; empty: there are no chats
    path: str = ""  # the table's file or folder; gs:// and s3:// too
    columns: ChatColumnsConfig = dataclasses.field(default_factory=ChatColumnsConfig)
    customers: tuple[str, ...] = ("customer", "user")  # the roles whose turns a search reads
    items: catalogues.ItemsConfig = dataclasses.field(default_factory=catalogues.ItemsConfig)
    market: MarketConfig = dataclasses.field(default_factory=MarketConfig)
    market_chats: int = 5000  # chats with customers of the generated shop
    # share of the conversations; for the generated shop that of its queries, as a chain has it
    validation: float = 0.2
    test: float = 0.2  # likewise
    seed: int = 0  # another seed keeps other conversations

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        if not self.source:
            return
        sections.one_of("data.source", self.source, SOURCES)
        self.market.check()
        self.items.check()
        sections.at_least("data.market_chats", self.market_chats, 10)
        splitting.check_shares(self.validation, self.test)
        if self.source == TABLE and not self.path:
            raise UserError("data.path is empty: give the chats, --config.data.path=PATH")

    @property
    def paths(self) -> dict[str, str]:
        """What is read, by the name of its field."""
        fields = {"data": self.path, "data.items": self.items.path}
        return {name: path for name, path in fields.items() if path}

    def read(self) -> "Chats":
        """The chats; a catalogue with them where the source has one.

        Those of the generated shop have the split of the query with the same need. Others are
        drawn.
        """
        if self.source == MARKET:
            return self._generated()
        found = read_table(remote.local(self.path), self.columns, self.customers)
        generator = np.random.default_rng([self.seed, _STREAM])
        split = splitting.drawn(
            generator, len(found.ids), validation=self.validation, test=self.test
        )
        found = found._replace(split=split)
        if self.items.path:
            columns = dataclasses.asdict(self.items.columns)
            table = catalogues.read(remote.local(self.items.path), columns=columns).table
            found = found._replace(items=table.select(["item_id", "title", "text"]))
        return found

    def _generated(self) -> "Chats":
        market = generate(self.market, validation=self.validation, test=self.test)
        table = market.source.table
        split_of = dict(zip(table["query_id"].to_pylist(), table["split"].to_pylist(), strict=True))
        # a query whose rows were all soiled has no split
        made = [
            one
            for one in generated(market, self.market_chats, seed=self.seed)
            if f"q{one.query}" in split_of
        ]
        return Chats(
            [f"c{place}" for place in range(len(made))],
            [list(one.texts) for one in made],
            [[f"i{item}" for item in one.exact.tolist()] for one in made],
            np.array([split_of[f"q{one.query}"] for one in made]),
            market.source.catalogue,
            REJECTED_SCHEMA.empty_table(),
            {"turns": sum(len(one.texts) for one in made)},
        )


class Chats(NamedTuple):
    """What was read of N conversations.

    turns: what the customer said in each, in order. chosen: the ids of the items that were chosen,
    none where nothing was. split `[N]`: one of SPLITS. items: the catalogue, empty where the source
    has none. unreadable: rows that were left out, in REJECTED_SCHEMA. counts: of what was read.
    """

    ids: list[str]
    turns: list[list[str]]
    chosen: list[list[str]]
    split: np.ndarray
    items: pa.Table
    unreadable: pa.Table
    counts: dict[str, int]

    def of(self, split: str) -> tuple[list[list[str]], list[list[str]]]:
        """The turns and the chosen items of a split's conversations in which one was chosen."""
        places = [
            place
            for place in np.flatnonzero(self.split == split).tolist()
            if self.chosen[place] and self.turns[place]
        ]
        return [self.turns[one] for one in places], [self.chosen[one] for one in places]

    def save(self, folder: Path) -> None:
        """Leaves FILE and ITEMS."""
        table = {
            "conversation": self.ids,
            "turns": self.turns,
            "chosen": self.chosen,
            "split": self.split.tolist(),
        }
        kinds = [pa.string(), pa.list_(pa.string()), pa.list_(pa.string()), pa.string()]
        schema = pa.schema(list(zip(table, kinds, strict=True)))
        write_parquet(folder / FILE, pa.table(table, schema=schema))
        write_parquet(folder / ITEMS, self.items)

    @classmethod
    def load(cls, folder: Path) -> "Chats":
        """What `save` left; nothing was unreadable."""
        table = pq.read_table(folder / FILE)
        ids, turns, chosen = (
            table[name].to_pylist() for name in ("conversation", "turns", "chosen")
        )
        items = pq.read_table(folder / ITEMS)
        none = REJECTED_SCHEMA.empty_table()
        return cls(ids, turns, chosen, np.array(table["split"].to_pylist(), str), items, none, {})


def read_table(path: str, columns: ChatColumnsConfig, customers: tuple[str, ...]) -> Chats:
    """The chats of a table with a row for each turn: CSV, TSV, JSON lines or Parquet.

    What a conversation's rows name as chosen is put together, whoever speaks there. What is left
    out, with the reason: `no_conversation`, `no_text` (of a row that names nothing chosen),
    `turn_not_a_number`, and records that are not rows. All are in the split train.

    Raises UserError where the path or a column is wrong, a file cannot be read as a whole, or no
    row can be used.
    """
    named = dataclasses.asdict(columns)
    for field in ("conversation", "text"):
        if not named[field]:
            raise UserError(f"data.columns.{field} is empty: name the column that holds it")
    fields = {field: name for field, name in named.items() if name}
    wanted = Wanted(
        tuple(fields.values()), FIX, flags={FLAG + field: (name,) for field, name in fields.items()}
    )
    rows: dict[str, list[tuple[float, str]]] = {}
    chosen: dict[str, dict[str, None]] = {}
    left_out, first, counts = [], 0, Counter[str]()
    for file in files.find(path):
        for piece, broken in readers.columns(file, wanted, CHUNK_ROWS):
            left_out += [rejected(file, record) for record in broken]
            cells = {
                field: pc.utf8_trim_whitespace(parquet.texts(piece[name])).to_pylist()
                for field, name in fields.items()
            }
            for row in range(piece.num_rows):
                one = {field: cells[field][row] or "" for field in fields}
                order, reason = _order(one, first + row)
                spoken = not fields.get("role") or one["role"].casefold() in customers
                picked = one.get("chosen", "").split()
                if not reason and not one["conversation"]:
                    reason = "no_conversation"
                if not reason and spoken and not one["text"] and not picked:
                    reason = "no_text"
                if reason:
                    place = f"{file.name}:{first + row}"
                    left_out.append({"example_id": place, "text": str(one), "reason": reason})
                    continue
                counts["turns" if spoken else "turns_of_others"] += 1
                own = rows.setdefault(one["conversation"], [])
                if spoken and one["text"]:
                    own.append((order, one["text"]))
                chosen.setdefault(one["conversation"], {}).update(dict.fromkeys(picked))
            first += piece.num_rows
    if not rows:
        raise UserError(_nothing(path, left_out))
    ids = list(rows)
    turns = [[text for _, text in sorted(rows[one], key=lambda row: row[0])] for one in ids]
    return Chats(
        ids,
        turns,
        [list(chosen[one]) for one in ids],
        np.full(len(ids), SPLITS[0]),
        pa.table({name: pa.array([], pa.string()) for name in ("item_id", "title", "text")}),
        pa.Table.from_pylist(left_out, schema=REJECTED_SCHEMA),
        dict(counts),
    )


def _order(one: Mapping[str, Any], row: int) -> tuple[float, str]:
    """By what a turn is ordered within its conversation, and why that is not known."""
    if "turn" not in one:
        return row, ""
    try:
        found = number(one["turn"])
    except ValueError:
        found = None
    return (0.0, "turn_not_a_number") if found is None else (float(found), "")


def _nothing(path: str, left_out: list[dict[str, Any]]) -> str:
    reasons = Counter(row["reason"] for row in left_out).most_common()
    if not reasons:
        return f"{path} has no turns: give a table with a header and rows"
    found = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    fix = FIXES.get(reasons[0][0], "mend them, or name other columns")
    return f"{path} has no turn that can be used ({found}): {fix}"
