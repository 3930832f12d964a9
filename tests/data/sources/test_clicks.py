"""Click logs: which rows count, which do not and why, and the pairs that they become."""

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from sie_jax.data.cleaning import clean
from sie_jax.data.schema import RAW_SCHEMA, REJECTED_SCHEMA
from sie_jax.data.sources import click_counts, click_log, click_model, clicks
from sie_jax.data.sources.clicks import ClicksConfig
from sie_jax.errors import UserError

Row = dict[str, Any]


def row(**fields: Any) -> Row:
    return {
        "session": "s", "query": "red shoes", "item_id": "A", "title": "shoe", "position": 1,
        "click": 0, **fields,
    }  # fmt: skip


def shown(query: str, item: str, position: int, impressions: int, clicked: int) -> list[Row]:
    """Rows of one pair at one position, each in its own session."""
    return [
        row(
            session=f"{query} {item} {position} {at}", query=query, item_id=item,
            title=f"title of {item}", position=position, click=int(at < clicked),
        )
        for at in range(impressions)
    ]  # fmt: skip


# Four items of one query and one of another, at two positions; θ_2 = (5 + 3 + 1) / (10 + 6 + 2)
LOG = [
    *shown("red shoes", "A", 1, 20, 10),
    *shown("red shoes", "A", 2, 20, 5),
    *shown("red shoes", "B", 1, 20, 6),
    *shown("red shoes", "B", 2, 20, 3),
    *shown("red shoes", "C", 1, 20, 2),
    *shown("red shoes", "C", 2, 20, 1),
    *shown("red shoes", "D", 2, 40, 0),
    *shown("Blue  Sofa", "E", 2, 30, 9),
]


