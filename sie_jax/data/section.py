"""The section `data`: where pairs come from and how they become token ids."""

import dataclasses

from sie_jax import sections
from sie_jax.data.schema import LabelScale
from sie_jax.errors import UserError

SOURCES = ("synthetic", "esci", "wands", "table", "clicks")


@dataclasses.dataclass(slots=True, kw_only=True)
class SyntheticConfig:
    """The generated shop: its size, the rate of wrong labels, the rate of dirty rows, the seed."""

    queries: int = 400  # the number of queries
    items_per_query: int = 20  # pairs of each query
    noise: float = 0.2  # share of the training and validation labels that are wrong
    noise_kind: str = "uniform"  # which labels those are (docs/wrong_labels.md)
    dirt: float = 0.02  # share of rows that break a rule of cleaning
    seed: int = 0  # another seed makes another shop


@dataclasses.dataclass(slots=True, kw_only=True)
class EsciConfig:
    """Which part of the Shopping Queries data set: a locale (empty: all) and a version."""

    locale: str = "us"  # us, es or jp; empty: all
    version: str = "large"  # large or small


@dataclasses.dataclass(slots=True, kw_only=True)
class ColumnsConfig:
    """The names of columns; empty where a table has none, or a click log the field's own name."""

    query: str = "query"  # the column with the query
    title: str = "title"  # the item's title
    label: str = "label"  # the label
    example_id: str = ""  # an id of the row; empty: the row's number
    query_id: str = ""  # an id of the query; empty: made from the query's text
    item_id: str = ""  # an id of the item; empty: made from the title
    text: str = ""  # further text of the item, which `data.item_text` reads
    split: str = ""  # train, validation or test; empty: queries are split by hash
    truth: str = ""  # the true label, where errors were planted
    position: str = ""  # click logs: the place at which the item was shown, from 1
    click: str = ""  # click logs: whether it was clicked
    session: str = ""  # click logs: visitor or session
    cart: str = ""  # click logs: whether it was put into the cart
    purchase: str = ""  # click logs: whether it was bought


@dataclasses.dataclass(slots=True, kw_only=True)
class TableConfig:
    """What else a table's columns mean."""

    labels: tuple[str, ...] = ()  # the scale, lowest grade first; empty: the labels are 0, 1, …
    attributes: tuple[str, ...] = ()  # columns to see importance by, such as brand and category
    raters: tuple[str, ...] = ()  # columns with the labels of single people


@dataclasses.dataclass(slots=True, kw_only=True)
class ItemColumnsConfig:
    """The names of a catalogue's columns; empty where they are the fields' own."""

    item_id: str = ""  # the column with the item's id; empty: `item_id`
    title: str = ""  # its title; empty: `title`
    text: str = ""  # its further text; empty: `text`, if there is one


@dataclasses.dataclass(slots=True, kw_only=True)
class ClicksConfig:
    """What of a click log counts, and how it becomes grades."""

    items: str = ""  # a catalogue (file or folder) with the titles, where the log has none
    item_columns: ItemColumnsConfig = dataclasses.field(default_factory=ItemColumnsConfig)
    minimum_impressions: int = 10  # a pair with fewer gets no grade
    minimum_examinations: float = 1.0  # likewise, for expected looks Σ impressions · θ
    maximum_position: int = 100  # rows beyond it are left out
    maximum_session_impressions: int = 1000  # a session with more rows is left out as a bot
    maximum_session_clicks: int = 100  # a session with more clicks is left out as a bot
    maximum_click_rate: float = 0.5  # likewise, for the share of clicked rows, from 20 rows on
    cart_value: float = 1.0  # added to the 1 of a click; a convention, not a finding
    purchase_value: float = 2.0  # likewise for a purchase
    smoothing: float = 5.0  # looks that went as expected, added to every pair
    grades: int = 4  # how many equal parts the graded pairs are divided into


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where pairs come from and how they become token ids."""

    source: str = "synthetic"  # the kind of source: synthetic, esci, wands, table or clicks
    path: str = ""  # its file or folder; gs:// and s3:// too
    synthetic: SyntheticConfig = dataclasses.field(default_factory=SyntheticConfig)
    esci: EsciConfig = dataclasses.field(default_factory=EsciConfig)
    columns: ColumnsConfig = dataclasses.field(default_factory=ColumnsConfig)
    table: TableConfig = dataclasses.field(default_factory=TableConfig)
    clicks: ClicksConfig = dataclasses.field(default_factory=ClicksConfig)
    gains: tuple[float, ...] = ()  # for nDCG, lowest grade first (0,0.1,1); empty: the source's own
    validation: float = 0.1  # share of the queries, where the source has no such split
    test: float = 0.2  # likewise for the test
    split_seed: int = 0  # another seed puts other queries into validation and test
    max_query_characters: int = 512  # a row with a longer query is rejected
    max_title_characters: int = 2000  # a row with a longer title is rejected
    item_text: bool = False  # whether the item's further text is appended to its title
    max_length: int = 32  # tokens of a pair; the item loses its last ones
    buckets: int = 2  # how many lengths batches are padded to; each is compiled once
    vocabulary_size: int = 4096  # of a WordPiece vocabulary; trained if there is no checkpoint

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.one_of("data.source", self.source, SOURCES)
        if self.source in ("esci", "wands") and not self.path:
            raise UserError(
                f"data.path is empty: give the folder of the files of {self.source}, "
                "--config.data.path=FOLDER"
            )
        if self.source in ("table", "clicks") and not self.path:
            raise UserError(
                "data.path is empty: give a file or a folder of its parts, --config.data.path=PATH"
            )
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

    def with_gains(self, scale: LabelScale) -> LabelScale:
        """A source's scale with the gains that `gains` gives, if it does.

        Raises UserError where they do not fit its labels.
        """
        if not self.gains:
            return scale
        try:
            return LabelScale(scale.names, self.gains)
        except UserError as error:
            labels = ", ".join(scale.names)
            raise UserError(f"data.gains, for the labels {labels}: {error}") from None
