"""Repairs the texts of a raw table and sets aside, with a reason, the rows that cannot be used."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data.readers.records import printable
from sie_jax.data.repairs import REPAIRS, repair
from sie_jax.data.schema import (
    ATTRIBUTE,
    CLEAN_SCHEMA,
    RATER,
    RAW_SCHEMA,
    LabelScale,
    is_number,
    normalise_query,
)
from sie_jax.errors import UserError
from sie_jax.tables.spool import filtered, hash_partitions, pieces, spool

RULES = (
    "missing_query",
    "missing_title",
    "query_too_long",
    "title_too_long",
    "label_outside_scale",
    "exact_duplicate",
    "conflicting_labels",
)
# 128 bits that stand for one or several texts: `digest_of`
DIGEST = np.dtype([("high", np.uint64), ("low", np.uint64)])
_LABEL = np.int16
MOST_LABELS = int(np.iinfo(_LABEL).max)  # of a scale
_JUDGED = np.dtype([("row", np.int64), ("pair", DIGEST), ("judgment", DIGEST), ("label", _LABEL)])
_NAMED = np.dtype([("row", np.int64), ("id", DIGEST)])
_ASKED = np.dtype([("row", np.int64), ("id", DIGEST), ("query", DIGEST)])


@dataclass(frozen=True)
class Cleaned:
    """What `clean` gives.

    kept: table of CLEAN_SCHEMA and the further columns, in the order read, texts repaired.
    rejected: the rows as they were read, in that order, with a column `reason`.
    counts: how many rows each of RULES rejected, 0 included.
    repaired: how many kept rows each of REPAIRS changed, 0 included; a row can count several times.
    """

    kept: pa.Table
    rejected: pa.Table
    counts: dict[str, int]
    repaired: dict[str, int]


class Inspected(NamedTuple):
    """What can be known of each row alone; the arrays have one entry a row.

    repaired: the rows, texts repaired; nulls are "" except in `truth`, and in the columns of raters
      and of numbers.
    reasons: int8, 0 where no rule is broken, else 1 + the place among RULES.
    changes: bool `[rows, len(REPAIRS)]`, what the repairs changed.
    pairs, judgments: digests of query and item_id, and of these with title and label.
    labels: int16, the place on the scale, -1 where the label is not on it.
    """

    repaired: pa.Table
    reasons: np.ndarray
    changes: np.ndarray
    pairs: np.ndarray
    judgments: np.ndarray
    labels: np.ndarray


def clean(
    table: pa.Table,
    scale: LabelScale,
    *,
    max_query_characters: int,
    max_title_characters: int,
) -> Cleaned:
    """Repairs query, title and text of every row, then rejects the rows that break a rule.

    Repairs come first, because a title of markup alone is missing, and two rows that differ only in
    spaces are duplicates. Then a row is rejected for the first of RULES that it breaks:

    1. `missing_query`, `missing_title` (null, or empty once repaired), `query_too_long`,
       `title_too_long` (more characters than the limit, once repaired) and `label_outside_scale`
       (null, or not one of `scale.names`) depend on the row alone. They come first, so that a row
       that cannot be used does not count against another.
    2. `exact_duplicate`: an earlier row has the same query (under `normalise_query`), item_id,
       title and label. The first stays, with its further columns. This rule comes before
       conflicts, so that a copy counts as a copy.
    3. `conflicting_labels`: the remaining rows give this query and item_id different labels. All
       rows of the pair are rejected, because nothing says which is right.

    Args:
      table: columns of RAW_SCHEMA, and any further ones that `Source` names.
      scale: the labels that count.
      max_query_characters, max_title_characters: limits, >= 1.

    Returns:
      Cleaned, with kept + rejected rows = rows read. `label` becomes its place on the scale;
      so do `truth` and raters' columns, with -1 where they are null or not on the scale. Numbers
      stay as they are. Other nulls become "". Cleaning repaired texts again changes nothing. Both
      tables lie on disk; memory holds about 10 bytes a row.

    Raises:
      UserError: the table is empty, no row's label is on the scale, every row is rejected, an
        example_id occurs twice among the kept rows, a query_id stands for several queries (under
        `normalise_query`), or a limit is below 1.
    """
    check_limits(max_query_characters, max_title_characters)
    table, rows = in_schema(table), table.num_rows
    labels: Counter[str | None] = Counter()
    for _, piece in pieces(table):
        labels.update(piece["label"].to_pylist())
    check_read(labels, scale)

    # First pass: repairs, and the rules that depend on a row alone. From here on a row is known by
    # its 128-bit digests, which are smaller to compare than texts.
    reasons = np.zeros(rows, np.int8)
    changes = np.zeros((rows, len(REPAIRS)), bool)

    def repaired_chunks() -> Iterator[pa.RecordBatch]:
        for start, piece in pieces(table):
            chunk = inspect(
                piece,
                scale,
                max_query_characters=max_query_characters,
                max_title_characters=max_title_characters,
            )
            at = slice(start, start + piece.num_rows)
            reasons[at], changes[at] = chunk.reasons, chunk.changes
            usable = np.flatnonzero(chunk.reasons == 0)
            judged = np.empty(len(usable), _JUDGED)
            judged["row"], judged["pair"] = start + usable, chunk.pairs[usable]
            judged["judgment"], judged["label"] = chunk.judgments[usable], chunk.labels[usable]
            by_pair.add(judged["pair"]["high"], judged)
            yield from chunk.repaired.to_batches()

    with hash_partitions(_JUDGED) as by_pair:
        repaired = spool(repaired_chunks(), table.schema)
        # Second pass: duplicates and conflicts count only among rows that could be used.
        for judged in by_pair:
            reasons[judged["row"]] = compare(judged["pair"], judged["judgment"], judged["label"])

    keep = reasons == 0

    def kept_chunks() -> Iterator[pa.RecordBatch]:
        for start, piece in pieces(repaired):
            at = pa.array(keep[start : start + piece.num_rows])
            yield from graded(piece.filter(at), scale).to_batches()

    kept = spool(kept_chunks(), _schema(CLEAN_SCHEMA, table))
    dropped = with_reasons(filtered(table, pa.array(~keep)), reasons[~keep])
    cleaned = Cleaned(
        kept=kept,
        rejected=dropped,
        counts={rule: int((reasons == place).sum()) for place, rule in enumerate(RULES, 1)},
        repaired={rule: int(changes[keep, i].sum()) for i, rule in enumerate(REPAIRS)},
    )
    if kept.num_rows + dropped.num_rows != rows:
        raise AssertionError(
            f"cleaning lost rows: read {rows}, kept {kept.num_rows}, rejected {dropped.num_rows}"
        )
    check_kept(cleaned.counts, rows)
    _check_ids(kept)
    _check_query_ids(kept)
    return cleaned


def inspect(
    rows: pa.Table, scale: LabelScale, *, max_query_characters: int, max_title_characters: int
) -> Inspected:
    """Repairs rows as `in_schema` gives them, and checks the rules that depend on one row alone."""
    grades = {name: grade for grade, name in enumerate(scale.names)}
    changes = np.zeros((rows.num_rows, len(REPAIRS)), bool)
    repaired = _repaired(rows, changes)
    reasons, labels = np.zeros(rows.num_rows, np.int8), np.zeros(rows.num_rows, _LABEL)
    pairs, judgments = np.zeros(rows.num_rows, DIGEST), np.zeros(rows.num_rows, DIGEST)
    columns = (repaired[name].to_pylist() for name in ("query", "title", "item_id", "label"))
    for row, (query, title, item, label) in enumerate(zip(*columns, strict=True)):
        broken = (
            not query,
            not title,
            len(query) > max_query_characters,
            len(title) > max_title_characters,
            label not in grades,
        )
        reasons[row] = broken.index(True) + 1 if True in broken else 0
        labels[row] = grades.get(label, -1)
        pairs[row] = digest_of(normalise_query(query), item)
        judgments[row] = digest_of(normalise_query(query), item, title, label)
    return Inspected(repaired, reasons, changes, pairs, judgments, labels)


def compare(pairs: np.ndarray, judgments: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rows repeat or contradict one another, as `Inspected.reasons`.

    Args:
      pairs, judgments, labels: `[rows]` as in `Inspected`, in the order of the rows. They are of
        rows that break no rule by themselves: all rows of a pair, or none.
    """
    reasons = np.full(len(pairs), 1 + RULES.index("exact_duplicate"), np.int8)
    first = np.sort(np.unique(judgments, return_index=True)[1])
    _, pair = np.unique(pairs[first], return_inverse=True)
    lowest = np.full(len(first), MOST_LABELS, _LABEL)
    highest = np.full(len(first), -1, _LABEL)
    np.minimum.at(lowest, pair, labels[first])
    np.maximum.at(highest, pair, labels[first])
    conflicts = (lowest != highest)[pair]
    reasons[first] = np.where(conflicts, 1 + RULES.index("conflicting_labels"), 0)
    return reasons


