"""Tables and picture on importance: docs/importance.md, choosing.md and wrong_labels.md."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from page_tables import ROOT, number, result, rows_as_table, with_interval
from pictures import Picture

from sie_jax import importance, tasks
from sie_jax.report.plots import SERIES

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


def choices(found: Mapping[str, Any]) -> str:
    """What `auto` chose under each fault, and what that gained."""
    rows = []
    for fault, of in found["faults"].items():
        rate = found["rates"][fault]
        rows.append(
            [
                f"{fault}, {rate:.0%}" if rate else fault,
                ", ".join(f"{count} × {name}" for name, count in of["contenders"].items()),
                ", ".join(f"{count} × {name}" for name, count in of["chosen"].items()),
                with_interval(of["gain"], sign=True),
                with_interval(of["headroom"], sign=True) if "headroom" in of else "",
                f"{of['spent']:.2f}",
            ]
        )
    head = ["fault", "contender", "chosen", "gain", "headroom", "full trainings spent"]
    return rows_as_table(head, rows)


def bias(found: Mapping[str, Any]) -> str:
    """By fault and over all, how far the last round's estimate is from what is deployed."""
    rows = [
        [fault, str(of["trials"]), with_interval(of["bias"], sign=True)]
        for fault, of in found["faults"].items()
    ]
    rows.append(["all", str(found["trials"]), with_interval(found["bias"], sign=True)])
    return rows_as_table(["fault", "trials", "bias"], rows)


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
    "choices of auto": lambda: choices(result("choosing")),
    "bias of auto": lambda: bias(result("choosing")),
    "sampling": lambda: sampling(result("sampling")),
}
