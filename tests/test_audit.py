import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
