"""Curves for the report from the lines of metrics.jsonl."""

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from sie_jax.report import plots


def by_run(
    lines: Iterable[Mapping[str, Any]], runs: Iterable[str], titles: Mapping[str, str]
) -> dict[str, dict[str, list[plots.Curve]]]:
    """One curve (steps, values) per seed, for each run of each quantity.

    Args:
        lines: Each has `step`, and `run`, which is the run's name, a hyphen and the seed's number.
        runs: The names of the runs to draw. Runs keep their colours if they keep their order.
        titles: The quantities to draw and their titles in the report, which are the result's keys.
    """
    points: dict[str, dict[str, tuple[list[int], list[float]]]] = {key: {} for key in titles}
    for line in lines:
        for key in titles.keys() & line.keys():
            steps, values = points[key].setdefault(line["run"], ([], []))
            steps.append(line["step"])
            values.append(line[key])
    names = list(runs)
    return {
        title: {
            run: [curve for name, curve in points[key].items() if name.rpartition("-")[0] == run]
            for run in names
        }
        for key, title in titles.items()
    }


def drawn(
    lines: Iterable[Mapping[str, Any]], runs: Iterable[str], titles: Mapping[str, str]
) -> list[Markup]:
    """One plot for each quantity of which at least one run has a curve."""
    return [
        plots.lines(curves, x_label="step", y_label=title)
        for title, curves in by_run(lines, runs, titles).items()
        if any(curves.values())
    ]
