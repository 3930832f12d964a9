"""Chooses score, policy and strength by cross-validation over queries, round by round of a plan.

The last round of a plan (`planning`) trains the contender and `uniform` on other folds, and
`uniform` is kept unless the interval of their difference lies above zero.

One fault no trial can show: where a seller games the labels of its items, those that are held out
are gamed too. It shows in the labels themselves (`importance.doubtful.outlying_groups`), and GROUPS
is then chosen without a trial.

The contender is the best of many, and so it was lucky on the queries that it was picked by (the
winner's curse). No query of a fold that decides is in the training rows or in the held-out fold of
any earlier run: for the interval, the contender is a candidate that was fixed beforehand. The
interval covers the choice of the queries that were held out. It does not cover the chance of
training: two runs of one policy that differ only in their seed differ too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from sie_jax.importance.planning import Plan, Round
from sie_jax.importance.policies import (
    POLICIES,
    Believed,
    Clipped,
    Inverse,
    Keep,
    NamedPolicy,
    Tempered,
    Uniform,
)


class Candidate(NamedTuple):
    """A score and the policy that turns it into weights."""

    score: str
    policy: NamedPolicy

    @property
    def name(self) -> str:
        """What a reader calls it: "el2n keep 0.8", or "uniform", which looks at no score."""
        if isinstance(self.policy, Uniform):
            return self.policy.name
        strength = self.policy.strength
        words = [self.score, self.policy.name, *([] if strength is None else [f"{strength:g}"])]
        return " ".join(words)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_json` makes the candidate again."""
        policy = self.policy
        named = {"policy": policy.name, "strength": policy.strength}
        return {"name": self.name, "score": self.score, **named}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The candidate that `as_json` gave."""
        return cls(stored["score"], POLICIES[stored["policy"]].of_strength(stored["strength"]))


UNIFORM = Candidate("grad_norm", Uniform())
GROUPS = Candidate("doubtful_groups", Believed())
CANDIDATES = (
    Candidate("grad_norm", Clipped()),
    Candidate("el2n", Keep(fraction=0.8)),
    Candidate("loss", Inverse()),
    Candidate("margin", Keep(fraction=0.6)),
    Candidate("loss", Keep(fraction=0.9)),
    Candidate("loss", Tempered(power=-0.5)),
    Candidate("grad_norm", Tempered(power=0.5)),
)
"""Candidates beside uniform for labels of any noise: from hardly any (clipped, keep 0.9, and
tempered 0.5, which favours the hard) to two in five wrong (keep 0.6). Those that differ most come
first: a budget takes as many as it can train for long enough (`planning.affordable`)."""

_Values = dict[tuple[Candidate, int, float], np.ndarray]


class Choice(NamedTuple):
    """What was chosen and why.

    chosen: The contender, or `UNIFORM`.
    contender: The candidate of the last round; None if no candidate could be trained.
    interval: `{"value", "low", "high"}` of the contender's mean difference from uniform, over the
        queries of the folds that decide; > 0 if the contender is better. None is undefined.
    comparison: A row for each round and candidate, in the order of training: `round` (from 1),
        `share`, `candidate` (its name), `queries` (those with a value), `mean`, `difference` (the
        mean over these queries of its value less uniform's; None for uniform), `outcome`
        ("reference" for uniform, "kept", "dropped" or "undefined", and in the last round "chosen"
        or "dropped"), and `folds`: `queries`, `mean` and `difference` of each fold, with `fold`.
    cost: `budget`, `planned` and `spent`, in units of one full training.
    outlying: The share of the training pairs that are of sellers unlike all others. Above 0 GROUPS
        is chosen, and nothing was tried.
    """

    chosen: Candidate
    contender: Candidate | None
    interval: dict[str, float | None]
    comparison: list[dict[str, Any]]
    cost: dict[str, float]
    outlying: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, as the report takes them."""
        return {
            **self._asdict(),
            "chosen": self.chosen.as_json(),
            "contender": self.contender and self.contender.as_json(),
        }


def without_trial(outlying: float, *, budget: float) -> Choice:
    """The choice of GROUPS, which costs nothing; `outlying` is above 0."""
    interval: dict[str, float | None] = dict.fromkeys(("value", "low", "high"))
    cost = {"budget": budget, "planned": 0.0, "spent": 0.0}
    return Choice(GROUPS, None, interval, [], cost, outlying)


def choose(
    candidates: Sequence[Candidate],
    measure: Callable[[Candidate, int, float], np.ndarray],
    plan: Plan,
    *,
    interval: Callable[[np.ndarray], Mapping[str, float | None]],
) -> Choice:
    """Measures the candidates round by round, and gives the one to use.

    A round keeps the candidates with the highest mean of the paired differences
    d_q = value_q(candidate) - value_q(uniform) over the queries of its folds. Candidates that tie
    keep their order, which is at first the one given. The contender is chosen if `low` of the
    interval of its d_q in the last round is above 0. If it is not, or is undefined, uniform is.

    Args:
        candidates: As many as the plan was made for, all different, none of policy uniform.
        measure: (candidate, fold, share) -> float `[Q_fold]`, a metric of each query of the fold
            (high is good), after training on `share` of `plan.trained_on(fold)`. The queries are in
            the same order for all candidates. A query without a value has NaN for all candidates; a
            run whose loss became NaN or infinite has NaN for all queries. Calls come in one order:
            round by round, fold by fold, uniform first. None comes twice, so that a caller can keep
            each result in a file and resume from these files.
        plan: From `planning.plan` or `planning.affordable`.
        interval: The 95 % interval of the mean of d `[Q]`, as {"value", "low", "high"}, for example
            `evaluation.intervals.of_mean`. It decides alone, and so it must be paired and
            deterministic.

    Returns:
        The choice. A candidate that diverged on one of a round's folds is dropped. If all are, the
        remaining rounds are not run, and uniform is kept. `spent` is what the calls cost; it is
        below `planned` if rounds were not run, or needed what was already measured.

    Raises:
        ValueError: the plan is for another number of candidates, two are equal or one is uniform,
            or a candidate's values are of other queries than uniform's.
    """
    if len(candidates) != plan.candidates:
        raise ValueError(
            f"there are {len(candidates)} candidates, the plan is for {plan.candidates}"
        )
    names = [UNIFORM.name, *(candidate.name for candidate in candidates)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"of the candidates {', '.join(names)} two have one name: name each once, and uniform "
            "never, because it is always tried"
        )
    values: _Values = {}
    comparison: list[dict[str, Any]] = []
    survivors = list(candidates)
    for number, each in enumerate(plan.rounds, 1):
        for fold in each.folds:
            for candidate in (UNIFORM, *survivors):
                key = (candidate, fold, each.share)
                if key not in values:
                    values[key] = _checked(measure(*key), values.get((UNIFORM, *key[1:])), key)
        rows = {one: _row(values, one, number, each) for one in (UNIFORM, *survivors)}
        comparison += rows.values()
        merits = {one: rows[one]["difference"] for one in survivors}
        best = sorted(
            (one for one in survivors if merits[one] is not None), key=lambda one: -merits[one]
        )
        places = 1 if number == len(plan.rounds) else plan.rounds[number].candidates
        for one in survivors:
            rows[one]["outcome"] = (
                "undefined" if one not in best else "kept" if one in best[:places] else "dropped"
            )
        survivors = best[:places]
        if not survivors:
            break
    contender = survivors[0] if survivors else None
    chosen = UNIFORM
    found: dict[str, float | None] = dict.fromkeys(("value", "low", "high"))
    if contender:
        found = dict(interval(_differences(values, contender, each.folds, each.share)))
        if found["low"] is not None and found["low"] > 0:
            chosen = contender
        for one in (UNIFORM, contender):
            rows[one]["outcome"] = "chosen" if one == chosen else "dropped"
    spent = sum(plan.scoring_cost(*of) for of in {(fold, share) for _, fold, share in values})
    spent += sum(plan.run_cost(fold, share) for _, fold, share in values)
    cost = {"budget": plan.budget, "planned": plan.cost, "spent": spent}
    return Choice(chosen, contender, found, comparison, cost)


def _checked(
    values: np.ndarray, reference: np.ndarray | None, key: tuple[Candidate, int, float]
) -> np.ndarray:
    """The values in float64; ValueError if they are not of the same queries as uniform's."""
    values = np.asarray(values, np.float64)
    reference = values if reference is None else reference
    missing = np.isnan(values)
    if values.ndim != 1 or values.shape != reference.shape:
        raise ValueError(
            f"{key[0].name}, fold {key[1]}: values have shape {values.shape}, those of uniform "
            f"{reference.shape}: give one value for each query"
        )
    if not missing.all() and (missing != np.isnan(reference)).any():
        raise ValueError(
            f"{key[0].name}, fold {key[1]}: other queries are NaN than for uniform: give a query a "
            "value for all candidates or for none"
        )
    return values


def _differences(
    values: _Values, candidate: Candidate, folds: Sequence[int], share: float
) -> np.ndarray:
    """d_q over the queries of the folds; all NaN if the candidate diverged on one of them."""
    parts = [values[candidate, fold, share] - values[UNIFORM, fold, share] for fold in folds]
    diverged = any(
        np.isnan(part).all() and not np.isnan(values[UNIFORM, fold, share]).all()
        for part, fold in zip(parts, folds, strict=True)
    )
    return np.concatenate(parts) * (np.nan if diverged else 1.0)


def _row(values: _Values, candidate: Candidate, number: int, each: Round) -> dict[str, Any]:
    """The row of `comparison` for a candidate in a round."""

    def measured(folds: Sequence[int]) -> dict[str, Any]:
        differences = _differences(values, candidate, folds, each.share)
        own = np.concatenate([values[candidate, fold, each.share] for fold in folds])
        return {
            "queries": int((~np.isnan(differences)).sum()),
            "mean": _mean(np.where(np.isnan(differences), np.nan, own)),
            "difference": None if candidate == UNIFORM else _mean(differences),
        }

    return {
        "round": number,
        "share": each.share,
        "candidate": candidate.name,
        **measured(each.folds),
        "outcome": "reference",
        "folds": [{"fold": fold, **measured([fold])} for fold in each.folds],
    }


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
