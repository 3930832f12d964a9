"""Search logs as User Behavior Insights of OpenSearch and Elasticsearch: events made exposures."""

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from sie_jax import sections
from sie_jax.data import readers
from sie_jax.data.cleaning import DIGEST, digest_of
from sie_jax.data.readers import files, json_lines
from sie_jax.data.readers.records import Record, Wanted, cell, number
from sie_jax.data.schema import Source
from sie_jax.data.sources import clicks
from sie_jax.data.sources.clicks import ClicksConfig
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError
from sie_jax.tables.spool import hash_partitions, pieces, spool_rows, write_parquet

ACTIONS = ("impression", "click", "cart", "purchase")
_CLICK = ACTIONS.index("click")
HIT, LOOK = len(ACTIONS), len(ACTIONS) + 1  # rows that are no event of ACTIONS: what they tell
# Why an event of these actions is in no exposure, in the order in which the reasons are looked for.
REASONS = ("without_query_id", "of_unknown_query", "without_object", "without_impression")
# Where a field is, the first that is there: nested, or flattened by any number of levels.
_FIELDS = {
    "action": ("action_name",),
    "query_id": ("query_id", "event_attributes.query_id"),
    "query": ("user_query",),
    "item_id": ("event_attributes.object.object_id", "object.object_id", "object_id"),
    "position": ("event_attributes.position.ordinal", "position.ordinal", "ordinal", "position"),
    "title": tuple(
        f"{place}{name}"
        for place in ("event_attributes.object.", "object.")
        for name in ("title", "name", "description")
    ),
    "session": ("session_id", "event_attributes.session_id", "client_id"),
    "dwell": ("event_attributes.dwell_time", "dwell_time"),
}
_HITS = ("query_response_hit_ids", "query_response_objects_ids")  # the latter until version 1.0
_BULK = {"index", "create", "update", "delete"}  # actions of a bulk request
_TYPES = {"action": pa.int8(), "position": pa.float64(), "dwell": pa.float64()}
_EVENTS = pa.schema([(name, _TYPES.get(name, pa.string())) for name in _FIELDS if name != "query"])
_EVENT = np.dtype([("row", np.int64), ("key", DIGEST), ("action", np.int8), ("dwell", np.float64)])


@dataclasses.dataclass(slots=True, kw_only=True)
class UbiConfig(SourceSection):
    """Which events are which; `data.clicks` says how their exposures become grades.

    impression, click, cart, purchase, look: values of `action_name`, in small letters.
    first_position: the `ordinal` of the first place; some programs count from 0.
    minimum_dwell: a click of an exposure whose longest known dwell time is shorter does not count.
    """

    expects: ClassVar[str] = "a file or a folder of queries and events as JSON lines"

    impression: tuple[str, ...] = ("impression",)  # actions that show an item
    click: tuple[str, ...] = ("click",)  # actions that are clicks
    cart: tuple[str, ...] = ("add_to_cart",)  # actions that put an item into the cart
    purchase: tuple[str, ...] = ("purchase",)  # actions that buy an item
    look: tuple[str, ...] = ()  # further actions whose dwell_time says how long an item was read
    minimum_dwell: float = 0.0  # clicks that were read for fewer seconds do not count; 0: all do
    first_position: int = 1  # the ordinal of the first place, 0 or 1

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.between("data.ubi.first_position", self.first_position, 0, 1)
        sections.at_least("data.ubi.minimum_dwell", self.minimum_dwell, 0)
        if not self.impression:
            raise UserError("data.ubi.impression is empty: name the action that shows an item")

    def read(self, request: Request) -> Source:
        """The graded pairs of the events at `request.path`, and what became of these."""
        grading = request.grading if isinstance(request.grading, ClicksConfig) else None
        source = read(request.path, options=self, grading=grading)
        if not request.catalogue and source.table["title"].null_count == source.table.num_rows:
            raise UserError(
                f"{request.path} has no titles: give a catalogue with them, "
                "--config.data.items.path=PATH"
            )
        return source


