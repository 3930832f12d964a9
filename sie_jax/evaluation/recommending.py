"""What recommenders gave to the users kept apart: metrics with intervals, and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sie_jax.evaluation import claims, retrieval
from sie_jax.evaluation.retrieval import Wanted
from sie_jax.evaluation.slices import holm

METRIC = "ndcg@10"
UNIFORM = "uniform"
ALPHA = 0.05

Lists = Mapping[str, Sequence[np.ndarray]]
"""The lists `[C, k]` of each run, one for each seed."""


def by_user(
    lists: Lists, wanted: Wanted, depths: Sequence[int]
) -> dict[str, dict[str, np.ndarray]]:
    """Each metric of each run, one row a seed, one column a user `[S, C]`."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for run, several in lists.items():
        each = [retrieval.per_query(one, wanted, depths=depths) for one in several]
        found[run] = {metric: np.stack([one[metric] for one in each]) for metric in each[0]}
    return found


def summarised(
    measured: Mapping[str, Mapping[str, np.ndarray]], rows: np.ndarray | None = None
) -> dict[str, Any]:
    """`test`, `difference` (from `uniform`) and `seeds` of metrics.json, over some users.

    Values in `test` have Student's interval over users, of the mean over seeds. A difference is a
    claim about procedures: paired, over users and seeds (`claims.procedure`); with one seed it has
    no bounds.
    """

    def chosen(values: np.ndarray) -> np.ndarray:
        return values if rows is None else values[:, rows]

    test = {
        run: {metric: claims.fixed(chosen(values).mean(0)) for metric, values in metrics.items()}
        for run, metrics in measured.items()
    }
    seeds = {
        run: {metric: chosen(values).mean(1).tolist() for metric, values in metrics.items()}
        for run, metrics in measured.items()
    }
    difference: dict[str, dict[str, Any]] = {}
    for run, metrics in measured.items():
        if run == UNIFORM:
            continue
        difference[run] = {}
        for metric, values in metrics.items():
            sizes, between = claims.contrasts(chosen(values), chosen(measured[UNIFORM][metric]))
            assert len(sizes) == 1
            difference[run][metric] = claims.procedure(between)
    return {"test": test, "difference": difference, "seeds": seeds}


def verdict(
    measured: Mapping[str, Mapping[str, np.ndarray]],
    *,
    exported: str,
    baselines: Sequence[str],
    validation: Mapping[str, float],
    no_weighting: Sequence[str] = (),
) -> dict[str, Any]:
    """The exported recommender against the best baseline, and what weighting did, in sentences.

    The best baseline is the one with the highest mean on these very users, in its favour. The
    exported one was chosen on the validation users; the first seed of it is a fixed artefact, so
    the interval is over users. Weightings are procedures, and marked by Holm's correction over all
    of them. no_weighting: runs beside the baselines that are no weighting.
    """
    ndcg = {run: metrics[METRIC] for run, metrics in measured.items()}
    means = {run: float(rows.mean()) for run, rows in ndcg.items()}
    best = max(baselines, key=lambda run: means[run])
    users = next(iter(ndcg.values())).shape[1]
    difference = claims.fixed(ndcg[exported][0] - ndcg[best][0])
    low, high = difference["low"], difference["high"]
    beats: bool | None = None
    if low is not None and high is not None:
        beats = True if low > 0 else False if high < 0 else None
    if exported in baselines:
        beats = False
    notes = [_of_exported(exported, best, difference, beats, users, means, exported in baselines)]
    notes.append(
        f"{exported} was chosen on the validation users: "
        + ", ".join(f"{run} {value:.4f}" for run, value in sorted(validation.items()))
        + f" ({METRIC})."
    )
    runs = [run for run in measured if run not in (*baselines, *no_weighting, UNIFORM)]
    rows = {run: ndcg[run] - ndcg[UNIFORM] for run in runs}
    weighting: dict[str, Any] = dict.fromkeys(("value", "low", "high"))
    if runs:
        weighting = claims.procedure(rows[runs[0]])
        notes += _of_weightings(rows)
    return {
        "ranker": exported,
        "best_baseline": best,
        METRIC: difference,
        "beats_baseline": beats,
        "weighting": weighting,
        "notes": notes,
    }


def _of_exported(
    exported: str,
    best: str,
    difference: Mapping[str, float | None],
    beats: bool | None,
    users: int,
    means: Mapping[str, float],
    free: bool,
) -> str:
    if free:
        return (
            f"What is exported is the baseline {exported}: no trained recommender was above it on "
            f"the validation users. On {users:,} test users its {METRIC} is {means[exported]:.4f}."
        )
    told = (
        f"on {users:,} test users {METRIC} is {difference['value']:+.4f} "
        f"[{difference['low']:+.4f}, {difference['high']:+.4f}] from that of the best baseline, "
        f"{best} ({means[best]:.4f})"
        if difference["low"] is not None
        else "there are too few users to tell"
    )
    claim = {
        True: f"The exported recommender, {exported}, is above the best baseline",
        False: f"The exported recommender, {exported}, is below the best baseline",
        None: f"It is not resolved whether the exported recommender, {exported}, is above the best "
        "baseline",
    }[beats]
    return f"{claim}: {told}."


def _of_weightings(rows: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence on each way to weigh, marked by Holm's correction over all of them."""
    seeds = len(next(iter(rows.values())))
    if seeds < 2:
        told = ", ".join(f"{run} {float(one.mean()):+.4f}" for run, one in rows.items())
        return [
            f"One seed cannot tell a weighting from luck ({told} from uniform in {METRIC}): train "
            "more, with --config.train.seeds=3."
        ]
    p_values = [_p_value(one) for one in rows.values()]
    notes = []
    for (run, one), p_value in zip(rows.items(), holm(p_values), strict=True):
        found = claims.procedure(one)
        assert found["value"] is not None
        shown = f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        claim = "is not shown to differ from"
        if p_value < ALPHA:
            claim = "is above" if found["value"] > 0 else "is below"
        notes.append(f"{run} {claim} uniform: {shown} in {METRIC} over {seeds} seeds.")
    return notes


def _p_value(differences: np.ndarray) -> float:
    """Of "the two procedures are alike", from their differences `[S, C]`."""
    return claims.p_value(lambda level: claims.procedure(differences, level=level))
