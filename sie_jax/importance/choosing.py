"""Chooses score, policy and strength by cross-validation over queries, within a budget.

Successive halving: all candidates are trained on a little, the better half on more, and so on
until one is left, the contender. The last round trains the contender and `uniform` on other folds,
and `uniform` is kept unless the interval of their difference lies above zero.

The contender is the best of many, and so it was lucky on the queries it was picked by (the winner's
curse). No query of a fold that decides is in the training rows or in the held-out fold of any
earlier run: for the interval, the contender is a candidate fixed beforehand. And what a policy
gains in a short training on few rows it need not gain in a long one on all of them: so the last
round comes before the others when the budget is shared out. The interval covers which queries were
held out. It does not cover the chance of training: two runs of one policy that differ by their seed
alone differ too.

Source: Karnin et al. 2013, "Almost Optimal Exploration in Multi-Armed Bandits"; Jamieson and
Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", figure 3
(each round has the same budget); Li et al. 2018, "Hyperband". There training goes on where a round
stopped it; here every run starts anew, because its learning rate falls to zero at its end. The
round that decides, with a larger budget than the others, is ours.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# with less of a full training than this a run has hardly begun
LEAST_SHARE = 0.02
# and of less than this of some thousand pairs it ranks candidates by chance
FAIR_SHARE = 0.25
# on less than this of the rows a difference from uniform is another than on all of them
DECIDING_SHARE = 0.75
STRENGTHS = {
    "tempered": "power",
    "keep": "fraction",
    "keep_hardest": "fraction",
    "banded": "drop_hardest",
}
"""The policies that have a strength, and what their functions call it."""


class Candidate(NamedTuple):
    """A score, what is made of it, and how strongly; a strength of None is the policy's own."""

    score: str
    policy: str
    strength: float | None = None

    @property
    def name(self) -> str:
        """What a reader calls it: "el2n keep 0.8", or "uniform", which looks at no score."""
        if self.policy == "uniform":
            return "uniform"
        return " ".join(
            [self.score, self.policy, *([] if self.strength is None else [f"{self.strength:g}"])]
        )

    @property
    def options(self) -> dict[str, float]:
        """The keyword arguments of the policy's function in `weighting.POLICIES`."""
        return {} if self.strength is None else {STRENGTHS[self.policy]: self.strength}


UNIFORM = Candidate("grad_norm", "uniform")
CANDIDATES = (
    Candidate("grad_norm", "clipped"),
    Candidate("el2n", "keep", 0.8),
    Candidate("loss", "inverse"),
    Candidate("margin", "keep", 0.6),
    Candidate("loss", "keep", 0.9),
    Candidate("loss", "tempered", -0.5),
    Candidate("grad_norm", "tempered", 0.5),
)
"""Candidates beside uniform for labels of any noise: from hardly any (clipped, keep 0.9, and
tempered 0.5, which favours the hard) to two in five wrong (keep 0.6). Those that differ most stand
first: a budget takes as many as it can train for long enough (`affordable`)."""


class Costs(NamedTuple):
    """What is paid per example, in forward-equivalents: a forward pass 1, a full backward 2.

    training: a full training: 3 times the epochs.
    scoring: the warm-up and the scoring pass: 3 times the epochs of the warm-up, and 2.
    predicting: the held-out pairs' predictions: 1.
    """

    training: float
    scoring: float
    predicting: float = 1.0


class Round(NamedTuple):
    """`candidates` of them and uniform, each on the same `share` of a fold's training rows."""

    folds: tuple[int, ...]
    candidates: int
    share: float


class Plan(NamedTuple):
    """The rounds, the last of which decides; all costs are in units of one full training.

    One full training is `costs.training` forward-equivalents for each of the rows of all folds.
    """

    rounds: tuple[Round, ...]
    rows: tuple[int, ...]
    costs: Costs
    budget: float

    def trained_on(self, fold: int) -> tuple[int, ...]:
        """The folds whose rows train and score where `fold` is held out, the same in all rounds.

        All others where the fold decides. Elsewhere the folds that decide are left out as well.
        """
        out = {fold} if fold in self.rounds[-1].folds else {fold, *self.rounds[-1].folds}
        return tuple(other for other in range(len(self.rows)) if other not in out)

    def scoring_cost(self, fold: int, share: float) -> float:
        """The warm-up and the scoring pass on `share` of a fold's training rows, for all runs."""
        return self._share_of_rows(fold) * share * self.costs.scoring / self.costs.training

    def run_cost(self, fold: int, share: float) -> float:
        """Training one candidate on `share` of the rows, and predicting the fold."""
        predicted = self.rows[fold] / sum(self.rows)
        return (
            self._share_of_rows(fold) * share
            + predicted * self.costs.predicting / self.costs.training
        )

    @property
    def cost(self) -> float:
        """What the whole plan costs, ≤ `budget` but for rounding in the last digit."""
        return sum(
            self.scoring_cost(fold, each.share)
            + (each.candidates + 1) * self.run_cost(fold, each.share)
            for each in self.rounds
            for fold in each.folds
        )

    def _share_of_rows(self, fold: int) -> float:
        return sum(self.rows[other] for other in self.trained_on(fold)) / sum(self.rows)


