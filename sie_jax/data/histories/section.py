"""The section `data` of a recommender: where events come from, and how they are split."""

import dataclasses

import numpy as np
import pyarrow as pa

from sie_jax import remote, sections
from sie_jax.data import items as catalogues
from sie_jax.data.histories import events
from sie_jax.data.histories.events import UNITS, EventColumnsConfig, Events
from sie_jax.data.histories.histories import (
    DECLARED,
    LEAVE_ONE_OUT,
    RETURN,
    TEMPORAL,
    Splitting,
)
from sie_jax.data.schema import REJECTED_SCHEMA
from sie_jax.data.sources.market import MarketConfig, generate
from sie_jax.data.sources.market.behaviour import users
from sie_jax.errors import UserError

MARKET, TABLE, LINES = SOURCES = ("market", "interactions", "lines")
SPLITTINGS = (LEAVE_ONE_OUT, TEMPORAL, DECLARED)
_HOUR = 3_600_000_000


@dataclasses.dataclass(slots=True, kw_only=True)
class HistoriesConfig:
    """Where events of users and items come from, and which of them are kept for the test."""

    source: str = MARKET  # market, interactions or lines (`user item item …`)
    path: str = ""  # its file or folder; gs:// and s3:// too
    columns: EventColumnsConfig = dataclasses.field(default_factory=EventColumnsConfig)
    market: MarketConfig = dataclasses.field(default_factory=MarketConfig)
    market_users: int = 2000  # customers of the generated shop
    market_purchases: int = 12  # what each of them buys on average
    items: catalogues.ItemsConfig = dataclasses.field(default_factory=catalogues.ItemsConfig)
    time_unit: str = "s"  # of times that are numbers: s, ms or us
    targets: tuple[str, ...] = ()  # the events to be predicted; empty: all but returns
    returns: tuple[str, ...] = (RETURN,)  # events that take an earlier one back
    split: str = LEAVE_ONE_OUT  # leave_one_out, temporal, or column for data.columns.split
    validation_from: str = ""  # temporal: the first moment of validation, as in 2011-09-09
    test_from: str = ""  # temporal: the first moment of the test
    basket_gap: float = 0.0  # hours without an event that begin a new basket, if none is named
    least_events: int = 3  # leave_one_out: what a user needs to be in validation and test
    repeats: bool = True  # whether what a user had before may be recommended, and wanted, again

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.one_of("data.source", self.source, SOURCES)
        sections.one_of("data.time_unit", self.time_unit, UNITS)
        sections.one_of("data.split", self.split, SPLITTINGS)
        sections.at_least("data.basket_gap", self.basket_gap, 0.0)
        sections.at_least("data.least_events", self.least_events, 3)
        sections.at_least("data.market_users", self.market_users, 1)
        sections.at_least("data.market_purchases", self.market_purchases, 2)
        self.market.check()
        self.items.check()
        if self.source != MARKET and not self.path:
            raise UserError("data.path is empty: give the events, --config.data.path=PATH")
        if self.split == TEMPORAL:
            self._check_times()
        if self.split == DECLARED and not self.columns.split:
            raise UserError("data.split is column: name it with --config.data.columns.split=COLUMN")
        if self.split != LEAVE_ONE_OUT and self.source != TABLE:
            raise UserError(
                f"data.split is {self.split}, but the source {self.source} has neither times nor a "
                "column of splits: set --config.data.split=leave_one_out"
            )

    def _check_times(self) -> None:
        """Raises UserError where the moments of a split by time do not make three parts."""
        if not self.columns.time:
            raise UserError("data.split is temporal: name the times with data.columns.time")
        first = events.moment("data.validation_from", self.validation_from)
        second = events.moment("data.test_from", self.test_from)
        if first >= second:
            raise UserError(
                f"data.validation_from {self.validation_from} is not before data.test_from "
                f"{self.test_from}: give an earlier one"
            )

    @property
    def splitting(self) -> Splitting:
        """How events are divided."""
        temporal = self.split == TEMPORAL
        return Splitting(
            kind=self.split,
            validation_from=events.moment("data.validation_from", self.validation_from)
            if temporal
            else 0,
            test_from=events.moment("data.test_from", self.test_from) if temporal else 0,
            least=self.least_events,
            gap=round(self.basket_gap * _HOUR),
            targets=self.targets,
            returns=self.returns,
            repeats=self.repeats,
        )

    @property
    def timed(self) -> bool:
        """Whether times are times, and not places in an order."""
        return self.source == TABLE and bool(self.columns.time)

    @property
    def paths(self) -> dict[str, str]:
        """What is read, by the name of its field."""
        fields = {"data": self.path, "data.items": self.items.path}
        return {name: path for name, path in fields.items() if path}

    def read(self) -> Events:
        """The events, with the texts of a catalogue where there is one."""
        if self.source == MARKET:
            found = self._bought()
        elif self.source == LINES:
            found = events.read_lines(remote.local(self.path))
        else:
            path = remote.local(self.path)
            found = events.read_table(path, self.columns, time_unit=self.time_unit)
        return self._described(found) if self.items.path else found

    def _bought(self) -> Events:
        """What the customers of the generated shop bought."""
        market = generate(self.market)
        customers = users(market, self.market_users, purchases=self.market_purchases)
        counts = [len(history) for history in customers.histories]
        item = np.concatenate(customers.histories)
        columns = {
            "user": np.repeat([f"u{one}" for one in range(len(counts))], counts),
            "item": [f"i{one}" for one in item.tolist()],
            "time": np.concatenate([np.arange(count) for count in counts]),
            "text": [market.titles[one] for one in item.tolist()],
        }
        none = REJECTED_SCHEMA.empty_table()
        return Events(
            events.of_columns(columns), none, f"generated market, seed {self.market.seed}"
        )

    def _described(self, found: Events) -> Events:
        """The events with the texts that the catalogue has of their items."""
        columns = dataclasses.asdict(self.items.columns)
        table = catalogues.read(remote.local(self.items.path), columns=columns).table
        titles = dict(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True))
        own = found.table["text"].to_pylist()
        ids = found.table["item"].to_pylist()
        texts = [titles.get(one) or text for one, text in zip(ids, own, strict=True)]
        place = found.table.column_names.index("text")
        column = pa.array(texts, pa.large_string())
        return found._replace(table=found.table.set_column(place, "text", column))
