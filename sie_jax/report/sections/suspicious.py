"""The part that lists the labels that are most worth checking."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.evaluation import audit_summary
from sie_jax.report.parts import Part, render

MOST, FIRST = 50, 10
TEMPLATE = """
{% macro listed(rows, start) %}
{% call table("Labels most worth checking",
              ["#", "query", "title", "label", "model's opinion"], numbers=["score"],
              last=["reason"]) %}
<tbody>
{% for row in rows %}
<tr><td class="number">{{ start + loop.index }}</td>
<td class="text"><bdi>{{ row.query }}</bdi></td>
<td class="text"><bdi>{{ row.title }}</bdi></td><td>{{ row.label }}</td>
<td>{{ row.prediction }}</td><td class="number">{{ row.score | value if row.score != "" }}</td>
<td class="text"><bdi>{{ row.reason }}</bdi></td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% endmacro %}
{% for sentence in sentences %}
<p>{{ sentence[0] | upper }}{{ sentence[1:] }}.</p>
{% endfor %}
{% if matrix %}
<h3>Labels that are wrong, and what they should be</h3>
{% call table("Estimated numbers of pairs by the label they have and should have",
              ["has"], numbers=names_of(matrix)) %}
<tbody>
{% for label, row in matrix.items() %}
<tr><th scope="row">{{ label }}</th>
{% for other, number in row.items() %}
<td class="number{{ " right" if other == label }}">{{ number | whole }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endcall %}
{% endif %}
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


def part(audit: Sequence[Mapping[str, str]], summary: Mapping[str, Any] | None = None) -> Part:
    """Takes the first rows of `audit.csv`, which has the most suspicious labels first.

    A row has `query`, `title`, `label`, `prediction`, `score` and `reason` as texts; the score may
    be empty. Those after the first ten are folded. summary: as `evaluation.audit_summary` gives it.
    """
    rows = [{**row, "score": float(row["score"]) if row["score"] else ""} for row in audit[:MOST]]
    html = render(
        TEMPLATE,
        rows=rows,
        first=FIRST,
        sentences=audit_summary.sentences(summary) if summary else [],
        matrix=summary and summary["noise_matrix"],
        names_of=list,
    )
    return Part("suspicious", "Labels most worth checking", html)
