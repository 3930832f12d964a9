"""What a training step carries forward, and the optimiser that moves it."""

import functools
import re
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from sie_jax.devices import memory
from sie_jax.devices import mesh as meshes

SECOND_MOMENT_DECAY = 0.999  # Adam's β₂


class TrainState(NamedTuple):
    """Parameters, optimiser state, the number of steps taken, and the seed of the run's dropout.

    The seed is part of the state, so that one compiled step serves every seed.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    seed: jax.Array


@functools.cache
def make_optimizer(
    *,
    learning_rate: float,
    total_steps: int,
    warmup_fraction: float,
    weight_decay: float,
    clip_norm: float,
    layer_decay: float = 1.0,
    frozen_layers: int = 0,
) -> optax.GradientTransformation:
    """AdamW after clipping by global norm, with linear warm-up and linear decay to zero.

    Weight decay is left off vectors (biases, LayerNorm), as BERT's own training does (Devlin et al.
    2019, appendix A.2). layer_decay, frozen_layers: see `layer_rates`. Equal arguments give the
    same object, so that steps compile once.
    """
    schedule = make_schedule(learning_rate, total_steps, warmup_fraction)
    parts = [
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b2=SECOND_MOMENT_DECAY, weight_decay=weight_decay, mask=_decayed),
    ]
    if layer_decay != 1.0 or frozen_layers:

        def slowed(updates: Any, params: Any) -> Any:
            rates = layer_rates(updates, decay=layer_decay, frozen=frozen_layers)
            return jax.tree.map(lambda rate, update: rate * update, rates, updates)

        parts.append(optax.stateless(slowed))
    return optax.chain(*parts)


def layer_rates(params: Any, *, decay: float, frozen: int) -> Any:
    """By what each leaf's learning rate is multiplied: decay^d, d its distance from the head.

    The head and the pooler have d = 0, the last of L layers 1, the first L, and the embeddings
    L + 1. The embeddings and the first `frozen` layers have 0 where `frozen` is above 0. A leaf's
    layer is the first number in its path.

    Source: Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.3
    (layer-wise decreasing rates).
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    numbers = [_layer(path) for path, _ in leaves]
    depth = 1 + max((number for number in numbers if number is not None), default=-1)

    def rate(number: int | None) -> float:
        if number is None:
            return 1.0
        return 0.0 if frozen and number < frozen else decay ** (depth - number)

    return jax.tree.unflatten(jax.tree.structure(params), map(rate, numbers))


def _layer(path: Any) -> int | None:
    """The number of the layer that a leaf is of, -1 for embeddings; None beyond the layers."""
    text = jax.tree_util.keystr(path, simple=True, separator=".")
    if "embeddings" in text:
        return -1
    found = re.search(r"\.(\d+)\.", text)
    return None if found is None else int(found[1])


def make_schedule(learning_rate: float, total_steps: int, warmup_fraction: float) -> optax.Schedule:
    """The learning rate of each step: linear from 0 up to `learning_rate`, and down to 0 again."""
    warmup = round(total_steps * warmup_fraction)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, max(warmup, 1)),
            optax.linear_schedule(learning_rate, 0.0, max(total_steps - warmup, 1)),
        ],
        [warmup],
    )


def create(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, *, seed: int
) -> TrainState:
    """A state at step 0 with its own copy of `params`, split over the mesh (`devices.mesh`).

    Raises UserError, before it allocates anything, if the devices cannot hold the state.
    """
    memory.check(
        memory.of_state(
            meshes.abstract(mesh, params),
            meshes.abstract(mesh, jax.eval_shape(optimizer.init, params)),
        ),
        mesh.local_devices,
    )
    params = meshes.place(mesh, params)
    opt_state = meshes.initialised(mesh, functools.partial(optimizer.init, params))
    step, seed_array = meshes.place(mesh, (np.int32(0), np.int32(seed)))
    return TrainState(params, opt_state, step, seed_array)


def _decayed(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
