"""The part that lists the labels that are most worth checking."""

from collections.abc import Mapping, Sequence

from sie_jax.report.parts import Part, render

MOST, FIRST = 50, 10
TEMPLATE = """
{% macro listed(rows, start) %}
{% call table("Labels most worth checking",
              ["#", "query", "title", "label", "model's opinion"], numbers=["score"]) %}
<tbody>
{% for row in rows %}
<tr><td class="number">{{ start + loop.index }}</td>
<td class="text"><bdi>{{ row.query }}</bdi></td>
<td class="text"><bdi>{{ row.title }}</bdi></td><td>{{ row.label }}</td>
<td>{{ row.prediction }}</td><td class="number">{{ row.score | value }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% endmacro %}
{% if rows %}
{{ listed(rows[:first], 0) }}
{% if rows | length > first %}
<details><summary>The next {{ rows | length - first }}</summary>
{{ listed(rows[first:], first) }}
</details>
{% endif %}
{% else %}
<p class="note">There are no labels to check.</p>
{% endif %}
"""


def part(audit: Sequence[Mapping[str, str]]) -> Part:
    """Takes the first rows of `audit.csv`, which has the most suspicious labels first.

    A row has `query`, `title`, `label`, `prediction` and `score` as texts. Those after the first
    ten are folded.
    """
    rows = [{**row, "score": float(row["score"])} for row in audit[:MOST]]
    html = render(TEMPLATE, rows=rows, first=FIRST)
    return Part("suspicious", "Labels most worth checking", html)
