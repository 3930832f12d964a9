"""The Shopping Queries Dataset (ESCI) in its official layout of two Parquet files."""

import dataclasses
from collections import Counter
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from sie_jax import sections
from sie_jax.data.readers import files, parquet
from sie_jax.data.readers.records import Wanted
from sie_jax.data.schema import ATTRIBUTE, ESCI_SCALE, RAW_SCHEMA, Source
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError

EXAMPLES = "shopping_queries_dataset_examples.parquet"
PRODUCTS = "shopping_queries_dataset_products.parquet"
VERSIONS = ("large", "small")

_FIX = "give the official file"
_EXAMPLE_COLUMNS = Wanted(
    ("example_id", "query", "query_id", "product_id", "product_locale", "esci_label",
     "small_version", "large_version", "split"), _FIX,
)  # fmt: skip
_PRODUCT_COLUMNS = Wanted(
    ("product_id", "product_locale", "product_title", "product_description",
     "product_bullet_point"), _FIX,
)  # fmt: skip
# Columns of the products that are attributes where they are there, as they are in the release.
_ATTRIBUTES = {"brand": "product_brand", "color": "product_color"}
# The columns of numbers; others hold texts. Either may be stored in any of the types for such.
_NUMBERS = ("example_id", "query_id", "small_version", "large_version")
# Texts are joined for this many rows at a time: the whole release holds more text than one Arrow
# string array can (2 GiB).
_CHUNK_ROWS = 100_000


@dataclasses.dataclass(slots=True, kw_only=True)
class EsciConfig(SourceSection):
    """Which part of the Shopping Queries data set: a locale (empty: all) and a version."""

    expects: ClassVar[str] = "the folder of the files of esci"

    locale: str = "us"  # us, es or jp; empty: all
    version: str = "large"  # large or small

    def check(self) -> None:
        """Raises UserError for a version that does not exist."""
        sections.one_of("data.esci.version", self.version, VERSIONS)

    def read(self, request: Request) -> Source:
        """The data set in the folder `request.path`."""
        return read(request.path, locale=self.locale, version=self.version)


def read(path: str, *, locale: str = "us", version: str = "large") -> Source:
    """The judgments of one locale and version, joined to their products.

    Source: https://github.com/amazon-science/esci-data (Reddy et al., arXiv:2206.06588).

    Args:
      path: the folder that holds EXAMPLES and PRODUCTS.
      locale: "us", "es" or "jp"; "" takes all locales, and then query and item ids are written
        "<locale>:<id>", since the same id means another text in another locale.
      version: "large" or "small", by the columns of these names.

    Returns:
      Source with a table of RAW_SCHEMA in the order of EXAMPLES, and the attributes `brand` and
      `color` where PRODUCTS has them, null where they are missing. `text` is description and bullet
      points joined by a space. In product fields null, "" and the string "None" mean missing:
      `text` leaves them out, and `title` is null. `title` is null too where PRODUCTS lacks the
      product. `split` is the official one. `truth` is null. `catalogue` has all products of the
      locale with the same texts, as large_string.

    Raises:
      UserError: the folder, a file or a column is missing, a file cannot be read, a column is of
        another kind than the official one, or no judgment is of this locale and version.
    """
    if version not in VERSIONS:
        raise UserError(f"esci: version is {version!r}: give one of {', '.join(VERSIONS)}")
    try:
        return _read(path, locale, version)
    except pa.ArrowException as error:
        raise UserError(
            f"{path}: a column has another type than in the official files "
            f"({files.first_line(error)}): {_FIX}"
        ) from None