def written(path: Path, rows: list[Row]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture
def log(tmp_path: Path) -> str:
    return written(tmp_path / "log.parquet", LOG)


def told(call: Any) -> str:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_log_becomes_graded_pairs(log: str) -> None:
    found = clicks.read(log)
    table = found.source.table
    assert table.schema == RAW_SCHEMA
    assert table["item_id"].to_pylist() == ["E", "A", "B", "C", "D"]
    # θ = (1, 1/2): expected examinations 15, 30, 30, 30, 20; s examinations as expected are added
    s, theta = 5.0, 0.5
    first, second = (10 + 6 + 2) / 60, (5 + 3 + 1 + 0 + 9) / (theta * 130)
    both = (first + second) / 2
    expected = [
        (9 + s * second) / (15 + s),
        (15 + s * both) / (30 + s),
        (9 + s * both) / (30 + s),
        (3 + s * both) / (30 + s),
        (0 + s * second) / (20 + s),
    ]
    np.testing.assert_allclose(found.evidence["relevance"].to_numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(found.evidence["examinations"].to_numpy(), [15, 30, 30, 30, 20])
    assert found.evidence["impressions"].to_pylist() == [30, 40, 40, 40, 40]
    assert found.evidence["clicks"].to_pylist() == [9, 15, 9, 3, 0]
    assert found.evidence["example_id"].equals(table["example_id"])
    # Relevance falls in the order E, A, B, C, D; five pairs on quarters.
    grade = click_model.grade(np.array(expected), grades=4)
    assert (
        table["label"].to_pylist() == [str(value) for value in grade] == ["3", "3", "2", "1", "0"]
    )
    assert found.source.scale.names == ("0", "1", "2", "3")
    assert found.source.scale.gains == (0, 1 / 3, 2 / 3, 1)
    (sofa,) = table.filter(pa.array([True, False, False, False, False])).to_pylist()
    query_id = "q" + hashlib.blake2b(b"blue sofa", digest_size=8).hexdigest()
    assert sofa == {
        "example_id": f"{query_id}:E", "query_id": query_id, "query": "Blue  Sofa", "item_id": "E",
        "title": "title of E", "text": "", "label": "3", "split": "", "truth": None,
    }  # fmt: skip


def test_cleaning_takes_the_table(log: str) -> None:
    source = clicks.read(log).source
    cleaned = clean(source.table, source.scale, max_query_characters=99, max_title_characters=99)
    assert cleaned.kept.num_rows == 5


def test_the_summary_accounts_for_every_row(tmp_path: Path) -> None:
    bad = [
        row(query=" "),
        row(query=None),
        row(item_id=""),
        row(position=-1),
        row(position=None),
        row(click=2),
        row(click=None),
        row(position=101),
        *[row(session="scraper", position=2) for _ in range(1001)],
        *[row(session="clicker", click=1) for _ in range(101)],
        *[row(session="eager", click=int(at < 11)) for at in range(20)],
        *[
            row(session="keen", click=int(at < 10)) for at in range(20)
        ],  # half is not more than the limit
        *[row(session="brief", click=1) for _ in range(19)],  # too few rows to judge
        *[
            row(session=None, click=1) for _ in range(120)
        ],  # rows without a session belong to no bot
        *[row(item_id="rare") for _ in range(9)],
    ]
    found = clicks.read(written(tmp_path / "log.parquet", LOG + bad))
    summary = found.summary
    assert {rule: count for rule, count in summary.impressions_removed.items() if count} == {
        "missing_query": 2,
        "missing_item": 1,
        "impossible_position": 2,
        "impossible_event": 2,
        "bot_impressions": 1001,
        "bot_clicks": 101,
        "bot_click_rate": 20,
        "position_too_deep": 1,
        "too_little_evidence": 9,
    }
    assert tuple(summary.impressions_removed) == click_log.RULES
    assert summary.impressions_read == len(LOG + bad)
    assert summary.impressions_used == len(LOG) + 20 + 19 + 120
    assert summary.impressions_used == sum(found.evidence["impressions"].to_pylist())
    # of "keen", "brief" and "s", each at one place; not those of a bot or without a session
    assert summary.impressions_repeated == 19 + 18 + 8
    assert summary.bot_sessions == 3
    # one session per row of LOG, then "s", five named ones
    assert summary.sessions == len(LOG) + 1 + 5
    assert (summary.pairs, summary.pairs_kept) == (6, 5)
    assert [entry["position"] for entry in summary.positions] == [1, 2]
    assert sum(entry["impressions"] for entry in summary.positions) == summary.impressions_used + 9


def test_repeated_rows_are_counted_over_all_parts(tmp_path: Path) -> None:
    again = [
        LOG[0],
        LOG[0] | {"query": " RED  shoes", "title": "another"},  # the same query
        LOG[0] | {"position": 2},
        LOG[0] | {"item_id": "B"},
        LOG[0] | {"session": "another"},
        LOG[-1] | {"click": 1},
        LOG[-1] | {"session": None},
        LOG[-1] | {"session": " "},
    ]
    for place, rows in enumerate((LOG, again[:1], again[1:])):
        written(tmp_path / f"{place}.parquet", rows)
    assert clicks.read(str(tmp_path)).summary.impressions_repeated == 3
    plain = [{name: cell for name, cell in one.items() if name != "session"} for one in LOG * 2]
    path = written(tmp_path / "plain.parquet", plain)
    assert clicks.read(path).summary.impressions_repeated == 0


def test_numbers_and_texts_of_one_log_are_the_same_rows(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([one | {"item_id": ord(one["item_id"])} for one in LOG])
    plain = clicks.read(written(tmp_path / "plain.parquet", table.to_pylist()))
    half = pa.array([None if place % 2 else 0.0 for place in range(len(LOG))])
    for name, kind in (
        ("item_id", pa.float32()),
        ("item_id", pa.decimal128(21, 2)),
        ("position", pa.float64()),
        ("position", pa.decimal128(19, 0)),
        ("click", pa.bool_()),
        ("query", pa.string_view()),
        ("query", pa.dictionary(pa.int8(), pa.large_string())),
    ):
        at = table.column_names.index(name)
        other = table.set_column(at, name, table[name].combine_chunks().cast(kind))
        other = other.append_column("cart", pc.if_else(half.is_null(), np.nan, half))
        path = tmp_path / "other.parquet"
        pq.write_table(other, path)
        found = clicks.read(str(path))
        assert found.source.table.equals(plain.source.table), (name, kind)
        assert found.summary == plain.summary
    missing = [None if place < 40 else 65.0 for place in range(len(LOG))]
    path = tmp_path / "missing.parquet"
    ids = pa.array([np.nan if one is None else one for one in missing])
    pq.write_table(table.set_column(table.column_names.index("item_id"), "item_id", ids), path)
    assert clicks.read(str(path)).summary.impressions_removed["missing_item"] == 40


def test_pairs_with_too_little_evidence_are_set_aside(log: str) -> None:
    found = clicks.read(log, options=ClicksConfig(minimum_impressions=40, minimum_examinations=25))
    assert found.source.table["item_id"].to_pylist() == ["A", "B", "C"]
    unreadable = found.source.unreadable
    assert unreadable.schema == REJECTED_SCHEMA
    rows = unreadable.to_pylist()
    assert [(r["item_id"], r["title"], r["reason"], r["label"]) for r in rows] == [
        ("E", "title of E", "too_little_evidence", None),
        ("D", "title of D", "too_little_evidence", None),
    ]
    assert rows[0]["query"] == "Blue  Sofa"
    assert found.summary.impressions_removed["too_little_evidence"] == 30 + 40


def test_the_order_of_rows_and_the_parts_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        row(
            session=f"s{rng.integers(80)}", query=f"{rng.choice(['Q', 'q', ' q '])}{query}",
            item_id=f"i{item}", title=f"{rng.choice(['One', 'Two'])} {item}", position=position,
            click=int(rng.random() < 0.6 / position),
        )
        for query, item, position in rng.integers((0, 0, 1), (5, 8, 6), (4000, 3)).tolist()
    ]  # fmt: skip
    whole = clicks.read(written(tmp_path / "log.parquet", rows))
    folder = tmp_path / "parts"
    folder.mkdir()
    shuffled = [rows[at] for at in rng.permutation(len(rows))]
    for part, start in enumerate(range(0, len(rows), 700)):
        written(folder / f"{part}.parquet", shuffled[start : start + 700])
    monkeypatch.setattr(click_log, "CHUNK_ROWS", 64)
    monkeypatch.setattr(click_counts, "CHUNK_ROWS", 64)
    parts = clicks.read(str(folder))
    assert parts.summary == whole.summary
    assert parts.source.table.equals(whole.source.table)
    assert parts.source.unreadable.equals(whole.source.unreadable)
    assert parts.evidence.equals(whole.evidence)


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "jsonl", "jsonl.gz", "ndjson"])
def test_every_format_gives_the_same(tmp_path: Path, log: str, kind: str) -> None:
    path = tmp_path / f"again.{kind}"
    if kind.startswith(("csv", "tsv")):
        options = pa_csv.WriteOptions(delimiter="\t" if kind == "tsv" else ",")
        sink = pa.BufferOutputStream()
        pa_csv.write_csv(pa.Table.from_pylist(LOG), sink, options)
        content = sink.getvalue().to_pybytes()
    else:
        content = "".join(json.dumps(line) + "\n" for line in LOG).encode()
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    found, expected = clicks.read(str(path)), clicks.read(log)
    assert found.source.table.equals(expected.source.table)
    assert found.summary == expected.summary


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    text = tmp_path / "log.csv"
    lines = [",".join(str(value) for value in line.values()) for line in LOG]
    text.write_text("\n".join([",".join(LOG[0]), *lines[:5], "a,b", *lines[5:], "c"]) + "\n")
    summary = clicks.read(str(text)).summary
    assert summary.impressions_removed["unreadable_line"] == 2
    assert summary.impressions_read == len(LOG) + 2
    objects = tmp_path / "log.jsonl"
    broken = ["{", "[1]", *[json.dumps(line) for line in LOG]]
    objects.write_text("\n".join(broken) + "\n")
    assert clicks.read(str(objects)).summary.impressions_removed["unreadable_line"] == 2


