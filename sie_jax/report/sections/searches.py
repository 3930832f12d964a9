"""The part that shows what was found first for some queries."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report.parts import Part, render

QUERIES = """
<p class="note">What is put first for some test queries. Wanted items are bold.</p>
{% for one in queries %}
<h3>{{ one.query }}</h3>
{% for way, items in one.lists.items() %}
<p>{{ way }}</p>
<ol>
{% for item in items %}
{% if item.wanted %}
<li><strong>{{ item.text }}</strong></li>
{% else %}
<li>{{ item.text }}</li>
{% endif %}
{% endfor %}
</ol>
{% endfor %}
{% endfor %}
"""


def part(examples: Sequence[Mapping[str, Any]]) -> Part | None:
    """Some queries; none where there are none."""
    if not examples:
        return None
    return Part("searches", "Queries", render(QUERIES, queries=examples))
