"""The part that shows how the exported ranker was chosen."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The contest was held on the {{ contest.queries | whole }} {{ contest.on }}; the test
queries had no part in it. <code>linear</code> is exported unless another ranker or a baseline is
above it by more than one standard error of the difference over queries.
<strong>{{ ranker }}</strong> is exported
{%- if contest.few %}, because so few queries are no ground to choose on{% endif %}.</p>
{% call table("The contest", ["ranker"],
              numbers=["ndcg@10", "minus linear", "standard error"]) %}
<tbody>
{% for name, one in standings %}
<tr><th scope="row">{{ name }}</th><td class="number">{{ one.value | value }}</td>
<td class="number">{{ one.difference | signed }}</td>
<td class="number">{{ one.standard_error | value }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Needs `contest` of `metrics.json` with standings; without them there is no part.

    It is `{"on": which queries, "queries": int, "few": whether they are too few,
    "standings": {ranker: {"value", "difference", "standard_error"}}}`.
    """
    contest = metrics.get("contest")
    if not contest or not contest["standings"]:
        return None
    html = render(
        TEMPLATE,
        contest=contest,
        ranker=metrics["verdict"]["ranker"],
        standings=sorted(contest["standings"].items(), key=lambda item: -item[1]["value"]),
    )
    return Part("contest", "How the exported ranker was chosen", html)
