"""The section `data`: where pairs come from and how they become token ids."""

import dataclasses
from collections.abc import Sequence

from sie_jax import remote, sections
from sie_jax.data import features as describing
from sie_jax.data import preparing
from sie_jax.data.items import ItemsConfig
from sie_jax.data.preparing import Encoding, Rules, Selection
from sie_jax.data.readers import vectors
from sie_jax.data.readers.parquet import RowGroup
from sie_jax.data.readers.records import besides
from sie_jax.data.scales import MOST_GRADES, Numbers
from sie_jax.data.schema import LabelScale, Source
from sie_jax.data.sources.clicks import ClicksConfig
from sie_jax.data.sources.esci import EsciConfig
from sie_jax.data.sources.judgments import JudgmentsConfig
from sie_jax.data.sources.market import MarketConfig
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.data.sources.synthetic import SyntheticConfig
from sie_jax.data.sources.table import TableConfig
from sie_jax.data.sources.ubi import UbiConfig
from sie_jax.data.sources.wands import WandsConfig
from sie_jax.errors import UserError


@dataclasses.dataclass(slots=True, kw_only=True)
class ColumnsConfig:
    """The names of columns; empty where a table has none; in a click log, the field's own name."""

    query: str = "query"  # the column with the query
    title: str = "title"  # the item's title
    label: str = "label"  # the label
    example_id: str = ""  # an id of the row; empty: the row's number
    query_id: str = ""  # an id of the query; empty: made from the query's text
    item_id: str = ""  # an id of the item; empty: made from the title
    text: str = ""  # further text of the item, which `data.item_text` reads
    split: str = ""  # train, validation or test; empty: queries are split by hash
    truth: str = ""  # the true label, where errors were planted
    current: str = ""  # the score that ranks today, the higher the better: the baseline `current`
    position: str = ""  # click logs: the place at which the item was shown, from 1
    click: str = ""  # click logs: whether it was clicked
    session: str = ""  # click logs: visitor or session
    cart: str = ""  # click logs: whether it was put into the cart
    purchase: str = ""  # click logs: whether it was bought


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where pairs come from and how they become token ids; `source` names one of the sections."""

    source: str = "synthetic"  # synthetic, market, esci, wands, table, judgments, clicks or ubi
    path: str = ""  # its file or folder; gs:// and s3:// too
    synthetic: SyntheticConfig = dataclasses.field(default_factory=SyntheticConfig)
    esci: EsciConfig = dataclasses.field(default_factory=EsciConfig)
    wands: WandsConfig = dataclasses.field(default_factory=WandsConfig)
    market: MarketConfig = dataclasses.field(default_factory=MarketConfig)
    columns: ColumnsConfig = dataclasses.field(default_factory=ColumnsConfig)
    table: TableConfig = dataclasses.field(default_factory=TableConfig)
    judgments: JudgmentsConfig = dataclasses.field(default_factory=JudgmentsConfig)
    clicks: ClicksConfig = dataclasses.field(default_factory=ClicksConfig)
    ubi: UbiConfig = dataclasses.field(default_factory=UbiConfig)
    items: ItemsConfig = dataclasses.field(default_factory=ItemsConfig)
    features: tuple[str, ...] = ()  # columns of numbers that are further features (price,rating)
    vectors: tuple[str, ...] = ()  # columns of lists of numbers, such as an image's embedding
    continuous: bool = False  # labels are numbers such as click rates; their gains are as they are
    bins: int = 0  # above 0: labels are numbers, divided into so many equally frequent grades
    gains: tuple[float, ...] = ()  # for nDCG, lowest grade first (0,0.1,1); empty: the source's own
    validation: float = 0.1  # share of the queries, where the source has no such split
    test: float = 0.2  # likewise for the test
    split_seed: int = 0  # another seed puts other queries into validation and test
    test_folds: int = 0  # above 0: one of so many parts of all queries is the test split
    test_fold: int = 0  # which of them, from 0; `evaluation.folds` tests each in turn
    max_query_characters: int = 512  # a row with a longer query is rejected
    max_title_characters: int = 2000  # a row with a longer title is rejected
    item_text: bool = False  # whether the item's further text is appended to its title
    max_length: int = 32  # tokens of a pair, or of each text where they are read apart
    buckets: int = 2  # how many lengths batches are padded to; each is compiled once
    vocabulary_size: int = 4096  # of a WordPiece vocabulary; trained if there is no checkpoint
    lowercase: bool = True  # whether that vocabulary is of lower-case letters alone

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.one_of("data.source", self.source, SOURCES)
        if self._chosen.expects and not self.path:
            raise UserError(
                f"data.path is empty: give {self._chosen.expects}, --config.data.path=PATH"
            )
        self._chosen.check()
        if self.source == "ubi":  # which makes exposures, and grades them as those of a click log
            self.clicks.check()
        self.items.check()
        self._check_titles()
        self._check_labels()
        self._check_numbers()
        sections.at_least("data.buckets", self.buckets, 1)
        sections.at_least("data.max_length", self.max_length, 8)
        sections.at_least("data.vocabulary_size", self.vocabulary_size, 100)
        sections.at_least("data.max_query_characters", self.max_query_characters, 1)
        sections.at_least("data.max_title_characters", self.max_title_characters, 1)
        sections.positive("data.validation", self.validation)
        sections.positive("data.test", self.test)
        if self.validation + self.test >= 1.0:
            raise UserError(
                f"data.validation + data.test is {self.validation + self.test:g}: "
                "make the sum less than 1, so that queries are left to train on"
            )
        if self.test_folds == 1 or self.test_folds < 0:
            raise UserError(f"data.test_folds is {self.test_folds}: give at least 2, or 0 for none")
        if not 0 <= self.test_fold < max(self.test_folds, 1):
            raise UserError(
                f"data.test_fold is {self.test_fold} and data.test_folds is {self.test_folds}: "
                "give a fold from 0 to one less than the number of folds"
            )

    def _check_labels(self) -> None:
        """Raises UserError where labels cannot be numbers, or are said to be something else too."""
        if not self.continuous and not self.bins:
            return
        asked = "data.continuous" if self.continuous else "data.bins"
        if not self._chosen.own_labels:
            raise UserError(
                f"{asked} says that labels are numbers, but the source {self.source} has grades of "
                "its own: leave it out"
            )
        if self.continuous and self.bins:
            raise UserError(
                "data.continuous takes labels as they are and data.bins divides them into grades: "
                "leave one of the two out"
            )
        if self.bins == 1 or self.bins < 0 or self.bins > MOST_GRADES:
            raise UserError(f"data.bins is {self.bins}: give 2 to {MOST_GRADES}, or 0 for none")
        others = {
            "data.table.labels": self.table.labels,
            "data.table.raters": self.table.raters,
            "data.columns.truth": self.columns.truth,
            "data.judgments.labels": self.judgments.labels,
        }
        for name, given in others.items():
            if given:
                raise UserError(
                    f"{asked} says that labels are numbers, and {name} names grades: "
                    "leave one of the two out"
                )

    def _check_titles(self) -> None:
        """Raises UserError where a table has neither titles nor ids by which to find them."""
        if self.source != "table":
            return
        if self.items.path and not self.columns.item_id:
            raise UserError(
                "data.columns.item_id is empty: name the column with the ids by which items are "
                "found in data.items.path"
            )
        if not self.items.path and not self.columns.title:
            raise UserError(
                "data.columns.title is empty: name the column that holds it, or give a catalogue "
                "with the titles, --config.data.items.path=PATH"
            )

    def _check_numbers(self) -> None:
        """Raises UserError where a column of numbers is none, is ours, or gives labels away."""
        given = [("data.features", name) for name in self.features]
        given += [("data.vectors", name) for name in self.vectors]
        given += [("data.columns.current", self.columns.current)] if self.columns.current else []
        labels = (self.columns.label, self.columns.truth, *self.table.raters)
        for field, name in given:
            if not self._chosen.numbers:
                raise UserError(
                    f"{field} names {name}, but the source {self.source} has no columns of your "
                    "own: give --config.data.source=table, or leave it out"
                )
            if name in labels:
                raise UserError(
                    f"{field} names {name}, which holds labels, and these are not known when items "
                    "are to be ranked: leave it out"
                )
        names = (*self.features, *self.vectors)
        for field, name in given:
            if field == "data.columns.current":
                continue
            if not name or names.count(name) > 1:
                raise UserError(
                    f"{field} has {name!r} {names.count(name)} times: give the name of each column "
                    "once"
                )
            if describing.is_own(name) or vectors.element(name):
                raise UserError(
                    f"{field} names {name}, which is the name of a feature or a column that is "
                    "made here: rename the column"
                )

    def read(self) -> Source:
        """The source, joined with `items`, with the gains that `gains` gives.

        Paths in an object store are copied first.

        Raises UserError where the source or the catalogue cannot be read, or the gains do not fit
        its labels.
        """
        source = self._chosen.read(self.request(remote.local(self.path)))
        if self.items.path:
            source = self.items.join(source, remote.local(self.items.path))
        return dataclasses.replace(source, scale=self.with_gains(source.scale))

    def row_groups(self) -> tuple[Source, Sequence[RowGroup]] | None:
        """The source without rows, and the row groups of the files that other machines can read.

        None where all rows have to be read on this machine.

        Raises UserError as `read`.
        """
        if self.source != "table" or self.items.path or remote.is_remote(self.path):
            return None
        found = self.table.row_groups(self.request(self.path))
        if found is None:
            return None
        source, groups = found
        return dataclasses.replace(source, scale=self.with_gains(source.scale)), groups

    def select(self, source: Source) -> Selection:
        """The rows of the source that are fit to use, split; errors begin with its location."""
        try:
            return preparing.select(source, self.rules)
        except UserError as error:
            message = besides(f"{source.location}: {error}", source.unreadable.to_pylist())
            raise UserError(message) from None

    @property
    def rules(self) -> Rules:
        """Which rows are fit to use, and how they are split."""
        return Rules(
            max_query_characters=self.max_query_characters,
            max_title_characters=self.max_title_characters,
            validation=self.validation,
            test=self.test,
            seed=self.split_seed,
            folds=self.test_folds,
            fold=self.test_fold,
        )

    def encoding(self, tokenizer_folder: str = "", *, apart: bool = False) -> Encoding:
        """How texts become token ids, with the tokenizer of a folder or one that is trained.

        apart: as of `preparing.Encoding`.
        """
        return Encoding(
            tokenizer_folder=tokenizer_folder,
            vocabulary_size=self.vocabulary_size,
            item_text=self.item_text,
            max_length=self.max_length,
            buckets=self.buckets,
            lowercase=self.lowercase,
            apart=apart,
        )

    def with_gains(self, scale: LabelScale) -> LabelScale:
        """A source's scale with the gains that `gains` gives, if it gives any.

        Raises UserError where they do not fit its labels.
        """
        if not self.gains:
            return scale
        try:
            return LabelScale(scale.names, self.gains)
        except UserError as error:
            labels = ", ".join(scale.names)
            raise UserError(f"data.gains, for the labels {labels}: {error}") from None

    def request(self, path: str) -> Request:
        """What the source is told: its path on this machine, its columns, the shares of splits."""
        return Request(
            path=path,
            columns=dataclasses.asdict(self.columns),
            catalogue=bool(self.items.path),
            features=self.features,
            vectors=self.vectors,
            numbers=Numbers(self.bins) if self.continuous or self.bins else None,
            grading=self.clicks,
            validation=self.validation,
            test=self.test,
        )

    @property
    def paths(self) -> dict[str, str]:
        """What is read, by the name of its field: a path may be in an object store."""
        further = self._chosen.paths()
        fields = {"data": self.path, "data.items": self.items.path}
        fields |= {f"data.{self.source}.{name}": path for name, path in further.items()}
        return {name: path for name, path in fields.items() if path}

    @property
    def _chosen(self) -> SourceSection:
        chosen: SourceSection = getattr(self, self.source)
        return chosen


SOURCES = tuple(
    field.name
    for field in dataclasses.fields(DataConfig)
    if isinstance(field.type, type) and issubclass(field.type, SourceSection)
)
