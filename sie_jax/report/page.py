"""Writes the report: one HTML file that holds all it shows and asks the network for nothing."""

import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from etils import epath
from markupsafe import Markup

from sie_jax.report import plots

MOST_SUSPICIOUS = 50
# a lift over fewer rows says more of chance than of the group
LEAST_ROWS, MOST_GROUPS = 5, 10
MOST_EXPLANATIONS, MOST_PAIRS = 10, 3
_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def write(
    path: str | os.PathLike[str],
    *,
    title: str,
    metrics: Mapping[str, Any],
    cleaning: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Sequence[plots.Curve]]],
    pretraining_curves: Mapping[str, Mapping[str, Sequence[plots.Curve]]],
    scores_by_label: Mapping[str, Mapping[str, np.ndarray]],
    suspicious: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
    run: str = "weighted",
    reference: str = "uniform",
    metric: str = "ndcg@10",
    choosing: Mapping[str, Any] | None = None,
    explanations: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Writes the report of one pipeline run.

    Every text is data: markup in a title or a query is shown, never run, and a content security
    policy forbids scripts and every request. Equal arguments give equal bytes. A value that is None
    (undefined) is shown as a dash.

    Args:
        path: The HTML file to write.
        title: Heading of the page.
        metrics: The content of `metrics.json`: `rows`, `test`, `difference`, `seeds`, `cost`, and
            optionally `queries`, `device`, `planted_errors` (`{"rate", "count", "auroc": {score:
            number}}`), `train` (`{run: {metric: number}}`, of the training pairs),
            `cross_validation` (`{metric: {"value", "low", "high"}}`), `rater_disagreement`
            (`{score: {"value", "low", "high"}}`), `pretraining` (`{"steps", "seconds", "rows",
            "before": {measure: number}, "after": …}`), `tuning` (`{"chosen": rate, "validation":
            {rate: {metric: {"value", "low", "high"}}}, "diverged": [rate], "queries"}`), `weights`
            (`{run: {"effective_sample_size", "gradient_variance_ratio"}}`, the second if defined).
            Runs without a cost (the baselines) are shown after those that have one.
        cleaning: `{"read": int, "rejected": {rule: rows}, "kept": int, "splits": {split: rows},
            "repaired": {repair: rows}}`.
        curves: For each plot, by the title of its y axis (say "training loss"), and for each run,
            one `(steps, values)` per seed. Runs keep their colours if they keep their order.
        pretraining_curves: The same of pretraining; shown where `metrics` has it.
        scores_by_label: For each score, by label name (lowest grade first), the training examples'
            scores, in arrays of floats `[n]`.
        suspicious: The labels most worth checking, the worst first, each with `query`, `title`,
            `label`, `opinion` (the label that the model prefers) and `score` (a float), and
            optionally `example_id`. The first 50 are shown.
        groups: For each view ("query", "brand", …), its groups by falling lift, each with `group`,
            `rows`, `share_of_rows`, `share_of_weight`, `lift` and `score`. Those with at least
            five rows are shown, ten from either end.
        settings: The configuration: plain values in mappings nested to any depth.
        run, reference, metric: What the sentence at the top is about.
        choosing: `Choice.as_json()` of `importance.choosing`, where score and policy were chosen by
            cross-validation, by `metric`.
        explanations: Predictions of `run` on its worst test queries, the worst first, each with
            `query`, `value` (of `metric` on that query), `title`, `label`, `predicted`, and `for`
            and `against`: training pairs by falling size of influence, each with `query`, `title`,
            `label` and `influence` (signed as in `importance.explaining`). The first ten are shown,
            three pairs of either kind.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "bounds": _bounds,
        "seconds": _seconds,
        "signed": _signed,
        "value": _value,
        "whole": _whole,
    }
    template = environment.from_string(
        resources.files("sie_jax.report").joinpath("template.html").read_text("utf-8")
    )
    names = list(dict.fromkeys(name for each in metrics["test"].values() for name in each))
    main = [name for name in names if not name.startswith(("precision_", "recall_"))]
    difference = metrics["difference"].get(run, {})
    # The plots are markup already: matplotlib has escaped the names in them.
    html = template.render(
        title=title,
        verdict=verdict(metrics, run=run, reference=reference, metric=metric),
        test=_trained_first(metrics["test"], metrics["cost"]),
        difference=_trained_first(metrics["difference"], metrics["cost"]),
        seeds=_trained_first(metrics["seeds"], metrics["cost"]),
        cost=metrics["cost"],
        queries=metrics.get("queries"),
        device=metrics.get("device"),
        planted=metrics.get("planted_errors"),
        reference=reference,
        main=main,
        by_label=[name for name in names if name not in main],
        difference_plot=Markup(
            plots.intervals(
                {name: difference[name] for name in main if name in difference},
                x_label=f"{run} less {reference}",
            )
        )
        if difference
        else None,
        funnel=_funnel(cleaning),
        repaired=cleaning["repaired"],
        curve_plots=_curve_plots(curves),
        pretraining_plots=_curve_plots(pretraining_curves),
        score_plots=[
            Markup(plots.histograms(by_label, x_label=name))
            for name, by_label in scores_by_label.items()
            if by_label
        ],
        suspicious=suspicious[:MOST_SUSPICIOUS],
        groups={name: ends for name, rows in groups.items() if any(ends := _ends(rows))},
        train=metrics.get("train", {}),
        cross_validation=metrics.get("cross_validation"),
        disagreement=metrics.get("rater_disagreement"),
        pretraining=metrics.get("pretraining"),
        tuning=metrics.get("tuning"),
        weights=metrics.get("weights"),
        choosing=choosing,
        decision=choosing and decision(choosing),
        metric=metric,
        settings=_flat(settings),
        explanations=(explanations or [])[:MOST_EXPLANATIONS],
        most_pairs=MOST_PAIRS,
        run=run,
    )
    epath.Path(path).write_text(html, encoding="utf-8")


