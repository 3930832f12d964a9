"""The part that shows how the scores of each label are distributed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sie_jax.data.schema import MOST_CLASSES
from sie_jax.report import plots
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">Each row shows how the scores of one label's training examples are distributed, in
shares of these examples. The tick marks the median. The outermost bars include the 0.5% of all
values beyond either end.</p>
{% if planted %}
<p class="note">{{ planted.count | whole }} labels ({{ "%.1f" | format(100 * planted.rate) }}%) are
known to be wrong. The AUROC says how well each score finds them (0.5 is chance):
{% for name, auroc in planted.auroc.items() %}
{{ name }} {{ auroc | value }}{{ "," if not loop.last else "." }}
{% endfor %}
</p>
{% endif %}
{{ figures(plots) }}
"""


def part(
    metrics: Mapping[str, Any],
    table: pa.Table,
    *,
    scores: Sequence[str],
    label_names: Sequence[str],
) -> Part | None:
    """Draws one plot for each score; without a score there is no part.

    Args:
        metrics: It may have `planted_errors` of `metrics.json`, which is `{"rate", "count",
            "auroc": {score: number}}`.
        table: A row for each training example, with `label` (an index into `label_names`) and a
            column for each of `scores`.
        scores: The columns to draw.
        label_names: The names of the labels, with the lowest grade first.
    """
    if not scores:
        return None
    labels = table["label"].to_numpy()
    of_label = {name: labels == grade for grade, name in enumerate(label_names[:MOST_CLASSES])}
    if len(label_names) > MOST_CLASSES:  # they are numbers
        of_label = {"all labels": labels >= 0}
    drawn = [
        plots.histograms(
            {name: table[score].to_numpy()[of] for name, of in of_label.items()}, x_label=score
        )
        for score in scores
    ]
    html = render(TEMPLATE, planted=metrics.get("planted_errors"), plots=drawn)
    return Part("scores", "Scores by label", html)
