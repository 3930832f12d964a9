from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from sie_jax.errors import UserError
from sie_jax.training import mesh as meshes


def test_all_devices_are_taken_by_default() -> None:
    mesh = meshes.make()
    assert mesh.axis_names == ("data",)
    assert mesh.shape["data"] == jax.device_count()


def test_more_devices_than_there_are() -> None:
    asked = jax.device_count() + 1
    with pytest.raises(UserError, match=rf"mesh\.data is {asked}, but there are"):
        meshes.make(asked)


def test_the_batch_must_divide_over_the_mesh() -> None:
    mesh: Any = AbstractMesh((4,), ("data",))
    meshes.check_batch(mesh, 8)
    with pytest.raises(UserError, match=r"train\.batch_size 10 .* multiple of 4, such as 12"):
        meshes.check_batch(mesh, 10)


def test_a_batch_is_placed_as_it_is() -> None:
    mesh = meshes.make(1)
    batch = {"row": np.arange(4, dtype=np.int32), "input_ids": np.ones((4, 3), np.int32)}
    placed = meshes.place_batch(mesh, batch)
    for name, values in batch.items():
        np.testing.assert_array_equal(placed[name], values)
        assert placed[name].dtype == values.dtype
        assert placed[name].sharding == meshes.batch_sharded(mesh)
