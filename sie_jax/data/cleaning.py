"""Repairs the texts of a raw table and sets aside, with a reason, the rows that cannot be used."""

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.entities import html5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data.schema import (
    ATTRIBUTE,
    CATALOGUE_SCHEMA,
    CLEAN_SCHEMA,
    RATER,
    RAW_SCHEMA,
    LabelScale,
    normalise_query,
)
from sie_jax.data.spool import CHUNK_ROWS, filtered, spool
from sie_jax.errors import UserError

REPAIRS = ("html_markup", "control_characters", "unicode_nfc", "whitespace")
RULES = (
    "missing_query",
    "missing_title",
    "query_too_long",
    "title_too_long",
    "label_outside_scale",
    "exact_duplicate",
    "conflicting_labels",
)
_DIGEST = np.dtype([("high", np.uint64), ("low", np.uint64)])


@dataclass(frozen=True)
class Cleaned:
    """What `clean` gives.

    kept: table of CLEAN_SCHEMA and the further columns, in the order read, texts repaired.
    rejected: the rows as they were read, in that order, and a column `reason`.
    counts: rows rejected by each of RULES, 0 included.
    repaired: kept rows that each of REPAIRS changed, 0 included; a row can count under several.
    """

    kept: pa.Table
    rejected: pa.Table
    counts: dict[str, int]
    repaired: dict[str, int]


def clean(
    table: pa.Table,
    scale: LabelScale,
    *,
    max_query_characters: int,
    max_title_characters: int,
) -> Cleaned:
    """Repairs query, title and text of every row, then rejects the rows that break a rule.

    Repairs come first, since a title of nothing but markup is missing, and two rows that differ in
    nothing but spaces are duplicates. Then each row meets the rules in the order of RULES and is
    rejected for the first that it breaks:

    1. `missing_query`, `missing_title` (null, or empty once repaired), `query_too_long`,
       `title_too_long` (more characters than the limit, once repaired), `label_outside_scale`
       (null, or not one of `scale.names`) look at the row alone. They come first, so that a row
       that cannot be used bears no witness against another.
    2. `exact_duplicate`: an earlier row has the same query (under `normalise_query`), item_id,
       title and label. The first stays. It comes before conflicts, so that a copy counts as a copy.
    3. `conflicting_labels`: the remaining rows give this query and item_id different labels. All
       rows of the pair go, since nothing says which is right.

    Args:
      table: columns of RAW_SCHEMA, and any further ones that `Source` names.
      scale: the labels that count.
      max_query_characters, max_title_characters: limits, >= 1.

    Returns:
      Cleaned, with kept + rejected rows = rows read. `label` becomes its place on the scale;
      `truth` and raters' columns likewise, -1 where they are null or not on the scale; other nulls
      become "". Cleaning repaired texts again changes nothing. Both tables lie on disk; what is
      held in memory is some 50 bytes a row.

    Raises:
      UserError: the table is empty, no row's label is on the scale, every row is rejected, an
        example_id occurs twice among the kept rows, or a limit is below 1.
    """
    if min(max_query_characters, max_title_characters) < 1:
        raise UserError(
            f"cleaning: max_query_characters is {max_query_characters} and max_title_characters "
            f"{max_title_characters}; give at least 1"
        )
    if table.num_rows == 0:
        raise UserError("cleaning: the source gave no rows; check its path and filters")
    table = table.cast(_schema(RAW_SCHEMA, table))
    grades = {name: grade for grade, name in enumerate(scale.names)}
    _check_labels(table, grades)

    # First pass: repairs, and the rules that look at a row alone. Rows are known by 128-bit digests
    # from here on, so that memory does not hold the texts.
    rows = table.num_rows
    reasons = np.zeros(rows, np.int8)  # 0: none; else 1 + the place among RULES
    changes = np.zeros((rows, len(REPAIRS)), bool)
    pairs, judgments = np.zeros(rows, _DIGEST), np.zeros(rows, _DIGEST)
    labels = np.full(rows, -1, np.int16)

    def fault(query: str, title: str, label: str) -> int:
        """The first rule that the row alone breaks, as in `reasons`."""
        broken = (
            not query,
            not title,
            len(query) > max_query_characters,
            len(title) > max_title_characters,
            label not in grades,
        )
        return broken.index(True) + 1 if True in broken else 0

    def repaired_chunks() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, CHUNK_ROWS):
            raw = table.slice(start, CHUNK_ROWS)
            chunk = _repaired(raw, changes[start : start + raw.num_rows])
            columns = (chunk[name].to_pylist() for name in ("query", "title", "item_id", "label"))
            for row, (query, title, item, label) in enumerate(zip(*columns, strict=True), start):
                reasons[row] = fault(query, title, label)
                labels[row] = grades.get(label, -1)
                pairs[row] = _digest(normalise_query(query), item)
                judgments[row] = _digest(normalise_query(query), item, title, label)
            yield from chunk.to_batches()

    repaired = spool(repaired_chunks(), table.schema)

    # Second pass: duplicates and conflicts show only among rows that could be used.
    usable = np.flatnonzero(reasons == 0)
    first = np.unique(judgments[usable], return_index=True)[1]
    copies = np.delete(usable, first)
    reasons[copies] = 1 + RULES.index("exact_duplicate")
    usable = np.sort(usable[first])
    _, pair = np.unique(pairs[usable], return_inverse=True)
    lowest = np.full(len(usable), np.iinfo(np.int16).max, np.int16)
    highest = np.full(len(usable), -1, np.int16)
    np.minimum.at(lowest, pair, labels[usable])
    np.maximum.at(highest, pair, labels[usable])
    reasons[usable[(lowest != highest)[pair]]] = 1 + RULES.index("conflicting_labels")

    keep = reasons == 0
    kept = _graded(repaired, pa.array(keep), grades)
    dropped = filtered(table, pa.array(~keep))
    dropped = dropped.append_column(
        "reason", pa.array(np.array(RULES)[reasons[~keep] - 1], pa.string())
    )
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
    if kept.num_rows == 0:
        found = ", ".join(f"{rule} {count}" for rule, count in cleaned.counts.items() if count)
        raise UserError(f"cleaning: every one of the {rows} rows was rejected: {found}")
    _check_ids(kept)
    return cleaned


