import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report.examples import Elements

from sie_jax.commands import audit as command
from sie_jax.data.schema import CLEAN_SCHEMA, RAW_SCHEMA
from sie_jax.errors import UserError
from sie_jax.evaluation import audit, spreadsheet
from sie_jax.evaluation import corrections as correcting


def listed(pairs: pa.Table, names: tuple[str, ...], probabilities: np.ndarray) -> list[Any]:
    judged = audit.Judged(pairs, names, probabilities, RAW_SCHEMA.empty_table())
    return list(audit.ranked(judged).rows())


def row(**changed: Any) -> dict[str, Any]:
    return {
        "rank": 1,
        "rank_in_query": 1,
        "example_id": "17",
        "query_id": "q1",
        "item_id": "B00X",
        "query": 'shoes, "red"',
        "title": "Bücher\nin two lines; 靴",
        "label": "E",
        "prediction": "I",
        "split": "train",
        "label_probability": 0.125,
        "prediction_probability": 0.5,
        "corrected_label": "",
        "score": 0.1 + 0.2,
        "found_by": "model",
        "reason": "says E",
        **changed,
    }


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    rows = [row(), row(rank=2, example_id="18", score=-1.5, other="a key that has no column")]
    audit.write(path, path.with_suffix(".jsonl"), rows)
    back = audit.read(path, most=10)
    assert back == [{name: str(one[name]) for name in audit.COLUMNS} for one in rows]
    assert float(back[0]["score"]) == rows[0]["score"]  # to the last bit


def test_reads_no_more_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, path.with_suffix(".jsonl"), (row(rank=rank) for rank in range(1, 6)))
    assert [one["rank"] for one in audit.read(path, most=2)] == ["1", "2"]
    assert audit.read(path, most=0) == []


@pytest.mark.parametrize("column", ["query", "title", "example_id", "label"])
@pytest.mark.parametrize("start", spreadsheet.FORMULA_STARTS)
def test_no_cell_starts_as_a_formula(tmp_path: Path, column: str, start: str) -> None:
    path = tmp_path / "audit.csv"
    text = f'{start}HYPERLINK("http://evil", "click")'
    audit.write(path, path.with_suffix(".jsonl"), [row(**{column: text})])
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))[column] == f"'{text}"
    assert audit.read(path, most=1)[0][column] == text


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, path.with_suffix(".jsonl"), [row(score=-0.25)])
    assert audit.read(path, most=1)[0]["score"] == "-0.25"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    audit.write(path, path.with_suffix(".jsonl"), [row()])
    before = path.read_bytes()
    with pytest.raises(KeyError, match="rank_in_query"):
        audit.write(path, path.with_suffix(".jsonl"), [row(), {"rank": 2}])
    assert path.read_bytes() == before


def test_json_lines_hold_the_same_rows_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    rows = [row(title="=1+1"), row(rank=2)]
    audit.write(path, path.with_suffix(".jsonl"), rows)
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_ranked_counts_over_all_and_within_queries() -> None:
    pairs = pa.table(
        {
            "example_id": ["a", "b", "c", "d", "e"],
            "query_id": ["x", "y", "x", "x", "z"],
            "item_id": ["1", "2", "3", "4", "5"],
            "split": ["train"] * 5,
            "query": ["red", "blue", "red", "red", "green"],
            "title": ["t1", "t2", "t3", "t4", "t5"],
            "label": [0, 1, 1, 0, 0],
        }
    )
    probabilities = np.array([[0.75, 0.25], [0.75, 0.25], [0.125, 0.875], [0.5, 0.5], [0.5, 0.5]])
    rows = listed(pairs, ("no", "yes"), probabilities)
    assert all(set(one) == {"text", *audit.COLUMNS} for one in rows)
    chosen = ("rank", "rank_in_query", "example_id", "label", "prediction", "score")
    assert [tuple(one[name] for name in chosen) for one in rows] == [
        (1, 1, "b", "yes", "no", 0.75),
        (2, 1, "d", "no", "no", 0.5),
        (3, 1, "e", "no", "no", 0.5),
        (4, 2, "a", "no", "no", 0.25),
        (5, 3, "c", "yes", "yes", 0.125),
    ]
    assert [one["label_probability"] for one in rows] == [0.25, 0.5, 0.5, 0.75, 0.875]
    assert [one["prediction_probability"] for one in rows] == [0.75, 0.5, 0.5, 0.75, 0.875]
    assert {one["corrected_label"] for one in rows} == {""}


