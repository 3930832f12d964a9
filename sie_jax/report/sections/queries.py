"""The part that shows on which queries the exported ranker wins and loses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sie_jax.evaluation.rivals import Rivals
from sie_jax.report import plots
from sie_jax.report.parts import Part, render

MOST_QUERIES, MOST_ITEMS = 10, 10
TEMPLATE = """
<p class="note">By nDCG@10, {{ ranker }} is above {{ baseline }}{{ ", " ~ role ~ "," if role }} on
{{ counts.won | whole }} {{ "test queries" if role else "queries" }}, below it on
{{ counts.lost | whole }}, and equal on {{ counts.equal | whole }}.
{% if plot %}
The plot has the {{ most_queries }} queries with the widest difference to either side, or fewer if
there are not so many.
{% endif %}</p>
{% if plot %}
<figure>{{ plot }}</figure>
{% for name, few in (("wins", won), ("losses", lost)) if few %}
<details><summary>The widest {{ name }}, item by item</summary>
{% for duel in few %}
<details><summary><bdi>{{ duel.query }}</bdi> · {{ (duel.ours - duel.theirs) | signed }}
({{ duel.ours | value }} against {{ duel.theirs | value }})</summary>
{% call table("The first items for " ~ duel.query, ["#", ranker, "label", baseline, "label"]) %}
<tbody>
{% for ours, theirs in duel.items[:most_items] %}
<tr><td class="number">{{ loop.index }}</td>
<td class="text"><bdi>{{ ours.title }}</bdi></td><td>{{ ours.label }}</td>
<td class="text"><bdi>{{ theirs.title }}</bdi></td><td>{{ theirs.label }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
{% if duel.items | length > most_items %}
<p class="note">{{ (duel.items | length - most_items) | whole }} more items follow in each
list.</p>
{% endif %}
</details>
{% endfor %}
</details>
{% endfor %}
{% endif %}
"""


class Item(NamedTuple):
    """An item of a ranked list."""

    title: str
    label: str


class Duel(NamedTuple):
    """One query: nDCG@10 of both rankers, and the item of either at each rank."""

    query: str
    ours: float
    theirs: float
    items: Sequence[tuple[Item, Item]]


def duels(found: Rivals, pairs: pa.Table, labels: Sequence[str]) -> tuple[list[Duel], list[Duel]]:
    """The queries to show of two rankers: those that the first wins, and those that it loses.

    pairs: the rows that they rank, with the columns query, title and label. labels: the names of
    the grades.
    """
    _, first = np.unique(found.query_index, return_index=True)
    queries = pairs["query"].take(pa.array(first)).to_pylist()

    def item(row: np.intp) -> Item:
        return Item(pairs["title"][int(row)].as_py(), labels[pairs["label"][int(row)].as_py()])

    def duel(query: int) -> Duel:
        both = zip(*found.ranked(query), strict=True)
        return Duel(
            queries[query],
            float(found.ours[query]),
            float(found.theirs[query]),
            [(item(ours), item(theirs)) for ours, theirs in both],
        )

    won, lost = found.apart(MOST_QUERIES)
    return [*map(duel, won)], [*map(duel, lost)]


def part(
    ranker: str,
    baseline: str,
    counts: Mapping[str, Any],
    won: Sequence[Duel],
    lost: Sequence[Duel],
    *,
    role: str = "the best baseline",
) -> Part:
    """Shows queries on which two rankers differ, with their first ten items side by side.

    role: what the second one is, for the sentence above. counts: the numbers of queries `won`,
    `lost` and `equal`. won, lost: the queries to show, the widest difference first. The plot has
    the widest win at the top and the widest loss at the bottom.
    """
    drawn = [*won, *reversed(lost)]
    plot = drawn and plots.dumbbells(
        [(duel.query, duel.ours, duel.theirs) for duel in drawn],
        names=(ranker, baseline),
        x_label="nDCG@10",
    )
    html = render(
        TEMPLATE,
        ranker=ranker,
        baseline=baseline,
        role=role,
        counts=counts,
        won=won,
        lost=lost,
        plot=plot,
        most_queries=MOST_QUERIES,
        most_items=MOST_ITEMS,
    )
    return Part("queries", "Wins and losses by query", html)
