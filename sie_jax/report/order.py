"""In which order the page shows runs and metrics."""

from collections.abc import Iterable, Mapping
from typing import Any

_OF_ONE_LABEL = ("precision_", "recall_")


def main_metrics(by_run: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The metrics of `{run: {metric: ...}}` that are about all labels."""
    return [name for name in _names(by_run.values()) if not name.startswith(_OF_ONE_LABEL)]


def label_metrics(by_run: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The metrics of `{run: {metric: ...}}` that are about one label each."""
    return [name for name in _names(by_run.values()) if name.startswith(_OF_ONE_LABEL)]


def trained_first(by_run: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
    """`by_run` with the runs that have a cost first; the baselines have none."""
    return {run: by_run[run] for run in sorted(by_run, key=lambda run: run not in cost)}


def _names(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in metrics for name in one))
