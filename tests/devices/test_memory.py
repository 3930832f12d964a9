import os
from typing import Any

import jax
import numpy as np
import pytest

from sie_jax.devices import memory
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.training import state as states
from sie_jax.training import steps

OPTIMIZER = states.make_optimizer(
    learning_rate=0.01, total_steps=10, warmup_fraction=0.0, weight_decay=0.0, clip_norm=1.0
)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (24.06e9, "24.1 GB"), (3e15, "3e+03 TB")],
)
def test_bytes_are_written_with_three_digits(number: float, text: str) -> None:
    assert memory.size(number) == text


def test_a_state_takes_its_arrays_whether_they_are_there_or_not(shop: Any) -> None:
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(shop.params))
    state = states.create(shop.params, OPTIMIZER, shop.mesh, seed=0)
    # Adam's two moments, and two counters of 4 bytes: Adam's and the schedule's
    expected = memory.Need(parameters, 2 * parameters + 8, 0, 0)
    assert memory.of_state(state.params, state.opt_state) == expected
    shapes = meshes.abstract(shop.mesh, jax.eval_shape(OPTIMIZER.init, shop.params))
    assert memory.of_state(meshes.abstract(shop.mesh, shop.params), shapes) == expected


def test_a_step_takes_its_batch_and_room_for_the_gradient(shop: Any) -> None:
    state = states.create(shop.params, OPTIMIZER, shop.mesh, seed=0)
    batch = shop.short_batch()
    step = steps.weighted_step(shop.task, OPTIMIZER, shop.mesh)
    need = memory.of_step(step, state, meshes.place_batch(shop.mesh, batch))
    assert need[:2] == memory.of_state(state.params, state.opt_state)[:2]
    assert need.batch == sum(values.nbytes for values in batch.values())
    assert need.step > need.parameters
    # nothing was run: the state was not given up
    assert np.isfinite(jax.tree.leaves(state.params)[0]).all()


def test_what_does_not_fit_is_refused_and_what_fits_is_said() -> None:
    devices = jax.local_devices()
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)
    assert memory.limit(devices) == there
    small, large = memory.Need(1000, 2000, 0, 500), memory.Need(there, 1, 0, 0)
    assert memory.check(small, devices) == (
        "3.5 kB on each device (parameters 1 kB, optimizer 2 kB, step 500 B) of "
        + memory.size(there)
    )
    with pytest.raises(
        UserError, match=r"has .* for each: raise mesh.fsdp, lower train.batch_size"
    ):
        memory.check(large, devices)


def test_a_state_that_does_not_fit_is_refused_before_it_is_made(shop: Any) -> None:
    # shapes alone: an array of that size cannot be had
    huge = {"table": jax.ShapeDtypeStruct((2**40, 8), np.float32)}
    with pytest.raises(UserError, match=r"training needs .* TB on each device \(parameters"):
        states.create(huge, OPTIMIZER, shop.mesh, seed=0)