def test_columns_of_other_names_and_kinds(tmp_path: Path, log: str) -> None:
    rows = [
        {
            "visitor": line["session"], "search": line["query"], "sku": line["item_id"],
            "name": line["title"], "rank": float(line["position"]), "clicked": line["click"] == 1,
        }
        for line in LOG
    ]  # fmt: skip
    columns = {
        "session": "visitor", "query": "search", "item_id": "sku", "title": "name",
        "position": "rank", "click": "clicked",
    }  # fmt: skip
    found = clicks.read(written(tmp_path / "other.parquet", rows), columns=columns)
    assert found.source.table.equals(clicks.read(log).source.table)


def test_carts_and_purchases_count_more(tmp_path: Path) -> None:
    rows = [{**line, "cart": 0, "purchase": None} for line in LOG]
    bought = row(item_id="B", title="title of B", cart=1, purchase=1)
    carted = row(item_id="C", title="title of C", cart=1, purchase=0)  # so it counts as clicked
    path = written(tmp_path / "log.parquet", [*rows, bought, carted])
    cells = click_counts.aggregate(path).cells.to_pylist()
    at_first = {cell["item_id"]: cell for cell in cells if cell["position"] == 1}
    assert [at_first["B"][name] for name in ("clicks", "carts", "purchases")] == [6 + 1, 1, 1]
    assert [at_first["C"][name] for name in ("clicks", "carts", "purchases")] == [2 + 1, 1, 0]
    arrays = click_counts.as_arrays(
        click_counts.aggregate(path), cart_value=3.0, purchase_value=7.0
    )
    extra = arrays.cells.value - arrays.cells.clicks
    assert sorted(extra[extra > 0]) == [3.0, 3.0 + 7.0]


