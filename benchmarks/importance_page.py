"""Writes the measured tables of docs/importance.md and its picture from the committed results.

    python benchmarks/importance_page.py

Of importance.json, importance_real.json and choosing.json in benchmarks/results it takes those that
are there. What stands between two marks, `<!-- begin NAME -->` and `<!-- end NAME -->`, is
replaced; the rest of the page is written by hand, and tests/test_docs.py holds what it says to the
same results.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sie_jax.report.plots import SERIES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "importance.md"
PICTURE = ROOT / "docs" / "importance.svg"
FIRST = ("uniform", "auto", "oracle", "clean labels")  # of the runs, those that the text is about
RATE, WITHOUT = "0.2", "0"  # the rate that is shown, and the shop without noise beside it


def ordered(result: Mapping[str, Any]) -> list[str]:
    """The scores of the rate that is shown, that of the highest mean AUROC over the kinds first."""
    kinds = [rates[RATE]["scores"] for rates in result["noise"].values()]
    return sorted(
        kinds[0], key=lambda name: -np.mean([scores[name]["auroc"]["mean"] for scores in kinds])
    )


def detection(result: Mapping[str, Any]) -> str:
    """AUROC for the wrong labels, the mean of the seeds, by score and kind of noise."""
    cells = {kind: rates[RATE] for kind, rates in result["noise"].items()}
    lines = ["| score | " + " | ".join(f"`{kind}`" for kind in cells) + " |"]
    lines.append("| --- |" + " --- |" * len(cells))
    for name in ordered(result):
        values = [cell["scores"][name]["auroc"]["mean"] for cell in cells.values()]
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)


def policies(result: Mapping[str, Any], metric: str = "ndcg@10") -> str:
    """A metric of every run, the mean of its seeds, and its difference from uniform."""
    rates = result["rates"]
    names = sorted(
        dict.fromkeys(name for rate in rates.values() for name in rate["runs"]),
        key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST),
    )
    first = "run" if metric == "ndcg@10" else f"run, {metric}"
    lines = [f"| {first} | " + " | ".join(f"{float(rate):.0%} noise" for rate in rates) + " |"]
    lines.append("| --- |" + " --- |" * len(rates))
    for name in names:
        cells = [_run(rate["runs"].get(name), rate["runs"], metric) for rate in rates.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def choices(result: Mapping[str, Any]) -> str:
    """How often `auto` chose what, by rate and with the oracle among the candidates."""
    lines = ["| noise | candidates | chosen | full trainings spent |", "| --- | --- | --- | --- |"]
    for rate, found in result["rates"].items():
        for name, each in found["chosen"].items():
            counts = Counter(one["name"] for one in each).most_common()
            chosen = ", ".join(f"{name} {number} of {len(each)}" for name, number in counts)
            spent = np.mean([one["cost"] for one in each])
            candidates = name.replace("choice", "its own")
            lines.append(f"| {float(rate):.0%} | {candidates} | {chosen} | {spent:.2f} |")
    return "\n".join(lines)


def real(result: Mapping[str, Any]) -> str:
    """Of every score the AUROC for planted errors, and Spearman's ρ with raters' disagreement."""
    planted, raters = result["esci"]["scores"], result["icecat"]["scores"]
    lines = ["| score of real pairs | ESCI, AUROC | Icecat, ρ |", "| --- | --- | --- |"]
    for name in sorted(planted, key=lambda name: -planted[name]["auroc"]["value"]):
        cells = planted[name]["auroc"], raters[name]
        lines.append(f"| {name} | " + " | ".join(_with_interval(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _with_interval(found: Mapping[str, float]) -> str:
    value, low, high = (f"{found[key]:.2f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def accuracies(result: Mapping[str, Any]) -> str:
    """The same in accuracy, by which `auto` decides."""
    return policies(result, "accuracy")


def _run(run: Mapping[str, Any] | None, beside: Mapping[str, Any], metric: str) -> str:
    if run is None:
        return ""
    compared = run if metric == "ndcg@10" else run[f"by_{metric}"]
    mean, paired = f"{np.mean(run[metric]):.3f}", compared["difference"]
    if "uniform" in beside and run["seeds"] != beside["uniform"]["seeds"]:
        mean += f" (seeds {', '.join(str(seed) for seed in run['seeds'])})"
    if paired is None or paired["low"] == paired["high"]:  # one seed, or uniform itself
        return mean
    value, low, high = (f"{paired[key]:+.3f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{mean}, {value} [{low}, {high}]"


TABLES = {
    "detection": ("importance.json", detection),
    "policies": ("choosing.json", policies),
    "accuracies": ("choosing.json", accuracies),
    "choices": ("choosing.json", choices),
    "real": ("importance_real.json", real),
}
"""What the page has of which result."""


def written(page: str) -> str:
    """The page with the tables of the results that are there."""
    for name, (file, table) in TABLES.items():
        if (RESULTS / file).exists():
            begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
            made = begin + table(json.loads((RESULTS / file).read_text("utf-8"))) + end
            page = re.sub(re.escape(begin) + ".*?" + re.escape(end), made, page, flags=re.DOTALL)
    return page


def digest(result: Mapping[str, Any]) -> str:
    """What the picture's metadata say of the result that it was drawn from."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


@matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "sie_jax"})
def drawn(result: Mapping[str, Any]) -> Figure:
    """AUROC by score (rows) and kind of noise: mean and range of the seeds, and without noise."""
    names, kinds = ordered(result), result["noise"]
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True)
    for axes, (kind, rates) in zip(panels, kinds.items(), strict=True):
        for row, name in enumerate(names):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
            found = rates[RATE]["scores"][name]["auroc"]
            axes.plot(
                [min(found["seeds"]), max(found["seeds"])], [row] * 2, color=SERIES[0], linewidth=2
            )
            axes.plot(found["mean"], row, "o", color=SERIES[0], markersize=5)
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


def main() -> None:
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    file = RESULTS / "importance.json"
    if file.exists():
        result = json.loads(file.read_text("utf-8"))
        metadata = {"Date": None, "Description": digest(result)}
        drawn(result).savefig(PICTURE, metadata=metadata)


if __name__ == "__main__":
    main()
