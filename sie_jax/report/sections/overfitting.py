"""The part that compares each model's metrics on training pairs and on test pairs."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report import order
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The models are measured on the pairs that they were trained on, and again on the
test pairs. Values are means over seeds. A wide gap means that a model has memorised its training
pairs.
{% if noise %}
{{ noise }}
{% endif %}</p>
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


def part(
    metrics: Mapping[str, Any], noise: Mapping[str, Mapping[str, Any] | None] | None = None
) -> Part | None:
    """Needs `train` of `metrics.json`, `{run: {metric: number}}`; without it there is no part.

    noise: what `sie_jax.evaluation.detection.wrong_labels` gives for the splits, if anything.
    """
    if not metrics.get("train"):
        return None
    test, main = metrics["test"], order.main_metrics(metrics["test"])
    rows = [
        (run, metric, by_metric[metric], test[run][metric]["value"])
        for run, by_metric in metrics["train"].items()
        for metric in main
        if metric in by_metric and test[run][metric]["value"] is not None
    ]
    html = render(TEMPLATE, rows=rows, noise=_of_noise(noise or {}))
    return Part("overfitting", "Training pairs and test pairs", html)


def _of_noise(noise: Mapping[str, Mapping[str, Any] | None]) -> str:
    """What wrong labels do to the gap; "" where no training label is known to be wrong."""
    trained, tested = noise.get("train"), noise.get("test")
    if not trained or not trained["wrong"]:
        return ""
    share = f"{100 * trained['wrong'] / trained['known']:.1f}%"
    if not tested:
        return (
            f"The training labels are noisy ({share} are wrong), and nothing is known of the test "
            "labels, so the gap is not about memorising alone."
        )
    if not tested["wrong"]:
        return (
            f"The training labels are noisy ({share} are wrong) and the test labels are clean, so "
            "the two columns measure different things: a model that ignores the noise is better "
            "on the test pairs."
        )
    other = f"{100 * tested['wrong'] / tested['known']:.1f}%"
    return (
        f"The training labels are noisy ({share} are wrong), and so are the test labels ({other})."
    )
