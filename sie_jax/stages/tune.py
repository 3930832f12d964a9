"""Tune: the learning rate that does best on the validation queries."""

import dataclasses
from collections.abc import Sequence

from sie_jax import processes
from sie_jax.errors import NumericalError
from sie_jax.evaluation import Predictions, from_columns
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.files import read_json, write_json
from sie_jax.stages.pair_runs import PairRuns, Start, summarized
from sie_jax.stages.selection import trained
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Made, stage

FILE = "tuning.json"


def read(made: Made[float]) -> float:
    """The learning rate that was chosen."""
    return float(read_json(made.folder / FILE)["chosen"])


@stage(leaves=(FILE,), read=read, runs=("rate_*",))
def tune(
    job: Job,
    start: Start,
    *,
    learning_rates: Sequence[float],
    evaluation: EvaluationConfig,
) -> None:
    """Leaves tuning.json: each rate tried by uniform training, and the best.

    The best has the highest nDCG@10 on the validation queries, or accuracy where no query has a
    gain. A rate at which the loss is no longer finite is left out.

    Raises NumericalError where that is so of every rate.
    """
    runs = PairRuns(job, start)
    pairs = runs.prepared
    tried: dict[str, list[Predictions]] = {}
    diverged = []
    for rate in learning_rates:
        # no hyphen in the name: what follows one is the number of a seed
        name = f"rate_{rate}".replace("-", "m")
        try:
            schedule = dataclasses.replace(start.train, learning_rate=rate)
            selected = trained(runs, Run(name, start.seed, schedule))
        except NumericalError as error:
            job.say(f"learning rate {rate} is left out: {error}")
            diverged.append(rate)
            continue
        columns = runs.predicted(selected.params, "validation")
        tried[str(rate)] = [from_columns(columns, pairs.scale.gains)]
    if not tried:
        raise NumericalError("no learning rate kept the loss finite: give lower ones")
    measured = summarized(
        pairs, "validation", tried, evaluation=evaluation, reference=next(iter(tried))
    )

    def merit(rate: str) -> tuple[float, float]:
        found = measured["test"][rate]
        return found["ndcg@10"]["value"] or 0.0, found.get("accuracy", {}).get("value", 0.0)

    processes.alone(
        write_json,
        job.folder / FILE,
        {
            "chosen": float(max(tried, key=merit)),
            "validation": measured["test"],
            "queries": measured["queries"],
            "diverged": diverged,
        },
    )