def graded(rows: pa.Table, scale: LabelScale) -> pa.Table:
    """Repaired rows with `label`, `truth` and raters' columns as places on the scale."""
    names, places = pa.array(scale.names), pa.array(range(len(scale.names)), pa.int32())
    schema = _schema(CLEAN_SCHEMA, rows)
    for at, name in enumerate(rows.column_names):
        if name in ("label", "truth") or name.startswith(RATER):
            grade = places.take(pc.index_in(rows[name], names).combine_chunks())
            rows = rows.set_column(at, name, grade.fill_null(-1))
    return rows.cast(schema)


def with_reasons(rows: pa.Table, reasons: np.ndarray) -> pa.Table:
    """Rejected rows with a column `reason`: the names of their `Inspected.reasons`."""
    return rows.append_column("reason", pa.array(RULES).take(pa.array(reasons - 1)))


def in_schema(table: pa.Table) -> pa.Table:
    """The table with the types of RAW_SCHEMA, and of its further columns."""
    return table.cast(_schema(RAW_SCHEMA, table))


def check_limits(max_query_characters: int, max_title_characters: int) -> None:
    """Raises UserError for a limit below 1."""
    if min(max_query_characters, max_title_characters) < 1:
        raise UserError(
            f"cleaning: max_query_characters is {max_query_characters} and max_title_characters "
            f"{max_title_characters}: give at least 1"
        )


