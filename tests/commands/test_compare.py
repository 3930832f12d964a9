"""`sie-jax compare` on two columns, and on the files that two runs leave."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.commands import compare

# query, title, label, the first score, the second one
ROWS = [
    ("lamp & oil", "x", 1, 2, 1),
    ("lamp & oil", "y", 0, 1, 2),
    ("chair", "x", 1, 2, 2),
    ("chair", "z", 0, 1, 1),
    ("desk", "x", 1, 2, 1),
    ("desk", "z", 0, 1, 2),
]
BEHIND = 1 / math.log2(3)  # nDCG of a query whose one good item is second


def told(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line of a command that must fail and leave nothing."""
    assert compare.entry(["compare", *flags]) == 2
    err = capsys.readouterr().err
    assert (err.startswith("error: "), err.count("\n")) == (True, 1)
    return err


def test_two_columns_of_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, output = tmp_path / "pairs.csv", tmp_path / "page.html"
    lines = ["query,title,label,new,old", *(",".join(map(str, row)) for row in ROWS)]
    pairs.write_text("\n".join(lines) + "\n")
    flags = [f"--pairs={pairs}", "--scores=new,old", f"--output={output}"]
    assert compare.entry(["compare", *flags]) == 0
    out = capsys.readouterr().out
    difference = 2 * (1 - BEHIND) / 3
    assert f"the difference is +{difference:.4f} (95% interval" in out
    assert "new is higher on 2 queries, lower on 0, equal on 1" in out
    assert f"  {1 - BEHIND:+.3f}  (1.000 against {BEHIND:.3f})  lamp & oil" in out
    assert "where old is furthest ahead" not in out
    html = output.read_text()
    for text in ("new minus old", "lamp &amp; oil", "Wins and losses by query"):
        assert text in html
    assert "the best baseline" not in html
    first = output.read_bytes()
    assert compare.entry(["compare", *flags]) == 0
    assert output.read_bytes() == first


def test_two_columns_of_one_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs.csv"
    lines = ["query,title,label,new,old", *(f"{q},{t},{y},{s},{2 * s}" for q, t, y, s, _ in ROWS)]
    pairs.write_text("\n".join(lines) + "\n")
    assert compare.entry(["compare", f"--pairs={pairs}", "--scores=new,old"]) == 0
    out = capsys.readouterr().out
    assert "new and old rank every query alike: on 3 queries, ndcg@10 is 1.0000 of both." in out
    assert "resolved" not in out


def test_a_column_that_is_missing_gets_both_columns_of_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,title,label,score,today\na,b,1,1,1\n")
    for given, near in (("score,tody", "score,today"), ("tody,score", "today,score")):
        err = told(capsys, f"--pairs={pairs}", f"--scores={given}")
        assert err.endswith(f": perhaps --scores={near}\n")
    assert "does not exist" in told(capsys, "--pairs=none.csv", "--scores=score,label")


def finished(folder: Path, rows: list[tuple[Any, ...]], column: int, **changes: Any) -> Path:
    """What `compare` reads of a finished run."""
    ids = [f"{query}-{title}" for query, title, *_ in rows]
    queries = [row[0] for row in rows]
    (folder / "data").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"verdict": {"ranker": "stack"}}))
    scale = {"labels": ["0", "1"], "gains": [0.0, 1.0]} | changes
    (folder / "data" / "prepared.json").write_text(json.dumps(scale))
    labels = pa.array([row[2] for row in rows], pa.int32())
    ranked = {"example_id": ids, "query_id": queries, "item_id": ids, "label": labels}
    scores = pa.array([row[column] for row in rows], pa.float64())
    pq.write_table(pa.table(ranked | {"stack-0": scores}), folder / "rankings.parquet")
    texts = {"query": queries, "title": [row[1] for row in rows]}
    pq.write_table(pa.table(ranked | texts), folder / "data" / "pairs.parquet")
    return folder


def test_two_runs_on_the_queries_that_both_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished(tmp_path / "one", ROWS, 3)
    # without the desk, in another order, and with another label of a chair
    rows = [(*row[:2], 1, *row[3:]) if row[:2] == ("chair", "z") else row for row in ROWS[3::-1]]
    other = finished(tmp_path / "other", [*rows, ("sofa", "x", 1, 1, 1)], 4)
    assert compare.entry(["compare", str(one), str(other)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "1 test query, 2 pairs, with the same items and labels in both runs\n"
        "left out: 1 test query whose items or labels differ, "
        f"1 test query of {one} alone, 1 test query of {other} alone\n"
    )
    assert "one (stack) is higher on 1 queries, lower on 0, equal on 0" in out
    assert "there are too few queries (1)" in out


def test_what_cannot_be_compared_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = finished(tmp_path / "one", ROWS[:2], 3), finished(tmp_path / "other", ROWS[2:], 4)
    gains = finished(tmp_path / "gains", ROWS, 3, gains=[0.0, 2.0])
    broken = finished(tmp_path / "broken", ROWS, 3)
    (broken / "metrics.json").unlink()
    half = finished(tmp_path / "half", ROWS, 3)
    (half / "metrics.json").write_text("{}")
    files = sorted(tmp_path.rglob("*"))
    assert "no test query with the same items" in told(capsys, str(one), str(other))
    assert "(1 and 2 test queries, 0 of them in both)" in told(capsys, str(one), str(other))
    assert "other labels or gains: 0 0, 1 1, and 0 0, 1 2" in told(capsys, str(one), str(gains))
    assert "are one folder" in told(capsys, str(one), f"{one}/../one")
    assert "is no workdir of a finished run" in told(capsys, str(one), str(half))
    assert "has no metrics.json, so no run was finished in it" in told(
        capsys, str(one), str(broken)
    )
    assert "none: there is no such folder: give" in told(capsys, str(one), str(tmp_path / "none"))
    for flags in ([], [str(one)], ["--pairs=a"], ["--pairs=a", "--scores=b"], [str(one), "a", "b"]):
        assert "give two workdirs" in told(capsys, *flags)
    assert "two different columns" in told(capsys, "--pairs=a", "--scores=b,b")
    assert "ends in .html" in told(capsys, str(one), str(other), "--output=a.json")
    assert "is read" in told(capsys, str(one), str(other), f"--output={one}/a.html")
    assert sorted(tmp_path.rglob("*")) == files
