"""Repairs of texts: markup, control characters, canonical composition and white space."""

import html
import itertools
import re
from collections.abc import Iterator
from html.entities import html5

import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data.schema import CATALOGUE_SCHEMA, nfc
from sie_jax.tables.spool import pieces, spool

NESTED = 20
REPAIRS = ("html_markup", "control_characters", "unicode_nfc", "whitespace")


def repair(text: str) -> tuple[str, frozenset[str]]:
    """The repaired text, and which of REPAIRS changed it.

    html_markup: comments, and tags with an HTML element's name, are removed; so is the content of
      script and style. A tag that separates, such as <br> and <li>, leaves a space; one inside a
      line, such as <b>, leaves nothing. Entities ending in ";" become their character. "a < b",
      "<3 inch", "<large>" and "AT&T" stay.
    control_characters: controls (Unicode Cc) other than white space are removed, and so are the
      zero-width space, the word joiner, the byte order mark, the soft hyphen and marks of writing
      direction. The zero-width non-joiner and joiner stay, because scripts and emoji need them.
    unicode_nfc: canonical composition, as `schema.nfc`.
    whitespace: every run of white space becomes one space, and none is left at the ends.

    One repair can make another necessary (an entity becomes a tag, a removed control closes one).
    So they are repeated until nothing changes: repair(repair(text)) = repair(text). A text in which
    markup is still hidden in markup after NESTED rounds was made to be so: it loses each "<" and
    "&", and the time stays linear in its length.
    """
    changed: set[str] = set()
    before = None
    for rounds in itertools.count():
        if text == before:
            break
        before = text
        for rule, apply in _REPAIRS if rounds < NESTED else _LAST_REPAIRS:
            repaired = apply(text)
            if repaired != text:
                changed.add(rule)
                text = repaired
    return text, frozenset(changed)


def repair_catalogue(catalogue: pa.Table) -> pa.Table:
    """The items of a table of CATALOGUE_SCHEMA that have a title; texts are repaired, nulls ""."""

    def chunks() -> Iterator[pa.RecordBatch]:
        for _, piece in pieces(catalogue):
            columns = piece.to_pydict()
            for name in ("title", "text"):
                columns[name] = [repair(text or "")[0] for text in columns[name]]
            chunk = pa.table(columns, schema=CATALOGUE_SCHEMA)
            yield from chunk.filter(pc.not_equal(chunk["title"], "")).to_batches()

    return spool(chunks(), CATALOGUE_SCHEMA)


# An attribute must have a value: "<b and c>" is text.
_ATTRIBUTES = r"""(?:\s+[a-z_:][\w:.-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>=`]+))*"""


def _tag(names: str) -> re.Pattern[str]:
    return re.compile(rf"</?(?:{names}){_ATTRIBUTES}\s*/?>", re.IGNORECASE)


# These stand inside a line: removing one must not leave a gap in a word.
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
_HIDING = re.compile(rf"<(?:!--|(script|style){_ATTRIBUTES}\s*>)", re.IGNORECASE)
_SHOWING = {
    name: re.compile(end, re.IGNORECASE)
    for name, end in {"": "-->", "script": r"</script\s*>", "style": r"</style\s*>"}.items()
}
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e"
    "\u2060\u2066-\u2069\ufeff]"
)


def _without_markup(text: str) -> str:
    if "<" in text:
        text = _SEPARATING_TAG.sub(" ", _INLINE_TAG.sub("", _without_hidden(text)))
    return _ENTITY.sub(_entity_text, text) if "&" in text else text


def _without_hidden(text: str) -> str:
    """The text with a space for each comment, script and style that has an end."""
    last = {
        name: max((end.start() for end in pattern.finditer(text)), default=-1)
        for name, pattern in _SHOWING.items()
    }
    kept, done, at = [], 0, 0
    while begin := _HIDING.search(text, at):
        name, at = (begin[1] or "").lower(), begin.start() + 1
        # to look in vain for the end of each of many would take time that grows as n²
        if begin.end() <= last[name] and (end := _SHOWING[name].search(text, begin.end())):
            kept += [text[done : begin.start()], " "]
            done = at = end.end()
    return "".join([*kept, text[done:]])


def _entity_text(match: re.Match[str]) -> str:
    # `html.unescape` alone would read the beginning of an unknown name: "&notit;" as "¬it;".
    known = match[0][1] == "#" or match[0][1:] in html5
    return html.unescape(match[0]) if known else match[0]


_REPAIRS = (
    ("html_markup", _without_markup),
    ("control_characters", lambda text: _CONTROLS.sub("", text)),
    ("unicode_nfc", nfc),
    ("whitespace", lambda text: " ".join(text.split())),
)
_LAST_REPAIRS = (("html_markup", lambda text: re.sub("[<&]", "", text)), *_REPAIRS[1:])
