"""Tables and picture on importance: docs/importance.md, choosing.md and wrong_labels.md."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from page_tables import ROOT, number, result, rows_as_table, with_interval
from pictures import Picture

from sie_jax import importance, tasks
from sie_jax.report.plots import SERIES

FIRST = ("uniform", "auto", "oracle", "clean labels")  # of the runs, those that the text is about
RATE, WITHOUT = "0.2", "0"  # the rate that is shown, and the shop without noise beside it


def ordered(found: Mapping[str, Any]) -> list[str]:
    """The scores of the rate that is shown, that of the highest mean AUROC over the kinds first."""
    kinds = [rates[RATE]["scores"] for rates in found["noise"].values()]
    return sorted(
        kinds[0], key=lambda name: -np.mean([scores[name]["auroc"]["mean"] for scores in kinds])
    )


def detection(found: Mapping[str, Any]) -> str:
    """AUROC for the wrong labels, the mean of the seeds, by score and kind of noise."""
    kinds = [rates[RATE]["scores"] for rates in found["noise"].values()]
    rows = [
        [name, *(number(scores[name]["auroc"]["mean"], 2) for scores in kinds)]
        for name in ordered(found)
    ]
    return rows_as_table(["score", *(f"`{kind}`" for kind in found["noise"])], rows)


def missing_positives(found: Mapping[str, Any]) -> str:
    """AUROC for missing positives at every rate, of the scores that every rate has."""
    rates = found["noise"]["missing_positive"]
    rows = [
        [name, *(_mean(of["scores"][name]) for of in rates.values())]
        for name in ordered(found)
        if all(name in of["scores"] for of in rates.values())
    ]
    heads = ["no noise", *(f"{float(rate):.0%} noise" for rate in rates if float(rate))]
    return rows_as_table(["`missing_positive`", *heads], rows)


def policies(found: Mapping[str, Any], metric: str = "ndcg@10") -> str:
    """A metric of every run, the mean of its seeds, and its difference from uniform."""
    rates = found["rates"]
    names = sorted(
        dict.fromkeys(name for rate in rates.values() for name in rate["runs"]),
        key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST),
    )
    rows = [
        [name, *(_run(rate["runs"].get(name), rate["runs"], metric) for rate in rates.values())]
        for name in names
    ]
    first = "run" if metric == "ndcg@10" else f"run, {metric}"
    return rows_as_table([first, *(f"{float(rate):.0%} noise" for rate in rates)], rows)


def choices(found: Mapping[str, Any]) -> str:
    """How often `auto` chose what, by rate and with the oracle among the candidates."""
    rows = []
    for rate, of in found["rates"].items():
        for name, each in of["chosen"].items():
            cells = [_counted(one[key] for one in each) for key in ("contender", "name")]
            spent = f"{np.mean([one['cost'] for one in each]):.2f}"
            rows.append([f"{float(rate):.0%}", name.replace("choice", "its own"), *cells, spent])
    head = ["noise", "candidates", "contender", "chosen", "full trainings spent"]
    return rows_as_table(head, rows)


def gap(found: Mapping[str, Any]) -> str:
    """What `auto` wins of the difference that clean labels make, by metric and rate."""
    rows = []
    for metric in ("ndcg@10", "accuracy"):
        for rate, of in found["rates"].items():
            clean = _compared(of["runs"].get("clean labels"), metric)
            auto = _compared(of["runs"]["auto"], metric)
            closed = auto["gap_closed"]
            shown = with_interval(clean["difference"], sign=True) if clean else ""
            cells = [shown, with_interval(auto["difference"], sign=True)]
            cells.append("" if closed is None else f"{closed:.2f}")
            cells.append("yes" if auto["difference"]["not_worse"] else "no")
            rows.append([f"{metric}, {float(rate):.0%} noise", *cells])
    head = [
        "",
        "clean labels",
        "`auto`",
        "share of the gap closed",
        f"shown not to be worse by more than {found['margin']}",
    ]
    return rows_as_table(head, rows)


def yardsticks(found: Mapping[str, Any]) -> str:
    """In how many seeds noisy test labels show that the oracle is better, by metric."""
    each = found["rates"]["0.4"]["yardsticks"]
    rows = [
        [metric, f"{sum(one[metric]['low'] > 0 for one in each)} of {len(each)}"]
        for metric in ("accuracy", "ndcg@10")
    ]
    return rows_as_table(["metric", "seeds in which the oracle is shown to be better"], rows)


def real(found: Mapping[str, Any]) -> str:
    """Of every score the AUROC for planted errors, and Spearman's ρ with raters' disagreement."""
    planted, raters = found["esci"]["scores"], found["icecat"]["scores"]
    rows = [
        [name, with_interval(planted[name]["auroc"], 2), with_interval(raters[name], 2)]
        for name in sorted(planted, key=lambda name: -planted[name]["auroc"]["value"])
    ]
    return rows_as_table(["score of real pairs", "ESCI, AUROC", "Icecat, ρ"], rows)


def real_pairs(found: Mapping[str, Any]) -> str:
    """How many pairs that is measured on, in a sentence."""
    esci, icecat = found["esci"], found["icecat"]
    return (
        f"ESCI has {esci['pairs']:,} training pairs, of which {esci['wrong']:,} were given a wrong "
        f"label. Icecat has {icecat['pairs']:,}; on {icecat['disagreed']:,} the raters disagreed."
    )


def sampling(found: Mapping[str, Any]) -> str:
    """The variance of a corrected draw, and how far the mean of many is from the full gradient."""
    uniform = found["drawing"]["uniform"]["variance_observed"]
    rows = []
    for name, of in found["drawing"].items():
        ratio, error = (of[f"squared_distance_ratio{end}"] for end in ("", "_error"))
        variance = of["variance_observed"] / uniform
        rows.append([name, f"{variance:.2f}", f"{ratio:.2f} ± {error:.2f}"])
    head = ["drawn by", "variance of a draw, relative to uniform draws"]
    head.append(f"squared distance of the mean of {found['draws']:,}, relative to the expected one")
    return rows_as_table(head, rows)


def listed_estimators() -> str:
    """Every estimator of the registry."""
    rows = [
        [f"`{one.name}`", one.formula, one.high, one.needs, one.cost, one.source]
        for one in importance.ESTIMATORS.values()
    ]
    return rows_as_table(["name", "formula", "high means", "needs", "further cost", "source"], rows)


def estimators_of_tasks() -> str:
    """Which estimators each task has; those of one need and one answer share a row."""
    rows: dict[tuple[bool, ...], list[str]] = {}
    for name in importance.ESTIMATORS:
        able = tuple(tasks.can_estimate(task, name) for task in tasks.TASKS)
        rows.setdefault(able, []).append(f"`{name}`")
    head = ["estimators", *(f"`{task}`" for task in tasks.TASKS)]
    marks = [
        [", ".join(names), *("✓" if one else "" for one in able)] for able, names in rows.items()
    ]
    return rows_as_table(head, marks)


def listed_policies() -> str:
    """Every policy that users can name."""
    rows = [[f"`{name}`", one.formula, one.suits] for name, one in importance.POLICIES.items()]
    return rows_as_table(["policy", "weight", "for what data"], rows)


def _mean(score: Mapping[str, Any]) -> str:
    return number(score["auroc"]["mean"], 2)


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    total = counts.total()
    return ", ".join(f"{name} {count} of {total}" for name, count in counts.most_common())


def _compared(run: Mapping[str, Any] | None, metric: str) -> Any:
    return run if run is None or metric == "ndcg@10" else run[f"by_{metric}"]


def _run(run: Mapping[str, Any] | None, beside: Mapping[str, Any], metric: str) -> str:
    if run is None:
        return ""
    mean, paired = number(float(np.mean(run[metric]))), _compared(run, metric)["difference"]
    if "uniform" in beside and run["seeds"] != beside["uniform"]["seeds"]:
        mean += f" (seeds {', '.join(str(seed) for seed in run['seeds'])})"
    if paired is None or paired["low"] == paired["high"]:  # one seed, or uniform itself
        return mean
    return f"{mean}, {with_interval(paired, sign=True)}"


@matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "sie_jax"})
def drawn(found: Mapping[str, Any]) -> Figure:
    """AUROC by score (rows) and kind of noise: mean and range of the seeds, and without noise."""
    names, kinds = ordered(found), found["noise"]
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True)
    for axes, (kind, rates) in zip(panels, kinds.items(), strict=True):
        for row, name in enumerate(names):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
            of = rates[RATE]["scores"][name]["auroc"]
            axes.plot([min(of["seeds"]), max(of["seeds"])], [row] * 2, color=SERIES[0], linewidth=2)
            axes.plot(of["mean"], row, "o", color=SERIES[0], markersize=5)
            control = rates[WITHOUT]["scores"][name]["auroc"]["mean"]
            axes.plot(control, row, "D", color=SERIES[1], markersize=4, markerfacecolor="white")
        axes.axvline(0.5, color="0.4", linewidth=0.8, linestyle="dashed")
        axes.set(title=kind.replace("_", " "), xlim=(0.2, 1.0), xticks=(0.3, 0.5, 0.7, 0.9))
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    panels[0].set_yticklabels(names)
    figure.supxlabel("AUROC for the wrong labels; 0.5 is chance")
    seeds = len(next(iter(kinds.values()))[RATE]["wrong"])
    figure.legend(
        handles=[
            matplotlib.lines.Line2D(
                [], [], color=SERIES[0], marker="o", label=f"mean and range of {seeds} seeds"
            ),
            matplotlib.lines.Line2D(
                [],
                [],
                color=SERIES[1],
                marker="D",
                markerfacecolor="white",
                linestyle="none",
                label="the same labels, scored in the shop without noise",
            ),
        ],
        loc="outside upper center",
        ncols=2,
        frameon=False,
    )
    return figure


PICTURE = Picture(ROOT / "docs" / "importance.svg", "importance", drawn)

PARTS: dict[str, Callable[[], str]] = {
    "estimators": listed_estimators,
    "estimators of tasks": estimators_of_tasks,
    "policies by name": listed_policies,
    "detection": lambda: detection(result("importance")),
    "missing positives": lambda: missing_positives(result("importance")),
    "real pairs": lambda: real(result("importance_real")),
    "real pairs, counted": lambda: real_pairs(result("importance_real")),
    "policies": lambda: policies(result("choosing")),
    "policies by accuracy": lambda: policies(result("choosing"), "accuracy"),
    "choices of auto": lambda: choices(result("choosing")),
    "gap that auto closes": lambda: gap(result("choosing")),
    "yardsticks of auto": lambda: yardsticks(result("choosing")),
    "choices of auto on other seeds": lambda: choices(result("choosing_other_seeds")),
    "gap that auto closes on other seeds": lambda: gap(result("choosing_other_seeds")),
    "sampling": lambda: sampling(result("sampling")),
}