def _read(path: str, locale: str, version: str) -> Source:
    examples_file, products_file = files.official("esci", path, (EXAMPLES, PRODUCTS))
    examples = _filtered(_table(examples_file, _EXAMPLE_COLUMNS), examples_file, locale, version)
    products = _table(products_file, _PRODUCT_COLUMNS, optional=tuple(_ATTRIBUTES.values()))
    if locale:
        products = products.filter(pc.equal(products["product_locale"], locale))

    place = pc.index_in(
        _in_locale(examples, "product_id"),
        value_set=_in_locale(products, "product_id").combine_chunks(),
    )
    # One large_string array, to be taken from in any order.
    titles = _present(products["product_title"]).combine_chunks()
    description = _present(products["product_description"])
    bullets = _present(products["product_bullet_point"])
    # The join is null where either is. (Its null_handling="skip" drops rows in pyarrow 26.)
    both = pc.binary_join_element_wise(description, bullets, pa.scalar(" ", pa.large_string()))
    texts = pc.coalesce(both, description, bullets).combine_chunks()

    attributes = {
        ATTRIBUTE + name: _present(products[column]).combine_chunks()
        for name, column in _ATTRIBUTES.items()
        if column in products.column_names
    }
    schema = pa.schema([*RAW_SCHEMA, *((name, pa.string()) for name in attributes)])

    def ids(column: str) -> pa.ChunkedArray:
        return examples[column] if locale else _in_locale(examples, column)

    known = pa.table(
        {
            "example_id": examples["example_id"],
            "query_id": ids("query_id"),
            "query": examples["query"],
            "item_id": ids("product_id"),
            "label": examples["esci_label"],
            "split": pc.fill_null(examples["split"], ""),
            "truth": pa.nulls(len(examples), pa.string()),
            "place": place,
        }
    )
    parts = []
    for start in range(0, len(known), _CHUNK_ROWS):
        rows = known.slice(start, _CHUNK_ROWS)
        at = rows["place"].combine_chunks()
        rows = rows.append_column("title", titles.take(at))
        rows = rows.append_column("text", pc.fill_null(texts.take(at), ""))
        for name, values in attributes.items():
            rows = rows.append_column(name, values.take(at))
        parts.append(rows.select(schema.names).cast(schema))
    item_ids = products["product_id"]
    if not locale:
        item_ids = _in_locale(products, "product_id")
    catalogue = pa.table({"item_id": item_ids, "title": titles, "text": texts})
    return Source(
        table=pa.concat_tables(parts),
        scale=ESCI_SCALE,
        location=str(path),
        catalogue=catalogue,
    )


def _table(file: epath.Path, wanted: Wanted, optional: tuple[str, ...] = ()) -> pa.Table:
    """The wanted columns as texts, however they are stored, and the optional ones that exist."""
    with parquet.opened(file, wanted) as opened:
        there = [name for name in optional if name in opened.schema_arrow.names]
        table = opened.read(columns=[*wanted.columns, *there])
        table.validate(full=True)  # writers need not check that strings are UTF-8
    for field in table.schema:
        if field.name not in _NUMBERS and not parquet.is_text(field.type):
            raise pa.ArrowTypeError(f"{field.name} is {field.type}")
    return pa.table({name: parquet.texts(table[name]) for name in table.column_names})


def _filtered(examples: pa.Table, file: epath.Path, locale: str, version: str) -> pa.Table:
    keep = _flagged(examples, version)
    if locale:
        keep = pc.and_(keep, pc.equal(examples["product_locale"], locale))
    kept = examples.filter(keep)
    if len(kept):
        return kept
    counts = {name: Counter[str]() for name in VERSIONS}
    for name in VERSIONS:
        of_version = examples.filter(_flagged(examples, name))
        counts[name].update(str(value) for value in of_version["product_locale"].to_pylist())
    there = "; ".join(
        f"{name}: " + (", ".join(f"{key} ({n})" for key, n in sorted(count.items())) or "none")
        for name, count in counts.items()
    )
    raise UserError(
        f"esci: {file} has no judgments of locale {locale or 'any'!r} and version "
        f"{version!r}: choose among what it has, {there}"
    )


def _flagged(examples: pa.Table, version: str) -> pa.ChunkedArray:
    return pc.is_in(examples[f"{version}_version"], pa.array(["1", "true"], pa.large_string()))


def _in_locale(table: pa.Table, column: str) -> pa.ChunkedArray:
    """A column of ids, which are distinct over all locales once they begin with theirs."""
    mark = pa.scalar(":", pa.large_string())
    return pc.binary_join_element_wise(table["product_locale"], table[column], mark)


def _present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with null for what counts as missing."""
    missing = pc.is_in(column, value_set=pa.array(["None", ""], pa.large_string()))
    return pc.if_else(missing, pa.scalar(None, pa.large_string()), column)
