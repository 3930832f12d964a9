"""The part that shows the metrics on the test queries and their differences from uniform."""

from collections.abc import Mapping
from typing import Any

from sie_jax.data.schema import ESCI_MEANINGS, MOST_CLASSES, LabelScale
from sie_jax.report import order, plots
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">Each value is the mean over seeds, and the range below it is the 95% percentile
bootstrap interval over test queries. The interval covers the choice of queries. It does not cover
the chance of training.
{% if queries %}
nDCG is measured on {{ queries.evaluated | whole }} queries and leaves out
{{ queries.without_positive_gain | whole }} without a positive gain. MRR and recall leave out
{{ queries.without_highest_grade | whole }} more without an item of the highest grade.
{% endif %}
</p>
{{ metric_table("Test metrics", test, main) }}

<h3>Difference from {{ reference }}</h3>
{% if difference %}
<p class="note">The differences are paired: both runs are measured on the same queries. The range is
the 95% t interval. With two seeds or more it covers the choice of queries and the chance of
training. With one seed it covers the queries alone. A difference is resolved where its interval
excludes zero.</p>
{% if plot %}
<figure>{{ plot }}</figure>
{% endif %}
{{ metric_table("Differences from " ~ reference, difference, main, signed=true) }}
{% else %}
<p class="note">There is no other run to compare with {{ reference }}.</p>
{% endif %}

{% if labels %}
<h3>What the labels mean</h3>
{% call table("The label scale", ["label"], numbers=["grade", "gain"],
              last=["meaning"] if labels[0].meaning else []) %}
<tbody>
{% for label in labels %}
<tr><th scope="row">{{ label.name }}</th><td class="number">{{ label.grade }}</td>
<td class="number">{{ "%g" | format(label.gain) }}</td>
{% if label.meaning %}<td>{{ label.meaning }}</td>{% endif %}</tr>
{% endfor %}
</tbody>
{% endcall %}
<p class="note">nDCG counts the gain of an item. The highest grade is what MRR and recall look
for.</p>
{% endif %}
{% if by_label %}
<details><summary>Precision and recall of each label</summary>
{{ metric_table("Metrics by label", classifying, by_label) }}
</details>
{% endif %}
<details><summary>Every seed</summary>
{% call table("Metrics of every seed", ["run"], numbers=["seed"] + main) %}
<tbody>
{% for name, by_metric in seeds.items() %}
{% for n in range(by_metric.values() | map("length") | max) %}
<tr><th scope="row">{{ name }}</th><td class="number">{{ n + 1 }}</td>
{% for metric in main %}
<td class="number">{{ (by_metric[metric][n] if metric in by_metric else none) | value }}</td>
{% endfor %}</tr>
{% endfor %}
{% endfor %}
</tbody>
{% endcall %}
</details>
"""


def part(
    metrics: Mapping[str, Any],
    scale: LabelScale | None = None,
    *,
    run: str = "weighted",
    reference: str = "uniform",
) -> Part:
    """Shows `test`, `difference` and `seeds` of `metrics.json`, and `queries` if there is one.

    The plot shows the differences of `run`. Runs that are not in `cost` (the baselines) come last.
    scale: of the labels, which is shown from the highest grade down.
    """
    test, difference, seeds = (
        order.trained_first(metrics[name], metrics["cost"])
        for name in ("test", "difference", "seeds")
    )
    main, of_run = order.main_metrics(test), difference.get(run)
    by_label = order.label_metrics(test)
    html = render(
        TEMPLATE,
        test=test,
        difference=difference,
        seeds=seeds,
        queries=metrics.get("queries"),
        reference=reference,
        labels=_labels(scale) if scale and len(scale.names) <= MOST_CLASSES else [],
        main=main,
        by_label=by_label,
        # a ranker that names no classes has no metric of a label
        classifying={name: of for name, of in test.items() if not of.keys().isdisjoint(by_label)},
        plot=of_run
        and plots.intervals(
            {name: of_run[name] for name in main if name in of_run},
            x_label=f"{run} minus {reference}",
        ),
    )
    return Part("results", "Results on the test queries", html)


def _labels(scale: LabelScale) -> list[dict[str, Any]]:
    """The rows of the label scale."""
    meanings = ESCI_MEANINGS if set(scale.names) == set(ESCI_MEANINGS) else {}
    return [
        {"name": name, "grade": grade, "gain": gain, "meaning": meanings.get(name)}
        for grade, (name, gain) in enumerate(zip(scale.names, scale.gains, strict=True))
    ][::-1]
