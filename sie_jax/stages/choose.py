"""Choose: the score and the policy that `auto` stands for, by cross-validation over queries."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_jax import processes
from sie_jax.errors import NumericalError, UserError
from sie_jax.evaluation import intervals
from sie_jax.evaluation.predictions import probabilities
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.files import read_json, write_json
from sie_jax.importance import choosing, hardness, planning
from sie_jax.importance.choosing import Candidate
from sie_jax.importance.doubtful import doubtful_groups
from sie_jax.importance.planning import Plan
from sie_jax.importance.section import ImportanceConfig
from sie_jax.passes import sweep
from sie_jax.stages.cross_fit import OutOfFold, assigned
from sie_jax.stages.pair_runs import Examples, PairRuns, Start
from sie_jax.stages.running import SCORING, TRAINING
from sie_jax.stages.score import groups_of
from sie_jax.tables.spool import write_parquet
from sie_jax.tasks import can_estimate
from sie_jax.training.run import Run, Weighting
from sie_jax.training.section import Schedule
from sie_jax.workdir import Job, Made, stage

FILE = "choosing.json"


def read(made: Made[Candidate]) -> Candidate:
    """What was chosen."""
    return Candidate.from_json(read_json(made.folder / FILE)["chosen"])


@stage(leaves=(FILE,), read=read, runs=("choosing_*",))
def choose(
    job: Job,
    start: Start,
    held_out: Made[OutOfFold] | None,
    *,
    importance: ImportanceConfig,
    split_seed: int,
    evaluation: EvaluationConfig,
) -> None:
    """Leaves choosing.json (`importance.choosing`).

    Where sellers are unlike all others, GROUPS is chosen. Otherwise candidates are compared by
    nDCG@10 of queries held out, with their labels as they are. As many of those whose scores the
    task has are tried, from the first on, as the budget can train for long enough; the first is
    GROUPS, where queries or annotators seem to be labelled blindly. A fold's training rows get a
    warm-up and one scoring pass; every candidate's run starts as those that are deployed do.

    held_out: the stage cross_fit; None without folds of the training queries, and then nothing is
    known of groups.
    """
    runs = PairRuns(job, start)
    further, outlying = dict[str, np.ndarray](), 0.0
    if held_out is not None and can_estimate(start.train.task, choosing.GROUPS.score):
        training = runs.prepared.split("train")
        labels, groups = training["label"].to_numpy(), groups_of(training, *importance.groups)
        expected = probabilities(held_out.value.training())
        doubtful = doubtful_groups(expected, labels, groups)
        without_sellers = doubtful_groups(expected, labels, groups._replace(sellers=None))
        outlying = float((doubtful != without_sellers).mean())
        if doubtful.any():
            further[choosing.GROUPS.score] = doubtful
    if outlying:
        choice = choosing.without_trial(outlying, budget=importance.choosing_budget)
    else:
        first = [choosing.GROUPS] if further else []
        trials = Trials(runs, importance, split_seed, further)
        choice = trials.choose([*first, *possible(start.train.task)], evaluation)
    processes.alone(write_json, job.folder / FILE, choice.as_json())
    processes.alone(job.clear_runs)


def possible(task: str) -> list[Candidate]:
    """The candidates whose scores a task has."""
    return [one for one in choosing.CANDIDATES if can_estimate(task, one.score)]


def planned(
    training: pa.Table, importance: ImportanceConfig, train: Schedule, *, split_seed: int
) -> tuple[np.ndarray, Plan]:
    """The fold of each training pair, and the rounds that the budget allows.

    Raises UserError where the queries are too few for the folds, or the budget for a candidate.
    """
    number = importance.choosing_folds
    fold = assigned(training, number, seed=split_seed, field="importance.choosing_folds")
    warmup = TRAINING * importance.warmup_epochs
    try:
        plan = planning.affordable(
            len(possible(train.task)),
            rows=np.bincount(fold, minlength=number).tolist(),
            costs=planning.Costs(TRAINING * train.epochs, warmup + SCORING),
            budget=importance.choosing_budget,
        )
    except ValueError as error:
        raise UserError(f"importance.choosing_budget: {error}") from None
    return fold, plan


@dataclasses.dataclass(frozen=True)
class Trials:
    """The trainings by which candidates are compared.

    further: hardness `[N]` of the training pairs by names that candidates may have for a score.
    """

    runs: PairRuns
    importance: ImportanceConfig
    split_seed: int
    further: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def choose(
        self, candidates: Sequence[Candidate], evaluation: EvaluationConfig
    ) -> choosing.Choice:
        """The choice among the first candidates, as many as the budget allows."""
        training = self.runs.prepared.split("train")
        fold, plan = planned(
            training, self.importance, self.runs.start.train, split_seed=self.split_seed
        )
        return choosing.choose(
            candidates[: plan.candidates],
            functools.partial(self._tried, fold, plan),
            plan,
            interval=functools.partial(
                intervals.of_mean, resamples=evaluation.resamples, seed=evaluation.seed
            ),
        )

    def _tried(
        self, fold: np.ndarray, plan: Plan, candidate: Candidate, held_out: int, share: float
    ) -> np.ndarray:
        """nDCG@10 of a fold's queries after training on a share of the others; NaN where a query
        has no gain, and for all where the loss of the training was no longer finite."""
        slug = "".join(one if one.isalnum() or one == "." else "_" for one in candidate.name)
        name = f"choosing_{slug}_{share:.4f}-{held_out}"
        job, start = self.runs.job, self.runs.start
        file = job.scratch("trials") / f"{name}.parquet"
        if not processes.agreed(file.exists()):
            rows = self._some_queries(
                np.flatnonzero(np.isin(fold, plan.trained_on(held_out))), share
            )
            scores = self._scored(rows, f"{share:.4f}-{held_out}")
            if candidate.score in self.further:
                hard = self.further[candidate.score][rows]
            else:
                hard = hardness(candidate.score, scores[candidate.score])
            section = self.importance.with_candidate(candidate)
            pairs = self.runs.prepared.split("train").take(rows)
            policy = section.policy_named(candidate.policy.name, pairs)
            weights = np.ones(len(fold), np.float32)
            weights[rows] = np.asarray(policy(jnp.asarray(hard, jnp.float32))) * len(rows)
            measured = np.flatnonzero(fold == held_out)
            weighting = Weighting("weights", candidate.score, candidate.policy.name)
            try:
                state = self.runs.fit(
                    Run(name, start.seed, start.train, weighting),
                    Examples(rows, weights),
                    judges=None,
                )
                values = self.runs.ranked(state.params, "train", measured)
                number = len(measured)
                job.meter(f"{name}-predicted").charge(examples=number, forward_equivalents=number)
            except NumericalError as error:
                job.say(f"{candidate.name} is left out: {error}")
                if candidate == choosing.UNIFORM:
                    raise
                queries = self._queries[measured]
                values = np.full(len(np.unique(queries)), np.nan)
            processes.alone(write_parquet, file, pa.table({"ndcg@10": values}))
        return pq.read_table(file)["ndcg@10"].to_numpy()

    @functools.cached_property
    def _queries(self) -> np.ndarray:
        return self.runs.prepared.split("train")["query_id"].to_numpy()

    def _some_queries(self, rows: np.ndarray, share: float) -> np.ndarray:
        """The rows of queries drawn until they come to `share` of the rows; one query at least.

        It is a share of the data and not of the epochs: what a policy is to guard against, wrong
        labels that are learned by heart, shows in the last epochs.
        """
        _, of_row, counts = np.unique(self._queries[rows], return_inverse=True, return_counts=True)
        order = np.random.default_rng(self.split_seed).permutation(len(counts))
        number = np.searchsorted(np.cumsum(counts[order]), share * len(rows), side="right")
        return rows[np.isin(of_row, order[: max(1, number)])]

    def _scored(self, rows: np.ndarray, name: str) -> sweep.Columns:
        """The scores of some training rows after a warm-up on them."""
        start = self.runs.start
        warmup = dataclasses.replace(start.train, epochs=self.importance.warmup_epochs)
        state = self.runs.fit(
            Run(f"choosing_warmup_{name}", start.seed, warmup), Examples(rows), judges=None
        )
        return self.runs.scored(state.params, "train", f"choosing_scores_{name}", rows)
