"""The part that shows how many labels are wrong, where the truth is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The source says what the true labels are, so this is a fact about the data. No
training uses it.</p>
{% call table("Wrong labels", ["labelled as"], numbers=splits) %}
<tbody>
{% for name, cells in rows %}
<tr><th scope="row">{{ name }}</th>
{% for cell in cells %}
<td class="number">
{%- if cell and cell.known %}{{ "%.1f" | format(100 * cell.wrong / cell.known) }}%<small>
{{- cell.wrong | whole }} of {{ cell.known | whole }}</small>{% else %}–{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(noise: Mapping[str, Mapping[str, Any] | None], label_names: Sequence[str]) -> Part | None:
    """Takes what `sie_jax.evaluation.detection.wrong_labels` gives for each split.

    Without a split whose truth is known there is no part. The highest grade comes first.
    """
    if not any(noise.values()):
        return None
    rows = [("all labels", list(noise.values()))]
    for grade, name in reversed(list(enumerate(label_names))):
        rows.append((name, [one and one["by_label"][grade] for one in noise.values()]))
    html = render(TEMPLATE, rows=rows, splits=list(noise))
    return Part("noise", "Wrong labels", html)
