"""The part that shows users: what they had, what they are recommended, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report.parts import Part, render

LATEST = 12
"""Of a longer history the page shows so many events, the latest ones."""
USERS = """
<p class="note">What each of these users had, the oldest first, and what {{ run }} puts first. After
an item of the history stands by how much the score of the first recommendation falls where that
item is left out. Below are the training histories whose own gradients raise it most: a step along
one raises the chance of the recommended item by the number shown, to first order and for a learning
rate of 1.</p>
{% for user in users %}
<h3>{{ user.user_id }}</h3>
<p>History:
{% if user.history | length > latest %}
{{ user.history | length - latest }} earlier ones, then
{% endif %}
{% for one in user.history[-latest:] %}
{{ one.text }}
{% if one.falls is not none %}<small>({{ one.falls | signed }})</small>{% endif %}
{{ "" if loop.last else "→" }}
{% endfor %}
</p>
<ol>
{% for one in user.recommended %}
{% if one.wanted %}
<li><strong>{{ one.text }}</strong> (came next)</li>
{% else %}
<li>{{ one.text }}</li>
{% endif %}
{% endfor %}
</ol>
{% if user.pushed %}
<details><summary>Training histories that pushed “{{ user.recommended[0].text }}”</summary>
<ul>
{% for one in user.pushed %}
<li>{{ one.user_id }} <small>({{ one.push | signed }})</small>: {{ one.texts | join(" → ") }}</li>
{% endfor %}
</ul>
</details>
{% endif %}
{% endfor %}
"""


def part(run: str, explained: Sequence[Mapping[str, Any]]) -> Part | None:
    """Some users; none where nothing was explained."""
    if not explained:
        return None
    html = render(USERS, run=run, users=explained, latest=LATEST)
    return Part("users", "Users", html)
