"""The part that shows what small changes of the query do to the order of the items."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">A sample of the test queries is asked again with one small change. The order of
{{ ranker }} should hardly move. The table has the mean change of nDCG@10 with its 95% t interval
over the queries, the share of the queries whose first item is another, and the mean of Kendall's
tau between both orders, which is 1 where nothing moves and 0 for unrelated orders. The queries of a
row are those of the sample that can be changed in this way.</p>
{% call table("Small changes of the query", ["change"],
              numbers=["queries", "nDCG@10", "first item changes", "Kendall's tau"],
              last=["for instance"]) %}
<tbody>
{% for name, one in changes.items() %}
<tr><th scope="row">{{ name }}</th>
<td class="number">{{ one.queries | whole }}
{%- if one.unscored %}<small>{{ one.unscored | whole }} without a score</small>{% endif %}</td>
<td class="number">{{ one["ndcg@10"].value | signed }}<small>{{ one["ndcg@10"] | bounds(true) }}
</small></td>
<td class="number">
{%- if one.queries %}{{ "%.0f" | format(100 * one.first_changed) }}%{% else %}–{% endif %}</td>
<td class="number">{{ one.kendall_tau | value }}</td>
<td class="text">{% if one.example %}<bdi>{{ one.example[0] }}</bdi> →
<bdi>{{ one.example[1] }}</bdi>{% endif %}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(ranker: str, changes: Mapping[str, Mapping[str, Any]] | None) -> Part | None:
    """Takes what `sie_jax.evaluation.changes.measure` gives; without it there is no part."""
    if not changes:
        return None
    html = render(TEMPLATE, ranker=ranker, changes=changes)
    return Part("robustness", "Small changes of the query", html)
