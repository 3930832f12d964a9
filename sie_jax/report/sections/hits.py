"""The part that shows some queries through a chain, and what put each item where it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report.parts import Part, render

QUERIES = """
<p class="note">The first items for some test queries, wanted ones in bold, with their places in
the list of each way that found them and after each step. Likeness is that to the nearest item
above.</p>
{% for one in queries %}
<h3>{{ one.query }}</h3>
{% call table(one.query, ["item"], numbers=["score"] + names) %}
<tbody>
{% for hit in one.hits %}
<tr><th scope="row">{% if hit.wanted %}<strong>{{ hit.title }}</strong>{% else %}{{ hit.title }}
{% endif %}</th>
<td class="number">{{ hit.score | value }}</td>
{% for name in names %}
<td class="number">{% if name not in hit.why %}–{% elif name == "likeness" %}
{{ hit.why[name] | value }}{% else %}{{ hit.why[name] | whole }}{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</tbody>
{% endcall %}
{% endfor %}
"""


def part(examples: Sequence[Mapping[str, Any]]) -> Part | None:
    """Some queries; none where there are none."""
    if not examples:
        return None
    hits = [hit for one in examples for hit in one["hits"]]
    names = list(dict.fromkeys(name for hit in hits for name in hit["why"]))
    html = render(QUERIES, queries=examples, names=names)
    return Part("hits", "Queries through the chain", html)
