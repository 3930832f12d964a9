"""Training runs on prepared pairs, and what their models predict."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from flax import nnx

from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.data.planning import Planner
from sie_jax.data.preparing import Prepared
from sie_jax.devices import mesh as meshes
from sie_jax.errors import NumericalError, UserError
from sie_jax.evaluation import Predictions, from_columns, ranking
from sie_jax.evaluation.intervals import Judgments, summarize
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.importance import sampling
from sie_jax.importance.policies import Policy
from sie_jax.models import PairClassifier, Towers
from sie_jax.models.section import ModelConfig
from sie_jax.passes import estimating, lists, sweep
from sie_jax.passes.predict import predict_pass
from sie_jax.passes.score import batch_pass, score_pass
from sie_jax.stages import running
from sie_jax.stages.features import Features
from sie_jax.stages.linear import fitted, folds_of, lists_of
from sie_jax.tasks import TASKS, PairTask, apart, label_names
from sie_jax.tasks.listed import Listed
from sie_jax.training import learning, state, steps
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.history import History
from sie_jax.training.run import Run
from sie_jax.training.section import Schedule
from sie_jax.training.state import TrainState
from sie_jax.workdir import Job, Made


class Examples(NamedTuple):
    """Which training rows a run takes and what each weighs.

    rows: ascending, all where None. weights: float `[N]` of all rows, mean 1; 1 where None.
    probabilities: `[N]`, sum 1, to draw all rows by, in place of rows and weights.
    """

    rows: np.ndarray | None = None
    weights: np.ndarray | None = None
    probabilities: np.ndarray | None = None


ALL = Examples()


Judges = tuple[str, np.ndarray | None]
"""A split, and the rows of it, all where None, that tell how well a run does."""

VALIDATION: Judges = ("validation", None)


class Kept(NamedTuple):
    """What is kept of a run beside its newest checkpoints: of every visit, and of some steps."""

    history: History | None = None
    steps: Sequence[int] = ()


NOTHING = Kept()


@dataclasses.dataclass(frozen=True)
class Start:
    """What all training runs of a recipe share.

    pretrained: the stage that left the model to start from; None for the one that `model` names.
    max_length: the most tokens of a pair. train: how runs are optimised. seed: of the first run.
    after: the stages that chose some of this. features: those of the pairs, where the model's head
    takes them; None where it does not.
    """

    prepared: Made[Prepared]
    pretrained: Made[str] | None
    model: ModelConfig
    max_length: int
    train: Schedule
    seed: int
    after: tuple[Made[Any], ...] = ()
    features: Made[Features] | None = None


@dataclasses.dataclass(frozen=True)
class PairRuns:
    """The training runs of one job, from a start that they share."""

    job: Job
    start: Start

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The pairs."""
        return self.start.prepared.value

    @property
    def model(self) -> ModelConfig:
        """The section that describes the model."""
        return self.start.model

    @functools.cached_property
    def planner(self) -> Planner:
        """The batches of these pairs."""
        train = self.start.train
        sizes = train.batch_size, train.list_size
        return Planner(
            self.prepared,
            self.job.mesh,
            *sizes,
            apart=apart(train.task),
            features=None if self.features is None else self.features.values,
        )

    @functools.cached_property
    def features(self) -> Features | None:
        """The features that the head takes, None where it takes none."""
        return None if self.start.features is None else self.start.features.value

    @functools.cached_property
    def folder(self) -> str:
        """The folder of the model that runs start from, "" where they start from random weights."""
        if self.start.pretrained is not None:
            return self.start.pretrained.value
        return self.model.folder()

    @functools.cached_property
    def task(self) -> PairTask:
        """The task, with the structure of the model but not its parameters."""

        def made() -> PairClassifier | Towers:
            return self._model("", seed=0)

        graphdef = nnx.graphdef(made() if self.model.pretrained else nnx.eval_shape(made))
        train = self.start.train
        return TASKS[train.task](graphdef, self.prepared.scale.gains, **train.options)

    @functools.cached_property
    def workspace(self) -> sweep.Workspace:
        """Where the passes of this job run."""
        job = self.job
        return sweep.Workspace(job.mesh, job.scratch("passes"), job.meter, job.console)

    def _model(self, folder: str, *, seed: int) -> PairClassifier | Towers:
        model, _ = self.model.ranker(
            label_names(self.start.train.task, self.prepared.scale.names),
            vocabulary_size=len(self.prepared.tokenizer),
            max_length=self.start.max_length,
            seed=seed,
            folder=folder,
            num_features=0 if self.features is None else len(self.features.names),
        )
        return model

    def params(self, folder: str, *, seed: int) -> Any:
        """The parameters of the model in a folder, or those of a seed where that is ""."""

        def made() -> Any:
            return nnx.state(self._model(folder, seed=seed))

        return made() if folder else meshes.initialised(self.job.mesh, made)

    def state(
        self, run: Run, examples: Examples = ALL, *, total_steps: int, params: Any = None
    ) -> TrainState:
        """The state of a run before its first step, from `params` or else from its seed's.

        Where the head takes features, their weights start as those of `linear` fitted on the run's
        rows. The encoder's output keeps its own, those of a checkpoint or small random ones: where
        they start at 0 the encoder learns far less.
        """
        optimizer = run.train.optimizer(total_steps=total_steps)
        if params is None:
            params = self.params(self.folder, seed=run.seed)
            if self.features is not None:
                self._begin_linear(params, self.features, run.train.task, examples)
        if run.weighting.kind == "learned":
            scores = (run.weighting.score,)
            return learning.create(params, optimizer, self.job.mesh, seed=run.seed, scores=scores)
        return state.create(params, optimizer, self.job.mesh, seed=run.seed)

    def _begin_linear(self, params: Any, features: Features, task: str, examples: Examples) -> None:
        """Sets the weights of the features, in place."""
        chosen = self.planner.rows("train") if examples.rows is None else examples.rows
        if examples.probabilities is not None:
            chosen = np.flatnonzero(examples.probabilities)
        lists = lists_of(self.prepared, "train", features.values["train"]).rows(chosen)
        weights = np.zeros(len(features.names))
        if (lists.gains > 0).any():
            folds = folds_of(self.prepared, "train", seed=0)[chosen]
            weights = np.array(fitted(features.names, lists, folds).weights)
        if task == "regression":  # in units of the gain, where lists know a scale of their own
            scores = lists.features @ weights
            weights *= scores @ lists.gains / max(scores @ scores, 1.0)
        params["features"]["kernel"].set_value(jnp.asarray(weights[:, None], jnp.float32))

    def fit(
        self,
        run: Run,
        examples: Examples = ALL,
        *,
        policy: Policy | None = None,
        kept: Kept = NOTHING,
        params: Any = None,
        judges: Judges | None = VALIDATION,
    ) -> TrainState:
        """Trains a run, or continues it from its newest checkpoint; gives its last state.

        policy: makes weights in every batch, for runs of online weighting. judges: the pairs that
        are measured after each epoch, None for none.
        """
        batches = self._batches(run, examples)
        optimizer, mesh = run.train.optimizer(total_steps=len(batches)), self.job.mesh
        price = running.TRAINING
        if run.weighting.kind == "learned":
            batches = learning.WithValidation(batches, self.planner.in_one_length("validation"))
            scores = (run.weighting.score,)
            step = learning.learned_step(self.task, optimizer, mesh, scores=scores)
        elif run.weighting.kind == "online":
            assert policy is not None
            score = run.weighting.score
            step = steps.online_step(self.task, optimizer, mesh, score=score, policy=policy)
            if self.model.remat != "none":  # it keeps no factors, and takes a pass for the norms
                price += self.task.norms_cost
        else:
            step = steps.weighted_step(self.task, optimizer, mesh)
        beginning = self.state(run, examples, total_steps=len(batches), params=params)
        shapes = jax.eval_shape(lambda: beginning.params)
        return running.fit(
            self.job,
            run,
            beginning,
            step,
            batches,
            example_ids=self.prepared.split("train")["example_id"].to_numpy(zero_copy_only=False),
            watch=running.Watch(
                dtype=self.model.dtype,
                flops=nnx.merge(self.task.graphdef, shapes).step_flops,
                price=price,
                validate=None if judges is None else functools.partial(self._validation, judges),
                history=kept.history,
                keep=kept.steps,
            ),
        )

    def _batches(self, run: Run, examples: Examples) -> PlannedBatches:
        epochs, seed = run.train.epochs, run.seed
        if run.train.list_size and not len(self.planner.epochs(1, seed=seed, rows=examples.rows)):
            raise UserError(
                f"run {run.name}: no query that it trains on has two items to rank: give more "
                "items for a query, or set train.task=regression"
            )
        if examples.probabilities is not None:
            return self.planner.drawn(
                epochs,
                seed=seed,
                probabilities=examples.probabilities,
                weights=sampling.correction(examples.probabilities),
            )
        return self.planner.epochs(epochs, seed=seed, rows=examples.rows, weights=examples.weights)

    def epoch_ends(self, run: Run, examples: Examples = ALL) -> list[int]:
        """The last step of each epoch of a run."""
        per_epoch = self._batches(run, examples).batches_per_epoch
        return [per_epoch * (epoch + 1) for epoch in range(run.train.epochs)]

    def checkpoint(self, run: Run, like: TrainState, step: int) -> TrainState:
        """The state of a run at a step that was kept."""
        with closing(RunCheckpoints(running.steps_folder(self.job, run.name))) as checkpoints:
            return checkpoints.restore(like, step=step)[0]

    def predicted(self, params: Any, split: str, rows: np.ndarray | None = None) -> sweep.Columns:
        """The task's columns for a split's pairs and the losses `[N]`, in their order.

        rows: those to predict, ascending, all where None. The loss of a list is that of what `rows`
        has of it, and of two towers that of the batch (`data.lists.in_order`).
        """
        examples, mesh = self.examples(split, rows), self.job.mesh
        parts = sweep.sweep(predict_pass(self.task, mesh), params, iterate(examples.batches), mesh)
        return self._completed(sweep.gather(parts, examples.rows), split, examples.rows)

    def scored(
        self, params: Any, split: str, name: str, rows: np.ndarray | None = None
    ) -> sweep.Columns:
        """The columns of a score pass over a split's pairs, in their order; rows as `predicted`.

        name: of the pass in the ledger.
        """
        made, examples = score_pass(self.task, self.job.mesh), self.examples(split, rows)
        columns = sweep.in_parts(made, params, examples, self.workspace, name)
        return self._completed(columns, split, examples.rows)

    def _completed(self, columns: sweep.Columns, split: str, rows: np.ndarray) -> sweep.Columns:
        """With what only whole lists say of their rows, for a task of lists."""
        if not isinstance(self.task, Listed):
            return columns
        table = self.prepared.split(split).take(rows)
        labels, queries = table["label"].to_numpy(), table["query_id"].to_numpy()
        return lists.completed(self.task, columns, labels, queries)

    def scored_batch(self, params: Any, batch: sweep.Columns) -> sweep.Columns:
        """`grad_norm` and `loss` of the rows of one training batch."""
        mesh = self.job.mesh
        (found,) = sweep.sweep(batch_pass(self.task, mesh), params, [batch], mesh)
        return found

    def pairs(self, split: str) -> estimating.Pairs:
        """A split as estimators take it."""
        table, batches = self.prepared.split(split), self.planner.in_order(split)
        return estimating.Pairs(batches, table["label"].to_numpy(), table["query_id"].to_numpy())

    def examples(self, split: str, rows: np.ndarray | None = None) -> sweep.Examples:
        """A split's pairs as passes take them; rows as `predicted`."""
        batches = self.planner.in_order(split, rows)
        return sweep.Examples(batches, self.planner.rows(split) if rows is None else rows)

    def measured(self, params: Any, split: str, rows: np.ndarray | None = None) -> dict[str, float]:
        """Loss, accuracy where the task has classes, and nDCG@10 where a query has a gain.

        rows: those to measure on, ascending, all where None.
        """
        columns = self.predicted(params, split, rows)
        predictions = from_columns(columns, self.prepared.scale.gains)
        values = {"loss": float(columns["loss"].mean())}
        if predictions.classes is not None:
            labels = self._rows(split, rows)["label"].to_numpy()
            values["accuracy"] = float((predictions.classes == labels).mean())
        ndcg = self._by_query(predictions, split, rows)
        if not np.isnan(ndcg).all():
            values["ndcg@10"] = float(np.nanmean(ndcg))
        return values

    def ranked(self, params: Any, split: str, rows: np.ndarray | None = None) -> np.ndarray:
        """nDCG@10 of each query, in the order of their ids; NaN without a gain. rows: as above."""
        columns = self.predicted(params, split, rows)
        return self._by_query(from_columns(columns, self.prepared.scale.gains), split, rows)

    def _by_query(
        self, predictions: Predictions, split: str, rows: np.ndarray | None
    ) -> np.ndarray:
        pairs = self._rows(split, rows)
        queries, query_index = np.unique(pairs["query_id"].to_pylist(), return_inverse=True)
        return ranking.per_query(
            predictions.scores,
            pairs["label"].to_numpy(),
            self.prepared.scale.gains,
            query_index,
            num_queries=len(queries),
            example_ids=pairs["example_id"].to_pylist(),
        )["ndcg@10"]

    def _rows(self, split: str, rows: np.ndarray | None) -> pa.Table:
        pairs = self.prepared.split(split)
        return pairs if rows is None else pairs.take(rows)

    def _validation(self, judges: Judges, now: TrainState) -> dict[str, float]:
        measured = self.measured(now.params, *judges)
        return {f"validation_{name}": value for name, value in measured.items()}


def judged(prepared: Prepared, split: str) -> Judgments:
    """A split's pairs as they are evaluated."""
    pairs, scale = prepared.split(split), prepared.scale
    return Judgments(
        pairs["label"].to_numpy(),
        pairs["query_id"].to_pylist(),
        pairs["example_id"].to_pylist(),
        scale.names,
        scale.gains,
    )


def summarized(
    prepared: Prepared,
    split: str,
    runs: Mapping[str, Sequence[Predictions]],
    *,
    evaluation: EvaluationConfig,
    reference: str = "uniform",
) -> dict[str, Any]:
    """`evaluation.intervals.summarize` of runs' predictions of a split's pairs."""
    return summarize(
        judged(prepared, split),
        runs,
        resamples=evaluation.resamples,
        seed=evaluation.seed,
        reference=reference,
    )


def check_finite(scores: Mapping[str, np.ndarray], training: pa.Table) -> None:
    """Raises NumericalError, naming examples, for the first score that is not finite."""
    for name, values in scores.items():
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            ids = training["example_id"].take(pa.array(broken[:20])).to_pylist()
            raise NumericalError(
                f"score {name} is not finite for {len(broken)} examples, among them "
                f"{', '.join(ids)}: lower train.learning_rate or look at these rows"
            )