def plan(
    number_of_candidates: int,
    *,
    rows: Sequence[int],
    costs: Costs,
    budget: float = 2.0,
    least_share: float = LEAST_SHARE,
) -> Plan:
    """Plans the rounds: n, ⌊n/2⌋, ⌊n/4⌋, … candidates, then the last one against uniform.

    The first fold is held out in all rounds but the last, and the last one in the last round. The
    budget pays for predicting, for `least_share` of the rows in every round before the last, and
    then for as many rows in the last round as it can. What is left when that one takes all goes to
    the others, which score and train for the same cost; one that needs less to take all rows leaves
    the rest to the others. With one candidate there is only the round that decides, on as many
    folds as can train in full, and on one where none can.

    Args:
        number_of_candidates: n ≥ 1, uniform not counted: it is in every round.
        rows: The number of training rows of each fold, all ≥ 1. At least 3 folds, 2 where n is 1.
        costs: What an example costs.
        budget: The most that all of it may cost, in units of one full training.
        least_share: No run gets less of the rows than this.

    Returns:
        A plan with `cost` ≤ `budget`. A run is to take `share` of its training rows, rounded down,
        for all epochs.

    Raises:
        ValueError: there are no candidates or too few folds, or the budget leaves a run less than
            `least_share`. The message says which budget is enough.
    """
    if number_of_candidates < 1:
        raise ValueError("there are no candidates to choose among: give at least one")
    entering = _halved(number_of_candidates)
    needed = 2 if len(entering) == 1 else 3
    if len(rows) < needed or min(rows) < 1:
        raise ValueError(
            f"the folds have {list(rows)} rows: choosing among {number_of_candidates} needs at "
            f"least {needed} folds, none of them empty"
        )
    for folds in range(len(rows) if len(entering) == 1 else 1, 0, -1):
        made = _shared_out(entering, folds, Plan((), tuple(rows), costs, budget), least_share)
        if made.rounds[-1].share == 1:
            break
    if made.rounds[-1].share < least_share:
        enough = _fixed(made) + _least(made, least_share) + least_share * _full(made)[-1]
        enough = (math.floor(100 * enough) + 1) / 100  # above it, so that rounding cannot refuse it
        raise ValueError(
            f"a budget of {budget:g} full trainings is too small to choose among "
            f"{number_of_candidates} candidates: raise it to {enough:g}, or name fewer candidates"
        )
    return made


def affordable(
    candidates: Sequence[Candidate],
    *,
    rows: Sequence[int],
    costs: Costs,
    budget: float = 2.0,
    fair_share: float = FAIR_SHARE,
) -> tuple[tuple[Candidate, ...], Plan]:
    """The first candidates, as many as get `fair_share` of the rows in every round.

    And of which the last round can take DECIDING_SHARE. Fewer candidates, each on more: a round
    that ranks by chance is worth nothing, and the good are lost in it with the bad. Arguments as
    `plan`.

    Raises:
        ValueError: as `plan`, where it is not enough for one candidate.
    """
    for number in range(len(candidates) if len(rows) > 2 else 1, 1, -1):
        made = _shared_out(_halved(number), 1, Plan((), tuple(rows), costs, budget), fair_share)
        if made.rounds[-1].share >= DECIDING_SHARE:
            return tuple(candidates[:number]), made
    one = plan(1, rows=rows, costs=costs, budget=budget, least_share=fair_share)
    return tuple(candidates[:1]), one


