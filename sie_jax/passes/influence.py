"""The passes that give the gradient and influence columns of an importance table."""

import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from rich.console import Console

from sie_jax import per_example, processes
from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.devices import mesh as meshes
from sie_jax.files import whole
from sie_jax.importance import ekfac, gradients, influence, outputs
from sie_jax.passes import sweep
from sie_jax.tasks import graded as objectives
from sie_jax.training.logs import Clock, bar

# what a column needs of every checkpoint, and what it needs of the last one alone
_OF_EVERY: dict[str, set[str]] = {
    "grand": {"norm"},
    "gradient_variance": {"projection"},
    "tracin_self": {"norm"},
    "tracin": {"dot"},
    "trak_self": {"projection"},
    "trak": {"projection", "target_projection"},
}
_OF_LAST: dict[str, set[str]] = {
    "gradient_similarity": {"norm", "dot"},
    "ekfac_self": {"ekfac_self"},
    "ekfac": {"ekfac"},
}
# and what that needs of the targets
_OF_TARGETS = {"dot": "gradient", "ekfac": "gradient", "target_projection": "projection"}

NAMES = (*_OF_EVERY, *_OF_LAST)
"""The columns there are. Those that end in `_self`, `grand` and `gradient_variance`: high is hard.
The others are to the mean gradient of the targets: high is helpful to them."""


