from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec
from transformers import BertConfig

from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.models import PairClassifier


def test_all_devices_are_taken_by_default() -> None:
    mesh = meshes.make()
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}


def test_more_devices_than_there_are() -> None:
    asked = jax.device_count() + 1
    with pytest.raises(
        UserError, match=rf"mesh\.data {asked}, .* need {asked} devices, but there are"
    ):
        meshes.make(asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((-1, -1, 1), "-1 takes the devices that are left: use it once"),
        ((-1, jax.device_count() + 1, 1), "devices do not divide by"),
    ],
)
def test_axes_that_make_no_mesh(asked: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=rf"mesh\.data {asked[0]}, mesh\.fsdp.*{message}"):
        meshes.make(*asked)


BERT = BertConfig(
    vocab_size=50,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
)


def placements(mesh: Any, config: BertConfig = BERT) -> dict[str, PartitionSpec]:
    model = nnx.eval_shape(lambda: PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0)))
    optimizer = optax.adam(0.1)
    params = nnx.state(model)
    state = {"params": params, "opt_state": jax.eval_shape(optimizer.init, params)}
    leaves = jax.tree_util.tree_leaves_with_path(meshes.shardings(mesh, state))
    return {jax.tree_util.keystr(p, simple=True, separator="."): x.spec for p, x in leaves}


def test_products_are_split_as_megatron_splits_them() -> None:
    """Columns first, rows second; moments beside their parameters; what is small lies whole."""
    found = placements(AbstractMesh((1, 2, 3), meshes.AXES))
    layer = {
        name.partition("layers.0.")[2].removesuffix(".value"): spec
        for name, spec in found.items()
        if name.startswith("params") and "layers.0" in name
    }
    for first in ("query", "key", "value", "intermediate"):
        assert layer[f"{first}.kernel"] == PartitionSpec(("fsdp",), ("tensor",))
        assert layer[f"{first}.bias"] == PartitionSpec(("tensor",))
    for second in ("attention_output", "output"):
        assert layer[f"{second}.kernel"] == PartitionSpec(("tensor",), ("fsdp",))
        assert layer[f"{second}.bias"] == PartitionSpec()
    assert layer["output_norm.scale"] == PartitionSpec()
    for pooler, spec in {"kernel": PartitionSpec(("fsdp",), None), "bias": PartitionSpec()}.items():
        assert found[f"params.bert.pooler.{pooler}.value"] == spec
    assert found["params.classifier.kernel.value"] == PartitionSpec()
    words = "bert.word_embeddings.value"
    assert found[f"params.{words}"] == PartitionSpec(None, ("fsdp", "tensor"))
    of_moments = {name: spec for name, spec in found.items() if ".mu." in name or ".nu." in name}
    assert len(of_moments) == 2 * sum(name.startswith("params") for name in found)
    for name, spec in of_moments.items():
        parameter = name.partition(".mu." if ".mu." in name else ".nu.")[2]
        assert spec == found[f"params.{parameter}"], name


def test_an_array_of_another_shape_than_its_axes_lies_whole() -> None:
    """As the column sums that a factored optimiser keeps of a matrix."""
    mesh: Any = AbstractMesh((1, 2, 1), meshes.AXES)
    tree = [nnx.Param(np.zeros(shape), mesh_axes=("fsdp", None)) for shape in ((4, 2), (4,))]
    found = [leaf.spec for leaf in jax.tree.leaves(meshes.shardings(mesh, tree))]
    assert found == [PartitionSpec(("fsdp",), None), PartitionSpec()]


def test_what_does_not_divide_is_named() -> None:
    with pytest.raises(
        UserError,
        match=r"attention_output\.kernel of shape \(12, 12\) does not divide over mesh\.tensor, 5",
    ):
        placements(AbstractMesh((1, 1, 5), meshes.AXES))


def test_places_of_one_process_are_all() -> None:
    np.testing.assert_array_equal(meshes.local_rows(meshes.make(1), 6), np.arange(6))


def test_the_batch_must_divide_over_the_mesh() -> None:
    mesh: Any = AbstractMesh((2, 2, 3), meshes.AXES)
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
