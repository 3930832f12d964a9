"""The part that shows recommenders: what they found, and what their lists do to the catalogue."""

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
<h3>The catalogue</h3>
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


def part(metrics: Mapping[str, Any], main: Sequence[str], *, baselines: Sequence[str]) -> Part:
    """The metrics `main` of all recommenders, then those of groups of users, then `beyond`."""
    ndcg = {run: values["ndcg@10"] for run, values in metrics["test"].items()}
    kinds = {
        "trained": [run for run in ndcg if run not in baselines],
        "baselines": list(baselines),
    }
    beyond = metrics["beyond"]
    html = render(
        RESULTS + CATALOGUE,
        test=metrics["test"],
        main=list(main),
        users=metrics["users"]["test"],
        items=metrics["users"]["items"],
        groups=metrics["groups"],
        plot=plots.intervals(ndcg, x_label="ndcg@10", line=None, groups=kinds),
        beyond=beyond,
        names=list(next(iter(beyond.values()))),
    )
    return Part("recommendations", "Results on the test users", html)
