"""Judgment lists of search teams: LTR lists (SVMlight, LETOR, RankLib) and TREC qrels."""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from etils import epath

from sie_jax import remote
from sie_jax.data import readers, scales
from sie_jax.data.features import is_own
from sie_jax.data.readers import files
from sie_jax.data.readers.records import Record, Wanted, cell, is_broken, number, rejected, shown
from sie_jax.data.scales import Numbers
from sie_jax.data.schema import (
    MOST_CLASSES,
    NUMERIC,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    LabelScale,
    Source,
    check_labels,
)
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError
from sie_jax.tables.spool import spool_rows

MOST_FEATURES = 4096  # each becomes a column of numbers
FIX = (
    "write `grade qid:number # document title`, or `query 0 document grade`; of a table with a "
    "header set data.source=table"
)
_TABLES = (".csv", files.JSON_LINES, files.PARQUET)
_LETOR_ID = re.compile(r"docid\s*=\s*(\S+)")
_QUERY = re.compile(r"#\s*qid:(\S+?):\s+(.*\S)")
_WEIGHT = re.compile(r"\*\d+(\.\d+)?$")  # of a query, as some tools write it behind the words
_HEADERS = ("query-id", "query_id", "qid", "topic")  # how the header of qrels may begin


@dataclasses.dataclass(slots=True, kw_only=True)
class JudgmentsConfig(SourceSection):
    """Where the texts of a judgment list's queries are, and its scale."""

    own_labels: ClassVar[bool] = True
    expects: ClassVar[str] = "a judgment list: an LTR list or TREC qrels, a file or a folder"

    queries: str = ""  # a table, or lines of id, tab, text; empty: they are in the list's comments
    labels: tuple[str, ...] = ()  # the grades, lowest first; empty: those that occur

    def check(self) -> None:
        """Raises UserError for labels that are no scale of numbers."""
        if self.labels:
            check_labels("data.judgments.labels", self.labels)
            _scale(self.labels, "data.judgments.labels")

    def paths(self) -> dict[str, str]:
        """The file of queries."""
        return {"queries": self.queries}

    def read(self, request: Request) -> Source:
        """The judgments at `request.path`."""
        source = read(
            request.path,
            queries=remote.local(self.queries),
            columns={one: request.columns.get(one) or one for one in ("query_id", "query")},
            labels=request.numbers or self.labels,
        )
        if not request.catalogue and source.table["title"].null_count == source.table.num_rows:
            raise UserError(
                f"{request.path} has no titles behind its documents: give a catalogue with them, "
                "--config.data.items.path=PATH"
            )
        return source


class Judgment(NamedTuple):
    """What one line says; `item_id` is "" and `title` None where it names none."""

    query_id: str
    item_id: str
    grade: float
    title: str | None
    features: dict[str, float | None]


