"""The part that shows every run beside the baselines, by the metric of the verdict."""

from collections.abc import Mapping
from typing import Any

from sie_jax.evaluation.verdict import BASELINES, METRIC
from sie_jax.report import formats, plots
from sie_jax.report.parts import Part, render

TEMPLATE = """
<figure>{{ plot }}</figure>
<p class="note">Each point is the {{ metric }} of a run on the test queries, the mean over its
seeds, with the 95% bootstrap interval over these queries.
{% if best %}
The dashed line is the best baseline, {{ best }} ({{ value }}).
{% endif %}
Intervals of single runs may overlap where the difference of two runs on the same queries is
resolved.</p>
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Draws `test` of `metrics.json`, the highest run first; the line is `verdict`'s best baseline.

    A run without the metric is left out, and one without a value has an empty row at the bottom.
    Without a run there is no part, and without a verdict no line.
    """
    measured = {run: of[METRIC] for run, of in metrics["test"].items() if METRIC in of}
    if not measured:
        return None
    order = sorted(measured, key=lambda run: -_value(measured[run]))
    best = metrics.get("verdict", {}).get("best_baseline")
    line = measured[best]["value"] if best in measured else None
    plot = plots.intervals(
        {run: measured[run] for run in order},
        x_label=METRIC,
        line=line,
        groups={
            "trained here": [run for run in order if run not in BASELINES],
            "baseline": [run for run in order if run in BASELINES],
        },
    )
    html = render(
        TEMPLATE,
        plot=plot,
        metric=METRIC,
        best=best if line is not None else None,
        value=formats.value(line),
    )
    return Part("rankers", "Every ranker", html)


def _value(entry: Mapping[str, float | None]) -> float:
    value = entry["value"]
    return -1.0 if value is None else value
