"""The part that shows which queries, items and attributes hold the weight."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sie_jax.report.parts import Part, render

# the lift of a group of fewer rows is mostly chance
LEAST_ROWS, MOST_GROUPS = 5, 10
TEMPLATE = """
<p class="note">The lift is a group's share of all weight divided by its share of the training rows.
A group with a lift above 1 has more weight than its number of rows would give it. The tables show
groups of at least {{ least_rows }} rows, and at most {{ most_groups }} from either end. All groups
are in the folder <code>groups</code>.</p>
{% for view, ends in ends_by_view.items() %}
<details><summary>By {{ view }}</summary>
{% call table("Importance by " ~ view, [view],
              numbers=["rows", "share of weight", "lift", "mean score"]) %}
{% for end in ends if end %}
<tbody>
{% for row in end %}
<tr><td class="text"><bdi>{{ row.group or "(none)" }}</bdi></td>
<td class="number">{{ row.rows | whole }}</td>
<td class="number">{{ "%.2f" | format(100 * row.share_of_weight) }}%</td>
<td class="number">{{ "%.2f" | format(row.lift) }}</td>
<td class="number">{{ row.score | value }}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
{% endcall %}
</details>
{% endfor %}
"""


def part(tables: Mapping[str, pa.Table]) -> Part | None:
    """Takes a table of `sie_jax.importance.groups` for each view ("query", "brand", …).

    A view is left out if none of its groups has enough rows. Without a view there is no part.
    """
    ends_by_view = {view: _ends(table.to_pylist()) for view, table in tables.items()}
    ends_by_view = {view: ends for view, ends in ends_by_view.items() if any(ends)}
    if not ends_by_view:
        return None
    html = render(
        TEMPLATE, ends_by_view=ends_by_view, least_rows=LEAST_ROWS, most_groups=MOST_GROUPS
    )
    return Part("groups", "Where the weight lies", html)


def _ends(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The groups of greatest and of least lift among those with enough rows, none of them twice."""
    shown = [row for row in rows if row["rows"] >= LEAST_ROWS]
    most = shown[: min(MOST_GROUPS, (len(shown) + 1) // 2)]
    least = shown[len(most) :][-MOST_GROUPS:]
    return most, least[::-1]
