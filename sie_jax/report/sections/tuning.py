"""The part that shows the learning rates that were tried."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report import order
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">Each rate was tried in one uniform training run of one seed, which was measured on
the {{ queries.evaluated | whole }} validation queries that have a positive gain. The 95% interval
is over these queries. All other runs use {{ chosen }}.
{% if diverged %}
These rates are left out, because the loss was no longer finite: {{ diverged | join(", ") }}.
{% endif %}</p>
{{ metric_table("Learning rates tried", validation, main, of="learning rate") }}
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Needs `tuning` of `metrics.json`; without it there is no part.

    It is `{"chosen": rate, "validation": {rate: {metric: {"value", "low", "high"}}},
    "diverged": [rate], "queries": {"evaluated": int}}`.
    """
    tuning = metrics.get("tuning")
    if not tuning:
        return None
    html = render(
        TEMPLATE,
        chosen=tuning["chosen"],
        validation=tuning["validation"],
        diverged=tuning["diverged"],
        queries=tuning["queries"],
        main=order.main_metrics(tuning["validation"]),
    )
    return Part("tuning", "Learning rates tried", html)
