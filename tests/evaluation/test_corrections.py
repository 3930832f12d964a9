import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation.audited import PLAIN, table_with_predictions

from sie_jax.commands import audit as command
from sie_jax.data.schema import CLEAN_SCHEMA, RAW_SCHEMA
from sie_jax.errors import UserError
from sie_jax.evaluation import audit, spreadsheet
from sie_jax.evaluation import corrections as correcting


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
        (["example_id,corrected_label"], "c.csv: no corrected_label is filled in"),
        (["example_id,corrected_label", "0,", "1, "], "no corrected_label is filled in"),
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


def test_corrections_without_their_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = table_with_predictions(tmp_path / "pairs.csv")
    apply = [*flags, f"--output={tmp_path / 'new.csv'}", f"--apply={tmp_path / 'c.csv'}"]
    assert command.entry(["audit", *apply]) == 2
    assert "c.csv: there is no such file: what the page" in capsys.readouterr().err
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
    (tmp_path / "au.csv").write_text("example_id,corrected_label\n")
    with pytest.raises(UserError, match=r"prepared\.json cannot be read .*labels are no list"):
        correcting.apply(tmp_path / "au.csv", str(tmp_path / "run"), tmp_path / "out.csv")
