"""The section `data`: where pairs come from and how they become token ids."""

import dataclasses

from sie_jax import sections
from sie_jax.data.schema import LabelScale
from sie_jax.errors import UserError

SOURCES = ("synthetic", "esci", "wands", "table", "clicks")


@dataclasses.dataclass(slots=True, kw_only=True)
class SyntheticConfig:
    """The generated shop: its size, the rate of wrong labels, the rate of dirty rows, the seed."""

    queries: int = 400
    items_per_query: int = 20
    noise: float = 0.2
    noise_kind: str = "uniform"
    dirt: float = 0.02
    seed: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class EsciConfig:
    """Which part of the Shopping Queries data set: a locale (empty: all) and a version."""

    locale: str = "us"
    version: str = "large"


@dataclasses.dataclass(slots=True, kw_only=True)
class ColumnsConfig:
    """The names of columns; empty where a table has none, or a click log the field's own name."""

    query: str = "query"
    title: str = "title"
    label: str = "label"
    example_id: str = ""
    query_id: str = ""
    item_id: str = ""
    text: str = ""
    split: str = ""
    truth: str = ""
    position: str = ""  # from here on of click logs
    click: str = ""
    session: str = ""
    cart: str = ""
    purchase: str = ""


@dataclasses.dataclass(slots=True, kw_only=True)
class TableConfig:
    """What else a table's columns mean."""

    labels: tuple[str, ...] = ()  # the scale, lowest grade first; empty: the labels are 0, 1, …
    attributes: tuple[str, ...] = ()  # columns to see importance by, such as brand and category
    raters: tuple[str, ...] = ()  # columns with the labels that single people gave


@dataclasses.dataclass(slots=True, kw_only=True)
class ItemColumnsConfig:
    """The names of a catalogue's columns; empty where they are the fields' own."""

    item_id: str = ""
    title: str = ""
    text: str = ""


@dataclasses.dataclass(slots=True, kw_only=True)
class ClicksConfig:
    """What of a click log counts, and how it becomes grades."""

    items: str = ""  # a catalogue with the titles, where the log has none
    item_columns: ItemColumnsConfig = dataclasses.field(default_factory=ItemColumnsConfig)
    minimum_impressions: int = 10
    minimum_examinations: float = 1.0
    maximum_position: int = 100
    maximum_session_impressions: int = 1000
    maximum_session_clicks: int = 100
    maximum_click_rate: float = 0.5
    cart_value: float = 1.0
    purchase_value: float = 2.0
    smoothing: float = 5.0
    grades: int = 4


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where pairs come from and how they become token ids."""

    source: str = "synthetic"
    path: str = ""
    synthetic: SyntheticConfig = dataclasses.field(default_factory=SyntheticConfig)
    esci: EsciConfig = dataclasses.field(default_factory=EsciConfig)
    columns: ColumnsConfig = dataclasses.field(default_factory=ColumnsConfig)
    table: TableConfig = dataclasses.field(default_factory=TableConfig)
    clicks: ClicksConfig = dataclasses.field(default_factory=ClicksConfig)
    gains: tuple[float, ...] = ()  # 0,0.01,0.1,1: lowest grade first; empty: the source's own
    validation: float = 0.1  # share of queries, where the source has no such split
    test: float = 0.2
    split_seed: int = 0
    max_query_characters: int = 512
    max_title_characters: int = 2000
    item_text: bool = False  # append the item's further text to its title
    max_length: int = 32
    buckets: int = 2
    vocabulary_size: int = 4096  # of the WordPiece vocabulary trained where no checkpoint is given

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
