"""The part that shows whether the gain that a model expects is the gain that its pairs have."""

from collections.abc import Mapping, Sequence
from typing import Any

from sie_jax.report import plots
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">The test pairs are ordered by the gain that a model expects and cut into bins of
equally many pairs, {{ most }} at most. Each point is the mean expected gain of a bin and the mean
gain of the labels in it, with one line per seed. On the dashed line both are equal. Below it the
model expects too much, and above it too little. The order of the items can be good all the
same.</p>
<figure>{{ plot }}</figure>
"""


def part(bins: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Part | None:
    """Takes what `sie_jax.evaluation.calibration.bins` gives for each seed of each run.

    Without a bin there is no part.
    """
    curves = {
        run: [
            ([one["predicted"] for one in seed], [one["observed"] for one in seed])
            for seed in seeds
        ]
        for run, seeds in bins.items()
    }
    most = max((len(seed) for seeds in bins.values() for seed in seeds), default=0)
    if not most:
        return None
    plot = plots.lines(curves, x_label="expected gain", y_label="mean gain", diagonal=True)
    return Part("calibration", "Calibration", render(TEMPLATE, plot=plot, most=most))