def check_read(labels: Counter[Any], scale: LabelScale) -> None:
    """Raises UserError where there are no rows, or no row's label is on the scale.

    labels: how often each label was read, None included.
    """
    if not labels:
        raise UserError("cleaning: the source has no rows: check its path and filters")
    if not any(label in scale.names for label in labels):
        most = [label for label, _ in labels.most_common(10)]
        found = ", ".join("(none)" if label is None else printable(label) for label in most)
        raise UserError(
            f"cleaning: no row's label is on the scale {', '.join(scale.names)}; the labels found "
            f"are {found}: correct them, or name the scale that they are on"
        )


def check_kept(counts: Mapping[str, int], rows: int) -> None:
    """Raises UserError where the rows that RULES rejected, by rule in `counts`, are all rows."""
    if sum(counts.values()) == rows:
        found = ", ".join(f"{rule} {count}" for rule, count in counts.items() if count)
        raise UserError(f"cleaning: every one of the {rows} rows was rejected: {found}")


def _schema(base: pa.Schema, table: pa.Table) -> pa.Schema:
    """`base`, then the further columns of `table`: attributes as texts, raters as labels."""
    further: list[pa.Field] = []
    for name in table.column_names:
        if is_number(name):
            further.append(pa.field(name, pa.float64()))
        elif name.startswith(RATER):
            further.append(pa.field(name, base.field("label").type))
        elif name.startswith(ATTRIBUTE):
            further.append(pa.field(name, pa.string()))
    return pa.schema([*base, *further])


