"""The part that shows what each step of a chain finds, loses and costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report import plots
from sie_jax.report.parts import Part, render

STEPS = """
<p class="note">The whole catalogue of {{ items | whole }} items is searched for
{{ queries.evaluated | whole }} test queries; {{ queries.without_wanted_item | whole }} more want no
item of it. Recall is of the items of the highest grade, nDCG of the gains of all grades.
{% if complete %}What every item is to every query is known here.
{% else %}What nobody judged for a query counts as not wanted: the second table says how much of it
stands in the first ten places.{% endif %}
The range is the 95% t interval over queries.</p>
<figure>{{ plot }}</figure>
{{ metric_table("Ways and steps", test, main, of="list") }}
<p class="note">{{ plan.found | whole }} items are found and ranked by {{ plan.ranker }};
{% if plan.kept %}
the first {{ plan.kept | whole }} are read by the cross-encoder;
{% else %}
no cross-encoder reads them;
{% endif %}
{% if plan.diversity %}
an item gives way to those above it that it is like (λ = {{ plan.diversity }}).
{% else %}
their order is left as it is.
{% endif %}
These depths were chosen on the validation queries. The ceiling is the nDCG@10 of the best order of
what a step passes on: what it falls by is lost for all later steps. Times are of one query at a
time.</p>
{% call table("What each step passes on, and what it takes", ["list"],
              numbers=["ceiling of ndcg@10", "ndcg@10", "unlike within",
                       "unjudged in the first ten", "milliseconds a query"]) %}
<tbody>
{% for name in test %}
<tr><th scope="row">{{ name }}</th>
<td class="number">{{ ceiling.get(name) | value }}</td>
<td class="number">{{ test[name]["ndcg@10"].value | value }}</td>
<td class="number">{{ within[name] | value }}</td>
<td class="number">{{ unjudged[name] | value }}</td>
<td class="number">{{ milliseconds.get(name) | value }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
<h3>What was tried on the validation queries</h3>
{% call table("What was tried on the validation queries", ["setting"], numbers=["ndcg@10"],
              last=["what it is"]) %}
<tbody>
{% for one in trials %}
<tr><th scope="row">{{ one.name }}</th><td class="number">{{ one.value | value }}</td>
<td>{{ one.what }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
"""


def part(metrics: Mapping[str, Any], depths: Sequence[int]) -> Part:
    """The metrics of every way to find items and of every step of the chain."""
    main = [*(f"recall@{depth}" for depth in depths), "ndcg@10", "mrr@10"]
    values = {name: one["ndcg@10"] for name, one in metrics["test"].items()}
    html = render(
        STEPS,
        items=metrics["catalogue"]["items"],
        main=main,
        plot=plots.intervals(values, x_label="ndcg@10", line=None),
        trials=_trials(metrics["trials"]),
        **{
            name: metrics[name]
            for name in (
                *("queries", "complete", "test", "plan", "ceiling", "within", "unjudged"),
                "milliseconds",
            )
        },
    )
    return Part("chain", "From query to list", html)


def _trials(trials: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each setting."""
    rows = []
    for depth, one in trials["found"].items():
        rows += [
            {"name": f"{depth} found", "what": f"ranked by {kind}", "value": value}
            for kind, value in one.items()
            if kind != "milliseconds"
        ]
    for kept, one in trials["kept"].items():
        rows += [
            {"name": f"{kept} kept", "what": f"cross-encoder, by {kind}", "value": value}
            for kind, value in one.items()
        ]
    for share, one in trials["diversity"].items():
        what = f"{one['within']:.3f} unlike within the list"
        rows.append({"name": f"diversity {share}", "what": what, "value": one["ndcg@10"]})
    return rows