def columns(
    names: Collection[str],
    graphdef: nnx.GraphDef,
    mesh: Mesh,
    checkpoints: Sequence[tuple[Any, float]],
    training: PlannedBatches,
    targets: PlannedBatches,
    *,
    rows: np.ndarray,
    folder: Path,
    projection_size: int = 512,
    damping: float = 0.1,
    seed: int,
    clock: Clock,
    console: Console,
) -> sweep.Columns:
    """The columns `names` (of NAMES) for all `rows` of `training`, float32 `[N]` each.

    gradient_similarity and the ekfac columns are of the last checkpoint, the others over all.
    tracin, gradient_similarity, trak and ekfac are influences on the mean over the rows of
    `targets`. Dropout is off, padding rows count nowhere, and only what `names` need is computed.

    Cost in forward-equivalents: 3 per training row and checkpoint for all that one pass gives
    (norms, dots, projections; the output of TRAK is differentiated, and the loss gradient is
    −(1 − p) times its gradient), 3 per target row and checkpoint, 6 per training row for EK-FAC's
    curvature. On the host and on the device C·N·projection_size floats where projections are asked
    for.

    Args:
      checkpoints: (params, learning rate in force there), oldest first; at least one.
      training, targets: one epoch each, dropout-free; of `rows`, ascending, and of other pairs.
      folder: of this call alone. Parts of passes and whole stages are left there and not computed
        again, so the same arguments must come back to it.
      projection_size: D. One projection, of `seed`, serves all checkpoints.
      damping: of TRAK and EK-FAC, a share of the mean eigenvalue.
      seed: of the projection, and of the labels drawn from the model for the Fisher information.

    Raises:
      ValueError: an unknown name, no checkpoint, no target row, or training is not of `rows`.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise ValueError(f"no column {unknown[0]!r}: choose of {', '.join(NAMES)}")
    if not checkpoints:
        raise ValueError("there is no checkpoint: give at least one pair (params, learning rate)")
    keyed: dict[str, int] = {"projection_size": projection_size, "seed": seed}
    watched: dict[str, Any] = {"clock": clock, "console": console}

    found: list[sweep.Columns] = []
    aims: list[dict[str, Any]] = []
    for number, (params, _) in enumerate(checkpoints):
        needs = _needs(names, last=number == len(checkpoints) - 1)
        if not needs:
            continue
        here = folder / f"checkpoint-{number}"
        params = meshes.place(mesh, params)
        aim: dict[str, Any] = {}
        if sums := frozenset(_OF_TARGETS[need] for need in needs & _OF_TARGETS.keys()):
            function = target_pass(graphdef, mesh, sums, **keyed)
            aim = _stage(here / "targets.npz", function, params, targets, mesh, **watched)
            if not aim["count"]:
                raise ValueError("there is no target row: give at least one pair")
            aim = _divided(aim, aim["count"])
        state = {"params": params, **{k: aim[k] for k in ("gradient",) if k in aim}}
        if needs & {"ekfac", "ekfac_self"}:
            curvature = fit_ekfac(
                graphdef, mesh, params, training, folder=here, damping=damping, seed=seed, **watched
            )
            if "ekfac" in needs:
                precondition = jax.jit(ekfac.EKFAC.precondition)
                state["preconditioned"] = precondition(curvature, aim["gradient"])
            state["curvature"] = curvature
        function = example_pass(graphdef, mesh, needs, **keyed)
        parts = here / "scores"
        found.append(sweep.in_parts(function, state, training, mesh, parts, rows=rows, **watched))
        aims.append(aim)

    def stacked(name: str) -> Any:
        return np.stack([one[name] for one in found])

    rates = [rate for _, rate in checkpoints]
    made: dict[str, Callable[[], Any]] = {
        "grand": lambda: gradients.grand(stacked("norm")),
        # ∇ℓ = −(1 − p) ∇f, and the variance is of its projection
        "gradient_variance": lambda: gradients.gradient_variance(
            stacked("projection") * stacked("residual")[..., None]
        ),
        "tracin_self": lambda: influence.tracin_self(stacked("norm"), rates),
        "tracin": lambda: influence.tracin(stacked("dot"), rates),
        "trak_self": lambda: influence.trak_self(
            stacked("projection"), stacked("residual"), damping=damping
        ),
        "trak": lambda: influence.trak(
            stacked("projection"),
            jnp.stack([aim["projection"] for aim in aims])[:, None],
            stacked("residual"),
            damping=damping,
        )[0],
        "gradient_similarity": lambda: influence.gradient_similarity(
            stacked("dot")[-1], stacked("norm")[-1], _norm(aims[-1]["gradient"])
        ),
        "ekfac_self": lambda: found[-1]["ekfac_self"],
        "ekfac": lambda: found[-1]["ekfac"],
    }
    return {name: np.asarray(made[name]()) for name in names}


def forward_equivalents(
    names: Collection[str], *, checkpoints: int, examples: int, targets: int
) -> int:
    """What `columns` costs for these names, in forward passes over one example."""
    total = 0
    for number in range(checkpoints):
        needs = _needs(names, last=number == checkpoints - 1)
        if needs:
            total += 3 * examples
        if needs & _OF_TARGETS.keys():
            total += 3 * targets
        if needs & {"ekfac", "ekfac_self"}:  # covariances, then eigenvalues
            total += 6 * examples
    return total


def _needs(names: Collection[str], *, last: bool) -> frozenset[str]:
    """What the columns need of a checkpoint."""
    tables = (_OF_EVERY, _OF_LAST) if last else (_OF_EVERY,)
    return frozenset[str]().union(*(table.get(n, ()) for table in tables for n in names))


def fit_ekfac(
    graphdef: nnx.GraphDef,
    mesh: Mesh,
    params: Any,
    batches: PlannedBatches,
    *,
    folder: Path,
    damping: float,
    seed: int,
    clock: Clock,
    console: Console,
) -> ekfac.EKFAC:
    """The Fisher information over the real rows of `batches`, in EK-FAC's form.

    Labels are drawn from the model's own p(y|x), with `seed` folded with the row: the same for
    both passes, whatever the batches. Two passes, 6 forward-equivalents per row. `folder` receives
    `eigenbases.npz` and `eigenvalues.npz`, and what is there is not computed again.
    """
    watched: dict[str, Any] = {"clock": clock, "console": console}
    bases = _stage(
        folder / "eigenbases.npz",
        covariance_pass(graphdef, mesh, seed),
        params,
        batches,
        mesh,
        finish=jax.jit(ekfac.eigenbases),
        **watched,
    )
    state = {"params": params, "bases": bases}
    function = eigenvalue_pass(graphdef, mesh, seed)
    total = _stage(folder / "eigenvalues.npz", function, state, batches, mesh, **watched)
    # no row at all leaves sums of 0, and with them no influence
    count = jnp.maximum(total["count"], 1)
    return ekfac.EKFAC(bases, _divided(total["eigenvalues"], count), damping)


@functools.cache
def example_pass(
    graphdef: nnx.GraphDef,
    mesh: Mesh,
    needs: frozenset[str],
    *,
    projection_size: int,
    seed: int,
) -> sweep.Pass:
    """Gives, for a batch, what `needs` names of the loss gradient: `norm`, `dot`, `ekfac`,
    `ekfac_self` `[B]`; for `projection`, `projection` `[B, D]` of ∇f and `residual` 1 − p `[B]`.

    One forward and one backward pass, of the log-odds f. It takes the params, and what it needs
    beside them, as a dictionary: `gradient`, `preconditioned`, `curvature`.
    """
    gradients_of = per_example.value_and_grad(_log_odds(graphdef))

    def run(state: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        odds, grads = gradients_of(state["params"], batch)
        residual = jax.nn.sigmoid(-odds)
        found = {}
        if "norm" in needs:
            found["norm"] = residual * grads.norms()
        if "dot" in needs:
            found["dot"] = -residual * grads.dot(state["gradient"])
        if "projection" in needs:
            found["projection"] = grads.project(jax.random.key(seed), projection_size)
            found["residual"] = residual
        if "ekfac" in needs:
            found["ekfac"] = -residual * grads.dot(state["preconditioned"])
        if "ekfac_self" in needs:
            found["ekfac_self"] = residual**2 * state["curvature"].self_influence(grads)
        return found

    return sweep.compiled(run, mesh)


@functools.cache
def target_pass(
    graphdef: nnx.GraphDef,
    mesh: Mesh,
    sums: frozenset[str],
    *,
    projection_size: int,
    seed: int,
) -> sweep.Pass:
    """Gives, for a batch, the sums over its real rows that are named: `gradient`, of the loss, like
    params, and `projection` `[D]`, of ∇f; and the rows' `count`.
    """
    gradients_of = per_example.value_and_grad(_log_odds(graphdef))

    def run(params: Any, batch: dict[str, jax.Array]) -> dict[str, Any]:
        odds, grads = gradients_of(params, batch)
        found: dict[str, Any] = {"count": jnp.sum(batch["mask"])}
        if "gradient" in sums:
            weights = jnp.where(batch["mask"], -jax.nn.sigmoid(-odds), 0)
            found["gradient"] = grads.weighted_sum(weights)
        if "projection" in sums:
            projections = grads.project(jax.random.key(seed), projection_size)
            found["projection"] = jnp.sum(jnp.where(batch["mask"][:, None], projections, 0), axis=0)
        return found

    return sweep.compiled(run, mesh)


@functools.cache
def covariance_pass(graphdef: nnx.GraphDef, mesh: Mesh, seed: int) -> sweep.Pass:
    """Gives a batch's `ekfac.covariance_sums` over its real rows, labels by the model."""
    gradients_of = per_example.value_and_grad(_own_label(graphdef, seed))

    def run(params: Any, batch: dict[str, jax.Array]) -> Any:
        return ekfac.covariance_sums(gradients_of(params, batch)[1], where=batch["mask"])

    return sweep.compiled(run, mesh)


