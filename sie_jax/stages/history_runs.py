"""Training runs on histories, and what their models recommend."""

import dataclasses
import functools
from contextlib import closing
from typing import Any

import numpy as np
from flax import nnx

from sie_jax.data.histories.batches import HistoryPlanner
from sie_jax.data.histories.histories import TRAIN, VALIDATION, Cases, Histories, cases
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import Wanted
from sie_jax.importance.policies import POLICIES
from sie_jax.models.histories import HistoryModel, begin
from sie_jax.models.history_section import HistoryModelConfig
from sie_jax.passes.recommend import recommended
from sie_jax.passes.sweep import Columns
from sie_jax.stages import running
from sie_jax.tasks.sequence import DENOISING, TRUNCATED, NextItem
from sie_jax.training import learning, logs, state, steps
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.loop import METRIC
from sie_jax.training.run import Run, Weighting
from sie_jax.training.section import Schedule
from sie_jax.training.state import TrainState
from sie_jax.workdir import Job, Made

ONLINE = ("clipped", "inverse", "proportional", "ranked")
"""Policies that weigh a batch's histories by the norms of their own gradients."""
LEARNED = "learned"
WEIGHTINGS = (*DENOISING, *ONLINE, LEARNED)
TRUNCATED_SHARE = 0.1
MEASURED = 4096
"""Validation users that are asked for after each epoch, evenly among all."""
MEASURED_AT = 10


def weighting(name: str) -> Weighting:
    """How the run of a name treats its histories: one of WEIGHTINGS, or uniform."""
    if name in ONLINE:
        return Weighting("online", "grad_norm", name)
    if name == LEARNED:
        return Weighting("learned", "grad_norm")
    return Weighting("denoising", "loss", name) if name in DENOISING else Weighting()


@dataclasses.dataclass(frozen=True)
class HistoryStart:
    """What all training runs of a recommender share.

    vectors: of the items' texts, None where the model reads none. train: how runs are optimised.
    negatives: see `NextItem`. buckets: see the section. seed: of the first run. repeats: whether
    items of a history may be recommended again.
    """

    histories: Made[Histories]
    vectors: Made[np.ndarray] | None
    model: HistoryModelConfig
    train: Schedule
    negatives: int
    buckets: int
    seed: int
    repeats: bool


