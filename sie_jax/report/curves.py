"""The lines of metrics.jsonl as the report's curves."""

from collections.abc import Iterable, Mapping
from typing import Any

from sie_jax.report.plots import Curve

TITLES = {
    "loss": "training loss",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "validation_ndcg@10": "validation nDCG@10",
}
PRETRAINING_TITLES = {
    "masked_loss": "loss of masked tokens",
    "held_out_perplexity": "held-out perplexity",
    "held_out_pair_accuracy": "held-out pair accuracy",
}


def by_run(
    lines: Iterable[Mapping[str, Any]], runs: Iterable[str], titles: Mapping[str, str] = TITLES
) -> dict[str, dict[str, list[Curve]]]:
    """For each quantity by its title, for each run, one (steps, values) per seed.

    `titles` says which quantities of the lines, and how the report calls them. A line's `run` is
    the run's name, a hyphen and the number of the seed.
    """
    points: dict[str, dict[str, tuple[list[int], list[float]]]] = {key: {} for key in titles}
    for line in lines:
        for key in titles.keys() & line.keys():
            steps, values = points[key].setdefault(line["run"], ([], []))
            steps.append(line["step"])
            values.append(line[key])
    return {
        title: {
            run: [curve for name, curve in points[key].items() if name.rpartition("-")[0] == run]
            for run in runs
        }
        for key, title in titles.items()
    }