@functools.cache
def eigenvalue_pass(graphdef: nnx.GraphDef, mesh: Mesh, seed: int) -> sweep.Pass:
    """Gives a batch's `ekfac.eigenvalue_sums` over its real rows, and their `count`.

    It takes a dictionary of `params` and `bases`.
    """
    gradients_of = per_example.value_and_grad(_own_label(graphdef, seed))

    def run(state: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, Any]:
        grads = gradients_of(state["params"], batch)[1]
        sums = ekfac.eigenvalue_sums(grads, state["bases"], where=batch["mask"])
        return {"eigenvalues": sums, "count": jnp.sum(batch["mask"])}

    return sweep.compiled(run, mesh)


def _log_odds(graphdef: nnx.GraphDef) -> Callable[[Any, objectives.Example], jax.Array]:
    loss_fn = objectives.cross_entropy(graphdef)

    def odds(params: Any, example: objectives.Example) -> jax.Array:
        return influence.log_odds(loss_fn(params, example)[1], example["label"])

    return odds


def _own_label(graphdef: nnx.GraphDef, seed: int) -> Callable[[Any, objectives.Example], jax.Array]:
    """The loss of a label drawn from p(y|x), the seed's key folded with the row."""
    loss_fn = objectives.cross_entropy(graphdef)

    def loss(params: Any, example: objectives.Example) -> jax.Array:
        logits = loss_fn(params, example)[1]
        key = jax.random.fold_in(jax.random.key(seed), example["row"])
        return outputs.loss(logits, jax.random.categorical(key, lax.stop_gradient(logits)))

    return loss


def _stage(
    path: Path,
    function: Callable[[Any, dict[str, jax.Array]], Any],
    state: Any,
    batches: PlannedBatches,
    mesh: Mesh,
    *,
    finish: Callable[[Any], Any] = lambda total: total,
    clock: Clock,
    console: Console,
) -> Any:
    """`finish` of the sum of what a pass gives for all batches, added up on the device.

    Left at `path`, and read from there if it is there already: either way the same bits. `finish`
    gives a tree like the sum.
    """
    treedef: Any = jax.tree.structure(jax.eval_shape(function, state, batches[0]))
    if not processes.agreed(path.exists()):
        total = None
        with bar("score", len(batches), console) as progress:
            for batch in iterate(batches):
                part = function(state, meshes.place_batch(mesh, batch))
                total = part if total is None else _add(total, part)
                progress.advance(batch)
                clock.tick()
        processes.alone(_save, path, meshes.fetch(mesh, jax.tree.leaves(finish(total))))
        clock.tick(force=True)
    with np.load(path) as stored:
        kept = [stored[f"arr_{place}"] for place in range(treedef.num_leaves)]
    return jax.device_put(treedef.unflatten(kept), meshes.replicated(mesh))


def _save(path: Path, leaves: list[np.ndarray]) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *leaves)


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: Any, part: Any) -> Any:
    return jax.tree.map(jnp.add, total, part)


@jax.jit
def _divided(tree: Any, count: jax.Array) -> Any:
    return jax.tree.map(lambda total: total / count, tree)


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
