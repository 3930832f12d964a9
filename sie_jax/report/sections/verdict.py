"""The top of the page: the verdict of `metrics.json`, or without one whether weighting helped."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from sie_jax.report import formats
from sie_jax.report.parts import Part, render

TEMPLATE = """
<p class="verdict {{ kind }}"><strong>{{ claim }}</strong> {{ evidence }}</p>
"""

NOTES = """
<div class="verdict {{ kind }}">
<p><strong>{{ notes[0] }}</strong></p>
<ul>
{% for note in notes[1:] %}
<li>{{ note }}</li>
{% endfor %}
</ul>
</div>
"""

KINDS = {True: "helped", False: "hurt", None: "unresolved"}


class Verdict(NamedTuple):
    """A claim with its evidence; `kind` gives its colour."""

    kind: Literal["helped", "hurt", "unresolved", "unknown"]
    claim: str
    evidence: str


def part(
    metrics: Mapping[str, Any],
    *,
    run: str = "weighted",
    reference: str = "uniform",
    metric: str = "ndcg@10",
) -> Part:
    """Shows `verdict` of `metrics.json`; without one it needs `test`, `difference` and `seeds`.

    The notes are those that the terminal prints; those of `nested`, where there is one, come
    first. `run`, `reference` and `metric` are for pages without a verdict.
    """
    if "verdict" in metrics:
        of_folds = [metrics["nested"]["verdict"]] if "nested" in metrics else []
        shown = [
            render(NOTES, kind=KINDS[one["beats_baseline"]], notes=one["notes"])
            for one in (*of_folds, metrics["verdict"])
        ]
        return Part("verdict", "", Markup("").join(shown))
    found = verdict(metrics, run=run, reference=reference, metric=metric)
    return Part("verdict", "", render(TEMPLATE, **found._asdict()))


def verdict(metrics: Mapping[str, Any], *, run: str, reference: str, metric: str) -> Verdict:
    """Says whether `run` is better than `reference` by `metric`.

    It helped or hurt where the 95 % interval of the paired difference excludes zero. If that is
    the difference of one seed, the claim says so. It is unresolved where the interval includes
    zero, and unknown where there is no interval.
    """
    entry = metrics["difference"].get(run, {}).get(metric, {})
    value, low, high = (entry.get(name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return Verdict(
            "unknown",
            "It is unknown whether weighting helped:",
            f"there is no interval for the difference in {metric} between {run} and {reference}.",
        )
    before, after = (
        formats.value(metrics["test"][name][metric]["value"]) for name in (reference, run)
    )
    seeds = len(metrics["seeds"][run][metric])
    evidence = (
        f"{metric} went from {before} ({reference}) to {after} ({run}). "
        f"The difference is {formats.signed(value)}, the mean over {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}, and its 95% interval is "
        f"{formats.bounds(entry, signed=True)}"
    )
    if low <= 0 <= high:
        claim = "It is not resolved whether weighting helped:"
        return Verdict("unresolved", claim, f"{evidence}, which includes zero.")
    kind: Literal["helped", "hurt"] = "helped" if low > 0 else "hurt"
    if seeds == 1:
        # the interval is over queries, so it does not cover what another seed would have given
        return Verdict(
            kind,
            f"Weighting {kind} in this one training run:",
            f"{evidence}. One seed cannot tell weighting from luck, so train more seeds.",
        )
    return Verdict(kind, f"Weighting {kind}:", f"{evidence}.")