def repair(text: str) -> tuple[str, frozenset[str]]:
    """The repaired text, and which of REPAIRS changed it.

    html_markup: tags with an HTML element's name and comments are removed (a space stands for
      those that separate, such as <br> and <li>, and nothing for those inside a line, such as <b>);
      the content of script and style too; entities ending in ";" become their character. "a < b",
      "<3 inch", "<large>" and "AT&T" stay.
    control_characters: controls (Unicode Cc) other than white space, zero-width space,
      word joiner, byte order mark, soft hyphen and marks of writing direction are removed. The
      zero-width non-joiner and joiner stay, because scripts and emoji need them.
    unicode_nfc: canonical composition.
    whitespace: every run of white space becomes one space; none at the ends.

    A repair can bring about another (an entity becomes a tag, a removed control closes one), so
    they are repeated until nothing changes: repair(repair(text)) = repair(text).
    """
    changed: set[str] = set()
    before = None
    while text != before:
        before = text
        for rule, mend in _MENDS:
            mended = mend(text)
            if mended != text:
                changed.add(rule)
                text = mended
    return text, frozenset(changed)


def repair_catalogue(catalogue: pa.Table) -> pa.Table:
    """The items of a table of CATALOGUE_SCHEMA that have a title, texts repaired, nulls empty."""

    def chunks() -> Iterator[pa.RecordBatch]:
        for start in range(0, catalogue.num_rows, CHUNK_ROWS):
            columns = catalogue.slice(start, CHUNK_ROWS).to_pydict()
            for name in ("title", "text"):
                columns[name] = [repair(text or "")[0] for text in columns[name]]
            chunk = pa.table(columns, schema=CATALOGUE_SCHEMA)
            yield from chunk.filter(pc.not_equal(chunk["title"], "")).to_batches()

    return spool(chunks(), CATALOGUE_SCHEMA)


# An attribute must have a value: "<b and c>" is text.
_ATTRIBUTES = r"""(?:\s+[a-z_:][\w:.-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>=`]+))*"""


def _tag(names: str) -> re.Pattern[str]:
    return re.compile(rf"</?(?:{names}){_ATTRIBUTES}\s*/?>", re.IGNORECASE)


