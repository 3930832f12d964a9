import io
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from sie_jax.commands import flags
from sie_jax.report import terminal

CONFIG = Path(__file__).parents[2] / "configs/quickstart.py"


def estimate(value: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def values(ndcg: dict[str, Any]) -> dict[str, Any]:
    other = estimate(0.5, 0.4, 0.6)
    return {"ndcg@10": ndcg, "mrr": other, "accuracy": other, "macro_f1": other, "ndcg": other}


METRICS = {
    "rows": {"read": 12, "kept": 10, "rejected": 2},
    "queries": {"evaluated": 3},
    "test": {
        "random": values(estimate(0.25, None, None)),
        "uniform": values(estimate(0.7, 0.6512, 0.75)),
        "weighted": values(estimate(None, None, None)),
    },
    "difference": {
        "random": {"ndcg@10": estimate(-0.45, -0.5, -0.4)},
        "weighted": {"ndcg@10": estimate(None, None, None)},
    },
    "cost": {
        "uniform": {"seconds": 12.6, "forward_equivalents": 3000},
        "weighted": {"seconds": 40.2, "forward_equivalents": 4000},
    },
}


def printed(metrics: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(terminal.table(metrics))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def cells(metrics: dict[str, Any], run: str) -> list[str]:
    """The row of a run, a cell's lines joined by a space."""
    rows = zip(*(column.cells for column in terminal.table(metrics).columns), strict=True)
    (found,) = [row for row in rows if row[0] == run]
    return [str(cell).replace("\n", " ") for cell in found]


def test_one_row_per_run() -> None:
    half = "0.500 0.400, 0.600"
    assert cells(METRICS, "uniform") == [
        "uniform",
        "0.700 0.651, 0.750",
        *[half] * 2,
        "",
        "13",
        "3,000",
    ]
    assert cells(METRICS, "random") == [
        "random",
        "0.250",  # without an interval, only the value is shown
        *[half] * 2,
        "-0.450 -0.500, -0.400",
        *["", ""],  # a baseline has no cost
    ]
    assert cells(METRICS, "weighted") == [
        *("weighted", "undefined", *[half] * 2, "undefined", "40", "4,000")
    ]


def test_the_numbers_of_rows_and_queries_are_shown() -> None:
    text = " ".join("\n".join(printed(METRICS)).split())
    assert "Test split: 3 queries, 95 % intervals" in text
    assert "12 rows read, 10 kept, 2 rejected" in text
    assert "Forward passes count the work" in text


def test_three_commands_come_next() -> None:
    metrics = {"seeds": {"uniform": {"ndcg@10": [0.5]}}}
    command = ["--config=my file.py"]
    steps = terminal.next_steps(metrics, "runs/a b", command, audited=True)
    assert [step.split("\n")[1].strip() for step in steps] == [
        "sie-jax predict --model='runs/a b/model' --input=PAIRS --output=scores.parquet",
        "sie-jax audit --pairs='runs/a b' --apply='runs/a b/audit.csv' --output=corrected.csv",
        "sie-jax train '--config=my file.py' --config.train.seeds=3",
    ]
    more = {"seeds": {"uniform": {"ndcg@10": [0.5, 0.6]}}}
    steps = terminal.next_steps(more, "runs/a", command, audited=False)
    assert [step.split()[-1] for step in steps] == [
        "--output=scores.parquet",
        "OTHER_WORKDIR",
        "--pairs=LABELLED_PAIRS",
    ]


def test_what_ranks_below_a_baseline_is_not_scored_by_next() -> None:
    metrics = {
        "seeds": {"uniform": {"ndcg@10": [0.5]}},
        "verdict": {"ndcg@10": estimate(-0.02, -0.1, 0.06)},
        "contest": {"on": "validation queries", "few": True},
    }
    command = [f"--config={CONFIG}", "--config.train.folds", "0"]
    first, *others = terminal.next_steps(metrics, "runs/a", command, audited=True)
    suggested = first.split("\n")[1].strip()
    assert suggested == f"sie-jax train {shlex.join(command)} --config.train.folds=5"
    assert flags.parse(["train", *shlex.split(suggested)[2:]]).config.train.folds == 5
    metrics["contest"]["few"] = False
    measured, *more = terminal.next_steps(metrics, "runs/a", command, audited=True)
    assert measured.split("\n")[1].strip().startswith("sie-jax evaluate --model=runs/a/model")
    assert not any("sie-jax predict" in one for one in (first, *others, measured, *more))


def test_a_gain_has_its_sign() -> None:
    metrics = {
        **METRICS,
        "difference": {"weighted": {"ndcg@10": estimate(0.0312, -0.01, 0.07)}},
    }
    assert cells(metrics, "weighted")[4] == "+0.031 -0.010, +0.070"


def test_the_verdict_is_its_notes_one_a_line() -> None:
    notes = ["The exported ranker is [bold]bm25[/bold].", "Train on more queries."]
    text = terminal.verdict({"verdict": {"notes": notes}})
    assert text.plain.splitlines() == notes  # no markup is read
    assert terminal.verdict({}).plain == ""


def test_the_verdict_over_folds_comes_first() -> None:
    nested = {"verdict": {"notes": ["Over all queries.", "This rests on folds."]}}
    text = terminal.verdict({"nested": nested, "verdict": {"notes": ["On some queries.", "Less."]}})
    first, second = text.plain.split("\n\n")
    assert first == "Over all queries.\nThis rests on folds."
    assert second == "On some queries.\nLess."
    bold = [text.plain[span.start : span.end] for span in text.spans if span.style == "bold"]
    assert bold == ["Over all queries.", "On some queries."]
