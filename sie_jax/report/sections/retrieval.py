"""The part that shows what was found in a catalogue, by each way to search it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report import plots
from sie_jax.report.parts import Part, render

RESULTS = """
<p class="note">The whole catalogue of {{ items | whole }} items is searched for
{{ queries.evaluated | whole }} test queries. An item is wanted where it was judged to be of the
highest grade, and {{ queries.without_wanted_item | whole }} queries want none.
{% if complete %}
What every item is to every query is known here.
{% else %}
What nobody judged counts as not wanted: the last table says how much of it stands in the first ten
places.
{% endif %}
The range is the 95% t interval over queries.</p>
<figure>{{ plot }}</figure>
{{ metric_table("Found in the catalogue", test, main, of="way") }}
{% call table("Unjudged items, weights and time", ["way"],
              numbers=["unjudged in the first ten", "weight in weighed", "milliseconds a query",
                       "recall against exact"]) %}
<tbody>
{% for way in test %}
<tr><th scope="row">{{ way }}</th>
<td class="number">{{ unjudged[way] | value }}</td>
<td class="number">{{ weights.get(way) | value }}</td>
<td class="number">{{ index.get(way, {}).get("search_milliseconds") | value }}</td>
<td class="number">{{ index.get(way, {}).get("recall_against_exact") | value }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(metrics: Mapping[str, Any], depths: Sequence[int]) -> Part:
    """The metrics of every way to find items."""
    deepest, main = max(depths), [f"recall@{depth}" for depth in depths]
    main += [f"{name}@{min(10, deepest)}" for name in ("ndcg", "mrr") if 10 in depths]
    recall = {way: values[f"recall@{deepest}"] for way, values in metrics["test"].items()}
    html = render(
        RESULTS,
        items=metrics["catalogue"]["items"],
        queries=metrics["queries"],
        complete=metrics["complete"],
        test=metrics["test"],
        main=main,
        unjudged=metrics["unjudged"],
        weights=metrics["weights"],
        index=metrics["index"],
        plot=plots.intervals(recall, x_label=f"recall@{deepest}", line=None),
    )
    return Part("retrieval", "Found in the catalogue", html)