def digest_of(*texts: str) -> tuple[int, int]:
    """128 bits that are equal where all texts are; elsewhere with a chance of 2**-128."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    number = digest.digest()
    return int.from_bytes(number[:8], "big"), int.from_bytes(number[8:], "big")


def _repaired(chunk: pa.Table, changes: np.ndarray) -> pa.Table:
    """The chunk as `Inspected.repaired`; marks in `changes` what the repairs changed."""
    columns = {
        name: chunk[name]
        if name == "truth" or name.startswith(RATER) or is_number(name)
        else chunk[name].fill_null("")
        for name in chunk.column_names
    }
    for name in ("query", "title", "text"):
        # Queries repeat on many rows, and items on some: each text is repaired once.
        encoded = columns[name].combine_chunks().dictionary_encode()
        done = [repair(text) for text in encoded.dictionary.to_pylist()]
        texts = pa.array([text for text, _ in done], pa.string())
        marks = np.array([[rule in rules for rule in REPAIRS] for _, rules in done], bool)
        changes |= marks[encoded.indices.to_numpy()]
        columns[name] = texts.take(encoded.indices)
    return pa.table(columns, schema=chunk.schema)


def _check_ids(kept: pa.Table) -> None:
    most, where = 0, 0
    with hash_partitions(_NAMED) as by_id:
        for start, piece in pieces(kept):
            named = np.empty(piece.num_rows, _NAMED)
            named["row"] = np.arange(start, start + piece.num_rows)
            named["id"] = [digest_of(one) for one in piece["example_id"].to_pylist()]
            by_id.add(named["id"]["high"], named)
        for named in by_id:
            _, first, times = np.unique(named["id"], return_index=True, return_counts=True)
            if len(times) and times.max() > most:
                most, where = int(times.max()), named["row"][first[times.argmax()]]
    if most > 1:
        raise repeated_id(kept["example_id"][where].as_py(), most)


def repeated_id(example_id: str, times: int) -> UserError:
    """The error about an id that several kept rows have."""
    return UserError(
        f"cleaning: example_id {example_id!r} occurs {times} times: give every row its own id"
    )


def _check_query_ids(kept: pa.Table) -> None:
    """Lists are made and held out by the id, so that one id for several queries would mix them."""
    shared, first = 0, np.zeros(0, _ASKED)
    with hash_partitions(_ASKED) as by_id:
        for start, piece in pieces(kept):
            asked = np.empty(piece.num_rows, _ASKED)
            asked["row"] = np.arange(start, start + piece.num_rows)
            for field, column, text_of in (
                ("id", "query_id", str), ("query", "query", normalise_query)
            ):  # fmt: skip
                encoded = piece[column].combine_chunks().dictionary_encode()
                digests = [digest_of(text_of(text)) for text in encoded.dictionary.to_pylist()]
                asked[field] = np.array(digests, DIGEST)[encoded.indices.to_numpy()]
            by_id.add(asked["id"]["high"], asked)
        for asked in by_id:
            different = asked[np.unique(asked[["id", "query"]], return_index=True)[1]]
            ids, times = np.unique(different["id"], return_counts=True)
            shared += int((times > 1).sum())
            if not len(first) and shared:
                first = different[different["id"] == ids[times.argmax()]]
    if shared:
        one, other = (kept.slice(row, 1).to_pylist()[0] for row in sorted(first["row"])[:2])
        raise shared_id(one["query_id"], (one["query"], other["query"]), shared)


def shared_id(query_id: str, queries: Sequence[str], ids: int) -> UserError:
    """The error about an id that kept rows of several queries have; `ids` is how many such."""
    more = f", as {ids - 1} more ids are" if ids > 1 else ""
    return UserError(
        f"cleaning: query_id {query_id!r} is that of {queries[0]!r} and of {queries[1]!r}{more}: "
        "give every query its own id, or name no column of query ids, and they are made of the "
        "texts"
    )