def verdict(
    metrics: Mapping[str, Any], *, run: str, reference: str, metric: str
) -> tuple[str, str, str]:
    """Says whether `run` helped: (kind, first words, rest of the sentence).

    The kind is "helped" or "hurt" where the 95 % interval of the paired difference excludes zero
    (and the words say so where that is one seed's difference),
    "unresolved" where it does not, and "unknown" where there is no difference or no interval.
    """
    entry = metrics["difference"].get(run, {}).get(metric, {})
    value, low, high = (entry.get(name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return (
            "unknown",
            "Whether weighting helped cannot be told:",
            f"there is no interval for the difference in {metric} of {run} to {reference}.",
        )
    before, after = (_value(metrics["test"][name][metric]["value"]) for name in (reference, run))
    seeds = len(metrics["seeds"][run][metric])
    rest = (
        f"{metric} went from {before} ({reference}) to {after} ({run}), by {_signed(value)}, "
        f"95% interval {_signed(low)} to {_signed(high)}, "
        f"mean over {seeds} {'seed' if seeds == 1 else 'seeds'}"
    )
    if low <= 0 <= high:
        words = "Whether weighting helped is not resolved:"
        return "unresolved", words, f"{rest}; that includes zero."
    kind = "helped" if low > 0 else "hurt"
    if seeds == 1:
        # the interval is over queries: it knows nothing of what another seed would have given
        words = f"In this one training run weighting {kind}:"
        return (
            kind,
            words,
            f"{rest}; one seed cannot tell weighting from luck, so repeat over seeds.",
        )
    return kind, f"Weighting {kind}:", f"{rest}."


def decision(choosing: Mapping[str, Any]) -> str:
    """Says what was chosen and by which interval, in one sentence."""
    contender, chosen = choosing["contender"], choosing["chosen"]["name"]
    if contender is None:
        return "uniform is kept, because no candidate could be measured."
    if choosing["interval"]["low"] is None:
        return (
            f"uniform is kept, because there is no interval for the difference of "
            f"{contender['name']} from it."
        )
    bounds = _bounds(choosing["interval"], signed=True)
    if chosen == contender["name"]:
        return (
            f"{chosen} is taken, because the interval of its difference from uniform, {bounds}, "
            "lies above zero."
        )
    reason = "lies below" if choosing["interval"]["high"] < 0 else "reaches"
    return (
        f"uniform is kept, because the interval of the difference of {contender['name']} from it, "
        f"{bounds}, {reason} zero."
    )


def _curve_plots(curves: Mapping[str, Mapping[str, Sequence[plots.Curve]]]) -> list[Markup]:
    return [
        Markup(plots.lines(by_run, x_label="step", y_label=name))
        for name, by_run in curves.items()
        if any(by_run.values())
    ]


def _ends(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The groups of greatest and of least lift, none in both, among those with rows enough."""
    shown = [row for row in rows if row["rows"] >= LEAST_ROWS]
    most = shown[: min(MOST_GROUPS, (len(shown) + 1) // 2)]
    least = shown[len(most) :][-MOST_GROUPS:]
    return most, least[::-1]


def _trained_first(by_run: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
    return {run: by_run[run] for run in sorted(by_run, key=lambda run: run not in cost)}


def _funnel(cleaning: Mapping[str, Any]) -> list[tuple[str, str, int, float]]:
    """Rows of the cleaning table: (kind, name, rows, share of the rows read)."""
    rows = [("total", "read", cleaning["read"])]
    rows += [("rejected", name, count) for name, count in cleaning["rejected"].items()]
    rows += [("total", "kept", cleaning["kept"])]
    rows += [("split", name, count) for name, count in cleaning["splits"].items()]
    return [(*row, row[-1] / max(cleaning["read"], 1)) for row in rows]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", str(value)))
    return rows


def _formatted(number: float | None, form: str) -> str:
    if number is None or math.isnan(number):
        return _DASH
    return format(number, form).replace("-", _MINUS)


def _value(number: float | None) -> str:
    return _formatted(number, ".4f")


def _signed(number: float | None) -> str:
    return _formatted(number, "+.4f")


def _whole(number: float | None) -> str:
    return _formatted(number, ",.0f")


def _seconds(number: float | None) -> str:
    return _formatted(number, ",.1f")


def _bounds(entry: Mapping[str, float | None], signed: bool) -> str:
    form = "+.4f" if signed else ".4f"
    if entry["low"] is None or entry["high"] is None:
        return "no interval"
    return f"{_formatted(entry['low'], form)} to {_formatted(entry['high'], form)}"
