"""The verdict on a run: is the exported ranker above the best baseline, and did weighting help?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from sie_jax.evaluation import claims, ranking
from sie_jax.evaluation.intervals import Judgments
from sie_jax.evaluation.predictions import Predictions

# what its user could rank by without training anything here
BASELINES = ("random", "token_overlap", "bm25", "checkpoint", "checkpoint_text", "current")
LINEAR = "linear"
METRIC = "ndcg@10"
FEW_QUERIES = 50

Interval = dict[str, float | None]


class Training(NamedTuple):
    """What the trained models of a run rest on.

    queries, pairs: of the training split. steps: of one training run. steps_per_epoch: how many see
    every pair once. pretrained: whether the models started from a pretrained one.
    """

    queries: int
    pairs: int
    steps: int
    steps_per_epoch: int
    pretrained: bool


class _Rivalry(NamedTuple):
    """The exported ranker and the best baseline on the test queries, beside the other runs."""

    ranker: str
    best: str
    means: Mapping[str, float]
    difference: Interval
    queries: int
    folds: Sequence[str]
    made: bool  # by a run, which exported it

    @property
    def subject(self) -> str:
        """What the ranker is, to begin a sentence with."""
        return "The exported ranker" if self.made else "The ranker"

    @property
    def measured(self) -> str:
        """What the queries are: only a run knows which of them nothing was trained on."""
        return "test queries" if self.made else "queries"

    @property
    def exported(self) -> Counter[str]:
        """What is exported: the ranker, or in how many folds each was."""
        return Counter(self.folds or [self.ranker])

    @property
    def free(self) -> bool:
        """Whether nothing but baselines is exported."""
        return self.exported.keys() <= {*BASELINES}

    @property
    def called(self) -> str:
        """What is exported, as a part of a sentence."""
        if not self.folds:
            return self.ranker
        return " and ".join(
            f"{name} in {n} folds" if n > 1 else f"{name} in one fold"
            for name, n in self.exported.most_common()
        )

    @property
    def resolved(self) -> bool | None:
        """Whether the ranker is above (True), or below (False); None if that is not resolved."""
        return resolved(self.difference)


def by_query(
    judgments: Judgments, runs: Mapping[str, Sequence[Predictions]], *, metric: str = METRIC
) -> dict[str, Float64[np.ndarray, "S Q"]]:
    """A ranking metric of every seed of every run on every query, NaN where it is left out.

    The queries are in the order of their ids, the same for all runs.
    """
    distinct, query_index = np.unique(
        np.asarray(judgments.query_ids, dtype=str), return_inverse=True
    )
    ties = ranking.tie_order(judgments.example_ids)

    def measured(one: Predictions) -> np.ndarray:
        return ranking.per_query(
            one.scores,
            judgments.labels,
            judgments.gains,
            query_index,
            num_queries=len(distinct),
            example_ids=ties,
        )[metric]

    return {run: np.stack([measured(one) for one in several]) for run, several in runs.items()}


def verdict(
    ndcg: Mapping[str, Float64[np.ndarray, "S Q"]],
    training: Training | None,
    *,
    ranker: str,
    seed: int = 0,
    choice: str = "",
    weighted: str = "weighted",
    uniform: str = "uniform",
    folds: Sequence[str] = (),
) -> dict[str, Any]:
    """Says what a run has shown, as numbers and in sentences.

    *The exported ranker against the best baseline* is a claim about two fixed rankers, over queries
    (`claims.fixed`). The best baseline is the one with the highest mean on these very test queries:
    the best of several is partly lucky on them, which favours the baseline. So "above" is claimed
    less often than the level allows, never more; "below" leans the same way, to the side that costs
    less, since what is then deployed is free. The advice to deploy `linear` compares its mean on
    them too, without an interval. No other choice is made on the test queries.

    *Weighting* is a claim about two procedures, over queries and seeds (`claims.procedure`). With
    one seed it has a value without bounds, and the sentence says why.

    Args:
        ndcg: nDCG@10 of every run, one row a seed, one column a query (`by_query`). Those of
            `BASELINES` that are among the runs are the baselines; one is needed.
        training: What the trained models rest on; None where the rankings come from elsewhere, and
            nothing is said of training or of what to do next.
        ranker: The run that is exported, one of `ndcg`.
        seed: The row of it that is exported.
        choice: A sentence on how it was chosen, for the notes; "" where nothing is said of it.
        weighted, uniform: The runs that the weighting is judged by, of equal numbers of seeds.
            Where one of them is not among the runs, nothing is said of weighting.
        folds: Where the queries are those of all folds of a cross-validation: what each exported.
            `ranker` is then the run that has on each query what the query's fold exported, and
            `training` is of the smallest fold. The claims are about these rankers as they are.

    Returns:
        Plain JSON values, None where undefined:

            {"ranker", "best_baseline",
             "ndcg@10": {"value", "low", "high"},      ranker minus best baseline
             "beats_baseline": true | false | null,    null: not resolved
             "weighting": {"value", "low", "high"},    weighted minus uniform
             "notes": [one sentence or two each]}

        `beats_baseline` is False where the ranker is a baseline itself (in every fold), and the
        first note names it. Queries that are NaN in any run are left out.

    Raises:
        ValueError: The ranker, or any baseline, is not among the runs.
    """
    if ranker not in ndcg:
        raise ValueError(f"the exported ranker {ranker!r} is not among the runs {list(ndcg)}")
    defined = ~np.isnan(np.concatenate(list(ndcg.values()))).any(0)
    scores = {run: rows[:, defined] for run, rows in ndcg.items()}
    exported, queries = scores[ranker][seed], int(defined.sum())
    means = {run: float(rows.mean()) if queries else np.nan for run, rows in scores.items()}
    baselines = [run for run in BASELINES if run in means]
    if not baselines:
        raise ValueError(f"no baseline is among the runs {list(ndcg)}: {', '.join(BASELINES)}")
    best = max(baselines, key=lambda run: means[run])

    rivalry = _Rivalry(
        ranker,
        best,
        means,
        claims.fixed(exported - (exported if ranker == best else scores[best].mean(0))),
        queries,
        folds,
        training is not None,
    )
    weighting: Interval = dict.fromkeys(("value", "low", "high"))
    notes = _of_ranker(rivalry)
    if folds:
        notes[0] = (
            f"Over all {queries:,} queries, each tested once by {len(folds)}-fold "
            f"cross-validation: {notes[0][0].lower()}{notes[0][1:]}"
        )
    notes += [choice] if choice else []
    if weighted in scores and uniform in scores:
        weighting = claims.procedure(scores[weighted] - scores[uniform])
        seeds = len(scores[weighted])
        notes.append(_of_weighting(weighting, means[weighted], means[uniform], seeds))
    notes += [*_of_basis(rivalry, training)] if training else []
    notes += _warnings(rivalry, training)
    beats = False if rivalry.free else rivalry.resolved
    if training and not beats:
        notes += _advice(rivalry, training)
    return {
        "ranker": ranker,
        "best_baseline": best,
        METRIC: rivalry.difference,
        "beats_baseline": beats,
        "weighting": weighting,
        "notes": notes,
    }


def better(names: Sequence[str], means: Sequence[float], difference: Interval, queries: int) -> str:
    """Whether the first of two fixed rankings is the better one: a sentence.

    means: of nDCG@10. difference: first minus second (`claims.fixed`).
    """
    first, second = names
    if difference["low"] is None:
        return (
            f"It is unknown whether {first} or {second} ranks better, because there are too few "
            f"queries ({queries})."
        )
    if difference["low"] == difference["high"] == 0:
        return (
            f"{first} and {second} rank every query alike: on {queries:,} queries, {METRIC} is "
            f"{means[0]:.4f} of both."
        )
    measured = _measured(f"{means[0]:.4f} of {first}", f"{means[1]:.4f} of {second}", difference)
    found = resolved(difference)
    if found is None:
        return (
            f"It is not resolved whether {first} or {second} ranks better: on {queries:,} queries, "
            f"{measured}."
        )
    claim = f"{first} ranks {'better' if found else 'worse'} than {second}"
    return f"{claim}: on {queries:,} queries, {measured}."


def _of_ranker(rivalry: _Rivalry) -> list[str]:
    """Whether the exported ranker is above the best baseline, by how much, and how sure this is."""
    called, best, queries = rivalry.called, rivalry.best, rivalry.queries
    subject, theirs = rivalry.subject, rivalry.means[best]
    value = rivalry.difference["value"] or 0.0
    measured = _measured(f"{theirs + value:.4f}", f"{theirs:.4f}", rivalry.difference)
    measured = f"on {queries:,} {rivalry.measured}, {measured}"
    if rivalry.free:
        notes = [
            f"The exported ranker is a baseline, {called}: without the test queries, no "
            "ranker of our own was shown to be better."
        ]
        if value < 0:
            notes.append(f"Another baseline, {best}, is higher than {called}: {measured}.")
        return notes
    place = f"the best baseline, {best}: {measured}."
    if rivalry.difference["low"] is None:
        return [
            f"It is unknown whether {subject.lower()}, {called}, is above the best "
            f"baseline, {best}, because there are too few {rivalry.measured} ({queries})."
        ]
    if rivalry.resolved is None:
        return [f"It is not resolved whether {subject.lower()}, {called}, is above {place}"]
    side = "above" if rivalry.resolved else "below"
    return [f"{subject}, {called}, is {side} {place}"]


def _of_weighting(weighting: Interval, weighted: float, uniform: float, seeds: int) -> str:
    """Whether weighting helped."""
    if weighting["value"] is None or (seeds > 1 and weighting["low"] is None):
        return "It is unknown whether weighting helped, because there are too few test queries."
    measured = _measured(f"{weighted:.4f} weighted", f"{uniform:.4f} uniform", weighting)
    if seeds == 1:
        return (
            f"Nothing is claimed about weighting: {measured}, but one seed cannot tell weighting "
            "from the chance of training, so train three seeds or more (--config.train.seeds=3)."
        )
    side = resolved(weighting)
    claim = "It is not resolved whether weighting helped"
    if side is not None:
        claim = "Weighting helped" if side else "Weighting hurt"
    return f"{claim}: over {seeds} seeds, {measured}."


def _of_basis(rivalry: _Rivalry, training: Training) -> list[str]:
    """How much the verdict rests on, and over folds what it is about."""
    trained = (
        f"{training.queries:,} training queries with {training.pairs:,} pairs, "
        f"{training.steps:,} training steps"
    )
    if not rivalry.folds:
        return [f"This rests on {trained} and {rivalry.queries:,} test queries."]
    notes = [
        f"This rests on {trained} in the smallest fold, and {rivalry.queries:,} test queries in "
        "all folds."
    ]
    if not rivalry.free:
        notes.append(
            f"The interval against the baseline is about these {len(rivalry.folds)} rankers as "
            "they were trained, over the queries of this set: it does not hold the chance of "
            "training."
        )
    return notes


def _warnings(rivalry: _Rivalry, training: Training | None) -> list[str]:
    """What a reader must know before believing any of it."""
    notes, queries, lowest = [], rivalry.queries, rivalry.means[rivalry.best]
    if queries < FEW_QUERIES:
        notes.append(
            f"With fewer than {FEW_QUERIES} {rivalry.measured} ({queries}), a few of them decide "
            "the result."
        )
    if training and training.steps < training.steps_per_epoch:
        notes.append(
            f"Training took {training.steps:,} steps, less than one epoch of "
            f"{training.steps_per_epoch:,}, so the trained models have not seen every pair."
        )
    below = [
        f"{run} ({mean:.4f})"
        for run, mean in rivalry.means.items()
        if run not in BASELINES and run != rivalry.ranker and mean < lowest
    ]
    if below:
        notes.append(
            f"Below the best baseline, {rivalry.best} ({lowest:.4f}), on the {rivalry.measured}: "
            f"{', '.join(below)}."
        )
    return notes


def _advice(rivalry: _Rivalry, training: Training) -> list[str]:
    """What to do where the exported ranker is not shown to be above the best baseline."""
    best, means, queries = rivalry.best, rivalry.means, rivalry.queries
    notes = []
    value, low, high = (rivalry.difference[name] for name in ("value", "low", "high"))
    if not rivalry.free and value:
        ours, own = means.get(LINEAR, -np.inf), means[best] + value
        if {*rivalry.exported} != {LINEAR} and ours >= max(own, means[best]):
            notes.append(f"Deploy {LINEAR} for now: it ranks no worse and costs less.")
        elif value < 0:
            notes.append(f"Deploy {best} for now.")
    if not training.pretrained:
        notes.append("Start from a pretrained model (--config.model.pretrained=FOLDER).")
    if rivalry.free or rivalry.resolved is False:
        notes.append("Train on more queries.")
    elif value and low is not None and high is not None:
        # the half width falls with the square root of the number of queries
        needed = queries * ((high - low) / 2 / value) ** 2
        notes.append(
            "Test on more queries: a difference of this size takes about "
            f"{_two_digits(needed):,} to be resolved."
        )
    return notes


def resolved(interval: Interval) -> bool | None:
    """On which side of zero an interval lies; None where it includes it or is undefined."""
    low, high = interval["low"], interval["high"]
    if low is None or high is None or low <= 0 <= high:
        return None
    return low > 0


def _measured(ours: str, theirs: str, difference: Interval) -> str:
    """A sentence's part: both means, their difference and its interval."""
    value, low, high = (difference[name] for name in ("value", "low", "high"))
    text = f"{METRIC} is {ours} against {theirs}"
    if value is None or low is None or high is None:
        return text
    zero = ", which includes zero" if low <= 0 <= high else ""
    return (
        f"{text}, and the difference is {_signed(value)} (95% interval {_signed(low)} to "
        f"{_signed(high)}{zero})"
    )


def _signed(number: float) -> str:
    return f"{number:+.4f}".replace("-", "\N{MINUS SIGN}")


def _two_digits(number: float) -> int:
    """Rounded up to two digits."""
    unit = 10 ** max(len(str(int(number))) - 2, 0)
    return int(-(-number // unit) * unit)