def _halved(number: int) -> list[int]:
    """How many candidates enter each round: n, ⌊n/2⌋, …, 1."""
    entering = [number]
    while entering[-1] > 1:
        entering.append(entering[-1] // 2)
    return entering


def _shared_out(entering: Sequence[int], folds: int, draft: Plan, least_share: float) -> Plan:
    """The plan whose last round, on that many folds, has as large a share as the budget allows."""
    last = tuple(range(len(draft.rows) - folds, len(draft.rows)))
    early = [Round((0,), number, 0.0) for number in entering[:-1]]
    made = draft._replace(rounds=(*early, Round(last, entering[-1], 0.0)))
    full, left = _full(made), made.budget - _fixed(made)
    shares = [0.0] * len(full)
    shares[-1] = min(1.0, (left - _least(made, least_share)) / full[-1])
    left -= shares[-1] * full[-1]
    # the cheapest first, so that what it has no use for goes to the others; rounding takes no row
    for number in reversed(range(len(early))):
        shares[number] = min(1.0, max(least_share, left / (number + 1) / full[number]))
        left -= shares[number] * full[number]
    rounds = zip(made.rounds, shares, strict=True)
    return made._replace(rounds=tuple(each._replace(share=share) for each, share in rounds))


def _fixed(plan: Plan) -> float:
    """What is paid whatever the shares are: predicting."""
    return plan._replace(rounds=tuple(each._replace(share=0.0) for each in plan.rounds)).cost


def _full(plan: Plan) -> list[float]:
    """What each round's scoring and training would cost in full."""
    return [
        (each.candidates + 1)
        * sum(plan.run_cost(fold, 1.0) - plan.run_cost(fold, 0.0) for fold in each.folds)
        + sum(plan.scoring_cost(fold, 1.0) for fold in each.folds)
        for each in plan.rounds
    ]


def _least(plan: Plan, share: float) -> float:
    """What the rounds before the last cost where the first, the dearest, takes `share` of its rows
    and the others as much in all."""
    early = _full(plan)[:-1]
    return share * len(early) * max(early, default=0.0)


_Values = dict[tuple[Candidate, int, float], np.ndarray]


class Choice(NamedTuple):
    """What was chosen and why.

    chosen: The contender, or `UNIFORM`.
    contender: The candidate of the last round; None where no candidate could be trained.
    interval: `{"value", "low", "high"}` of the contender's mean difference from uniform, over the
        queries of the folds that decide; > 0 where the contender is better. None for undefined.
    comparison: A row for each round and candidate, in the order of training: `round` (from 1),
        `share`, `candidate` (its name), `queries` (those with a value), `mean`, `difference` (the
        mean over these queries of value less uniform's; None for uniform), `outcome` ("reference"
        for uniform, "kept", "dropped" or "undefined", in the last round "chosen" or "dropped"), and
        `folds`: `queries`, `mean` and `difference` of each fold, with `fold`.
    cost: `budget`, `planned` and `spent`, in units of one full training.
    """

    chosen: Candidate
    contender: Candidate | None
    interval: dict[str, float | None]
    comparison: list[dict[str, Any]]
    cost: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, as the report takes them; candidates with their `name`."""
        named = {
            key: one and {"name": one.name, **one._asdict()}
            for key, one in (("chosen", self.chosen), ("contender", self.contender))
        }
        return {**self._asdict(), **named}


def choose(
    candidates: Sequence[Candidate],
    measure: Callable[[Candidate, int, float], np.ndarray],
    plan: Plan,
    *,
    interval: Callable[[np.ndarray], Mapping[str, float | None]],
) -> Choice:
    """Measures the candidates round by round, and gives what is to be used.

    A round keeps the candidates with the highest mean of the paired differences
    d_q = value_q(candidate) - value_q(uniform) over the queries of its folds. Those that tie stand
    as they did before, at first in the order given. The contender is chosen where `low` of the
    interval of its d_q in the last round is above 0. Where it is not, or is undefined, uniform is.

    Args:
        candidates: As many as the plan was made for, all different, none of policy uniform.
        measure: (candidate, fold, share) -> float `[Q_fold]`, a metric of each query of the fold
            (high is good), after training on `share` of `plan.trained_on(fold)`. The queries stand
            in the same order for all candidates. NaN where a query has no value, for all candidates
            alike; all NaN where a run's loss was no longer finite. Calls come in one order, round
            by round, fold by fold, uniform first; none comes twice, so that a caller can keep each
            result in a file and go on where it was stopped.
        plan: Of `plan`.
        interval: The 95 % interval of the mean of d `[Q]`, as {"value", "low", "high"}, say
            `evaluation.intervals.of_mean`. It decides alone, and so has to be paired and
            deterministic.

    Returns:
        The choice. A candidate that diverged on one of a round's folds is out. Where all are, the
        rounds that remain are not run, and uniform is kept. `spent` is what the calls cost; it is
        below `planned` where rounds were not run, or asked again for what was measured.

    Raises:
        ValueError: the plan is for another number of candidates, two are equal or one is uniform,
            or a candidate's values are of other queries than uniform's.
    """
    if len(candidates) != plan.rounds[0].candidates:
        raise ValueError(f"{len(candidates)} candidates, the plan has {plan.rounds[0].candidates}")
    names = [UNIFORM.name, *(candidate.name for candidate in candidates)]
    if len(set(names)) < len(names):
        raise ValueError(f"of {', '.join(names)} each may be named once; uniform is always there")
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
    """The values in float64, where they are of the same queries as uniform's."""
    values = np.asarray(values, np.float64)
    reference = values if reference is None else reference
    missing = np.isnan(values)
    if values.ndim != 1 or values.shape != reference.shape:
        raise ValueError(
            f"{key[0].name}, fold {key[1]}: values of shape {values.shape}, one for each query is "
            f"wanted, and those of uniform are {reference.shape}"
        )
    if not missing.all() and (missing != np.isnan(reference)).any():
        raise ValueError(
            f"{key[0].name}, fold {key[1]}: other queries are NaN than for uniform: a query has a "
            "value for all candidates or for none"
        )
    return values


def _differences(
    values: _Values, candidate: Candidate, folds: Sequence[int], share: float
) -> np.ndarray:
    """d_q over the queries of the folds; all NaN where the candidate diverged on one of them."""
    parts = [values[candidate, fold, share] - values[UNIFORM, fold, share] for fold in folds]
    diverged = any(
        np.isnan(part).all() and not np.isnan(values[UNIFORM, fold, share]).all()
        for part, fold in zip(parts, folds, strict=True)
    )
    return np.concatenate(parts) * (np.nan if diverged else 1.0)


def _row(values: _Values, candidate: Candidate, number: int, each: Round) -> dict[str, Any]:
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
