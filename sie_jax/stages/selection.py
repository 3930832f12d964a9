"""Which weights of a training run are taken: its last, or others that validation queries prefer."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from sie_jax.importance.policies import Policy
from sie_jax.stages.pair_runs import ALL, VALIDATION, Examples, Judges, Kept, PairRuns
from sie_jax.training.run import Run

SHARES = (0.25, 0.5, 0.75)
METRIC = "ndcg@10"


class Selected(NamedTuple):
    """The weights of a run: `params`, their `name`, and the validation nDCG@10 of all candidates.

    The values are empty where there was nothing to choose among.
    """

    params: Any
    name: str
    values: dict[str, float]


def trained(
    runs: PairRuns,
    run: Run,
    examples: Examples = ALL,
    *,
    policy: Policy | None = None,
    judges: Judges | None = VALIDATION,
) -> Selected:
    """Trains a run and chooses among its weights what `train.select` names.

    The candidates are the last weights θ_E, and of a start θ_0 and E epochs

        epochs          θ_1 to θ_(E−1), at the end of each epoch
        averages        the means of θ_k to θ_E, k = 1 to E − 1 (Izmailov et al. 2018)
        interpolations  (1 − α) θ_0 + α θ_E, α of SHARES (Wortsman et al. 2022)

    That with the highest nDCG@10 on the validation queries is taken; among equals the last weights,
    then the first of this order. They choose among some ten, so what they say of the choice is a
    little too good: the contest's margin has to cover that where it is held on them (without
    `train.folds`).

    judges: the pairs that stand for the validation queries; None where nothing is chosen.
    """
    if not run.train.select:
        state = runs.fit(run, examples, policy=policy, judges=judges)
        return Selected(state.params, LAST, {})
    assert judges is not None
    ends = runs.epoch_ends(run, examples)
    state = runs.fit(run, examples, policy=policy, kept=Kept(steps=ends), judges=judges)
    ends = [end for end in ends if end <= int(state.step)]  # patience may have ended it before

    def at(epoch: int) -> Any:
        return runs.checkpoint(run, state, ends[epoch]).params

    values: dict[str, float] = {}
    best, name = state.params, LAST

    def start() -> Any:
        return runs.state(run, examples, total_steps=1).params

    for candidate, params in _candidates(run, start, state.params, len(ends), at):
        values[candidate] = runs.measured(params, *judges).get(METRIC, 0.0)
        if values[candidate] > values[name]:
            best, name = params, candidate
    runs.job.say(_line(run, name, values))
    return Selected(best, name, values)


LAST = "last"


def _candidates(
    run: Run, start: Callable[[], Any], last: Any, epochs: int, at: Callable[[int], Any]
) -> Iterator[tuple[str, Any]]:
    """Names and weights, each made when it is asked for."""
    yield LAST, last
    select = run.train.select
    if "epochs" in select:
        for epoch in range(epochs - 1):
            yield f"epoch {epoch + 1}", at(epoch)
    if "averages" in select:
        total = last
        for number, epoch in enumerate(reversed(range(epochs - 1)), 2):
            total = jax.tree.map(lambda one, other: one + other, total, at(epoch))
            mean = jax.tree.map(lambda sum_, n=number: sum_ / n, total)
            yield f"mean of epochs {epoch + 1} to {epochs}", mean
    if "interpolations" in select:
        first = start()
        for share in SHARES:
            between = jax.tree.map(lambda a, b, s=share: (1 - s) * a + s * b, first, last)
            yield f"{share:g} of the way", between


def _line(run: Run, name: str, values: dict[str, float]) -> str:
    taken = "" if name == LAST else f", in place of {values[LAST]:.4f} of the last weights"
    return (
        f"{run.name}: of {len(values)} weights, {name} is taken: validation {METRIC} "
        f"{values[name]:.4f}{taken}"
    )
