"""The part that shows out-of-fold metrics, and whether scores are high where raters disagree."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report import order
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">Each training pair is predicted by a model that was not trained on any pair of its
query.</p>
{{ metric_table("Cross-validation", by_run, main, of="predictions") }}
{% if disagreement %}
<p class="note">The next table shows whether a score is high where raters disagree. It has
Spearman's correlation of each out-of-fold score with the standard deviation of the raters' grades,
and the 95% interval over queries.</p>
{% call table("Scores and the raters' disagreement", ["score"],
              numbers=["correlation", "95% interval"]) %}
<tbody>
{% for name, entry in disagreement.items() %}
<tr><th scope="row">{{ name }}</th><td class="number">{{ entry.value | signed }}</td>
<td class="number">{{ entry | bounds(true) }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% endif %}
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Needs `cross_validation` of `metrics.json`; without it there is no part.

    It is `{metric: {"value", "low", "high"}}`. `rater_disagreement`, if there is one, is
    `{score: {"value", "low", "high"}}`.
    """
    if not metrics.get("cross_validation"):
        return None
    by_run = {"out of fold": metrics["cross_validation"]}
    html = render(
        TEMPLATE,
        by_run=by_run,
        main=order.main_metrics(by_run),
        disagreement=metrics.get("rater_disagreement"),
    )
    return Part("cross_validation", "Cross-validation", html)
