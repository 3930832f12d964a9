"""The part that compares each model's metrics on training pairs and on test pairs."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report import order
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The models are measured on the pairs that they were trained on, and again on the
test pairs. Values are means over seeds. A wide gap means that a model has memorised its training
pairs.</p>
{% call table("Training pairs and test pairs", ["run", "metric"],
              numbers=["training pairs", "test pairs", "gap"]) %}
<tbody>
{% for run, metric, trained, tested in rows %}
<tr><th scope="row">{{ run }}</th><td>{{ metric }}</td>
<td class="number">{{ trained | value }}</td><td class="number">{{ tested | value }}</td>
<td class="number">{{ (trained - tested) | signed }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Needs `train` of `metrics.json`, `{run: {metric: number}}`; without it there is no part."""
    if not metrics.get("train"):
        return None
    test, main = metrics["test"], order.main_metrics(metrics["test"])
    rows = [
        (run, metric, by_metric[metric], test[run][metric]["value"])
        for run, by_metric in metrics["train"].items()
        for metric in main
        if metric in by_metric and test[run][metric]["value"] is not None
    ]
    return Part("overfitting", "Training pairs and test pairs", render(TEMPLATE, rows=rows))
