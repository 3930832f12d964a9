"""The part that shows on which kinds of queries the exported ranker is better or worse."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.evaluation.slices import ALPHA, LEAST_QUERIES
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">nDCG@10 of {{ ranker }} and of {{ baseline }}, the best baseline, on slices of the
test queries. The difference is paired, and its 95% t interval is over the queries of the slice.
{% if few %}
A slice of fewer than {{ least }} queries has no interval.
{% endif %}
{% if marked %}
<strong>Bold</strong> slices differ also when all slices are tested together (Holm, {{ alpha }}).
{% else %}
No slice is marked: tested together (Holm, {{ alpha }}), none differs.
{% endif %}</p>
{% call table("nDCG@10 by slices of the test queries", ["slice"],
              numbers=[ranker, baseline, "difference"]) %}
{% for grouping, rows in slices | groupby("grouping") %}
<tbody>
<tr><th scope="rowgroup" colspan="4" class="grouping">{{ grouping }}</th></tr>
{% for row in rows %}
<tr{% if row.marked %} class="marked"{% endif %}><th scope="row"><bdi>{{ row.slice }}</bdi>
<small>{{ row.queries | whole }} {{ "query" if row.queries == 1 else "queries" }}</small></th>
<td class="number">{{ row.ours | value }}</td><td class="number">{{ row.theirs | value }}</td>
<td class="number">{{ row.difference.value | signed }}<small>
{%- if row.queries < least %}fewer than {{ least }} queries
{%- else %}{{ row.difference | bounds(true) }}{% endif -%}
</small></td></tr>
{% endfor %}
</tbody>
{% endfor %}
{% endcall %}
"""


def part(ranker: str, baseline: str, slices: Sequence[Mapping[str, Any]]) -> Part | None:
    """Takes what `sie_jax.evaluation.slices.compare` gives; without a slice there is no part."""
    if not slices:
        return None
    html = render(
        TEMPLATE,
        ranker=ranker,
        baseline=baseline,
        slices=slices,
        few=any(row["queries"] < LEAST_QUERIES for row in slices),
        marked=any(row["marked"] for row in slices),
        least=LEAST_QUERIES,
        alpha=ALPHA,
    )
    return Part("slices", "Kinds of queries", html)
