"""Tables and the verdict for the terminal."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

METRIC, ON_VALIDATION = "ndcg@10", "validation queries"  # as metrics.json names them
MEASURE = "measure it on other labels"
SHOWN = ("ndcg@10", "accuracy", "macro_f1")
COST = (
    "Forward passes count the work (a backward pass is 2), and seconds hold compiling and whatever "
    "else the machine did."
)


def table(metrics: dict[str, Any]) -> Table:
    """One row for each run of metrics.json: main metrics, difference from uniform, and cost."""
    rows, queries = metrics["rows"], metrics["queries"]
    made = _table(
        title=f"Test split: {queries['evaluated']} queries, 95 % intervals",
        caption=(
            f"{rows['read']} rows read, {rows['kept']} kept, {rows['rejected']} rejected\n{COST}"
        ),
    )
    made.add_column("run", no_wrap=True, min_width=13)
    for name in (*SHOWN, "ndcg@10 − uniform", "seconds", "forward passes"):
        made.add_column(name, justify="right")
    for run, values in metrics["test"].items():
        difference = metrics["difference"].get(run)
        cost = metrics["cost"].get(run)
        made.add_row(
            run,
            # a ranker that names no classes has no accuracy
            *(_below(values[name]) if name in values else "" for name in SHOWN),
            _below(difference["ndcg@10"], "+") if difference else "",
            f"{cost['seconds']:.0f}" if cost else "",
            f"{cost['forward_equivalents']:,.0f}" if cost else "",
        )
    return made


def recommenders(metrics: dict[str, Any]) -> Table:
    """One row for each recommender of metrics.json: what it found, and what its lists show."""
    users = metrics["users"]
    made = _table(
        title=f"{users['test']:,} test users, all {users['items']:,} items ranked, 95 % intervals",
        caption=COST,
    )
    shown = [
        name for name in ("ndcg@10", "recall@10", "recall@20") if name in _any(metrics["test"])
    ]
    made.add_column("recommender", no_wrap=True, min_width=13)
    for name in (*shown, "ndcg@10 − uniform", "coverage", "seconds"):
        made.add_column(name, justify="right")
    for run, values in metrics["test"].items():
        difference = metrics["difference"].get(run)
        cost = metrics["cost"].get(run)
        made.add_row(
            run,
            *(_below(values[name]) for name in shown),
            _below(difference["ndcg@10"], "+") if difference else "",
            f"{metrics['beyond'][run]['coverage']:.3f}",
            f"{cost['seconds']:.0f}" if cost else "",
        )
    return made


def retrieved(metrics: dict[str, Any]) -> Table:
    """One row for each way to search of metrics.json."""
    made = _table(
        title=(
            f"{metrics['queries']['evaluated']:,} test queries, a catalogue of "
            f"{metrics['catalogue']['items']:,} items, 95 % intervals"
        ),
        caption=f"left out: {metrics['queries']['without_wanted_item']:,} queries that want none",
    )
    shown = [name for name in _any(metrics["test"]) if name.startswith(("recall", "ndcg"))]
    made.add_column("way", no_wrap=True, min_width=10)
    for name in (*shown, "unjudged"):
        made.add_column(name, justify="right")
    for way, values in metrics["test"].items():
        unjudged = f"{metrics['unjudged'][way]:.2f}"
        made.add_row(way, *(_below(values[name]) for name in shown), unjudged)
    return made


def conversed(metrics: dict[str, Any]) -> Table:
    """One row for each way to ask a search for a chat, of metrics.json."""
    made = _table(
        title=f"{metrics['chats']['test']:,} test chats, {metrics['chats']['items']:,} items, "
        "95 % intervals",
        caption="",
    )
    shown = list(_any(metrics["test"]))
    made.add_column("asked with", no_wrap=True, min_width=14)
    for name in (*shown, "ndcg@10 − all"):
        made.add_column(name, justify="right")
    for how, values in metrics["test"].items():
        difference = metrics["difference"].get(how)
        made.add_row(
            how,
            *(_below(values[name]) for name in shown),
            _below(difference["ndcg@10"], "+") if difference else "",
        )
    return made


def _any(found: dict[str, Any]) -> Any:
    return next(iter(found.values()))


def measured(found: dict[str, Any]) -> Table:
    """One row for each ranking of `evaluation.measuring`, the bounds below each value."""
    ranker, queries = found["ranker"], found["queries"]
    made = _table(
        title=f"{queries['evaluated']:,} queries, 95 % intervals over queries",
        caption=(
            f"left out: {queries['without_positive_gain']:,} queries without a positive gain; of "
            f"mrr and recall, {queries['without_highest_grade']:,} more without the highest grade"
        ),
    )
    metrics = list(found["test"][ranker])
    made.add_column("ranking", no_wrap=True)
    for name in metrics:
        made.add_column(name, justify="right")
    if found["difference"]:
        made.add_column(f"ndcg@10, {ranker} minus it", justify="right")
    for run, values in found["test"].items():
        difference = found["difference"].get(run)
        made.add_row(
            Text(run),
            *(_below(values[name]) for name in metrics),
            _below(difference["ndcg@10"], "+") if difference else "",
        )
    return made


def verdict(metrics: dict[str, Any]) -> Text:
    """The notes of the verdict of metrics.json, the first one bold; no text without a verdict.

    Those of a nested cross-validation come first, an empty line before the others.
    """
    verdicts = [one["verdict"] for one in (metrics.get("nested", {}), metrics) if "verdict" in one]
    paragraphs = [
        Text("\n").join(
            Text(note, style="" if number else "bold") for number, note in enumerate(one["notes"])
        )
        for one in verdicts
    ]
    return Text("\n\n").join(paragraphs)


def next_steps(
    metrics: dict[str, Any], workdir: str, command: Sequence[str], *, audited: bool
) -> list[str]:
    """The three commands that make sense after a run, each behind what it does.

    command: the words behind `sie-jax train` that made the run. audited: whether the run left a
    list of labels to check. Where a baseline ranked better on the test queries, the first of them
    is no longer to score by what is exported.
    """
    contest, verdict = metrics.get("contest", {}), metrics.get("verdict", {})
    model, labels = os.path.join(workdir, "model"), os.path.join(workdir, "audit.csv")
    seeds = max((len(one["ndcg@10"]) for one in metrics["seeds"].values()), default=1)
    again = f"sie-jax train {shlex.join(command)} --config.train.seeds=3"
    steps = {
        "score your own pairs by it": (
            f"sie-jax predict --model={shlex.quote(model)} --input=PAIRS --output=scores.parquet"
        ),
        f"correct labels in {labels} and apply them": (
            f"sie-jax audit --pairs={shlex.quote(workdir)} --apply={shlex.quote(labels)} "
            "--output=corrected.csv"
        ),
        "train two more seeds, to tell weighting from chance": again,
        "compare it with another run": f"sie-jax compare {shlex.quote(workdir)} OTHER_WORKDIR",
        MEASURE: (f"sie-jax evaluate --model={shlex.quote(model)} --pairs=LABELLED_PAIRS"),
    }
    ahead = verdict.get(METRIC, {}).get("value") or 0.0
    if ahead < 0:  # a baseline ranked better, so there is nothing to score by yet
        del steps["score your own pairs by it"]
        first = {MEASURE: steps.pop(MEASURE)}
        if contest.get("few") and contest.get("on") == ON_VALIDATION:
            # behind the flags of the run, since of a flag that is given twice the last value counts
            folds = f"sie-jax train {shlex.join(command)} --config.train.folds=5"
            first = {"choose what is exported on all training queries": folds}
        steps = first | steps
    if not audited:
        steps = {what: one for what, one in steps.items() if "audit.csv" not in what}
    if seeds > 1:
        steps = {what: one for what, one in steps.items() if one != again}
    return [f"  {what}:\n    {one}" for what, one in list(steps.items())[:3]]


def rows(columns: dict[str, list[Any]]) -> Table:
    """Columns side by side; numbers are aligned to the right and have four digits."""
    made = Table()
    texts = []
    for name, values in columns.items():
        numbers = all(isinstance(value, float) for value in values)
        made.add_column(name, justify="right" if numbers else "left")
        texts.append([Text(f"{value:.4g}" if numbers else str(value)) for value in values])
    for row in zip(*texts, strict=True):
        made.add_row(*row)
    return made


def _below(estimate: dict[str, float | None], sign: str = "") -> str:
    """An interval in two lines, narrow enough for six columns in a terminal."""
    return _interval(estimate, sign).replace(" [", "\n").removesuffix("]")


def _interval(estimate: dict[str, float | None], sign: str = "") -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None:
        return "undefined"
    text = f"{value:{sign}.3f}"
    return text if low is None or high is None else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _table(*, title: str, caption: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title=title, caption=caption)
