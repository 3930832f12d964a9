"""The part that shows the nested cross-validation: every run on all queries, each tested once."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="note">All queries were dealt into {{ folds }} folds: {{ queries | whole }} queries with a
positive gain, and {{ left_out | whole }} without, which nDCG leaves out. Each fold was ranked by
rankers that were trained, tuned and chosen on the other queries alone, so that every query is
tested once. `exported` is on each query what the query's fold exported: {{ exported }}. Each value
is a mean over queries and seeds, and the range below it is the 95% percentile bootstrap interval
over queries. It is about the rankers of these folds as they were trained, and does not cover the
chance of training. The ranker in model/ is none of them: it was trained by the same recipe on the
ordinary split.</p>
{{ metric_table("Nested cross-validation", by_run, ["ndcg@10"]) }}
"""


def part(metrics: Mapping[str, Any]) -> Part | None:
    """Needs `nested` of `metrics.json` (see `stages.pool`); without it there is no part."""
    nested = metrics.get("nested")
    if not nested:
        return None
    counts = Counter(nested["exported_by_fold"]).most_common()
    html = render(
        TEMPLATE,
        queries=nested["queries"],
        left_out=nested["without_positive_gain"],
        folds=nested["folds"],
        exported=", ".join(f"{name} ({count} of {nested['folds']})" for name, count in counts),
        by_run={run: {"ndcg@10": one} for run, one in nested["ndcg@10"].items()},
    )
    return Part("nested", "All queries, by nested cross-validation", html)
