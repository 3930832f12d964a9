"""The part that shows the curves of training."""

from collections.abc import Iterable, Mapping
from typing import Any

from sie_jax.report import curves
from sie_jax.report.parts import Part, render

TITLES = {
    "loss": "training loss",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "validation_ndcg@10": "validation nDCG@10",
}
TEMPLATE = """
<p class="note">There is one line per seed. Long runs are drawn as means of neighbouring steps.</p>
{{ figures(plots) }}
"""


def part(metrics: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> Part | None:
    """Draws the lines of `metrics.jsonl` that belong to a run in `cost` of `metrics.json`.

    There is no part if there is nothing to draw.
    """
    plots = curves.drawn(lines, metrics["cost"], TITLES)
    return Part("training", "Training", render(TEMPLATE, plots=plots)) if plots else None
