"""The part that shows which training pairs led to the predictions on the worst test queries."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report.parts import Part, render

MOST_QUERIES, MOST_PAIRS = 10, 3
TEMPLATE = """
<p class="note">The test queries are those on which {{ run }} has the lowest {{ metric }}. Each is
shown with one of its pairs and the training pairs that pushed the prediction of that pair most. The
influence is positive where training on a pair spoke for the predicted label, and negative where it
spoke against it. It is an estimate from gradients, whose order is more reliable than its size.
Where the prediction is wrong, look for wrong labels among the pairs that speak for it.</p>
{% for one in explanations %}
<details{% if loop.first %} open{% endif %}>
<summary><bdi>{{ one.query }}</bdi> · {{ metric }} {{ one.value | value }}</summary>
<p><bdi>{{ one.title }}</bdi><br>
The prediction is <strong>{{ one.predicted }}</strong>, and the label is
<strong>{{ one.label }}</strong>.</p>
{% call table("Training pairs that speak for or against " ~ one.predicted ~ " for " ~ one.query,
              ["speaks", "training query", "title", "label"], numbers=["influence"]) %}
<tbody>
{% for direction in ("for", "against") %}
{% for pair in one[direction][:most_pairs] %}
<tr><td>{{ direction }}</td><td class="text"><bdi>{{ pair.query }}</bdi></td>
<td class="text"><bdi>{{ pair.title }}</bdi></td><td>{{ pair.label }}</td>
<td class="number">{{ pair.influence | signed }}</td></tr>
{% endfor %}
{% endfor %}
</tbody>
{% endcall %}
</details>
{% endfor %}
"""


def part(
    explanations: Sequence[Mapping[str, Any]], *, run: str = "weighted", metric: str = "ndcg@10"
) -> Part | None:
    """Shows predictions of `run` on its worst test queries; without any there is no part.

    Args:
        explanations: The worst query first, each with `query`, `value` (of `metric` on that
            query), `title`, `label`, `predicted`, and `for` and `against`: training pairs by
            falling size of influence, each with `query`, `title`, `label` and `influence`. The
            first ten queries are shown, with three pairs of either kind.
    """
    if not explanations:
        return None
    html = render(
        TEMPLATE,
        explanations=explanations[:MOST_QUERIES],
        most_pairs=MOST_PAIRS,
        run=run,
        metric=metric,
    )
    return Part("explanations", "Why the worst queries went wrong", html)
