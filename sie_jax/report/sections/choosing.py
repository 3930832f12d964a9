"""The part that shows how score and policy were chosen by cross-validation."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report import formats
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p><strong>{{ decision }}</strong></p>
{% if comparison %}
<p class="note">Score, policy and strength were chosen by cross-validation over the training
queries. Each round trained its candidates and uniform on a share of the pairs outside its held-out
folds, and kept the candidates with the highest mean difference from uniform in nDCG@10. The folds
of the last round decide, because no earlier run was trained or measured on their queries. The 95%
interval is over these queries and does not cover the chance of training. The choice cost
{{ "%.2f" | format(cost.spent) }} full trainings, which includes warm-ups, scoring and predictions;
the budget was {{ "%g" | format(cost.budget) }}.</p>
{% call table("Choosing", ["candidate"],
              numbers=["round", "trained", "queries", "nDCG@10", "difference"],
              last=["outcome"]) %}
{% for rows in comparison | groupby("round") | map(attribute="list") %}
<tbody>
{% for row in rows %}
<tr{% if row.outcome in ("dropped", "undefined") %} class="dropped"{% endif %}>
<th scope="row">{{ row.candidate }}</th><td class="number">{{ row.round }}</td>
<td class="number">{{ "%.1f" | format(100 * row.share) }}%</td>
<td class="number">{{ row.queries | whole }}</td><td class="number">{{ row.mean | value }}</td>
<td class="number">{{ row.difference | signed }}</td><td>{{ row.outcome }}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
{% endcall %}
{% if comparison[-1].folds | length > 1 %}
<details><summary>Every fold</summary>
{% call table("Choosing, every fold", ["candidate"],
              numbers=["round", "fold", "queries", "nDCG@10", "difference"]) %}
<tbody>
{% for row in comparison %}
{% for fold in row.folds %}
<tr><th scope="row">{{ row.candidate }}</th><td class="number">{{ row.round }}</td>
<td class="number">{{ fold.fold }}</td><td class="number">{{ fold.queries | whole }}</td>
<td class="number">{{ fold.mean | value }}</td>
<td class="number">{{ fold.difference | signed }}</td></tr>
{% endfor %}
{% endfor %}
</tbody>
{% endcall %}
</details>
{% endif %}
{% endif %}
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Needs `choosing` of `metrics.json`; without it there is no part.

    It is `Choice.as_json()` of `sie_jax.importance.choosing`.
    """
    choice = metrics.get("choosing")
    if not choice:
        return None
    html = render(
        TEMPLATE,
        decision=decision(choice),
        comparison=choice["comparison"],
        cost=choice["cost"],
    )
    return Part("choosing", "Choosing", html)


def decision(choice: Mapping[str, Any]) -> str:
    """One sentence that says what was chosen and which interval decided it."""
    contender, chosen = choice["contender"], choice["chosen"]["name"]
    if choice["outlying"]:
        return (
            f"{chosen} is chosen without a trial: {choice['outlying']:.1%} of the labels are of "
            "sellers whose labels are unlike those of all others. Held-out labels are so too, and "
            "no trial on them could show what that costs."
        )
    if contender is None:
        return "uniform is kept, because no candidate could be measured."
    difference = f"the difference between {contender['name']} and uniform"
    if choice["interval"]["low"] is None:
        return f"uniform is kept, because there is no interval for {difference}."
    bounds = formats.bounds(choice["interval"], signed=True)
    if chosen == contender["name"]:
        return (
            f"{chosen} is chosen, because the interval of its difference from uniform, {bounds}, "
            "lies above zero."
        )
    reason = "lies below" if choice["interval"]["high"] < 0 else "includes"
    return f"uniform is kept, because the interval of {difference}, {bounds}, {reason} zero."
