import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.training import state as states
from sie_jax.training.checkpoints import RunCheckpoints

OPTIMIZER = states.make_optimizer(
    learning_rate=0.1, total_steps=10, warmup_fraction=0.0, weight_decay=0.0, clip_norm=1.0
)


LOGGER = "sie_jax.training.checkpoints"


def create(fill: float = 0.0) -> states.TrainState:
    generator = np.random.default_rng(0)
    params = {
        "kernel": jnp.float32(generator.normal(size=(3, 2)) + fill),
        "half": jnp.bfloat16(generator.normal(size=4) + fill),
    }
    return states.create(params, OPTIMIZER, meshes.make(1), seed=9)


def test_round_trip_to_the_last_bit(tmp_path: Path, assert_trees_equal: Any) -> None:
    state = create(1.0)._replace(step=jnp.int32(3))
    wanted = jax.tree.map(np.asarray, state)
    record = {"examples": 24, "config": {"name": "ü", "rate": 0.1}}
    checkpoints = RunCheckpoints(tmp_path / "run")
    checkpoints.save(3, state, record)
    # the save goes on while training does: what happens from here on must not reach it
    record["examples"] = 0
    jax.tree.map(lambda leaf: leaf.delete(), state)
    checkpoints.close()

    checkpoints = RunCheckpoints(tmp_path / "run")
    assert checkpoints.latest_step == 3
    restored, found, step = checkpoints.restore(create())
    checkpoints.close()
    assert step == 3
    assert_trees_equal(restored, wanted)
    assert jax.tree.map(lambda leaf: leaf.dtype, restored) == jax.tree.map(
        lambda leaf: leaf.dtype, wanted
    )
    assert found == {"examples": 24, "config": {"name": "ü", "rate": 0.1}}


def saved(folder: Path, steps: Iterable[int], keep: tuple[int, ...] = ()) -> RunCheckpoints:
    """Checkpoints of these steps, each with a state and a record of its own, all on disk."""
    checkpoints = RunCheckpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, create(float(step)), {"step": step})
    checkpoints.wait()
    return checkpoints


def is_of(found: Any, step: int) -> None:
    state, record, at = found
    assert (record, at) == ({"step": step}, step)
    np.testing.assert_array_equal(state.params["kernel"], create(float(step)).params["kernel"])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    with closing(saved(tmp_path / "run", (2, 4, 5))) as checkpoints:
        assert checkpoints.latest_step == 5
        is_of(checkpoints.restore(create()), 5)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["4", "5"]
    digests = [path.name for path in (tmp_path / "run.digests").iterdir()]
    assert sorted(digests) == ["4.json", "5.json"]


def test_kept_steps_can_be_gone_back_to(tmp_path: Path) -> None:
    with closing(saved(tmp_path / "run", range(1, 8), keep=(2, 4))) as checkpoints:
        is_of(checkpoints.restore(create(), step=2), 2)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"2", "4", "6", "7"}


def test_no_checkpoint(tmp_path: Path) -> None:
    with closing(RunCheckpoints(tmp_path / "run")) as checkpoints:
        assert checkpoints.latest_step is None
        with pytest.raises(FileNotFoundError, match="no checkpoint in"):
            checkpoints.restore(create())


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=os.path.getsize)


def flip(folder: Path) -> None:
    """One bit of a file is another one: nothing but a digest can tell."""
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(largest(folder), 10)


def remove(folder: Path) -> None:
    largest(folder).unlink()


@pytest.mark.parametrize("spoil", [flip, truncate, remove])
def test_a_broken_checkpoint_is_set_aside_and_the_one_before_is_used(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    saved(run, (2, 4)).close()
    spoil(run / "4")
    with closing(RunCheckpoints(run)) as checkpoints:
        is_of(checkpoints.restore(create()), 2)
        (warning,) = [one.getMessage() for one in caplog.records if one.name == LOGGER]
        assert str(run / "4") in warning
        assert str(tmp_path / "run.broken") in warning
        # the same step can be saved anew
        checkpoints.save(4, create(4.0), {"step": 4})
        checkpoints.wait()
        is_of(checkpoints.restore(create()), 4)
    assert (tmp_path / "run.broken" / "4").is_dir()


def test_a_torn_checkpoint_without_digests_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "run", (2, 4)).close()
    (tmp_path / "run.digests" / "4.json").unlink()  # killed before it was written
    truncate(tmp_path / "run" / "4")
    with closing(RunCheckpoints(tmp_path / "run")) as checkpoints:
        is_of(checkpoints.restore(create()), 2)


def test_where_all_are_broken_nothing_is_moved_and_the_user_is_told(tmp_path: Path) -> None:
    saved(tmp_path / "run", (2, 4)).close()
    for step in (2, 4):
        flip(tmp_path / "run" / str(step))
    with closing(RunCheckpoints(tmp_path / "run")) as checkpoints:
        with pytest.raises(UserError, match=r"can be read \(step 4: .*; step 2: .*remove it to"):
            checkpoints.restore(create())
        assert checkpoints.latest_step == 4
