"""The part that shows what became of the rows that were read."""

from collections.abc import Mapping
from typing import Any

from sie_jax.data.schema import NUMERIC
from sie_jax.report.parts import Part, render

TEMPLATE = """
{% call table("Rows from read to split", ["rows"], numbers=["number"], last=["share"]) %}
<tbody>
{% for kind, name, count, share in rows %}
<tr class="{{ kind }}{% if not count %} zero{% endif %}">
<th scope="row">{% if kind == "rejected" %}− {% endif %}{{ name }}</th>
<td class="number">{{ count | whole }}</td>
<td class="bar"><div style="width: {{ "%.2f" | format(100 * share) }}%"></div></td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% if repaired %}
<p class="note">These numbers of rows were repaired:
{% for name, count in repaired.items() %}
{{ name }} {{ count | whole }}{{ "," if not loop.last else "." }}
{% endfor %}
</p>
{% endif %}
{% if missing %}
<p class="note">These numbers of kept pairs have no value in a column of numbers:
{% for name, count in missing.items() %}
{{ name }} {{ count | whole }}{{ "," if not loop.last else "." }}
{% endfor %}
</p>
{% endif %}
"""


def part(counts: Mapping[str, Any]) -> Part:
    """Shows the content of `cleaning.json`.

    `counts` is `{"read": int, "rejected": {rule: rows}, "kept": int, "splits": {split: rows},
    "repaired": {repair: rows}}`, and perhaps `"missing": {column: rows}`.
    """
    missing = {name.removeprefix(NUMERIC): rows for name, rows in counts.get("missing", {}).items()}
    html = render(TEMPLATE, rows=_rows(counts), repaired=counts["repaired"], missing=missing)
    return Part("cleaning", "Cleaning", html)


def _rows(counts: Mapping[str, Any]) -> list[tuple[str, str, int, float]]:
    """Rows of the table: (kind, name, rows, share of the rows read)."""
    rows = [("total", "read", counts["read"])]
    rows += [("rejected", name, count) for name, count in counts["rejected"].items()]
    rows += [("total", "kept", counts["kept"])]
    rows += [("split", name, count) for name, count in counts["splits"].items()]
    return [(*row, row[-1] / max(counts["read"], 1)) for row in rows]