def read(
    path: str,
    *,
    queries: str = "",
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | Numbers = (),
) -> Source:
    """The judgments of a list, whose lines are all of one of these forms.

        grade qid:n feature:value … # document title     LTR; features and title may be absent
        query iteration document grade                    TREC qrels, separated by white space
        query document grade                              the qrels of BEIR, with their header

    Source: https://www.cs.cornell.edu/people/tj/svm_light/svm_rank.html (the first form),
    https://trec.nist.gov/data/qrels_eng/ (the second).

    Args:
      path: a file of any name, or a folder of such; it may be compressed.
      queries: a table with the queries' ids and texts; or lines of an id, a tab and a text, without
        a header. Where it is "", the texts are those of the comments `# qid:1: red shoes`, which
        lists for Elasticsearch begin with; a weight behind them (`*1`) is cut.
      columns: of that table: of `query_id` and of `query`.
      labels: the grades, lowest first; those that occur where it is empty; or `Numbers`, as for
        `table.read`.

    Returns:
      Source, a row for each judgment in their order. `example_id` is the line's number over all
      files, from 0. Of an LTR line the first word behind # is `item_id` (all up to a tab, where
      there is one; or what LETOR's `docid =` names), and the rest is `title`. Where the rest is the
      same for all documents of each query, it is the query's text and no title. A feature is a
      NUMERIC column, `feature_1` for the first; one that a line lacks, and NaN or NULL, is null. A
      whole grade is written without a point. The gain of a grade is its number over the greatest.
      `query` is null where no text is known of it; cleaning rejects such rows.

      `unreadable` has the lines that are none of these forms, or not of the form of the first
      (`unparsable_line`, `not_utf8`), those without a document (`missing_item`), and those of a
      negative grade (`negative_grade`), with which TREC marks spam. `summary` counts the texts of
      queries, and the ids that have none or several: of these the first counts.

    Raises:
      UserError: a file cannot be read, no line is a judgment that is kept, no query has a text, all
        grades are equal, or there are more than MOST_CLASSES of them or MOST_FEATURES features.
    """
    parts = files.find(path, None)
    if files.kind(parts[0]) in _TABLES:
        raise UserError(
            f"{parts[0]} is a table by its name, and the source judgments reads lines: set "
            "data.source=table"
        )
    grades: Counter[float] = Counter()
    names: dict[str, None] = {}
    texts, behind = _Texts(), _Behind()
    form = ""
    for file in parts:
        for record, found in lines(file, form):
            if found is not None:
                form = form or record.text
                grades[found.grade] += found.grade >= 0
                names |= dict.fromkeys(found.features)
                behind.add(found)
    if not form:
        raise UserError(f"{path} has no line that is a judgment: {FIX}")
    _check_features(path, names)
    if queries:
        _read_queries(queries, columns or {}, texts)
    else:
        for file in parts:
            texts.of_comments(file)
    if behind.are_queries and not texts.known:
        texts.known = behind.first
    if not texts.known:
        raise UserError(
            f"{path} says no text of its queries: give a file with their ids and texts, "
            "--config.data.judgments.queries=PATH"
        )
    unreadable: list[Mapping[str, Any]] = []
    asked: dict[str, None] = {}
    places = itertools.count()

    def rows() -> Iterator[Mapping[str, Any]]:
        for file in parts:
            for record, found in lines(file, form):
                place = str(next(places))
                if found is None:
                    unreadable.append(rejected(file, record))
                    continue
                asked[found.query_id] = None
                row = {
                    "example_id": place,
                    "query_id": found.query_id,
                    "query": texts.known.get(found.query_id),
                    "item_id": found.item_id or None,
                    "title": None if behind.are_queries else found.title,
                    "text": "",
                    "label": cell(found.grade),
                    "split": "",
                }
                reason = "missing_item" if not found.item_id else ""
                if found.grade < 0:
                    reason = reason or "negative_grade"
                if reason:
                    unreadable.append(row | {"reason": reason})
                else:
                    yield row | {NUMERIC + name: one for name, one in found.features.items()}

    numeric = [pa.field(NUMERIC + name, pa.float64()) for name in names]
    table = spool_rows(rows(), pa.schema([*RAW_SCHEMA, *numeric]))
    if not table.num_rows:
        reasons = Counter(str(row["reason"]) for row in unreadable)
        counted = ", ".join(f"{times} {reason}" for reason, times in reasons.items())
        fix = "write the documents behind #, as in `4 qid:1 1:0.5 # 7555 Red shoes`"
        raise UserError(
            f"{path} has no judgment of an item that can be ranked ({counted}): "
            + (fix if reasons["missing_item"] else "give judgments with grades from 0 on")
        )
    occurring = {str(cell(grade)): times for grade, times in sorted((+grades).items())}
    summary: dict[str, Any] = {}
    if not isinstance(labels, Numbers):
        scale = _scale(labels or list(occurring), path)
    elif labels.bins:
        table, scale, summary["bins"] = scales.binned(table, occurring, labels.bins, path)
    else:
        scale = scales.of_numbers(occurring, path)
    return Source(
        table=table,
        scale=scale,
        location=path,
        unreadable=pa.Table.from_pylist(unreadable, schema=REJECTED_SCHEMA),
        summary=summary
        | {
            "queries": len(asked),
            "queries_without_text": len(asked.keys() - texts.known.keys()),
            "queries_with_several_texts": len(texts.contradicting),
        },
    )


class _Behind:
    """The texts behind documents: titles, or, in lists with logged features, the query's own."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self._several, self._differ = False, False

    def add(self, one: Judgment) -> None:
        self._several |= one.query_id in self.first
        self._differ |= self.first.setdefault(one.query_id, one.title or "") != (one.title or "")

    @property
    def are_queries(self) -> bool:
        """Whether all documents of a query have the same, and some query has several documents."""
        return self._several and not self._differ and all(self.first.values())


class _Texts:
    """The texts of queries by their ids; of several the first. contradicting: ids with several."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.contradicting: set[str] = set()

    def add(self, query_id: str | None, text: str | None) -> None:
        key, text = (query_id or "").strip(), (text or "").strip()
        if key and text and self.known.setdefault(key, text) != text:
            self.contradicting.add(key)

    def of_comments(self, file: epath.Path) -> None:
        """Adds those of the comments of an LTR list."""
        for line in files.lines(file):
            if not is_broken(line) and (match := _QUERY.match(line.strip())):
                self.add(match[1], _WEIGHT.sub("", match[2]))


