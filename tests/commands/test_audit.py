import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation.audited import PLAIN, plain, table_with_predictions
from report.examples import Elements

from sie_jax.commands import audit as command
from sie_jax.evaluation import audit


def test_alone_on_foreign_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    output = tmp_path / "audit.csv"
    assert command.entry(["audit", *flags, f"--output={output}"]) == 0
    rows = audit.read(output, most=10)
    found = [(row["example_id"], row["prediction"], float(row["score"])) for row in rows]
    # 1 − p_y: 1 − 0, 1 − 0.75, 1 − 0.9
    assert found == [("2", "bad", 1.0), ("1", "good", 0.25), ("0", "bad", pytest.approx(0.1))]
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 3
    said = capsys.readouterr().out
    assert "3 pairs ranked" in said
    assert "1 rows left out, wrong_field_count" in said
    assert "1 rows left out, label_outside_scale" in said
    assert pq.read_table(tmp_path / "audit.rejected.parquet").num_rows == 2


@pytest.mark.parametrize(
    ("flags", "change", "words"),
    [
        ([], ("probability_1", "probability_good"), "of the labels 0, good: name them with"),
        ([], ("1.0", "high"), "name the scale with --labels=LOWEST,…,HIGHEST"),
        ([], ("title,", "name,"), "has no column 'title'; it has query, name,"),
        (["--probabilities=p_"], ("", ""), "has no column that begins with 'p_'; it has query"),
        ([], ("title,", "name,"), ": perhaps --title=name"),
        (["--query=a"], ("", ""), "has no column 'a'; it has query, title, label"),
        (["--query=a"], ("", ""), ": name it with --query=COLUMN"),
        (
            ["--probabilities=probability_0,probabilty_1"],
            ("", ""),
            ": perhaps --probabilities=probability_0,probability_1",
        ),
        (["--probabilities=brand,brand"], ("", ""), "give each column once, lowest grade first"),
        (
            ["--probabilities=probability_0,probability_1,rank"],
            ("", ""),
            "has the probabilities probability_0, probability_1, rank, and its labels are 0, 1",
        ),
        (["--top=0"], ("", ""), "--top=0: give at least 1"),
        (["--score=loss"], ("", ""), "--score: invalid choice: 'loss'"),
    ],
)
def test_flags_that_do_not_fit_the_table(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    change: tuple[str, str],
    words: str,
) -> None:
    assert plain(tmp_path, *flags, text=PLAIN.replace(*change)) == []
    said = capsys.readouterr().err
    assert words in said
    assert "--config" not in said
    assert said.count("\n") == 1


def test_the_first_rows_alone_and_another_score(tmp_path: Path) -> None:
    whole = plain(tmp_path)
    assert plain(tmp_path, "--top=5") == whole[:5]
    assert plain(tmp_path, "--top=1") == whole[:1]
    margins = [float(row["score"]) for row in plain(tmp_path, "--score=normalized_margin")]
    # (1 + p_other − p_y) / 2: with two labels the same as 1 − p_y
    assert margins == pytest.approx([float(row["score"]) for row in whole])


def test_how_many_are_wrong_is_said_and_a_weak_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["query,title,label,probability_0,probability_1"]
    for query in range(40):
        for item in range(10):
            truth = int(rng.random() < 0.5)
            label = truth if item else 1 - truth
            chance = 0.9 if truth else 0.1
            lines.append(f"q{query},item {query} {item},{label},{1 - chance:.1f},{chance:.1f}")
    plain(tmp_path, text="\n".join(lines))
    said = capsys.readouterr().out
    assert "about 40 of 400 labels are wrong, between " in said
    assert re.search(r"expected to be wrong: 9\d % of the first 4, 9\d % of the first 8, ", said)
    assert "random" not in said
    middle = [",".join([*line.split(",")[:3], "0.5,0.5"]) for line in lines[1:]]
    plain(tmp_path, text="\n".join([lines[0], *middle]))
    said = capsys.readouterr().out
    assert "this list is no better than a random one" in said
    assert "at most " in said


def test_its_page_has_the_rows_and_runs_none_of_their_texts(tmp_path: Path) -> None:
    attack = "</script/x><script/x>alert(1)<img/src=x/onerror=alert(2)>"  # cleaning leaves it
    plain(tmp_path, text=PLAIN.replace("lamp", attack))
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    elements = Elements(html)
    scripts = [of for tag, of in elements.found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert "img" not in {tag for tag, _ in elements.found}
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert data
    rows = json.loads(data[1])["rows"]
    assert [row["example_id"] for row in rows] == ["3", "4", "0", "1", "2", "5"]
    assert rows[4]["title"] == attack
    assert rows[2]["further"] == [["brand", "a"], ["pair's rank", "7"]]


def test_nothing_that_is_read_or_of_others_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, output = tmp_path / "pairs.csv", tmp_path / "audit.csv"
    flags = table_with_predictions(pairs)
    source = pairs.read_bytes()
    assert command.entry(["audit", *flags, f"--output={output}"]) == 0
    assert command.entry(["audit", *flags, f"--output={output}"]) == 0  # its own
    output.write_text(output.read_text().replace("bad,0.0", "bad,0.0", 1) + "\n")  # by hand
    edited = output.read_bytes()
    run = tmp_path / "run"  # with an audit.csv that its own stage made
    run.mkdir()
    (run / "audit.csv").write_bytes(edited)
    (tmp_path / "other.changes.csv").write_bytes(b"mine")
    capsys.readouterr()
    for given in (
        [f"--output={output}"],
        [f"--output={pairs}"],
        [f"--output={run / 'audit.csv'}"],
        [f"--apply={output}", f"--output={output}"],
        [f"--apply={output}", f"--output={pairs}"],
        [f"--apply={output}", f"--output={run / 'audit.csv'}"],
        [f"--apply={output}", f"--output={tmp_path / 'other.csv'}"],
    ):
        assert command.entry(["audit", *flags, *given]) == 2
        said = capsys.readouterr().err
        assert "is read: give another --output" in said or "is not what this command" in said
        assert said.count("\n") == 1
    assert pairs.read_bytes() == source
    assert output.read_bytes() == (run / "audit.csv").read_bytes() == edited
    assert (tmp_path / "other.changes.csv").read_bytes() == b"mine"


def test_rejected_rows_of_an_earlier_audit_are_gone(tmp_path: Path) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    output = tmp_path / "audit.csv"
    assert command.entry(["audit", *flags, f"--output={output}"]) == 0
    assert output.with_suffix(".rejected.parquet").exists()
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    (tmp_path / "pairs.csv").write_text("\n".join(lines[:4]))
    assert command.entry(["audit", *flags, f"--output={output}"]) == 0
    assert not output.with_suffix(".rejected.parquet").exists()
