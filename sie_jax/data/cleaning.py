"""Repairs the texts of a raw table and sets aside, with a reason, the rows that cannot be used."""

import html
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from html.entities import html5

import pyarrow as pa

from sie_jax.data.schema import (
    CLEAN_SCHEMA,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    LabelScale,
    normalise_query,
)
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
# A table is worked on in pieces, since one string array holds at most 2 GiB.
_CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class Cleaned:
    """What `clean` gives.

    kept: table of CLEAN_SCHEMA, in the order read, texts repaired.
    rejected: table of REJECTED_SCHEMA, in the order read: the row as it was read, and its `reason`.
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
      table: columns of RAW_SCHEMA.
      scale: the labels that count.
      max_query_characters, max_title_characters: limits, >= 1.

    Returns:
      Cleaned, with kept + rejected rows = rows read. `label` becomes its place on the scale;
      `truth` likewise, -1 where it is null or not on the scale; other nulls become "". Cleaning
      repaired texts again changes nothing.

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
    table = table.select(RAW_SCHEMA.names).cast(RAW_SCHEMA)
    grades = {name: grade for grade, name in enumerate(scale.names)}
    _check_labels(table, grades)

    def fault(row: dict[str, str]) -> str | None:
        """The first rule that the row alone breaks."""
        if not row["query"]:
            return "missing_query"
        if not row["title"]:
            return "missing_title"
        if len(row["query"]) > max_query_characters:
            return "query_too_long"
        if len(row["title"]) > max_title_characters:
            return "title_too_long"
        return None if row["label"] in grades else "label_outside_scale"

    # First pass: repairs, and the rules up to duplicates.
    repaired_chunks: list[pa.Table] = []
    changes: list[frozenset[str]] = []
    reasons: list[str | None] = []
    pairs: list[tuple[str, str]] = []
    seen: set[tuple[tuple[str, str], str, str]] = set()
    labels_of_pair: dict[tuple[str, str], set[str]] = {}
    for start in range(0, table.num_rows, _CHUNK_ROWS):
        chunk, changed = _repaired(table.slice(start, _CHUNK_ROWS))
        repaired_chunks.append(chunk)
        changes += changed
        for row in chunk.select(["query", "title", "item_id", "label"]).to_pylist():
            pair = (normalise_query(row["query"]), row["item_id"])
            reason = fault(row)
            if reason is None:
                key = (pair, row["title"], row["label"])
                if key in seen:
                    reason = "exact_duplicate"
                else:
                    seen.add(key)
                    labels_of_pair.setdefault(pair, set()).add(row["label"])
            reasons.append(reason)
            pairs.append(pair)

    # Second pass: conflicts show only once all rows are read.
    for index, pair in enumerate(pairs):
        if reasons[index] is None and len(labels_of_pair[pair]) > 1:
            reasons[index] = "conflicting_labels"

    keep = pa.array([reason is None for reason in reasons])
    reject = pa.array([reason is not None for reason in reasons])
    kept = _graded(pa.concat_tables(repaired_chunks).filter(keep), grades)
    rejected = table.append_column("reason", pa.array(reasons, pa.string())).filter(reject)
    counts = Counter(reason for reason in reasons if reason is not None)
    repaired = Counter(
        rule
        for changed, reason in zip(changes, reasons, strict=True)
        if reason is None
        for rule in changed
    )
    cleaned = Cleaned(
        kept=kept,
        rejected=rejected.cast(REJECTED_SCHEMA),
        counts={rule: counts[rule] for rule in RULES},
        repaired={rule: repaired[rule] for rule in REPAIRS},
    )
    if kept.num_rows + rejected.num_rows != table.num_rows:
        raise AssertionError(
            f"cleaning lost rows: read {table.num_rows}, kept {kept.num_rows}, "
            f"rejected {rejected.num_rows}"
        )
    if kept.num_rows == 0:
        found = ", ".join(f"{rule} {count}" for rule, count in cleaned.counts.items() if count)
        raise UserError(f"cleaning: every one of the {table.num_rows} rows was rejected: {found}")
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


def _repaired(chunk: pa.Table) -> tuple[pa.Table, list[frozenset[str]]]:
    """The chunk with its texts repaired and no nulls but in `truth`; what changed in each row."""
    changes: list[frozenset[str]] = [frozenset()] * chunk.num_rows
    columns = {name: chunk[name].fill_null("") for name in RAW_SCHEMA.names if name != "truth"}
    for name in ("query", "title", "text"):
        # Queries repeat on many rows, and items on some: each text is repaired once.
        done: dict[str, tuple[str, frozenset[str]]] = {}
        texts: list[str] = []
        for row, text in enumerate(columns[name].to_pylist()):
            if text not in done:
                done[text] = repair(text)
            texts.append(done[text][0])
            changes[row] |= done[text][1]
        columns[name] = pa.chunked_array([texts], pa.string())
    return pa.table({**columns, "truth": chunk["truth"]}, schema=RAW_SCHEMA), changes


def _graded(table: pa.Table, grades: dict[str, int]) -> pa.Table:
    """The table with `label` and `truth` as places on the scale."""
    for name in ("label", "truth"):
        values = pa.array([grades.get(label, -1) for label in table[name].to_pylist()], pa.int32())
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table.cast(CLEAN_SCHEMA)


def _check_labels(table: pa.Table, grades: dict[str, int]) -> None:
    found = Counter(table["label"].to_pylist())
    if not any(label in grades for label in found):
        most = ", ".join("(none)" if label is None else label for label, _ in found.most_common(10))
        raise UserError(
            f"cleaning: no row's label is on the scale {', '.join(grades)}; the labels found are "
            f"{most}"
        )


def _check_ids(kept: pa.Table) -> None:
    ids, times = Counter(kept["example_id"].to_pylist()).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"cleaning: example_id {ids!r} occurs {times} times; give every row an id of its own"
        )