# Within a line, so that removing the tag must not leave a gap in a word.
_INLINE_TAG = _tag(
    "a|abbr|acronym|b|bdi|bdo|big|cite|code|del|dfn|em|font|i|ins|kbd|label|mark|q|s|samp|small|"
    "span|strike|strong|sub|sup|time|tt|u|var|wbr"
)
_SEPARATING_TAG = _tag(
    "address|article|aside|audio|blockquote|body|br|button|caption|center|col|colgroup|dd|details|"
    "div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|"
    "legend|li|link|main|menu|meta|nav|object|ol|option|p|param|picture|pre|script|section|select|"
    "source|style|summary|svg|table|tbody|td|template|textarea|tfoot|th|thead|title|tr|ul|video"
)
_HIDDEN = re.compile(
    rf"<!--.*?-->|<(script|style){_ATTRIBUTES}\s*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e"
    "\u2060\u2066-\u2069\ufeff]"
)


def _without_markup(text: str) -> str:
    if "<" in text:
        text = _SEPARATING_TAG.sub(" ", _INLINE_TAG.sub("", _HIDDEN.sub(" ", text)))
    return _ENTITY.sub(_entity_text, text) if "&" in text else text


def _entity_text(match: re.Match[str]) -> str:
    # `html.unescape` alone would read the beginning of an unknown name: "&notit;" as "¬it;".
    known = match[0][1] == "#" or match[0][1:] in html5
    return html.unescape(match[0]) if known else match[0]


_MENDS = (
    ("html_markup", _without_markup),
    ("control_characters", lambda text: _CONTROLS.sub("", text)),
    ("unicode_nfc", lambda text: unicodedata.normalize("NFC", text)),
    ("whitespace", lambda text: " ".join(text.split())),
)


def _schema(base: pa.Schema, table: pa.Table) -> pa.Schema:
    """`base`, then the further columns of `table`: attributes as texts, raters as labels."""
    like_label = base.field("label").type
    further = [name for name in table.column_names if name.startswith((ATTRIBUTE, RATER))]
    types = (like_label if name.startswith(RATER) else pa.string() for name in further)
    return pa.schema([*base, *map(pa.field, further, types)])


def _digest(*texts: str) -> tuple[int, int]:
    """128 bits that are equal where all texts are, and, but for a chance of 2**-128, only there."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    number = digest.digest()
    return int.from_bytes(number[:8], "big"), int.from_bytes(number[8:], "big")


def _repaired(chunk: pa.Table, changes: np.ndarray) -> pa.Table:
    """The chunk with its texts repaired and no nulls but in `truth` and raters' columns.

    What was changed is marked in `changes`, bool `[rows, len(REPAIRS)]`.
    """
    columns = {
        name: chunk[name]
        if name == "truth" or name.startswith(RATER)
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


def _graded(table: pa.Table, keep: pa.Array, grades: dict[str, int]) -> pa.Table:
    """The rows to keep, with `label`, `truth` and raters' columns as places on the scale."""
    schema = _schema(CLEAN_SCHEMA, table)
    names, places = pa.array(list(grades), pa.string()), pa.array(grades.values(), pa.int32())

    def chunks() -> Iterator[pa.RecordBatch]:
        for start in range(0, table.num_rows, CHUNK_ROWS):
            chunk = table.slice(start, CHUNK_ROWS).filter(keep.slice(start, CHUNK_ROWS))
            for at, field in enumerate(chunk.schema):
                if field.name in ("label", "truth") or field.name.startswith(RATER):
                    grade = places.take(pc.index_in(chunk[field.name], names).combine_chunks())
                    chunk = chunk.set_column(at, field.name, grade.fill_null(-1))
            yield from chunk.cast(schema).to_batches()

    return spool(chunks(), schema)


def _check_labels(table: pa.Table, grades: dict[str, int]) -> None:
    counts = {one["values"]: one["counts"] for one in table["label"].value_counts().to_pylist()}
    if not any(label in grades for label in counts):
        most = sorted(counts, key=lambda label: -counts[label])[:10]
        found = ", ".join("(none)" if label is None else label for label in most)
        raise UserError(
            f"cleaning: no row's label is on the scale {', '.join(grades)}; the labels found are "
            f"{found}: mend them, or name the scale that they are on"
        )


def _check_ids(kept: pa.Table) -> None:
    counts = kept["example_id"].value_counts()
    times = pc.max(counts.field("counts")).as_py()
    if times > 1:
        ids = counts.filter(pc.equal(counts.field("counts"), times))[0]["values"].as_py()
        raise UserError(
            f"cleaning: example_id {ids!r} occurs {times} times; give every row an id of its own"
        )
