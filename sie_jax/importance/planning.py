"""Plans the rounds of choosing among candidates, so that they stay within a budget of training.

Successive halving: all candidates are trained on few rows, the better half on more, and so on until
one is left. The last round trains that one and `uniform` while other folds are held out, at least
two of them: a training that went well by chance decides nothing alone. What a policy gains in a
short training on few rows it need not gain in a long one on all of them, so the last round gets its
share of the budget before the others.

Source: Karnin et al. 2013, "Almost Optimal Exploration in Multi-Armed Bandits"; Jamieson and
Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", figure 3
(each round has the same budget); Li et al. 2018, "Hyperband". There a training resumes in the next
round; here every run starts anew, because its learning rate falls to zero at its end. The round
that decides, with a larger budget than the others, is ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

# a run on a smaller share of the rows has hardly begun
LEAST_SHARE = 0.02
# a smaller share of a few thousand pairs ranks candidates by chance
FAIR_SHARE = 0.25
# on a smaller share of the rows, a difference from uniform is not the one on all rows
DECIDING_SHARE = 0.75
# how many folds decide at least, each with a training of its own
DECIDING_FOLDS = 2
_ROUNDING = 1e-9  # of a sum of some hundred float64 terms, far below a hundredth


class Costs(NamedTuple):
    """The cost per example in forward-equivalents: a forward pass is 1, a full backward pass 2.

    training: a full training: 3 times the epochs.
    scoring: the warm-up and the scoring pass: 3 times the epochs of the warm-up, and 2.
    predicting: the held-out pairs' predictions: 1.
    """

    training: float
    scoring: float
    predicting: float = 1.0


class Round(NamedTuple):
    """A number of candidates and uniform, each on the same `share` of a fold's training rows."""

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

    @property
    def candidates(self) -> int:
        """How many candidates the plan is for, uniform not counted."""
        return self.rounds[0].candidates

    def trained_on(self, fold: int) -> tuple[int, ...]:
        """The folds whose rows train and score while `fold` is held out, the same in all rounds.

        These are all others if the fold decides. If it does not, they leave out the folds that
        decide as well.
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
        """What the whole plan costs: at most `budget`, apart from rounding in the last digit."""
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
    budget: float,
    least_share: float = LEAST_SHARE,
) -> Plan:
    """Plans the rounds: n, ⌊n/2⌋, ⌊n/4⌋, … candidates, then the last one against uniform.

    The first fold is held out in all rounds but the last, and the last DECIDING_FOLDS folds in turn
    in the last round. The budget pays for predicting, for `least_share` of the rows in every round
    before the last, and then for as many rows in the last round as it can. If the last round takes
    all rows, what is left goes to the others in equal parts; a round that needs less than its part
    leaves the rest to the others. With one candidate there is only the round that decides, on as
    many folds as can train in full, and on DECIDING_FOLDS if fewer can.

    Args:
        number_of_candidates: n ≥ 1. Uniform is not counted: it is in every round.
        rows: The number of training rows of each fold, all ≥ 1. At least 4 folds, or 2 if n is 1.
        costs: What an example costs.
        budget: The most that the whole plan may cost, in units of one full training.
        least_share: The smallest share of the rows that a run may get.

    Returns:
        A plan with `cost` ≤ `budget`. A run must take `share` of its training rows, rounded down,
        for all epochs.

    Raises:
        ValueError: there are no candidates or too few folds, or the budget leaves a run less than
            `least_share`. The message says which budget is enough.
    """
    if number_of_candidates < 1:
        raise ValueError("there are no candidates to choose among: give at least one")
    entering = _halved(number_of_candidates)
    needed = DECIDING_FOLDS if len(entering) == 1 else DECIDING_FOLDS + 2
    if len(rows) < needed or min(rows) < 1:
        raise ValueError(
            f"the folds have {list(rows)} rows: choosing among {number_of_candidates} needs at "
            f"least {needed} folds, none of them empty"
        )
    most = len(rows) if len(entering) == 1 else DECIDING_FOLDS
    for folds in range(most, DECIDING_FOLDS - 1, -1):
        made = _shared_out(entering, folds, Plan((), tuple(rows), costs, budget), least_share)
        if made.rounds[-1].share == 1:
            break
    if made.rounds[-1].share < least_share:
        enough = _fixed(made) + _least(made, least_share) + least_share * _full(made)[-1]
        # above it, so that rounding cannot refuse it: 2.2999999999999998 asks for 2.31
        enough = (math.floor(100 * enough + _ROUNDING) + 1) / 100
        raise ValueError(
            f"a budget of {budget:g} full trainings is too small to choose among "
            f"{number_of_candidates} candidates: raise it to {enough:g}, or name fewer candidates"
        )
    return made


def affordable(
    number_of_candidates: int,
    *,
    rows: Sequence[int],
    costs: Costs,
    budget: float,
    fair_share: float = FAIR_SHARE,
) -> Plan:
    """The plan for as many candidates as get `fair_share` of the rows in every round.

    The last round must also be able to take DECIDING_SHARE of them. Fewer candidates, each on more
    rows, are better than many: a round that ranks by chance loses the good with the bad.

    Args:
        number_of_candidates: The most that there can be. Other arguments as in `plan`.

    Returns:
        A plan for the first `candidates` of them.

    Raises:
        ValueError: as `plan`, if the budget is not enough for one candidate.
    """
    several = len(rows) >= DECIDING_FOLDS + 2
    for number in range(number_of_candidates if several else 1, 1, -1):
        draft = Plan((), tuple(rows), costs, budget)
        made = _shared_out(_halved(number), DECIDING_FOLDS, draft, fair_share)
        if made.rounds[-1].share >= DECIDING_SHARE:
            return made
    return plan(1, rows=rows, costs=costs, budget=budget, least_share=fair_share)


def _halved(number: int) -> list[int]:
    """How many candidates enter each round: n, ⌊n/2⌋, …, 1."""
    entering = [number]
    while entering[-1] > 1:
        entering.append(entering[-1] // 2)
    return entering


def _shared_out(entering: Sequence[int], folds: int, draft: Plan, least_share: float) -> Plan:
    """The plan whose last round, on `folds` folds, has as large a share as the budget allows."""
    last = tuple(range(len(draft.rows) - folds, len(draft.rows)))
    early = [Round((0,), number, 0.0) for number in entering[:-1]]
    made = draft._replace(rounds=(*early, Round(last, entering[-1], 0.0)))
    full, left = _full(made), made.budget - _fixed(made)
    shares = [0.0] * len(full)
    shares[-1] = min(1.0, (left - _least(made, least_share)) / full[-1])
    left -= shares[-1] * full[-1]
    # the cheapest first, so that what it does not need goes to the others; max() keeps rounding
    # from taking a row off the least share
    for number in reversed(range(len(early))):
        shares[number] = min(1.0, max(least_share, left / (number + 1) / full[number]))
        left -= shares[number] * full[number]
    rounds = zip(made.rounds, shares, strict=True)
    return made._replace(rounds=tuple(each._replace(share=share) for each, share in rounds))


def _fixed(plan: Plan) -> float:
    """The cost that does not depend on the shares: predicting."""
    return plan._replace(rounds=tuple(each._replace(share=0.0) for each in plan.rounds)).cost


def _full(plan: Plan) -> list[float]:
    """What each round's scoring and training would cost on all rows."""
    return [
        (each.candidates + 1)
        * sum(plan.run_cost(fold, 1.0) - plan.run_cost(fold, 0.0) for fold in each.folds)
        + sum(plan.scoring_cost(fold, 1.0) for fold in each.folds)
        for each in plan.rounds
    ]


def _least(plan: Plan, share: float) -> float:
    """What the rounds before the last cost if each costs as much as the dearest on `share`."""
    early = _full(plan)[:-1]
    return share * len(early) * max(early, default=0.0)
