"""`sie-jax evaluate` on small tables whose metrics are known."""

import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_folders import by_features

from sie_jax.commands import evaluate

# query a: the scores put the items of grades 2, 1, 0 at ranks 2, 1 and 3; query b: all is right;
# query c has no positive grade
ROWS = [
    ("a", "red lamp", 2, 0.5, 3),
    ("a", "lamp a", 1, 0.9, 2),
    ("a", "red", 0, 0.1, 1),
    ("b", "blue b chair", 2, 0.8, 1),
    ("b", "table", 0, 0.2, 2),
    ("c", "c", 0, 0.3, 1),
    ("c", "c c", 0, "", 2),
]
A = (0.5 + 1 / math.log2(3)) / (1 + 0.5 / math.log2(3))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    lines = ["query,title,label,score,today"]
    lines += [",".join(map(str, row)) for row in ROWS]
    lines += [",without a query,1,0.5,1", "a,red lamp,2,0.5,3"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_column_of_scores_is_measured_beside_the_baselines(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "metrics.json"
    flags = [f"--pairs={pairs}", "--scores=score", "--current=today", f"--output={output}"]
    assert evaluate.entry(["evaluate", *flags]) == 0
    out = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert found["rows"] == {"read": 9, "kept": 7, "rejected": 2}
    assert found["rejected"] == {"missing_query": 1, "exact_duplicate": 1}
    assert found["queries"] == {
        "evaluated": 2,
        "without_positive_gain": 1,
        "without_highest_grade": 0,
    }
    assert list(found["test"]) == ["score", "random", "token_overlap", "bm25", "current"]
    # Rax computes in float32
    measured = {name: one["value"] for name, one in found["test"]["score"].items()}
    assert measured["ndcg@10"] == pytest.approx((A + 1) / 2, abs=1e-6)
    assert measured["mrr"] == pytest.approx((1 / 2 + 1) / 2, abs=1e-6)
    assert measured["recall@10"] == 1
    # today's score has a right and b wrong
    theirs = (1 + 1 / math.log2(3)) / 2
    difference = found["difference"]["current"]["ndcg@10"]
    assert difference["value"] == pytest.approx((A + 1) / 2 - theirs, abs=1e-6)
    assert found["test"]["current"]["ndcg@10"]["value"] == pytest.approx(theirs, abs=1e-6)
    assert found["verdict"]["ranker"] == "score"
    assert "the ranker, score, is above the best baseline" in found["verdict"]["notes"][0]
    notes = " ".join(found["verdict"]["notes"])
    assert "on 2 queries, ndcg@10" in notes
    assert "fewer than 50 queries (2)" in notes
    assert not re.search("training|test quer", notes)
    for said in ("9 rows read, 7 measured on", "1 rows left out: missing_query", "1 pairs have no"):
        assert said in out
    assert str(output) in out


def test_the_same_command_again_gives_the_same_bytes(pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "metrics.json"
    flags = [f"--pairs={pairs}", "--scores=score", f"--output={output}", "--gains=0,0.2,1"]
    assert evaluate.entry(["evaluate", *flags]) == 0
    first = output.read_bytes()
    assert evaluate.entry(["evaluate", *flags]) == 0
    assert output.read_bytes() == first


def test_a_run_on_qrels_is_measured_without_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 a 1\nq2 0 b\n")
    (tmp_path / "run").write_text("q1 Q0 b 1 2 t\nq1 Q0 a 2 1 t\nq2 Q0 a 1 1 t\n")
    output = tmp_path / "m.json"
    flags = [f"--qrels={tmp_path / 'qrels'}", f"--run={tmp_path / 'run'}", f"--output={output}"]
    assert evaluate.entry(["evaluate", *flags]) == 0
    found = json.loads(output.read_text())
    assert found["test"]["run"]["mrr"]["value"] == 3 / 4
    assert found["counts"] == {
        "qrels: lines that are no judgment, or not written as the first one is": 1,
        "unjudged documents in the run: they keep their rank and have no gain": 1,
        "of these, among the first ten": 1,
    }
    assert "verdict" not in found
    assert "1 unjudged documents in the run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "nothing is given: give --pairs=FILE with --scores=COLUMN or --model=FOLDER"),
        (["--pairs=PAIRS"], "--pairs is given: give --pairs=FILE with"),
        (["--pairs=PAIRS", "--scores=score", "--run=x"], "--pairs and --scores and --run is given"),
        (["--pairs=PAIRS", "--scores=scor"], "has no column 'scor'; it has query, title, label"),
        (["--pairs=PAIRS", "--scores=scor"], "today: perhaps --scores=score"),
        (["--pairs=PAIRS", "--scores=score", "--current=tody"], ": perhaps --current=today"),
        (["--pairs=PAIRS", "--scores=x"], ": name it with --scores=COLUMN"),
        (["--pairs=none.csv", "--scores=label"], "'none.csv' does not exist: give a file"),
        (["--pairs=PAIRS", "--scores=label"], "label is the column of the label"),
        (["--pairs=PAIRS", "--scores=title"], "line 2: the column 'title' holds 'red lamp'"),
        (["--pairs=PAIRS", "--scores=score", "--current=score"], "is the score that is measured"),
        (["--pairs=PAIRS", "--scores=score", "--gains=0,x"], "--gains=0,x: give numbers"),
        (["--pairs=PAIRS", "--scores=score", "--gains=0,1"], "give one gain for each of the 3"),
        (
            ["--pairs=PAIRS", "--scores=score", "--labels=bad,good"],
            "pairs.csv: cleaning: no row",
        ),
        (["--pairs=PAIRS", "--scores=score", "--output=m.csv"], "a file that ends in .json"),
        (["--pairs=PAIRS", "--scores=score", "--title=name"], "name it with --title=COLUMN"),
        (["--qrels=PAIRS", "--run=PAIRS"], "has no line of qrels"),
        (["--qrels=none", "--run=PAIRS"], "'none' does not exist: give a file"),
    ],
)
def test_what_cannot_be_measured_gets_one_line(
    pairs: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(pairs.parent.iterdir())
    code = evaluate.entry(["evaluate", *(flag.replace("PAIRS", str(pairs)) for flag in flags)])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: ")
    assert said in err
    assert sorted(pairs.parent.iterdir()) == before


def test_a_model_in_its_workdir_says_which_queries_it_knows(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, output = tmp_path / "run", tmp_path / "metrics.json"
    by_features(workdir / "model", {"low": 6, "median": 20})
    (workdir / "data").mkdir()
    known = pa.table({"query": ["A", "b", "d"], "split": ["train", "test", "validation"]})
    pq.write_table(known, workdir / "data" / "pairs.parquet")
    flags = [f"--pairs={pairs}", f"--model={workdir / 'model'}", f"--output={output}"]
    assert evaluate.entry(["evaluate", *flags]) == 0
    assert "queries of the run" not in capsys.readouterr().out  # a table that is no run's
    (workdir / "data" / "prepared.json").write_text("{}")
    assert evaluate.entry(["evaluate", *flags]) == 0
    out = capsys.readouterr().out
    assert "1 of the table's 3 queries are training or validation queries of the run" in out
    assert "no query of the table has more than 3 items: its recall@10 is 1" in out
    assert "2 of 3 queries have fewer than 3 items: this ranker compares" in out
    assert json.loads(output.read_text())["queries"]["known_to_model"] == 1
    (workdir / "model").rename(tmp_path / "model")  # nothing tells what it was trained on
    flags[1] = f"--model={tmp_path / 'model'}"
    assert evaluate.entry(["evaluate", *flags]) == 0
    assert "queries of the run" not in capsys.readouterr().out
    assert "known_to_model" not in json.loads(output.read_text())["queries"]


def test_of_longer_lists_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"a,{number},{number % 2},{number}" for number in range(11)]
    (tmp_path / "pairs.csv").write_text("\n".join(["query,title,label,score", *rows]))
    flags = [f"--pairs={tmp_path / 'pairs.csv'}", "--scores=score"]
    assert evaluate.entry(["evaluate", *flags]) == 0
    assert "no query of the table" not in capsys.readouterr().out