@dataclasses.dataclass(frozen=True)
class HistoryRuns:
    """The training runs of one job, from a start that they share."""

    job: Job
    start: HistoryStart

    @functools.cached_property
    def histories(self) -> Histories:
        """The events."""
        return self.start.histories.value

    @functools.cached_property
    def planner(self) -> HistoryPlanner:
        """The batches of these histories."""
        train, model = self.start.train, self.start.model
        return HistoryPlanner(
            self.histories, self.job.mesh, train.batch_size, model.max_length, self.start.buckets
        )

    @functools.cached_property
    def met(self) -> np.ndarray:
        """Which items have a training event `[I + 1]`; item 0 is none of them."""
        met = np.zeros(len(self.histories.items) + 1, bool)
        met[self.histories.item[self.histories.split == TRAIN]] = True
        return met

    @functools.cached_property
    def known_users(self) -> dict[str, int]:
        """The number of each user who has a training event."""
        trained = np.unique(self.histories.user[self.histories.split == TRAIN])
        return {self.histories.users[one]: one for one in trained.tolist()}

    def task(self, denoising: str = "") -> NextItem:
        """The task, with the structure of the model but not its parameters."""
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: self._model(0)))
        vectors = self.start.vectors
        return NextItem(
            graphdef,
            items=len(self.histories.items),
            steps=float((self.planner.target >= 0).sum() / len(self.planner.windows.start)),
            texts=None if vectors is None else vectors.value,
            negatives=self.start.negatives,
            id_dropout=self.start.model.id_dropout,
            denoising=denoising,
            rate=TRUNCATED_SHARE if denoising == TRUNCATED else 0.0,
        )

    def _model(self, seed: int) -> HistoryModel:
        own = self.histories
        shape = self.start.model.shape(
            items=len(own.items), events=len(own.event_names), copies=self.start.repeats
        )
        return HistoryModel(shape, rngs=nnx.Rngs(seed))

    def fit(self, run: Run, task: NextItem) -> TrainState:
        """Trains a run, or continues it from its newest checkpoint.

        Gives the state at the end of the epoch with the highest METRIC, the first among equals.
        """
        mesh, kind = self.job.mesh, run.weighting.kind
        batches: Any = self.planner.epochs(run.train.epochs, seed=run.seed)
        optimizer = run.train.optimizer(total_steps=len(batches))
        params = meshes.initialised(mesh, lambda: nnx.state(self._model(run.seed)))
        params = begin(params, self.histories.popularity, copies=copying(self.histories))
        price = running.TRAINING
        if kind == "learned":
            scores = (run.weighting.score,)
            batches = learning.WithValidation(batches, self._validation_batches())
            first = learning.create(params, optimizer, mesh, seed=run.seed, scores=scores)
            step = learning.learned_step(task, optimizer, mesh, scores=scores)
        else:
            first = state.create(params, optimizer, mesh, seed=run.seed)
            if kind == "online":
                policy = POLICIES[run.weighting.policy]()
                score = run.weighting.score
                step = steps.online_step(task, optimizer, mesh, score=score, policy=policy)
            else:
                step = steps.weighted_step(task, optimizer, mesh)
        users = np.array(self.histories.users, object)
        windows = self.planner.windows
        ends = [batches.batches_per_epoch * (one + 1) for one in range(run.train.epochs)]
        now = running.fit(
            self.job,
            run,
            first,
            step,
            batches,
            example_ids=users[self.histories.user[windows.start]],
            watch=running.Watch(
                dtype="float32",
                flops=lambda rows, length: None,
                price=price,
                validate=functools.partial(self._validation, task),
                keep=ends,
            ),
        )
        log = logs.read(self.job.run_folder(run.name) / "metrics.jsonl")
        measured = {one["epoch"]: one[METRIC] for one in log if METRIC in one}
        best = max(measured, key=lambda epoch: (measured[epoch], -epoch))
        if best == max(measured):
            return now
        self.job.say(
            f"{run.name}: epoch {best} is taken: validation nDCG@10 {measured[best]:.4f}, in place "
            f"of {measured[max(measured)]:.4f} of the last"
        )
        with closing(RunCheckpoints(running.steps_folder(self.job, run.name))) as checkpoints:
            return checkpoints.restore(now, step=ends[best - 1])[0]

    def _validation_batches(self) -> Any:
        """Histories that end with what was wanted in validation, which weights are learnt from."""
        return self.planner.predicting(cases(self.histories, VALIDATION, unseen=False))

    @functools.cached_property
    def _measured(self) -> Cases:
        asked = cases(self.histories, VALIDATION)
        number = min(len(asked), MEASURED)
        return asked.rows(np.arange(number) * len(asked) // number)

    def _validation(self, task: NextItem, now: TrainState) -> dict[str, float]:
        asked = self._measured
        found = self.recommended(task, now.params, asked, depth=MEASURED_AT)
        values = retrieval.per_query(
            found["items"], Wanted(asked.case, asked.item), depths=(MEASURED_AT,)
        )
        names = {METRIC: "ndcg@10", "validation_recall@10": "recall@10"}
        return {name: float(np.nanmean(values[metric])) for name, metric in names.items()}

    def recommended(
        self,
        task: NextItem,
        params: Any,
        asked: Cases,
        *,
        depth: int,
        among: np.ndarray | None = None,
    ) -> Columns:
        """`items` and `scores` `[C, depth]` (`passes.recommend`)."""
        return recommended(
            task,
            params,
            self.met,
            asked,
            self.planner,
            depth=min(depth, len(self.histories.items)),
            repeats=self.start.repeats,
            among=among,
        )


def model_of(task: NextItem, params: Any) -> HistoryModel:
    """The model with these parameters."""
    made: HistoryModel = nnx.merge(task.graphdef, params)
    return made


def copying(histories: Histories) -> float:
    """The logit by which an item of the history is likelier to come next than popularity says.

        log( r (1 − m) / ((1 − r) m) )

    r is the share of training events whose item the user had in an earlier basket, and m what
    popularity gives to all such items, the mean over the same events. At least 0; 0 where nothing
    ever comes again.
    """
    chance = histories.popularity / max(histories.popularity.sum(), 1)
    trained = (histories.split == TRAIN) & histories.wanted
    again, mass, steps = 0, 0.0, 0
    for start, stop in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        had, own, basket, new = set[int](), 0.0, -1, set[int]()
        for place in range(start, stop):
            if histories.basket[place] != basket:
                basket = histories.basket[place]
                own += sum(float(chance[item]) for item in new - had)
                had |= new
                new = set()
            item = int(histories.item[place])
            if trained[place] and had:
                again += item in had
                mass += own
                steps += 1
            new.add(item)
    if not again or not steps:
        return 0.0
    r, m = min(again / steps, 1 - 1e-6), min(max(mass / steps, 1e-12), 1 - 1e-6)
    return max(0.0, float(np.log(r * (1 - m) / ((1 - r) * m))))
