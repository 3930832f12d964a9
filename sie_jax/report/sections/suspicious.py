"""The part that lists the labels that are most worth checking."""

from collections.abc import Mapping, Sequence

from sie_jax.report.parts import Part, render

MOST = 50
TEMPLATE = """
{% if rows %}
{% call table("Labels most worth checking",
              ["#", "query", "title", "label", "model's opinion"], numbers=["score"]) %}
<tbody>
{% for row in rows %}
<tr><td class="number">{{ loop.index }}</td><td class="text"><bdi>{{ row.query }}</bdi></td>
<td class="text"><bdi>{{ row.title }}</bdi></td><td>{{ row.label }}</td>
<td>{{ row.prediction }}</td><td class="number">{{ row.score | value }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% else %}
<p class="note">There are no labels to check.</p>
{% endif %}
"""


def part(audit: Sequence[Mapping[str, str]]) -> Part:
    """Takes the first rows of `audit.csv`, which has the most suspicious labels first.

    A row has `query`, `title`, `label`, `prediction` and `score` as texts.
    """
    rows = [{**row, "score": float(row["score"])} for row in audit[:MOST]]
    return Part("suspicious", "Labels most worth checking", render(TEMPLATE, rows=rows))
