"""The Wayfair Annotation Dataset (WANDS) in its official layout of three tab-separated files."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
from etils import epath

from sie_jax.data.readers import delimited, files
from sie_jax.data.readers.records import Cells, Record, Wanted, rejected
from sie_jax.data.schema import (
    ATTRIBUTE,
    CATALOGUE_SCHEMA,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    LabelScale,
    Source,
)
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError
from sie_jax.tables.spool import spool_rows

# The names end in .csv, but the fields are separated by tabs.
QUERIES, PRODUCTS, LABELS = "query.csv", "product.csv", "label.csv"
# The release names no gains; these are spread evenly.
SCALE = LabelScale(names=("Irrelevant", "Partial", "Exact"), gains=(0.0, 0.5, 1.0))

_FIX = "give the official file"
_QUERY_COLUMNS = Wanted(("query_id", "query"), _FIX)
_PRODUCT_COLUMNS = Wanted(
    ("product_id", "product_name", "product_class", "category hierarchy", "product_description",
     "product_features"), _FIX,
)  # fmt: skip
_LABEL_COLUMNS = Wanted(("id", "query_id", "product_id", "label"), _FIX)
_PRODUCT_CLASS, _TOP_CATEGORY = ATTRIBUTE + "product_class", ATTRIBUTE + "top_category"
_SCHEMA = pa.schema([*RAW_SCHEMA, (_PRODUCT_CLASS, pa.string()), (_TOP_CATEGORY, pa.string())])


@dataclasses.dataclass(slots=True, kw_only=True)
class WandsConfig(SourceSection):
    """The Wayfair Annotation Dataset has no options."""

    expects: ClassVar[str] = "the folder of the files of wands"

    def read(self, request: Request) -> Source:
        """The data set in the folder `request.path`."""
        return read(request.path)


def read(path: str) -> Source:
    """The judgments, joined to their queries and products.

    Source: https://github.com/wayfair/WANDS (Chen et al., "WANDS: Dataset for Product Search
    Relevance Assessment", ECIR 2022).

    Memory holds the texts of the queries and products once; the joined rows lie on disk.

    Args:
      path: the folder that holds QUERIES, PRODUCTS and LABELS (`dataset` of the repository), which
        are read as `readers.delimited` reads tab-separated files.

    Returns:
      Source with SCALE and a row for each judgment, in the order of LABELS:

        example_id               `id`, or "label.csv:<line>" where it is empty
        query_id, item_id        `query_id`, `product_id`
        query                    of QUERIES
        title                    `product_name`
        text                     `product_description` and `product_features` (name : value pairs
                                 with "|" between them, as they are), joined by a space
        label                    `label`
        split                    "": the release has no splits
        truth                    null
        attribute:product_class  `product_class`, several with "|" between them as they are
        attribute:top_category   the first level of `category hierarchy`: groups by the whole path
                                 would be too small to compare, and `product_class` is as fine

      White space around ids, labels and attributes is cut. What is empty is null, except `text`,
      which is "". Where a file lacks the query or the product of a judgment, `query`, or `title`
      and the attributes, are null, and cleaning rejects the row. Where it has one twice, the first
      counts. `unreadable` has every line of the three files that is not a record; it counts as a
      row read. `catalogue` has every product that has an id.

    Raises:
      UserError: the folder, a file or a column is missing, a file cannot be read as a whole, or
        none of its lines is a record.
    """
    query_file, product_file, label_file = files.official(
        "wands", path, (QUERIES, PRODUCTS, LABELS)
    )
    unreadable: list[Cells] = []
    queries: dict[str | None, Cells] = {None: {}}  # a judgment without an id has no query
    for record in _records(query_file, _QUERY_COLUMNS, unreadable):
        queries.setdefault(_cut(record, "query_id"), {"query": record.cells["query"] or None})
    products: dict[str | None, Cells] = {None: {}}
    for record in _records(product_file, _PRODUCT_COLUMNS, unreadable):
        products.setdefault(_cut(record, "product_id"), _product(record))

    def judgments() -> Iterator[Cells]:
        for record in _records(label_file, _LABEL_COLUMNS, unreadable):
            query_id, item_id = _cut(record, "query_id"), _cut(record, "product_id")
            yield {
                "example_id": _cut(record, "id") or f"{LABELS}:{record.line}",
                "query_id": query_id,
                "item_id": item_id,
                "text": "",
                "label": _cut(record, "label"),
                "split": "",
                **queries.get(query_id, {}),
                **products.get(item_id, {}),
            }

    table = spool_rows(judgments(), _SCHEMA)
    catalogue = (
        {"item_id": item_id, "title": product["title"], "text": product["text"]}
        for item_id, product in products.items()
        if item_id is not None
    )
    return Source(
        table=table,
        scale=SCALE,
        location=path,
        catalogue=spool_rows(catalogue, CATALOGUE_SCHEMA),
        unreadable=pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA),
    )


def _records(file: epath.Path, wanted: Wanted, unreadable: list[Cells]) -> Iterator[Record]:
    """The file's records; what is not a record goes to `unreadable`."""
    header, records = delimited.read(file, delimiter="\t")
    wanted.check(file, header)
    found = False
    for record in records:
        if record.reason:
            unreadable.append(rejected(file, record))
        else:
            found = True
            yield record
    if not found:
        raise UserError(f"{file} has no line that is a record: {_FIX}")


def _product(record: Record) -> Cells:
    cells = record.cells
    texts = (cells["product_description"], cells["product_features"])
    hierarchy = cells["category hierarchy"] or ""
    return {
        "title": cells["product_name"] or None,
        "text": " ".join(text for text in texts if text),
        _PRODUCT_CLASS: _cut(record, "product_class"),
        _TOP_CATEGORY: hierarchy.partition(" / ")[0].strip() or None,
    }


def _cut(record: Record, column: str) -> str | None:
    return (record.cells[column] or "").strip() or None
