from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.devices import mesh as meshes
from sie_jax.training import state as states

PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "scale": jnp.ones(2)}


def make(**changed: Any) -> Any:
    options = {
        "learning_rate": 0.5,
        "total_steps": 10,
        "warmup_fraction": 0.4,
        "weight_decay": 0.0,
        "clip_norm": 1e9,
    }
    return states.make_optimizer(**{**options, **changed})


def rates(optimizer: Any, steps: int) -> list[float]:
    """The learning rates: under a constant gradient of 1, Adam's step is the rate itself."""
    params, found = {"x": jnp.zeros(())}, []
    opt_state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(steps):
        updates, opt_state = update({"x": jnp.ones(())}, opt_state, params)
        found.append(-float(updates["x"]))
    return found


def test_linear_warm_up_and_linear_decay_to_zero() -> None:
    up = [0.5 * step / 4 for step in range(4)]
    down = [0.5 * (6 - step) / 6 for step in range(7)]
    np.testing.assert_allclose(rates(make(), 11), up + down, rtol=1e-5, atol=1e-7)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    found = rates(make(warmup_fraction=0.0), 2)
    np.testing.assert_allclose(found, [0.5, 0.5 * 9 / 10], rtol=1e-4)


def test_vectors_do_not_decay() -> None:
    optimizer = make(weight_decay=0.1, warmup_fraction=0.0)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = jax.jit(optimizer.update)(zero, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["kernel"], -0.5 * 0.1 * np.ones((2, 3)), rtol=1e-6)
    assert not np.any(updates["bias"])
    assert not np.any(updates["scale"])


def test_only_matrices_of_the_model_decay(shop: Any) -> None:
    optimizer = make(weight_decay=0.1, warmup_fraction=0.0)
    zero = jax.tree.map(np.zeros_like, shop.params)
    opt_state = jax.jit(optimizer.init)(shop.params)
    updates, _ = jax.jit(optimizer.update)(zero, opt_state, shop.params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path)
        decays = not ("bias" in name or "scale" in name)
        assert bool(np.any(update)) is decays, name


def test_gradients_are_clipped_by_their_global_norm() -> None:
    # Adam's own step is blind to the scale of its first gradient, so look at its first moment
    optimizer = make(clip_norm=0.5)
    gradient = {"kernel": jnp.full((2, 3), 3.0), "bias": jnp.zeros(3), "scale": jnp.zeros(2)}
    _, opt_state = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    moments = [leaf for leaf in jax.tree.leaves(opt_state) if leaf.shape == (2, 3)]
    norm = 3.0 * np.sqrt(6)
    np.testing.assert_allclose(moments[0], 0.1 * 3.0 * 0.5 / norm * np.ones((2, 3)), rtol=1e-5)


def test_equal_arguments_give_the_same_optimiser() -> None:
    assert make() is make()
    assert make() is not make(learning_rate=0.25)


def test_a_state_holds_a_copy() -> None:
    params = {"x": jnp.arange(3.0)}
    state = states.create(params, make(), meshes.make(1), seed=7)
    jax.tree.map(lambda leaf: leaf.delete(), state.params)
    np.testing.assert_array_equal(params["x"], [0.0, 1.0, 2.0])
    assert int(state.step) == 0
    assert int(state.seed) == 7
    assert state.seed.dtype == jnp.int32


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_seeds_are_int32(seed: int) -> None:
    state = states.create({"x": jnp.zeros(1)}, make(), meshes.make(1), seed=seed)
    assert int(state.seed) == seed


def test_layers_far_from_the_head_are_slowed_and_the_first_ones_frozen(shop: Any) -> None:
    """Of a BERT of one layer: the head and the pooler, the layer, the embeddings."""
    found = states.layer_rates(shop.params, decay=0.5, frozen=0)
    for path, rate in jax.tree_util.tree_leaves_with_path(found):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        far = 2 if "embeddings" in name else int(".layers." in name)
        assert rate == 0.5**far, name
    deep = {"encoder": {"layers": [{"kernel": 1.0}, {"kernel": 1.0}, {"kernel": 1.0}]}}
    deep |= {"word_embeddings": 1.0, "classifier": {"kernel": 1.0}}
    found = states.layer_rates(deep, decay=0.1, frozen=2)
    layers = [layer["kernel"] for layer in found["encoder"]["layers"]]
    assert layers == [0.0, 0.0, pytest.approx(0.1)]
    assert found["word_embeddings"] == 0.0
    assert found["classifier"]["kernel"] == 1.0


def test_the_optimizer_goes_by_the_rates_of_layers() -> None:
    params = {"layers": [{"kernel": jnp.ones((2, 2))}], "head": {"kernel": jnp.ones((2, 2))}}
    gradient = jax.tree.map(jnp.ones_like, params)

    def moves(**options: Any) -> Any:
        optimizer = make(weight_decay=0.1, warmup_fraction=0.0, **options)
        return jax.jit(optimizer.update)(gradient, optimizer.init(params), params)[0]

    plain, slowed, frozen = moves(), moves(layer_decay=0.5), moves(frozen_layers=1)
    layer, head = (lambda tree: tree["layers"][0]["kernel"]), (lambda tree: tree["head"]["kernel"])
    np.testing.assert_allclose(layer(slowed), 0.5 * layer(plain), rtol=1e-6)
    assert not np.any(layer(frozen))
    for one in (slowed, frozen):
        np.testing.assert_array_equal(head(one), head(plain))
