"""The part that shows what is found for chats, by each way to ask a search."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report import plots
from sie_jax.report.parts import Part, render

CHATS = """
<p class="note">The catalogue of {{ chats["items"] | whole }} items is searched for
{{ chats.test | whole }} test chats; wanted are the items that were chosen. The search is asked with
the last turns, with all, or with those turns and words that are not expected to do harm. Chats that
end in the same items are of one need: values are means over {{ chats.needs | whole }} needs, and
the range is the 95% t interval over them.</p>
<figure>{{ plot }}</figure>
{{ metric_table("Found for chats", test, main, of="asked with") }}
<h3>Less all turns</h3>
{{ metric_table("Less all turns", difference, main, signed=true, of="asked with") }}
<h3>What leaving a piece out does</h3>
<p class="note">The effect on nDCG@50 that was learnt from the training chats. A turn or a word is
left out where its effects, with the constant, add up to more than 0.</p>
{% for kind, rows in effects.items() %}
{% call table("Effects of " ~ kind, ["what it is"], numbers=["effect", "chats"]) %}
<tbody>
{% for one in rows %}
<tr><th scope="row">{{ one.feature }}</th><td class="number">{{ one.effect | signed }}</td>
<td class="number">{{ one.chats | whole }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% endfor %}
<h3>Chats</h3>
<p class="note">The words that the search is asked with are bold, and so are found items that were
chosen.</p>
{% for one in examples %}
<ul>
{% for turn in one.turns %}
<li>{% for word in turn %}{% if word.kept %}<strong>{{ word.word }}</strong>{% else %}
{{- word.word }}{% endif %} {% endfor %}</li>
{% endfor %}
</ul>
<ol>
{% for hit in one.hits %}
<li>{% if hit.wanted %}<strong>{{ hit.title }}</strong>{% else %}{{ hit.title }}{% endif %}</li>
{% endfor %}
</ol>
{% endfor %}
"""


def part(metrics: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> Part:
    """What is found for chats."""
    main = list(next(iter(metrics["test"].values())))
    values = {how: one["ndcg@10"] for how, one in metrics["test"].items()}
    html = render(
        CHATS,
        main=main,
        examples=examples,
        plot=plots.intervals(values, x_label="ndcg@10", line=None),
        **{name: metrics[name] for name in ("chats", "test", "difference", "effects")},
    )
    return Part("chats", "From chat to items", html)
