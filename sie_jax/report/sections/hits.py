"""The part that shows some queries through a chain, and what put each item where it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report.parts import Part, render

QUERIES = """
<p class="note">The first items for some test queries, wanted ones in bold, with their places in
the list of each way that found them and after each step.</p>
{% for one in queries %}
{% call table(one.query, ["item"], numbers=["score"], last=["places"]) %}
<tbody>
{% for hit in one.hits %}
<tr><th scope="row">{% if hit.wanted %}<strong>{{ hit.title }}</strong>{% else %}{{ hit.title }}
{% endif %}</th>
<td class="number">{{ hit.score | value }}</td>
<td>{% for name, place in hit.why.items() %}{{ name }}
{{ "%.2f" | format(place) if name == "likeness" else "%d" | format(place) }}
{%- if not loop.last %}, {% endif %}{% endfor %}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% endfor %}
"""


def part(examples: Sequence[Mapping[str, Any]]) -> Part | None:
    """Some queries; none where there are none."""
    if not examples:
        return None
    return Part("hits", "Queries through the chain", render(QUERIES, queries=examples))
