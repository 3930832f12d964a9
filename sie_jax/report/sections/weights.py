"""The part that shows how many rows the weights amount to, and what sampling by them would do."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The effective sample size is a share of the rows: that many rows of equal weight
would give as much information.
{% if sampled %}
The variance of gradients is what drawing rows by these weights, with the correction, makes of the
variance of uniform draws. Where it is below 1, each step is less noisy. It is computed from the
gradient norms after the warm-up, without the mean gradient. A dash means that some row would never
be drawn.
{% endif %}</p>
{% call table("What the weights amount to", ["run"],
              numbers=["effective sample size"] + (["variance of gradients"] if sampled else [])) %}
<tbody>
{% for name, amount in by_run.items() %}
<tr><th scope="row">{{ name }}</th>
<td class="number">{{ amount.effective_sample_size | value }}</td>
{% if sampled %}
<td class="number">{{ amount.gradient_variance_ratio | default(none) | value }}</td>
{% endif %}
</tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(metrics: Mapping[str, Any], *, sampled: bool = False) -> Part | None:
    """Needs `weights` of `metrics.json`; without it there is no part.

    It is `{run: {"effective_sample_size", "gradient_variance_ratio"}}`. A run lacks the second
    where it is undefined. sampled: whether rows were drawn by the weights; where they were not, the
    variance of draws is about nothing that was done, and is not shown.
    """
    if not metrics.get("weights"):
        return None
    html = render(TEMPLATE, by_run=metrics["weights"], sampled=sampled)
    return Part("weights", "What the weights amount to", html)
