"""The part that shows what pretraining on the texts did."""

from collections.abc import Iterable, Mapping
from typing import Any

from sie_jax.report import curves
from sie_jax.report.parts import Part, render

TITLES = {
    "masked_loss": "loss of masked tokens",
    "held_out_perplexity": "held-out perplexity",
    "held_out_pair_accuracy": "held-out pair accuracy",
}
TEMPLATE = """
<p class="note">Pretraining took {{ steps | whole }} steps on {{ rows.train | whole }} texts of
items and training queries in {{ seconds | seconds }} seconds, and all runs start from its result.
It was measured on {{ rows.measured | whole }} of the {{ rows.held_out | whole }} texts whose titles
were held out.</p>
{% call table("Pretraining", ["held-out texts"], numbers=["before", "after"]) %}
<tbody>
{% for name, value in after.items() %}
<tr><th scope="row">{{ name | replace("_", " ") }}</th>
<td class="number">{{ before.get(name) | value }}</td>
<td class="number">{{ value | value }}</td></tr>
{% endfor %}
</tbody>
{% endcall %}
<p class="note">The perplexity is that of masked words. For the accuracy on pairs, 0.5 is
chance.</p>
{{ figures(plots) }}
"""


def part(metrics: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> Part | None:
    """Needs `pretraining` of `metrics.json`; without it there is no part.

    Args:
        metrics: `pretraining` is `{"steps", "seconds", "rows": {"train", "held_out", "measured"},
            "before": {measure: number}, "after": {measure: number}}`.
        lines: The lines of `metrics.jsonl`; those of the run `pretrain` are drawn.
    """
    pretraining = metrics.get("pretraining")
    if not pretraining:
        return None
    html = render(
        TEMPLATE,
        **{name: pretraining[name] for name in ("steps", "seconds", "rows", "before", "after")},
        plots=curves.drawn(lines, ["pretrain"], TITLES),
    )
    return Part("pretraining", "Pretraining", html)