class Exposures(NamedTuple):
    """What `exposures` gives.

    log: a click log of one row for each item shown for a query, with the fields of `click_log`.
    summary: `documents` read; of these the lines that are `unreadable`, `queries`, `events` by
      action_name, and `others`; `hit_lists` of queries that were read, those of a query that has
      one already (`repeated`), those of a query `without_query_id`, the `unreadable` ones, and how
      many are `used`; the hits of these and the events of the four actions that are `left_out` by
      reason, and those that are `repeated` (the exposure has the action already); `exposures`, and
      how many of them have each of the other actions, counted or not; and, of those with a click,
      how many have no known `dwell` time and how many were `short`, and not counted.
    """

    log: pa.Table
    summary: dict[str, Any]


def read(
    path: str, *, options: UbiConfig | None = None, grading: ClicksConfig | None = None
) -> Source:
    """UBI events as graded pairs: `exposures` of them as `clicks.read` grades a click log.

    Raises:
      UserError: as `exposures` and `clicks.read`.
    """
    options = options or UbiConfig()
    options.check()
    found = exposures(path, options)
    with tempfile.TemporaryDirectory(prefix="sie_jax-") as folder:
        log = Path(folder) / "exposures.parquet"
        write_parquet(log, found.log)
        try:
            graded = clicks.read(str(log), options=grading)
        except UserError as error:
            raise UserError(str(error).replace(str(log), path)) from None
    summary = {**graded.summary._asdict(), "ubi": found.summary}
    return dataclasses.replace(graded.source, location=path, summary=summary)


def exposures(path: str, options: UbiConfig) -> Exposures:
    """The items that were shown, each with what was done to it.

    All events of one `query_id` and `object_id` are one exposure: an impression, its click, cart
    and purchase. The position, title and session are those of its first impression. Without an
    impression there is no exposure, since items that were clicked alone say nothing about others.

    Where there is no impression in all files, each item in the list of hits that a query was
    answered with (`query_response_hit_ids`) is one, at its place in the list. This holds only if
    every action of an event with an object is among those that `options` names: another one may be
    what shows an item. If a `query_id` has several lists, the first counts. Nothing says how many
    of its items came into sight; that people look less often at deeper places is what the position
    model of `clicks` finds out.

    With `minimum_dwell`, a click does not count where the longest `dwell_time` of the exposure's
    clicks and looks is known and shorter. A cart and a purchase count as they are.

    Source: https://o19s.github.io/ubi/ (the schemas of queries and events).

    Args:
      path: a file, or a folder of files of one kind, as `readers.files.find` takes them. JSON lines
        hold a query or an event each, nested or flattened (`event_attributes.object.object_id`);
        lines of a bulk request may stand between them, and documents may be inside `_source`. A
        CSV, TSV or Parquet file has the flattened names as columns. A document with an
        `action_name` is an event; another with a `user_query` is a query.
      options: which actions are which, and which clicks count.

    Returns:
      Exposures, in the order of their first impressions. The text of a query is that of the query
      with this `query_id`, of several the first with hits or else the first, or that of the first
      of its events. The title is the object's
      title, name or description. The session is `session_id`, or else `client_id`. Memory holds the
      texts of the queries, and about 50 bytes an event.

    Raises:
      UserError: a file cannot be read, or there is no exposure; positions count from 0, and
        `first_position` is 1.
    """
    names = {name: at for at, one in enumerate(ACTIONS) for name in getattr(options, one)}
    names |= {name: LOOK for name in options.look if name not in names}
    listed: set[str] = set()
    lists = dict.fromkeys(("read", "repeated", "without_query_id", "unreadable", "used"), 0)
    unnamed: set[str] = set()  # actions that may show an item, for all that is known
    known: dict[str, str] = {}
    told: dict[str, str] = {}  # by events
    events: Counter[str] = Counter()
    counts = Counter[str]()

    def rows() -> Iterator[Mapping[str, Any]]:
        for record, document in _documents(path):
            counts["documents"] += 1
            if record.reason:
                counts["unreadable"] += 1
                continue
            fields = {name: _first(document, places) for name, places in _FIELDS.items()}
            action, key, text = fields.pop("action"), fields["query_id"], fields.pop("query")
            if key and text:
                (told if action else known).setdefault(key, text)
            if not action:
                counts["queries" if key and text else "others"] += 1
                hits = _hits(document)
                lists["read"] += hits != []
                lists["unreadable"] += hits is None
                if hits and not key:
                    lists["without_query_id"] += 1
                elif hits and key in listed:
                    lists["repeated"] += 1
                elif hits and key:
                    listed.add(key)
                    if text:  # the query was typed to its end when it was answered
                        known[key] = text
                    for at, item in enumerate(hits, options.first_position):
                        place = {"item_id": item, "position": at, "dwell": None}
                        yield {**fields, **place, "action": HIT}
                continue
            events[action] += 1
            if (place_of := names.get(action.casefold())) is not None:
                counts[str(place_of)] += 1
                numbers = {name: _number(fields[name]) for name in ("position", "dwell")}
                yield {**fields, **numbers, "action": place_of}
            elif fields["item_id"]:
                unnamed.add(action)

    table = spool_rows(rows(), _EVENTS)
    known = told | known
    reasons = np.zeros(table.num_rows, np.int8)  # 1 + the place among REASONS
    of_hits = bool(listed) and not counts["0"] and not unnamed
    lists["used"] = len(listed) * of_hits
    merged, short, undated = _merged(table, reasons, known, options.minimum_dwell, of_hits=of_hits)
    left_out = {one: int((reasons == at).sum()) for at, one in enumerate(REASONS, 1)}
    shown = merged >= 0
    used = int((reasons == 0).sum())
    done = {one: int((merged[shown] >> at & 1).sum()) for at, one in enumerate(ACTIONS)}
    summary = {
        **{name: counts[name] for name in ("documents", "unreadable", "queries", "others")},
        "events": dict(sorted(events.items())),
        "hit_lists": lists,
        "left_out": left_out,
        "repeated": used - sum(done.values()) - short,
        "exposures": done.pop("impression"),
        **done,
        "click_too_short": short,
        "click_without_dwell": undated,
    }
    if not shown.any():
        raise UserError(
            f"ubi: {path} has no exposure; its {counts['documents']} documents are "
            f"{counts['queries']} queries and these events: {_listed(events)}; left out are "
            f"{_listed(left_out)}: name the actions with --config.data.ubi.impression=NAME and so "
            "on, and give the queries beside the events, with their hits if nothing was shown"
            + (_without_names(len(listed), unnamed) if listed and unnamed else "")
        )
    return Exposures(_log(table, merged, known, options, path), summary)


