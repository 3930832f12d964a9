"""The part that shows the metrics of two rankings side by side, and their paired difference."""

from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">Each value is the mean over {{ queries.evaluated | whole }} queries, and the range
below it is the 95% percentile bootstrap interval over queries. The difference is paired, query by
query, and its range is Student's t interval. Both rankings are taken as they are: the chance of
training is in no interval. Left out are {{ queries.without_positive_gain | whole }} queries without
a positive gain, and of MRR and recall {{ queries.without_highest_grade | whole }} more without an
item of the highest grade.</p>
{{ metric_table("Metrics of both rankings", test, metrics, of="ranking") }}
<h3>Paired difference</h3>
{{ metric_table("Paired difference", difference, metrics, signed=true, of="difference") }}
"""


def part(found: Mapping[str, Any]) -> Part:
    """Shows what `evaluation.measuring.measured` gives of two rankings."""
    (other,) = found["difference"]
    html = render(
        TEMPLATE,
        queries=found["queries"],
        test=found["test"],
        difference={f"{found['ranker']} minus {other}": found["difference"][other]},
        metrics=list(found["test"][other]),
    )
    return Part("comparison", "Both rankings", html)