def _read_queries(path: str, columns: Mapping[str, str], texts: _Texts) -> None:
    """Adds the queries of a table with a header, or of lines of an id, a tab and a text."""
    fix = "name its columns with --config.data.columns.query_id and .query"
    wanted = Wanted((columns.get("query_id", "query_id"), columns.get("query", "query")), fix)
    for file in files.find(path, None):
        kind = files.kind(file)
        header = next(files.lines(file), "").rstrip("\r\n").split("\t") if kind == ".tsv" else []
        if kind in _TABLES or set(wanted.columns) <= set(header):
            for record in readers.records(file, wanted):
                texts.add(*(record.cells.get(name) for name in wanted.columns))
            continue
        for place, line in enumerate(files.lines(file), 1):
            query_id, tab, text = line.partition("\t")
            if line.strip() and (not tab or is_broken(line)):
                raise UserError(
                    f"{file}, line {place}: {shown(line)[:80]!r} is no id, tab and text: correct "
                    f"it, or give a .tsv file whose header has {' and '.join(wanted.columns)}"
                )
            texts.add(query_id, text)


def lines(
    file: epath.Path, form: str = "", *, keep_broken: bool = False
) -> Iterator[tuple[Record, Judgment | None]]:
    """Each line of a list that is no comment, and what it says: None where it is no judgment.

    form: of all lines, "" where it is that of the first, as `read` lists them. The text of a line's
    record is its form, or, where the record has a reason, the line. keep_broken: whether a line
    that is not UTF-8 may be a judgment, with surrogates in its ids (PEP 383).
    """
    for place, line in enumerate(files.lines(file), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if place == 1 and text.split()[0].casefold() in _HEADERS:
            continue
        broken = not keep_broken and is_broken(line)
        found = None if broken else _judgment(text)
        if found is None or found[0] != (form or found[0]):
            reason = "not_utf8" if broken else "unparsable_line"
            yield Record(place, {}, reason, shown(line)), None
            continue
        form = found[0]
        yield Record(place, {}, "", form), found[1]


def _judgment(line: str) -> tuple[str, Judgment] | None:
    """The form of a line and what it says; None where it is of no form."""
    words, _, comment = line.partition("#")
    fields = words.split()
    try:
        if len(fields) > 1 and fields[1].startswith("qid:"):
            grade, query_id = number(fields[0]), fields[1].removeprefix("qid:")
            features = dict(map(_feature, fields[2:]))
            if grade is None or not query_id or len(features) < len(fields) - 2:
                return None
            item, title = _document(comment)
            return "ltr", Judgment(query_id, item, grade, title, features)
        fields = line.split()
        if len(fields) in (3, 4) and (grade := number(fields[-1])) is not None:
            return f"{len(fields)} fields", Judgment(fields[0], fields[-2], grade, None, {})
    except ValueError:
        pass
    return None


def _feature(field: str) -> tuple[str, float | None]:
    """A feature's name and value; raises ValueError where a field is none."""
    name, colon, value = field.rpartition(":")
    if not name or not colon:
        raise ValueError(field)
    name = f"feature_{name}" if name.isdecimal() else name
    return name, None if value.casefold() == "null" else number(value)


def _document(comment: str) -> tuple[str, str | None]:
    """The document of what stands behind #, "" where there is none, and its title."""
    comment = comment.strip()
    if match := _LETOR_ID.match(comment):
        return match[1], None
    item, _, title = comment.partition("\t") if "\t" in comment else comment.partition(" ")
    return item.strip(), title.strip() or None


def _check_features(path: str, names: Mapping[str, None]) -> None:
    if len(names) > MOST_FEATURES:
        raise UserError(
            f"{path} has {len(names):,} features, and at most {MOST_FEATURES:,} can be read: leave "
            "out those of single words"
        )
    if own := [name for name in names if is_own(name)]:
        raise UserError(
            f"{path} has the feature {own[0]}, which is the name of one that is made here: rename "
            "it"
        )


def _scale(names: Sequence[str], what: str) -> LabelScale:
    """The grades with their gains; raises UserError where they are no rising numbers from 0 on."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        raise UserError(f"{what} is {', '.join(names)}: give numbers") from None
    if len(values) < 2:
        raise UserError(
            f"{what}: all judgments have the grade {', '.join(names)}: a ranker learns from "
            "several; add judgments of another grade"
        )
    if len(values) > MOST_CLASSES:
        raise UserError(
            f"{what}: there are {len(values):,} different grades, and at most {MOST_CLASSES} are "
            "classes: say that they are numbers, --config.data.continuous, or divide them, "
            "--config.data.bins=5"
        )
    if values != sorted(values) or min(values) < 0:
        raise UserError(f"{what} is {', '.join(names)}: give numbers from 0 on, lowest first")
    return LabelScale(tuple(names), tuple(value / max(values) for value in values))