def test_without_titles_and_sessions(tmp_path: Path) -> None:
    rows = [{k: v for k, v in line.items() if k not in ("title", "session")} for line in LOG]
    found = clicks.read(written(tmp_path / "log.parquet", rows))
    assert found.source.table["title"].null_count == 5
    assert (found.summary.sessions, found.summary.bot_sessions) == (0, 0)


def test_the_commonest_spelling_and_title_stand_for_all(tmp_path: Path) -> None:
    rows = [dict(line) for line in LOG]
    for line in rows[:40]:  # item A
        line["query"] = "RED shoes"
    for line in rows[:19]:
        line["title"] = "old title"
    for line in rows[19:21]:
        line["title"] = ""
    table = clicks.read(written(tmp_path / "log.parquet", rows)).source.table.to_pylist()
    assert {line["query"] for line in table} == {"Blue  Sofa", "red shoes"}
    # 19 rows each: the first in the alphabet
    assert next(line["title"] for line in table if line["item_id"] == "A") == "old title"


def test_a_stray_position_is_left_out_and_a_gap_is_refused(tmp_path: Path) -> None:
    stray = [row(item_id="far", position=9), row(item_id="far", position=9, click=1)]
    summary = clicks.read(written(tmp_path / "log.parquet", LOG + stray)).summary
    assert summary.impressions_removed["position_not_comparable"] == 2
    assert [entry["position"] for entry in summary.positions] == [1, 2]
    gap = shown("red shoes", "far", 9, 20, 5)  # more than a twentieth of the log
    path = written(tmp_path / "gap.parquet", LOG + gap)
    assert "the log's 3 positions fall into 2 groups" in told(lambda: clicks.read(path))


