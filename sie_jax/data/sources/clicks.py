"""Search logs: clicks turned into graded query–item pairs, with position bias taken out."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from sie_jax import sections
from sie_jax.data.schema import RAW_SCHEMA, REJECTED_SCHEMA, LabelScale, Source
from sie_jax.data.sources import click_counts, click_model
from sie_jax.data.sources.click_counts import Arrays, Log
from sie_jax.data.sources.click_log import FIELDS, RULES
from sie_jax.data.sources.section import Request, SourceSection
from sie_jax.errors import UserError


@dataclasses.dataclass(slots=True, kw_only=True)
class ClicksConfig(SourceSection):
    """Which rows of a click log count, and how they become grades; of UBI events too.

    minimum_impressions, minimum_examinations: a pair with fewer impressions, or fewer expected
      examinations Σ_k impressions_k θ_k, is not graded.
    maximum_position: rows beyond it are left out.
    maximum_session_impressions, maximum_session_clicks, maximum_click_rate: a session beyond one of
      them is a bot's (`click_counts.aggregate`).
    cart_value, purchase_value: what a cart and a purchase are worth; a click is worth 1.
    smoothing: examinations that went as expected, added to every pair.
    grades: how many there are.
    """

    expects: ClassVar[str] = "a file or a folder of its parts"

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

    def check(self) -> None:
        """Raises UserError for the first value out of its range."""
        lowest = {
            "minimum_impressions": 1,
            "minimum_examinations": 0,
            "maximum_position": 2,
            "maximum_session_impressions": 1,
            "maximum_session_clicks": 1,
            "cart_value": 0,
            "purchase_value": 0,
            "grades": 2,
        }
        for name, low in lowest.items():
            sections.at_least(f"data.clicks.{name}", getattr(self, name), low)
        sections.positive("data.clicks.smoothing", self.smoothing)
        sections.positive("data.clicks.maximum_click_rate", self.maximum_click_rate)
        sections.between("data.clicks.maximum_click_rate", self.maximum_click_rate, 0, 1)

    def read(self, request: Request) -> Source:
        """The graded pairs of the log at `request.path`; the summary says what became of it."""
        columns = {field: name for field, name in request.columns.items() if field in FIELDS}
        log = read(request.path, columns=columns, options=self)
        return dataclasses.replace(log.source, summary=log.summary._asdict())


class ClickSummary(NamedTuple):
    """What became of the log.

    impressions_read = impressions_used + Σ impressions_removed.values().
    impressions_removed: rows by each of RULES, 0 included.
    impressions_repeated: rows at a position and of a query and an item that their session has in an
      earlier row too. They count as shown again: people go back to a page.
    sessions, bot_sessions: 0 where the log has no sessions.
    pairs, pairs_kept: query-item pairs seen, and those with enough evidence to be graded.
    clicks, clicks_compared: all clicks that the position model saw, and those on pairs shown at
      more than one position; the propensities rest on the latter alone.
    positions: for each "position", "impressions", "clicks" and "propensity", first position first.
    iterations, converged: of the position model.
    """

    impressions_read: int
    impressions_used: int
    impressions_removed: dict[str, int]
    impressions_repeated: int
    sessions: int
    bot_sessions: int
    pairs: int
    pairs_kept: int
    clicks: int
    clicks_compared: int
    positions: list[dict[str, float]]
    iterations: int
    converged: bool


class ClickLog(NamedTuple):
    """What `read` gives: the graded pairs, what became of the log, and every pair's evidence.

    evidence: one row per row of `source.table`, in its order: `example_id`, `impressions`,
      `examinations` (expected), `clicks`, `relevance`.
    """

    source: Source
    summary: ClickSummary
    evidence: pa.Table


def read(
    path: str, *, columns: Mapping[str, str] | None = None, options: ClicksConfig | None = None
) -> ClickLog:
    """A search log, one row per shown item, as graded pairs: one row per query and item.

    1. Impossible rows and the sessions of bots are left out (`click_counts.aggregate`).
    2. The rest is summed up by query (under `normalise_query`), item and position.
    3. The position-based model tells how often each position is looked at (`click_model.fit`).
    4. A pair's relevance is its value over its expected examinations, smoothed
       (`click_model.relevance`). A row is worth 1 for the click, `cart_value` more for a cart and
       `purchase_value` more for a purchase.
    5. Pairs with enough evidence are graded "0" to "<grades - 1>" (`click_model.grade`).

    Memory grows with the distinct pairs and positions, and with the sessions where the log names
    them, but not with the rows. A log with sessions is read twice.

    Args:
      path: a file or a folder of files, all of one layout, as `readers.files.find` takes them.
      columns: which column holds a field of FIELDS, where it has another name. `title`, `session`,
        `cart` and `purchase` may be absent. `position` counts from 1. `click`, `cart` and
        `purchase` are 0 or 1 (or false, true); an empty cart or purchase is 0. A row with a cart or
        a purchase counts as clicked.
      options: what counts and how; ClicksConfig() where None.

    Returns:
      ClickLog. Its source's table has RAW_SCHEMA and is sorted by query and item. `example_id` is
      "<query_id>:<item_id>"; `query_id` is "q" and 16 hexadecimal digits of the query's BLAKE2b
      hash; `query` and `title` are the most frequent spellings; `split` is "" and `truth` null. The
      scale's gains are grade / (grades - 1). `unreadable` holds the pairs with too little evidence.

    Raises:
      UserError: a file or a needed column is missing or cannot be read, an option is out of its
        range, positions count from 0, no row is usable, there is no click, position bias cannot be
        told from relevance (see `click_model.fit`), or no pair has enough evidence.
    """
    options = options or ClicksConfig()
    options.check()
    log = click_counts.aggregate(
        path,
        columns=columns,
        maximum_position=options.maximum_position,
        maximum_session_impressions=options.maximum_session_impressions,
        maximum_session_clicks=options.maximum_session_clicks,
        maximum_click_rate=options.maximum_click_rate,
    )
    found = click_counts.as_arrays(
        log, cart_value=options.cart_value, purchase_value=options.purchase_value
    )
    model = click_model.fit(found.cells)
    relevance = click_model.relevance(found.cells, model.propensities, smoothing=options.smoothing)
    enough = _enough(relevance, options, path)
    grade = click_model.grade(relevance.estimate[enough], grades=options.grades)

    label = np.full(len(enough), None, dtype=object)
    label[enough] = [str(value) for value in grade.tolist()]
    table = _pair_table(found.pairs, label, log)
    rejected = table.filter(pa.array(~enough)).append_column(
        "reason", pa.array(["too_little_evidence"] * int((~enough).sum()), pa.string())
    )
    table = table.filter(pa.array(enough))
    source = Source(
        table=table,
        scale=LabelScale(
            names=tuple(str(value) for value in range(options.grades)),
            gains=tuple(value / (options.grades - 1) for value in range(options.grades)),
        ),
        location=str(path),
        unreadable=rejected.cast(REJECTED_SCHEMA),
    )
    return ClickLog(
        source,
        _summary(log, found, model, relevance, enough),
        _evidence_table(found, relevance, enough, table["example_id"]),
    )


def _enough(relevance: click_model.Relevance, options: ClicksConfig, path: str) -> np.ndarray:
    """Whether each pair has enough evidence to be graded; raises UserError where none has."""
    enough = (relevance.impressions >= options.minimum_impressions) & (
        relevance.examinations >= options.minimum_examinations
    )
    if not enough.any():
        raise UserError(
            f"clicks: no query-item pair of {path} has {options.minimum_impressions} impressions "
            f"and {options.minimum_examinations:g} expected examinations; the most that one has is "
            f"{relevance.impressions.max():.0f} and {relevance.examinations.max():.2g}: lower "
            "minimum_impressions or minimum_examinations, or give a longer log"
        )
    return enough


def _pair_table(pairs: pa.Table, label: np.ndarray, log: Log) -> pa.Table:
    """The pairs as rows of RAW_SCHEMA."""
    spelling = dict(
        zip(*(log.queries[name].to_pylist() for name in ("query", "text")), strict=True)
    )
    titles = dict(zip(*(log.titles[name].to_pylist() for name in ("item_id", "text")), strict=True))
    queries, items = pairs["query"].to_pylist(), pairs["item_id"].to_pylist()
    ids = {query: _query_id(query) for query in spelling}
    columns = {
        "example_id": [f"{ids[query]}:{item}" for query, item in zip(queries, items, strict=True)],
        "query_id": [ids[query] for query in queries],
        "query": [spelling[query] for query in queries],
        "item_id": items,
        "title": [titles.get(item) for item in items],
        "text": [""] * len(items),
        "label": label.tolist(),
        "split": [""] * len(items),
        "truth": [None] * len(items),
    }
    return pa.table(columns, schema=RAW_SCHEMA)


def _query_id(query: str) -> str:
    return "q" + hashlib.blake2b(query.encode(), digest_size=8).hexdigest()


def _summary(
    log: Log,
    found: Arrays,
    model: click_model.PositionModel,
    relevance: click_model.Relevance,
    enough: np.ndarray,
) -> ClickSummary:
    cells = found.cells
    clicks = np.bincount(cells.pair, cells.clicks)
    several = np.bincount(cells.pair) > 1
    at_position = {
        "position": found.positions,
        "impressions": np.bincount(cells.position, cells.impressions).astype(int),
        "clicks": np.bincount(cells.position, cells.clicks).astype(int),
        "propensity": model.propensities,
    }
    removed = {rule: log.removed.get(rule, 0) for rule in RULES}
    removed["position_not_comparable"] = found.stray
    removed["too_little_evidence"] = int(relevance.impressions[~enough].sum())
    used = int(relevance.impressions[enough].sum())
    if used + sum(removed.values()) != log.read:
        raise AssertionError(f"clicks lost rows: read {log.read}, used {used}, removed {removed}")
    return ClickSummary(
        impressions_read=log.read,
        impressions_used=used,
        impressions_removed=removed,
        impressions_repeated=log.repeated,
        sessions=log.sessions,
        bot_sessions=log.bot_sessions,
        pairs=len(enough),
        pairs_kept=int(enough.sum()),
        clicks=int(clicks.sum()),
        clicks_compared=int(clicks[several].sum()),
        positions=[
            dict(zip(at_position, values, strict=True))
            for values in zip(*(column.tolist() for column in at_position.values()), strict=True)
        ],
        iterations=len(model.log_likelihoods),
        converged=model.converged,
    )


def _evidence_table(
    found: Arrays,
    relevance: click_model.Relevance,
    enough: np.ndarray,
    example_id: pa.ChunkedArray,
) -> pa.Table:
    return pa.table(
        {
            "example_id": example_id,
            "impressions": relevance.impressions[enough].astype(np.int64),
            "examinations": relevance.examinations[enough],
            "clicks": np.bincount(found.cells.pair, found.cells.clicks)[enough].astype(np.int64),
            "relevance": relevance.estimate[enough],
        }
    )
