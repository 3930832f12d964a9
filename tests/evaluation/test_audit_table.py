from pathlib import Path

import pytest
from evaluation.audited import PLAIN, plain, table_with_predictions

from sie_jax.commands import audit as command
from sie_jax.evaluation import audit, corrections


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


IDS = """\
split,item_id,query,title,label,example_id,query_id,probability_0,probability_1
test,B1,red shoes,shoes,1,x,q1,0.9,0.1
train,B2,blue hose,hose,0,y,q2,0.9,0.1
"""
FURTHER = ("example_id", "query_id", "item_id", "split")


def test_ids_and_splits_are_found_by_their_names(tmp_path: Path) -> None:
    rows = plain(tmp_path, text=IDS)
    assert [[row[name] for name in FURTHER] for row in rows] == [
        ["x", "q1", "B1", "test"],
        ["y", "q2", "B2", "train"],
    ]
    assert list(rows[0]) == list(audit.COLUMNS)
    (tmp_path / "c.csv").write_text("example_id,corrected_label\ny,1\n")
    made = corrections.apply(tmp_path / "c.csv", str(tmp_path / "pairs.csv"), tmp_path / "new.csv")
    assert made == (2, 1, 0, {})
    expected = IDS.replace("hose,0,y", "hose,1,y")
    assert (tmp_path / "new.csv").read_text().splitlines() == expected.splitlines()


def test_an_empty_name_leaves_a_column_to_the_annotator(tmp_path: Path) -> None:
    rows = plain(tmp_path, "--example_id=", "--split=", text=IDS)
    assert [row["example_id"] for row in rows] == ["0", "1"]
    assert [row["pair's example_id"] for row in rows] == ["x", "y"]
    assert [(row["split"], row["pair's split"]) for row in rows] == [("", "test"), ("", "train")]
    (tmp_path / "c.csv").write_text("example_id,corrected_label\n1,1\n")
    pairs, output = str(tmp_path / "pairs.csv"), tmp_path / "new.csv"
    corrections.apply(tmp_path / "c.csv", pairs, output, columns={"example_id": ""})
    expected = IDS.replace("hose,0,y", "hose,1,y")
    assert output.read_text().splitlines() == expected.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "flag"), [(",y,", ",x,", "example_id"), ("q2", "q1", "query_id")]
)
def test_an_id_that_repeats_can_be_left_to_the_annotator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, flag: str
) -> None:
    text = IDS.replace(old, new)
    assert plain(tmp_path, text=text) == []
    said = capsys.readouterr().err
    assert f"pairs.csv: cleaning: {flag} " in said
    assert said.endswith(f", or leave the column as it is with --{flag}=\n")
    assert len(plain(tmp_path, f"--{flag}=", text=text)) == 2
