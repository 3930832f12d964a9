"""The parts that show recommenders: their metrics, what lists do to the catalogue, and users."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report import plots
from sie_jax.report.parts import Part, render

RESULTS = """
<p class="note">All {{ items | whole }} items are ranked for each of {{ users | whole }} users, and
nothing is sampled. A value is the mean over users and seeds. Its range is the 95% t interval over
users.</p>
{% if plot %}
<figure>{{ plot }}</figure>
{% endif %}
{{ metric_table("Test metrics", test, main, of="recommender") }}
{% for name, part in groups.items() %}
<h3>{{ name }}</h3>
<p class="note">{{ part.about }} ({{ part.users | whole }} users)</p>
{{ metric_table(name, part.test, part.shown, of="recommender") }}
{% endfor %}
"""
CATALOGUE = """
<p class="note">Of the first ten places of all lists: the share of the catalogue that stands in some
list, how unevenly items are shown (0: all alike, 1: few have all), by how many bits what is shown
is unexpected, and how alike the items of a list are not.</p>
{% call table("The catalogue", ["recommender"], numbers=names) %}
<tbody>
{% for run, values in beyond.items() %}
<tr><th scope="row">{{ run }}</th>
{% for name in names %}<td class="number">{{ values[name] | value }}</td>{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endcall %}
"""
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


def results(metrics: Mapping[str, Any], main: Sequence[str], *, baselines: Sequence[str]) -> Part:
    """The metrics of all recommenders, then those of groups of users."""
    ndcg = {run: values["ndcg@10"] for run, values in metrics["test"].items()}
    kinds = {
        "trained": [run for run in ndcg if run not in baselines],
        "baselines": list(baselines),
    }
    html = render(
        RESULTS,
        test=metrics["test"],
        main=list(main),
        users=metrics["users"]["test"],
        items=metrics["users"]["items"],
        groups=metrics["groups"],
        plot=plots.intervals(ndcg, x_label="ndcg@10", line=None, groups=kinds),
    )
    return Part("results", "Results on the test users", html)


def catalogue(metrics: Mapping[str, Any]) -> Part:
    """What the lists of each recommender do to the catalogue."""
    beyond = metrics["beyond"]
    names = list(next(iter(beyond.values())))
    return Part("catalogue", "The catalogue", render(CATALOGUE, beyond=beyond, names=names))


def users(run: str, explained: Sequence[Mapping[str, Any]]) -> Part | None:
    """Some users; none where nothing was explained."""
    if not explained:
        return None
    html = render(USERS, run=run, users=explained, latest=LATEST)
    return Part("users", "Users", html)