def _documents(path: str) -> Iterator[tuple[Record, Mapping[str, Any]]]:
    """Each record of the files that is no action of a bulk request, and its document."""
    for file in files.find(path):
        if files.kind(file) == files.JSON_LINES:
            for record, document in json_lines.objects(file):
                if not (len(document) == 1 and document.keys() <= _BULK):
                    inner = document.get("_source")
                    yield record, inner if isinstance(inner, dict) else document
        else:
            wanted = Wanted(tuple(readers.column_names([file])), "")
            yield from ((record, record.cells) for record in readers.records(file, wanted))


def _first(document: Mapping[str, Any], places: Sequence[str]) -> str | None:
    """The first of these fields that is there and not blank, as text without space around it."""
    for place in places:
        value = _at(document, place)
        text = None if isinstance(value, dict | list) else cell(value)
        if text and text.strip():
            return text.strip()
    return None


def _at(document: Mapping[str, Any], place: str) -> Any:
    """The value at a dotted name, of which any parts may be one key; None where there is none."""
    if place in document:
        return document[place]
    names = place.split(".")
    for end in range(1, len(names)):
        inner = document.get(".".join(names[:end]))
        if isinstance(inner, dict):
            found = _at(inner, ".".join(names[end:]))
            if found is not None:
                return found
    return None


def _hits(document: Mapping[str, Any]) -> list[str | None] | None:
    """The ids of a query's hits in their order, [] if it has none, None where no list can be read.

    An id that is none keeps its place.
    """
    for name in _HITS:
        found = document.get(name)
        if isinstance(found, str) and found.strip():  # lists in a cell of a table are JSON
            try:
                found = json.loads(found)
            except ValueError:
                return None
        if found is None or found == "":
            continue
        if not isinstance(found, list):
            return None
        texts = (None if isinstance(one, dict | list) else cell(one) for one in found)
        return [(text or "").strip() or None for text in texts]
    return []


def _number(text: str | None) -> float | None:
    try:
        return number(text)
    except ValueError:
        return None