def test_a_log_without_exploration(tmp_path: Path) -> None:
    rows = [line for line in LOG if line["position"] == (1 if line["item_id"] in "AB" else 2)]
    path = written(tmp_path / "log.parquet", rows)
    assert "position bias cannot be told from relevance" in told(lambda: clicks.read(path))


def test_bad_columns(log: str, tmp_path: Path) -> None:
    message = told(lambda: clicks.read(log, columns={"click": "clicked"}))
    assert "no column 'clicked' for click; it has session, query, item_id" in message
    assert "no field 'clicks'" in told(lambda: clicks.read(log, columns={"clicks": "click"}))
    rows = [{k: v for k, v in line.items() if k != "click"} for line in LOG]
    path = written(tmp_path / "log2.parquet", rows)
    assert "no column 'click'; it has" in told(lambda: clicks.read(path))
    assert "columns.click=" in told(lambda: clicks.read(path))


def test_logs_without_evidence(tmp_path: Path) -> None:
    def message(rows: list[Row]) -> str:
        path = written(tmp_path / "log.parquet", rows)
        return told(lambda: clicks.read(path))

    assert "no clicks" in message([{**line, "click": 0} for line in LOG])
    words = message([{**line, "position": "top"} for line in LOG])
    assert f"none of the {len(LOG)} rows" in words
    assert f"impossible_position {len(LOG)}" in words
    assert "position 'top'" in words
    assert "impossible_event" in message([{**line, "click": "maybe"} for line in LOG])
    zeros = message([{**line, "position": line["position"] - 1} for line in LOG])
    assert "positions count from 1" in zeros
    few = message(shown("q", "A", 1, 5, 2) + shown("q", "A", 2, 4, 1))
    assert "the most that one has is 9" in few


def test_files_that_are_not_a_log(tmp_path: Path, log: str) -> None:
    assert "'' does not exist" in told(lambda: clicks.read(""))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is an empty folder" in told(lambda: clicks.read(str(empty)))
    for name, content, words in (
        ("log.xlsx", "x", "ends in '.xlsx': give a file that ends in .csv"),
        ("log.csv", "", "is empty"),
        ("log.jsonl", "", "is empty"),
        ("header.csv", "query,item_id,position,click\n", "has no rows"),
        (
            "log.parquet.csv",
            "a,b\n1,2\n",
            "no columns 'query', 'item_id', 'position', 'click'; it has a, b",
        ),
        ("bad.parquet", "no parquet", "cannot be read"),
    ):
        path = tmp_path / name
        path.write_text(content)
        assert words in told(lambda path=path: clicks.read(str(path)))
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"query,item_id,position,click\ncaf\xe9,A,1,1\n")
    assert f"{latin} cannot be read" in told(lambda: clicks.read(str(latin)))


def test_parts_that_differ_in_their_columns(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    written(folder / "1.parquet", LOG)
    written(folder / "2.parquet", [{"query": "q"}])
    assert "2.parquet has no column" in told(lambda: clicks.read(str(folder)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"minimum_impressions": 0},
        {"minimum_examinations": -1.0},
        {"maximum_position": 1},
        {"maximum_session_impressions": 0},
        {"maximum_session_clicks": 0},
        {"maximum_click_rate": 0.0},
        {"maximum_click_rate": 1.1},
        {"cart_value": float("nan")},
        {"purchase_value": -1.0},
        {"smoothing": 0.0},
        {"grades": 1},
    ],
)
def test_arguments_out_of_range(log: str, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    assert f"{name} is" in told(lambda: clicks.read(log, options=ClicksConfig(**arguments)))


ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "click_logs.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_gives_what_it_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found = names["found"]
    theta = [entry["propensity"] for entry in found.summary.positions]
    np.testing.assert_allclose(theta, [1, 0.5])
    assert found.evidence["clicks"].to_pylist() == [44, 42]
    first, second = found.source.table["label"].to_pylist()
    assert int(first) < int(second)
