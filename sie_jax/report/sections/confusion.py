"""The part that shows which labels a model takes for which."""

from collections.abc import Mapping, Sequence

import numpy as np

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The rows are the labels of the test pairs, and the columns are what the model of the
first seed predicts. Each cell has the number of pairs and its share of the row.</p>
{% for run, rows in by_run.items() %}
<details{% if loop.first %} open{% endif %}><summary>{{ run }}</summary>
{% call table("Labels and predictions of " ~ run, ["label"], numbers=names) %}
<tbody>
{% for name, cells in rows %}
{% set row = loop.index0 %}
<tr><th scope="row">{{ name }}</th>
{% for count, share in cells %}
<td class="number{% if loop.index0 == row %} right{% endif %}">{{ count | whole }}<small>
{%- if share is none %}–{% else %}{{ "%.1f" | format(100 * share) }}%{% endif -%}
</small></td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endcall %}
</details>
{% endfor %}
"""


def part(confusions: Mapping[str, np.ndarray], label_names: Sequence[str]) -> Part | None:
    """Takes counts `[K, K]` by run, labels down and predictions across; the first run is open.

    The highest grade comes first. Without a run there is no part.
    """
    if not confusions:
        return None
    names = list(label_names)[::-1]
    by_run = {
        run: [
            (name, [(int(count), count / row.sum() if row.any() else None) for count in row[::-1]])
            for name, row in zip(names, counts[::-1], strict=True)
        ]
        for run, counts in confusions.items()
    }
    html = render(TEMPLATE, by_run=by_run, names=names)
    return Part("confusion", "Labels and predictions", html)
