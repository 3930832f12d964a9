"""The gradient and influence columns of an importance table: their passes, and what they give."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sie_jax.devices import mesh as meshes
from sie_jax.importance import ekfac, gradients, influence
from sie_jax.passes import curvature, sweep
from sie_jax.passes.gradients import example_pass, target_pass
from sie_jax.tasks.task import ClassificationTask, ScalarTask

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
# what needs the curvature
_OF_CURVATURE = {"ekfac", "ekfac_self"}
# what is needed of the targets
_OF_TARGETS = {"dot": "gradient", "ekfac": "gradient", "target_projection": "projection"}

NAMES = (*_OF_EVERY, *_OF_LAST)
"""All columns. For those that end in `_self`, `grand` and `gradient_variance`, high is hard. The
others are relative to the mean gradient of the targets: high is helpful to them."""


class Options(NamedTuple):
    """What influence is computed with.

    seed: of the projection, and of the labels drawn from the model for the Fisher information.
    projection_size: the D numbers that a gradient is projected to; one projection serves all
    checkpoints. damping: of TRAK and EK-FAC, a share of the mean eigenvalue.
    """

    seed: int
    projection_size: int = 512
    damping: float = 0.1


def columns(
    names: Collection[str],
    task: ScalarTask,
    checkpoints: Sequence[tuple[Any, float]],
    training: sweep.Examples,
    targets: sweep.Examples,
    workspace: sweep.Workspace,
    options: Options,
) -> sweep.Columns:
    """The columns `names` (of NAMES) for all rows of `training`, float32 `[N]` each.

    gradient_similarity and the ekfac columns are of the last checkpoint, the others over all.
    tracin, gradient_similarity, trak and ekfac are influences on the mean over the rows of
    `targets`. Dropout is off, padding rows count nowhere, and only what `names` need is computed.

    Cost in forward-equivalents: 3 per training row and checkpoint for all that one pass gives
    (norms, dots, projections; the task's output function is differentiated, and the loss gradient
    is −residual times its gradient), 3 per target row and checkpoint, 6 per training row for
    EK-FAC's curvature. On the host and on the device it takes C·N·projection_size floats where
    projections are asked for.

    Args:
      checkpoints: (params, learning rate in force there), oldest first; at least one.
      training, targets: other pairs each, dropout-free.
      workspace: its folder keeps what the passes leave, so that a call that was stopped resumes;
        the same arguments must come back to it.

    Raises:
      ValueError: an unknown name, no checkpoint, no target row, or training lacks a row.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise ValueError(f"no column {unknown[0]!r}: choose of {', '.join(NAMES)}")
    if not checkpoints:
        raise ValueError("there is no checkpoint: give at least one pair (params, learning rate)")
    mesh, keyed = workspace.mesh, {"projection_size": options.projection_size, "seed": options.seed}

    found: list[sweep.Columns] = []
    aims: list[dict[str, Any]] = []
    for number, (params, _) in enumerate(checkpoints):
        needs = _needs(names, last=number == len(checkpoints) - 1)
        if not needs:
            continue
        params = meshes.place(mesh, params)
        aim: dict[str, Any] = {}
        if sums := frozenset(_OF_TARGETS[need] for need in needs & _OF_TARGETS.keys()):
            of_targets = target_pass(task, mesh, sums, **keyed)
            aim = sweep.summed(of_targets, params, targets, workspace, f"targets-{number}")
            if not aim["count"]:
                raise ValueError("there is no target row: give at least one pair")
            aim = sweep.divided(aim, aim["count"])
        state = {"params": params, **{k: aim[k] for k in ("gradient",) if k in aim}}
        if needs & _OF_CURVATURE:
            assert isinstance(task, ClassificationTask)
            fisher = curvature.fit_ekfac(
                task, params, training, workspace, damping=options.damping, seed=options.seed
            )
            if "ekfac" in needs:
                precondition = jax.jit(ekfac.EKFAC.precondition)
                state["preconditioned"] = precondition(fisher, aim["gradient"])
            state["curvature"] = fisher
        of_examples = example_pass(task, mesh, needs, **keyed)
        name = f"gradients-{number}"
        found.append(sweep.in_parts(of_examples, state, training, workspace, name))
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
            stacked("projection"), stacked("residual"), damping=options.damping
        ),
        "trak": lambda: influence.trak(
            stacked("projection"),
            jnp.stack([aim["projection"] for aim in aims])[:, None],
            stacked("residual"),
            damping=options.damping,
        )[0],
        "gradient_similarity": lambda: influence.gradient_similarity(
            stacked("dot")[-1], stacked("norm")[-1], _norm(aims[-1]["gradient"])
        ),
        "ekfac_self": lambda: found[-1]["ekfac_self"],
        "ekfac": lambda: found[-1]["ekfac"],
    }
    return {name: np.asarray(made[name]()) for name in names}


def entries(name: str, *, checkpoints: int) -> tuple[str, ...]:
    """The names of the passes that `columns` makes for one column."""
    made: list[str] = []
    for number in range(checkpoints):
        needs = _needs([name], last=number == checkpoints - 1)
        made += [f"targets-{number}"] if needs & _OF_TARGETS.keys() else []
        made += curvature.ENTRIES if needs & _OF_CURVATURE else ()
        made += [f"gradients-{number}"] if needs else []
    return tuple(made)


def _needs(names: Collection[str], *, last: bool) -> frozenset[str]:
    """What the columns need of a checkpoint."""
    tables = (_OF_EVERY, _OF_LAST) if last else (_OF_EVERY,)
    return frozenset[str]().union(*(table.get(n, ()) for table in tables for n in names))


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
