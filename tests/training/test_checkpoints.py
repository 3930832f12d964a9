from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.data.loading import iterate
from sie_jax.training import mesh as meshes
from sie_jax.training import state as states
from sie_jax.training.checkpoints import RunCheckpoints

OPTIMIZER = states.make_optimizer(
    learning_rate=0.1, total_steps=10, warmup_fraction=0.0, weight_decay=0.0, clip_norm=1.0
)


def create(fill: float = 0.0) -> states.TrainState:
    generator = np.random.default_rng(0)
    params = {
        "kernel": jnp.float32(generator.normal(size=(3, 2)) + fill),
        "half": jnp.bfloat16(generator.normal(size=4) + fill),
    }
    return states.create(params, OPTIMIZER, meshes.replicated(meshes.make(1)), seed=9)


def test_round_trip_to_the_last_bit(shop: Any, tmp_path: Path, assert_trees_equal: Any) -> None:
    state = create(1.0)._replace(step=jnp.int32(3))
    wanted = jax.tree.map(np.asarray, state)
    record = {"examples": 24, "config": {"name": "ü", "rate": 0.1}}
    made = shop.planned(2)
    iterator = iterate(made)
    for _ in range(3):
        next(iterator)
    checkpoints = RunCheckpoints(tmp_path / "run")
    checkpoints.save(3, state, iterator, record)
    # the save goes on while training does: what happens from here on must not reach it
    record["examples"] = 0
    next(iterator)
    jax.tree.map(lambda leaf: leaf.delete(), state)
    checkpoints.close()

    checkpoints = RunCheckpoints(tmp_path / "run")
    assert checkpoints.latest_step == 3
    other = iterate(shop.planned(2))
    restored, found = checkpoints.restore(create(), other)
    checkpoints.close()
    assert_trees_equal(restored, wanted)
    assert jax.tree.map(lambda leaf: leaf.dtype, restored) == jax.tree.map(
        lambda leaf: leaf.dtype, wanted
    )
    assert found == {"examples": 24, "config": {"name": "ü", "rate": 0.1}}
    np.testing.assert_array_equal(next(other)["row"], made[3]["row"])


def test_the_newest_two_are_kept(shop: Any, tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(tmp_path)
    iterator = iterate(shop.planned())
    for step in (2, 4, 5):
        checkpoints.save(step, create(float(step)), iterator, {"step": step})
    checkpoints.wait()
    assert checkpoints.latest_step == 5
    state, record = checkpoints.restore(create())
    checkpoints.close()
    assert record == {"step": 5}
    np.testing.assert_array_equal(state.params["kernel"], create(5.0).params["kernel"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["4", "5"]


def test_kept_steps_can_be_gone_back_to(shop: Any, tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(tmp_path, keep=(2, 4))
    iterator = iterate(shop.planned())
    for step in range(1, 8):
        checkpoints.save(step, create(float(step)), iterator, {"step": step})
    checkpoints.wait()
    state, record = checkpoints.restore(create(), step=2)
    checkpoints.close()
    assert record == {"step": 2}
    np.testing.assert_array_equal(state.params["kernel"], create(2.0).params["kernel"])
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"2", "4", "6", "7"}


def test_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(tmp_path / "run")
    assert checkpoints.latest_step is None
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        checkpoints.restore(create())
    checkpoints.close()