def _merged(
    table: pa.Table,
    reasons: np.ndarray,
    known: Mapping[str, str],
    minimum_dwell: float,
    *,
    of_hits: bool,
) -> tuple[np.ndarray, int, int]:
    """Of each row that is the first impression of an exposure the actions of it, as bits; else -1.

    Then how many clicks were too short and are no bits, and how many others have no dwell time.
    Sets the reasons of the rows that are in no exposure; of looks, and of hits that are no
    impressions, to -1.
    """
    merged = np.full(table.num_rows, -1, np.int8)
    short = undated = 0
    with hash_partitions(_EVENT) as by_key:
        for start, piece in pieces(table):
            rows = piece.to_pylist()
            for place, row in enumerate(rows, start):
                broken = (
                    not row["query_id"],
                    row["query_id"] not in known,
                    not row["item_id"],
                )
                reasons[place] = broken.index(True) + 1 if True in broken else 0
            piece_reasons = reasons[start : start + len(rows)]
            actions = piece["action"].to_numpy()
            aside = np.zeros(len(rows), bool) if of_hits else actions == HIT
            used = np.flatnonzero((piece_reasons == 0) & ~aside)
            piece_reasons[aside | (actions == LOOK)] = -1
            found = np.empty(len(used), _EVENT)
            found["row"] = start + used
            found["key"] = [digest_of(rows[at]["query_id"], rows[at]["item_id"]) for at in used]
            found["action"] = np.where(actions == HIT, 0, actions)[used]
            found["dwell"] = piece["dwell"].to_numpy()[used]
            by_key.add(found["key"]["high"], found)
        for found in by_key:
            _, key = np.unique(found["key"], return_inverse=True)
            exposures = int(key.max(initial=-1)) + 1
            first = np.full(exposures, table.num_rows)
            impression = found["action"] == 0
            np.minimum.at(first, key[impression], found["row"][impression])
            actions = np.zeros(exposures, np.int8)
            np.bitwise_or.at(actions, key, np.int8(1) << found["action"])
            shown = first < table.num_rows
            dwell = np.full(exposures, np.nan)
            tells = np.isin(found["action"], (_CLICK, LOOK))
            np.fmax.at(dwell, key[tells], found["dwell"][tells])
            clicked = shown & (actions >> _CLICK & 1 == 1)
            brief = clicked & (dwell < minimum_dwell)
            actions[brief] &= ~np.int8(1 << _CLICK)
            short += int(brief.sum())
            undated += int((clicked & np.isnan(dwell)).sum())
            merged[first[shown]] = actions[shown]
            events = ~shown[key] & (found["action"] != LOOK)
            reasons[found["row"][events]] = 1 + REASONS.index("without_impression")
    return merged, short, undated


def _log(
    table: pa.Table, merged: np.ndarray, known: Mapping[str, str], options: UbiConfig, path: str
) -> pa.Table:
    """The exposures as a click log."""
    schema = pa.schema([
        *((name, pa.string()) for name in ("query", "item_id", "title", "session")),
        ("position", pa.float64()),
        *((name, pa.int64()) for name in ACTIONS[1:]),
    ])  # fmt: skip
    zeros = shown = 0

    def rows() -> Iterator[Mapping[str, Any]]:
        nonlocal zeros, shown
        for start, piece in pieces(table):
            at = merged[start : start + piece.num_rows]
            first = piece.filter(pa.array(at >= 0)).to_pylist()
            for row, actions in zip(first, at[at >= 0].tolist(), strict=True):
                shown += 1
                zeros += row["position"] == 0
                if row["position"] is not None:
                    row["position"] += 1 - options.first_position
                row["query"] = known[row["query_id"]]
                yield row | {name: actions >> bit & 1 for bit, name in enumerate(ACTIONS)}

    log = spool_rows(({name: row[name] for name in schema.names} for row in rows()), schema)
    if options.first_position and zeros > 0.01 * shown:
        raise UserError(
            f"ubi: {zeros} of {shown} exposures of {path} have the ordinal 0: if places count from "
            "0 there, give --config.data.ubi.first_position=0"
        )
    return log


def _without_names(lists: int, unnamed: Collection[str]) -> str:
    """The end of the message where actions without a name keep lists of hits from counting."""
    return (
        f"; the lists of hits of {lists} queries count as shown once each of "
        f"{', '.join(sorted(unnamed))} is named, with --config.data.ubi.look=NAME,NAME if it shows "
        "no item"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
