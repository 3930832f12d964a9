"""The scores of any estimators, with the passes over the training set that they need, each once."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from sie_jax import importance
from sie_jax.data.loading import PlannedBatches
from sie_jax.importance import reference, registry
from sie_jax.importance.doubtful import Groups
from sie_jax.passes import influence, lists, sweep
from sie_jax.passes.embeddings import embedding_pass
from sie_jax.passes.gradients import preconditioned_pass
from sie_jax.passes.influence import Options
from sie_jax.passes.score import score_pass
from sie_jax.tasks.listed import Listed
from sie_jax.tasks.task import LabelledTask, ScalarTask, SeparateTask
from sie_jax.training.history import Visits

# the needs that passes.influence meets
INFLUENTIAL = ("checkpoints", "targets", "curvature")
_PRECONDITIONED, _EMBEDDINGS = "preconditioned", ("embeddings", "target_embeddings")


class Evidence(NamedTuple):
    """What a training run leaves to score its examples by.

    checkpoints: parameters, and the mean learning rate of the steps up to them, oldest first; the
    scores are of the last. second_moment: Adam's, like the parameters. visits: what the run showed
    of each example, None where a task has no classes. held_out: class probabilities `[N, K]` of
    models that never saw the query, None if there are none.
    """

    checkpoints: Sequence[tuple[Any, float]]
    second_moment: Any
    visits: Visits | None
    held_out: np.ndarray | None


class Pairs(NamedTuple):
    """Batches that hold each pair once, and the pairs' labels `[N]` and queries `[N]` by row.

    groups: whose labels can be wrong together; None: those of a query.
    """

    batches: PlannedBatches
    labels: np.ndarray
    queries: np.ndarray
    groups: Groups | None = None

    @property
    def examples(self) -> sweep.Examples:
        """What a pass goes over."""
        return sweep.Examples(self.batches, np.arange(len(self.labels)))


def columns(
    names: Collection[str],
    task: LabelledTask,
    evidence: Evidence,
    training: Pairs,
    targets: Pairs,
    workspace: sweep.Workspace,
    options: Options,
) -> sweep.Columns:
    """The scores `[N]` of the task and of the estimators named, and what came with them.

    The columns of the score pass are always there: its scores, `layer_norms` `[N, L]` and those of
    the task (`passes.lists` where losses read the rows of a list). `embedding` `[N, H]` is there if
    an estimator needed it.

    Args:
      names: estimators of `importance.ESTIMATORS`.
      training, targets: the training pairs, and the validation pairs.
      workspace: the score pass is named `score`, and `entries` names all others.

    Raises:
      ValueError: an estimator is not defined for the task, or it needs out-of-fold predictions and
        there are none.
    """
    params, mesh = evidence.checkpoints[-1][0], workspace.mesh
    examples = training.examples
    for name in names:
        if importance.ESTIMATORS[name].needs not in task.meets:
            raise ValueError(f"{name} is not defined for {type(task).__name__}: leave it out")
    found = sweep.in_parts(score_pass(task, mesh), params, examples, workspace, "score")
    if isinstance(task, Listed):
        found = lists.completed(task, found, training.labels, training.queries)
    if importance.needing(names, "optimizer"):
        assert isinstance(task, SeparateTask)
        states = (params, evidence.second_moment)
        made = preconditioned_pass(task, mesh)
        found |= sweep.in_parts(made, states, examples, workspace, _PRECONDITIONED)
    if importance.needing(names, "history"):
        assert evidence.visits is not None
        shown = (evidence.visits.margins, np.exp(-evidence.visits.losses))
        found |= {name: score(*shown) for name, score in registry.computed("history").items()}
    influential = importance.needing(names, *INFLUENTIAL)
    if influential:
        assert isinstance(task, ScalarTask)
        found |= influence.columns(
            influential,
            task,
            evidence.checkpoints,
            examples,
            targets.examples,
            workspace,
            options,
        )
    if importance.needing(names, "embeddings"):
        near, far = (
            sweep.in_parts(embedding_pass(task, mesh), params, pairs.examples, workspace, name)
            for name, pairs in zip(_EMBEDDINGS, (training, targets), strict=True)
        )
        found |= near
        vectors = near["embedding"], far["embedding"]
        found |= _of_embeddings(*vectors, training, targets, num_labels=task.num_labels)
    if importance.needing(names, "reference"):
        if evidence.held_out is None:
            raise ValueError("out-of-fold probabilities are needed, and there are none: give some")
        groups = training.groups or Groups(training.queries)
        given = (found["loss"], evidence.held_out, training.labels, groups)
        found |= {name: score(*given) for name, score in registry.computed("reference").items()}
    return found


def entries(name: str, *, checkpoints: int) -> tuple[str, ...]:
    """The names of the passes that `columns` makes for one estimator, beside the score pass.

    They are what a workspace names its clocks by, so that the sum of what these were charged is the
    price of the estimator. The out-of-fold predictions are not among them: their price is that of
    the folds' models.
    """
    if importance.needing([name], "optimizer"):
        return (_PRECONDITIONED,)
    if importance.needing([name], "embeddings"):
        return _EMBEDDINGS
    if importance.needing([name], *INFLUENTIAL):
        return influence.entries(name, checkpoints=checkpoints)
    return ()


def _of_embeddings(
    near: np.ndarray, far: np.ndarray, training: Pairs, targets: Pairs, *, num_labels: int
) -> sweep.Columns:
    return {
        "knn_shapley": reference.knn_shapley(
            near, training.labels, far, targets.labels, neighbours=10
        ),
        "query_agreement": reference.query_agreement(
            near, training.labels, training.queries, num_classes=num_labels
        ),
    }