def table_with_predictions(path: Path, **changed: str) -> list[str]:
    cells = {"bad": "0.25", "good": "0.75"} | changed
    lines = [
        "query,name,grade,probability_bad,probability_good",
        "red shoes,shoes,bad,0.9,0.1",
        f"red shoes,=lamp,good,{cells['bad']},{cells['good']}",
        "blue hose,hose,good,1,0",
        "blue hose,case,strange,0.5,0.5",
        "blue hose",
    ]
    path.write_text("\n".join(lines))
    return ["--pairs", str(path), "--labels=bad,good", "--title=name", "--label=grade"]


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
    ("changed", "words"),
    [
        ({"bad": "0.5"}, "row 1 are [0.5, 0.75]: give numbers from 0 to 1 with a sum of 1"),
        ({"bad": "-1", "good": "2"}, "row 1 are [-1.0, 2.0]"),
        ({"bad": "nan"}, "row 1 are [nan, 0.75]"),
        ({"bad": "1e308", "good": "1e308"}, "row 1 are [1e+308, 1e+308]"),
        ({"bad": ""}, "row 1 are [nan, 0.75]"),
        ({"bad": "x"}, "line 3: the column 'probability_bad' holds 'x', which is not a finite"),
        ({"bad": "-inf", "good": "inf"}, "line 3: the column 'probability_bad' holds '-inf'"),
    ],
)
def test_predictions_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], words: str
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv", **changed)
    assert command.entry(["audit", *flags, f"--output={tmp_path / 'audit.csv'}"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "audit.csv").exists()


def test_a_label_without_probabilities_and_an_output_of_another_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    assert (
        command.entry(["audit", *flags, "--labels=bad,fair,good", f"--output={tmp_path / 'a.csv'}"])
        == 2
    )
    assert "no column 'probability_fair'" in capsys.readouterr().err
    assert command.entry(["audit", *flags, f"--output={tmp_path / 'a.xlsx'}"]) == 2
    assert "ends in .csv" in capsys.readouterr().err


PLAIN = """\
query,title,label,brand,rank,probability_0,probability_1
red shoes,shoes,1.0,a,7,0.9,0.1
red shoes,shoe,0,b,8,0.3,0.7
red shoes,lamp,0,,9,0.6,0.4
blue hose,hose,1,c,1,0.2,0.8
blue hose,hose,0,c,2,0.2,0.8
blue hose,"=case",1,d,3,0.25,0.75
"""


def plain(tmp_path: Path, *flags: str, text: str = PLAIN) -> list[dict[str, str]]:
    """The list of a table whose labels are 0 and 1, which the flags do not name."""
    (tmp_path / "pairs.csv").write_text(text)
    output = tmp_path / "audit.csv"
    done = command.entry(
        ["audit", f"--pairs={tmp_path / 'pairs.csv'}", f"--output={output}", *flags]
    )
    return audit.read(output, most=10) if done == 0 else []


def test_conflicts_and_near_duplicates_come_first_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = plain(tmp_path)
    shown = [(row["example_id"], row["found_by"], row["label"], row["score"]) for row in rows]
    assert [one[:3] for one in shown] == [
        ("3", "conflicting_labels", "1"),
        ("4", "conflicting_labels", "0"),
        ("0", "near_duplicate", "1"),  # "shoes" and "shoe": a query's titles of the same words
        ("1", "near_duplicate", "0"),
        ("2", "model", "0"),
        ("5", "model", "1"),
    ]
    # 1 − p_y
    assert [float(one[3]) for one in shown] == pytest.approx([0.2, 0.8, 0.9, 0.7, 0.4, 0.25])
    assert [row["reason"] for row in rows[1:5]] == [
        "says 0, and the same query and item are given 1; the model gives 20 % to 0 and 80 % to 1",
        "says 1, and another title of the same words is given 0; the model gives 10 % to 1 and "
        "90 % to 0; of 1 similar item of this query 1 is 0 and 0 are 1",
        "says 0, and another title of the same words is given 1; the model gives 30 % to 0 and "
        "70 % to 1; of 1 similar item of this query 1 is 1 and 0 are 0",
        "says 0; the model gives 60 % to 0, its first choice",
    ]
    assert [row["rank"] for row in rows] == list("123456")
    said = capsys.readouterr().out
    assert "6 pairs ranked in" in said
    assert "2 of them have conflicting labels: they come first" in said
    assert "left out" not in said
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["found_by"] == {"conflicting_labels": 2, "near_duplicate": 2, "model": 2}
    assert found["wrong"] is None
    assert "fewer than 30 queries" in found["notes"][0]


def test_further_columns_are_kept_for_the_annotator(tmp_path: Path) -> None:
    rows = plain(tmp_path)
    assert list(rows[0]) == [*audit.COLUMNS, "brand", "pair's rank"]
    assert [(row["brand"], row["pair's rank"]) for row in rows[2:]] == [
        ("a", "7"),
        ("b", "8"),
        ("", "9"),
        ("d", "3"),
    ]


@pytest.mark.parametrize(
    "flags",
    [
        ["--probabilities=chance of ", "--labels=0,1"],
        ["--probabilities=chance of "],
        ["--probabilities=chance of 0, chance of 1"],
    ],
)
def test_probabilities_by_prefix_or_by_column(tmp_path: Path, flags: list[str]) -> None:
    text = PLAIN.replace("probability_", "chance of ").replace("1.0", "1")
    assert len(plain(tmp_path, *flags, text=text)) == 6


@pytest.mark.parametrize(
    ("flags", "change", "words"),
    [
        ([], ("probability_1", "probability_good"), "of the labels 0, good: name them with"),
        ([], ("1.0", "high"), "name the scale with --labels=LOWEST,…,HIGHEST"),
        ([], ("title,", "name,"), "map the columns with --<field>=<column>"),
        (["--probabilities=p_"], ("", ""), "has no column that begins with 'p_'; it has query"),
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


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffexample_id;label;corrected_label\r\n3;1;0.0\r\n0;1;\r\n;;\r\n",
        "example_id,corrected_label\n3.0,0\n",
        'example_id;corrected_label\n3;"0,0"\n',
    ],
)
def test_corrections_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.csv").write_text(PLAIN)
    (tmp_path / "c.csv").write_bytes(text.encode())
    pairs, output = str(tmp_path / "pairs.csv"), tmp_path / "new.csv"
    columns = {"query": "query", "title": "title", "label": "label"}
    found = correcting.apply(tmp_path / "c.csv", pairs, output, columns=columns)
    assert found == (6, 1, 0, {})
    with output.open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["1.0", "0", "0", "0", "0", "1"]


def test_true_in_capitals_is_true() -> None:
    assert correcting.label_of("TRUE", ("false", "true")) == "true"
    assert correcting.label_of("E", ("e", "i")) is None
    assert correcting.label_of("3", ("1.0", "3.0")) == "3.0"
    assert correcting.label_of("3", ("3.0", "3.00")) is None


def test_conflicting_rows_of_a_run_are_corrected_too(tmp_path: Path) -> None:
    """They are not among its pairs: cleaning left them out, in the split of their query."""
    cells = {key: ["a", "b"] for key in CLEAN_SCHEMA.names}
    cells |= {"query": ["red", "blue"], "split": ["train", "test"]}
    kept = pa.table(cells | {"label": [0, 1], "truth": [-1, 1], "length": [5, 5]})
    raw = dict.fromkeys(RAW_SCHEMA.names, [""] * 3)
    raw |= {"example_id": ["x", "y", "z"], "query": ["Blue"] * 3, "title": ["lamp"] * 3}
    raw |= {"label": ["good", "bad", "worse"], "truth": [None] * 3}
    raw |= {"reason": ["conflicting_labels"] * 2 + ["label_outside_scale"]}
    data = tmp_path / "run" / "data"
    data.mkdir(parents=True)
    (data / "prepared.json").write_text('{"labels": ["bad", "good"]}')
    pq.write_table(kept, data / "pairs.parquet")
    pq.write_table(pa.table(raw), tmp_path / "run" / "rejected.parquet")
    (tmp_path / "au.csv").write_text("example_id,corrected_label\ny,good\n")
    output = tmp_path / "out.csv"
    found = correcting.apply(tmp_path / "au.csv", str(tmp_path / "run"), output)
    assert found == (4, 1, 0, {})
    with output.open(newline="") as file:
        rows = [(row["example_id"], row["label"], row["split"]) for row in csv.DictReader(file)]
    assert rows[2:] == [("x", "good", "test"), ("y", "good", "test")]


def corrections(path: Path, *rows: tuple[str, str]) -> Path:
    lines = ["rank,example_id,corrected_label", *(f"1,{key},{label}" for key, label in rows), ""]
    path.write_text("\n".join(lines))
    return path


def test_corrections_make_a_new_version_in_which_nothing_else_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    before = (tmp_path / "pairs.csv").read_text().splitlines()
    corrected = corrections(tmp_path / "c.csv", ("2", "bad"), ("0", ""), ("1", "good"))
    output = tmp_path / "new.csv"
    assert command.entry(["audit", *flags, f"--apply={corrected}", f"--output={output}"]) == 0
    assert "4 pairs in" in (said := capsys.readouterr().out)
    assert "1 labels changed, 1 confirmed" in said
    assert "1 rows left out, wrong_field_count: see " in said
    # ids are added; only row 2's label differs; the broken last line is set aside
    expected = [f"example_id,{before[0]}", *(f"{i},{line}" for i, line in enumerate(before[1:5]))]
    expected[3] = "2,blue hose,hose,bad,1,0"
    assert output.read_text().splitlines() == expected
    changes = output.with_suffix(".changes.csv").read_text().splitlines()
    assert changes[1:] == ["2,blue hose,hose,good,bad"]
    (broken,) = pq.read_table(output.with_suffix(".rejected.parquet")).to_pylist()
    assert broken["reason"] == "wrong_field_count"


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_corrections_of_every_kind_of_table(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"key": "=a", "query": "red", "title": "shoe", "label": "0", "brand": "b, c"},
        {"key": "b", "query": "red", "title": "lamp", "label": "1", "brand": ""},
    ]
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    columns = {"query": "query", "title": "title", "label": "label", "example_id": "key"}
    output = tmp_path / "new.csv"
    corrected = corrections(tmp_path / "c.csv", ("'=a", "1"))  # as the audit writes such an id
    found = correcting.apply(corrected, str(path), output, labels=("0", "1"), columns=columns)
    assert found == (2, 1, 0, {})
    with output.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{**rows[0], "label": "1"}, rows[1]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [("0", "fair")],
            "line 2: example_id 0 is corrected to 'fair', which is not on the scale bad",
        ),
        ([("0", "bad"), ("0", "good")], "example_id 0 is corrected to bad and to good: keep one"),
        (
            [(f"x{i}", "bad") for i in range(7)],
            "the example_id x0, x1, x2, x3, x4 and 2 more: give the data that was audited",
        ),
    ],
)
def test_corrections_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str]], words: str
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    corrected = corrections(tmp_path / "c.csv", *rows)
    before = sorted(tmp_path.iterdir())
    assert (
        command.entry(["audit", *flags, f"--apply={corrected}", f"--output={tmp_path / 'new.csv'}"])
        == 2
    )
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["example_id,corrected_label", "0"], "line 2 cannot be read (wrong_field_count)"),
        (["example_id,corrected_label", "0,bad,bad"], "line 2 cannot be read (wrong_field_count)"),
        (
            ["example_id,corrected_label,corrected_label", "0,bad,good"],
            "has the column 'corrected_label' more than once",
        ),
        (["example_id,example_id,corrected_label", "0,1,bad"], "'example_id' more than once"),
        ([""], "is empty"),
        (["example_id,corrected_label", '0,"bad'], "line 2: a quote opens"),
        (
            ["example_id,query,title,corrected_label", "0,red shoes,lamp,good"],
            "example_id 0 has another query or title than the pair of",
        ),
        (
            ["example_id,query,title,corrected_label", "0,blue hose,shoes,good"],
            "example_id 0 has another query or title than the pair of",
        ),
    ],
)
def test_corrections_that_cannot_be_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], words: str
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    (tmp_path / "c.csv").write_text("\n".join(lines))
    before = sorted(tmp_path.iterdir())
    apply = [f"--apply={tmp_path / 'c.csv'}", f"--output={tmp_path / 'new.csv'}"]
    assert command.entry(["audit", *flags, *apply]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


NAMED = {"query": "query", "title": "title", "label": "label", "example_id": "example_id"}


def keyed(path: Path, *keys: str) -> Path:
    """A table with a row for each id, its title the place from 0."""
    lines = [f"{key},red,lamp {place},0" for place, key in enumerate(keys)]
    path.write_text("\n".join(["example_id,query,title,label", *lines, ""]))
    return path


def corrected(tmp_path: Path, *rows: str, header: str = "example_id,corrected_label") -> list[str]:
    """The labels after these lines are applied to pairs.csv."""
    (tmp_path / "c.csv").write_text("\n".join([header, *rows, ""]))
    output = tmp_path / "new.csv"
    correcting.apply(
        tmp_path / "c.csv", str(tmp_path / "pairs.csv"), output, labels="01", columns=NAMED
    )
    with output.open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def test_an_id_of_several_pairs_corrects_none(tmp_path: Path) -> None:
    keyed(tmp_path / "pairs.csv", "a", "b", "a")
    assert corrected(tmp_path, "b,1") == ["0", "1", "0"]
    with pytest.raises(UserError, match="example_id a is that of 2 pairs of"):
        corrected(tmp_path, "b,1", "a,1")


def test_ids_that_look_escaped_are_told_apart(tmp_path: Path) -> None:
    """As an audit writes them, or, where only one can be meant, as they are."""
    keyed(tmp_path / "pairs.csv", "=A", "'=A", "''=A", "'B", "-1")
    with_texts = {"header": "example_id,query,title,corrected_label"}
    for place, key in enumerate(["=A", "'=A", "''=A"]):
        line = f"{spreadsheet.escape(key)},red,lamp {place},1"
        wanted = ["1" if one == place else "0" for one in range(5)]
        assert corrected(tmp_path, line, **with_texts) == wanted
    with pytest.raises(UserError, match="example_id =A could be the pair =A or the pair '=A"):
        corrected(tmp_path, "'=A,1")
    assert corrected(tmp_path, "=A,1", "'B,1", "-1,1") == ["1", "0", "0", "1", "1"]
    keyed(tmp_path / "pairs.csv", "'=A", "b")
    assert corrected(tmp_path, "'=A,1") == ["1", "0"]  # no other can be meant


@pytest.mark.parametrize("text", ["=A", "'=A", "''=A", "'A", "A", "", "'", "'-", "＝1", "'＝1"])
def test_unescape_gives_back_every_text(text: str) -> None:
    assert spreadsheet.unescape(spreadsheet.escape(text)) == text
    assert not spreadsheet.escape(text).startswith(spreadsheet.FORMULA_STARTS)


def test_an_audit_of_other_data_is_noticed(tmp_path: Path) -> None:
    """Without ids a row that was put in before moves all others to other ids."""
    flags = table_with_predictions(tmp_path / "pairs.csv")
    output = tmp_path / "audit.csv"
    assert command.entry(["audit", *flags, f"--output={output}"]) == 0
    rows = audit.read(output, most=10)
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, audit.COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "corrected_label": "bad"} for row in rows)
    apply = [*flags, f"--apply={output}", f"--output={tmp_path / 'new.csv'}"]
    assert command.entry(["audit", *apply]) == 0
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    (tmp_path / "pairs.csv").write_text("\n".join([lines[0], "new,new,bad,0.5,0.5", *lines[1:]]))
    assert command.entry(["audit", *apply]) == 2


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


