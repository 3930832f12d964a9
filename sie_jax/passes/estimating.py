"""Any estimators' scores of a training set, in as few passes over it as their needs allow."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from sie_jax import importance
from sie_jax.data.loading import PlannedBatches
from sie_jax.importance import reference, registry
from sie_jax.passes import influence, sweep
from sie_jax.training.history import Visits
from sie_jax.training.logs import Clock

# the needs that training.influence meets
INFLUENTIAL = ("checkpoints", "targets", "curvature")


class Evidence(NamedTuple):
    """What a training run leaves that its examples can be scored by.

    checkpoints: parameters and the mean learning rate of the steps up to them, oldest first; the
    last are those that are scored. second_moment: Adam's, like the parameters. visits: what the run
    showed of each example. held_out: class probabilities `[N, K]` of models that never saw the
    query, None where there are none.
    """

    checkpoints: Sequence[tuple[Any, float]]
    second_moment: Any
    visits: Visits
    held_out: np.ndarray | None


class Pairs(NamedTuple):
    """The labels `[N]` and queries `[N]` of pairs, in the order of their rows."""

    labels: np.ndarray
    queries: np.ndarray


def columns(
    names: Collection[str],
    graphdef: nnx.GraphDef,
    mesh: Mesh,
    evidence: Evidence,
    training: PlannedBatches,
    targets: PlannedBatches,
    *,
    pairs: Pairs,
    target_pairs: Pairs,
    folder: Path,
    projection_size: int = 512,
    seed: int,
    clock: Clock,
    further_clock: Clock,
    console: Console,
) -> sweep.Columns:
    """The scores `[N]` of `importance.SCORES` and of the estimators named, and what came with them.

    Those of the score pass are always there: its scores, `layer_norms` `[N, L]` and the class
    probabilities `probability_<c>`. `embedding` `[N, H]` is there where an estimator needed it.

    Args:
      names: estimators of `importance.ESTIMATORS`.
      training, targets: batches that hold each training pair, and each validation pair, once.
      folder: for the parts of the passes; what is there is not computed again.
      clock: of the score pass; further_clock: of all other passes.
      projection_size: the dimensions that gradients are projected to, where an estimator wants it.
      seed: of projections and of the labels that the Fisher matrix is drawn with.

    Raises:
      ValueError: an estimator needs out-of-fold predictions and there are none.
    """
    params = evidence.checkpoints[-1][0]

    def swept(function: sweep.Pass, batches: PlannedBatches, part: str, timed: Clock) -> Any:
        rows = np.arange(len((pairs if batches is training else target_pairs).labels))
        return sweep.in_parts(
            function,
            params,
            batches,
            mesh,
            folder / part,
            rows=rows,
            clock=timed,
            console=console,
        )

    found = swept(sweep.score_pass(graphdef, mesh), training, "scores", clock)
    if importance.needing(names, "optimizer"):
        function = sweep.preconditioned_pass(graphdef, mesh)
        scored = sweep.in_parts(
            function,
            (params, evidence.second_moment),
            training,
            mesh,
            folder / "preconditioned",
            rows=np.arange(len(pairs.labels)),
            clock=further_clock,
            console=console,
        )
        found |= scored
    if importance.needing(names, "history"):
        shown = (evidence.visits.margins, np.exp(-evidence.visits.losses))
        found |= {name: score(*shown) for name, score in registry.computed("history").items()}
    influential = importance.needing(names, *INFLUENTIAL)
    if influential:
        found |= influence.columns(
            influential,
            graphdef,
            mesh,
            evidence.checkpoints,
            training,
            targets,
            rows=np.arange(len(pairs.labels)),
            folder=folder / "influence",
            projection_size=projection_size,
            seed=seed,
            clock=further_clock,
            console=console,
        )
    if importance.needing(names, "embeddings"):
        function = sweep.embedding_pass(graphdef, mesh)
        classes = sum(name.startswith("probability_") for name in found)
        near = swept(function, training, "embeddings", further_clock)["embedding"]
        far = swept(function, targets, "target_embeddings", further_clock)["embedding"]
        found["embedding"] = near
        found["knn_shapley"] = reference.knn_shapley(
            near, pairs.labels, far, target_pairs.labels, neighbours=10
        )
        found["query_agreement"] = reference.query_agreement(
            near, pairs.labels, pairs.queries, num_classes=classes
        )
    if importance.needing(names, "reference"):
        if evidence.held_out is None:
            raise ValueError("out-of-fold probabilities are needed, and there are none")
        given = (found["loss"], evidence.held_out, pairs.labels)
        found |= {name: score(*given) for name, score in registry.computed("reference").items()}
    return found


def forward_equivalents(
    names: Collection[str], *, checkpoints: int, examples: int, targets: int
) -> int:
    """What the passes beside the score pass come to, in forward passes over one example.

    Those that `columns` makes for these estimators. Out-of-fold predictions are not among them:
    they are the training of the folds' models.
    """
    total = 0
    if importance.needing(names, "optimizer"):
        total += 3 * examples
    total += influence.forward_equivalents(
        importance.needing(names, *INFLUENTIAL),
        checkpoints=checkpoints,
        examples=examples,
        targets=targets,
    )
    if importance.needing(names, "embeddings"):
        total += examples + targets
    return total