def test_corrections_without_their_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    apply = [*flags, f"--output={tmp_path / 'new.csv'}", f"--apply={tmp_path / 'c.csv'}"]
    assert command.entry(["audit", *apply]) == 2
    assert "c.csv cannot be read" in capsys.readouterr().err
    (tmp_path / "c.csv").write_text("example_id,label\n0,bad\n")
    assert command.entry(["audit", *apply]) == 2
    assert "has no column 'corrected_label'; it has example_id, label" in capsys.readouterr().err
    assert command.entry(["audit", *apply, "--labels="]) == 2
    assert "name the scale with --labels=LOWEST,…,HIGHEST" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("label", ["good", "bad"], "holds string as label"),
        ("label", [0, 2], "has a label 2, which is no grade"),
        ("label", [0, None], "has a label None, which is no grade"),
        ("truth", [-2, 0], "has a truth -2, which is no grade"),
        ("rater:ann", [0.5, 1.0], "holds double as rater:ann"),
        ("title", [1, 2], "holds int64 as title"),
        ("length", None, "has no column 'length'"),
        ("query", None, "has no column 'query'"),
    ],
)
def test_a_run_whose_pairs_were_changed_is_not_corrected(
    tmp_path: Path, column: str, values: list[Any] | None, told: str
) -> None:
    """The pairs of a run are as the run left them, or are named with the way to make them again."""
    cells = {key: ["a", "b"] for key in CLEAN_SCHEMA.names} | {"label": [0, 1], "truth": [-1, 1]}
    cells |= {"rater:ann": [1, -1], "length": [5, 5]}
    data = tmp_path / "run" / "data"
    data.mkdir(parents=True)
    (data / "prepared.json").write_text('{"labels": ["bad", "good"]}')
    (tmp_path / "au.csv").write_text("example_id,corrected_label\na,good\n")
    made, run, output = tmp_path / "au.csv", str(tmp_path / "run"), tmp_path / "out.csv"
    pq.write_table(pa.table(cells), data / "pairs.parquet")
    assert correcting.apply(made, run, output).changed == 1
    output.unlink()
    changed = {name: given for name, given in cells.items() if name != column}
    changed |= {} if values is None else {column: values}
    pq.write_table(pa.table(changed), data / "pairs.parquet")
    with pytest.raises(UserError, match=rf"pairs\.parquet {told}.*the command that made the run"):
        correcting.apply(made, run, output)
    assert not output.exists()


@pytest.mark.parametrize("labels", ['"good"', "5", "[1, 2]", '{"a": 1}', "null"])
def test_a_run_whose_labels_were_changed_is_not_corrected(tmp_path: Path, labels: str) -> None:
    data = tmp_path / "run" / "data"
    data.mkdir(parents=True)
    (data / "pairs.parquet").touch()
    (data / "prepared.json").write_text(f'{{"labels": {labels}}}')
    with pytest.raises(UserError, match=r"prepared\.json cannot be read .*labels are no list"):
        correcting.apply(tmp_path / "au.csv", str(tmp_path / "run"), tmp_path / "out.csv")
