"""What the gradients of a batch promise beside their values: weight 0, derivatives, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example
from sie_jax.per_example import gradients


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """Not here: roundings that cancel and NaN are met as users meet them, in optimised programs."""


def poisoned(make_case, name):
    """The case with NaN in the floating input of example 1, which makes all its factors NaN."""
    case = make_case(name)
    batch = tuple(
        x.at[1].set(jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in case.batch
    )
    return case, batch


@pytest.mark.parametrize("name", ["dense", "layer_norm", "convolution"])
def test_weight_zero_contributes_exactly_zero_even_with_nan(make_case, name):
    case, batch = poisoned(make_case, name)
    weights = jnp.array([0.5, 0.0, 1.0, 2.0, 0.25])

    @jax.jit
    def compute(*batch):
        _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *batch)
        return grads.norms(), grads.weighted_sum(weights)

    norms, total = compute(*batch)
    np.testing.assert_array_equal(np.isfinite(norms), [True, False, True, True, True])
    jax.tree.map(np.testing.assert_array_equal, total, compute(*case.batch)[1])


def test_weight_zero_with_nan_rows():
    """A row whose cotangent is NaN in the example of weight 0 and finite in the other."""

    def loss_fn(params, ids, scale):
        return jnp.sum(scale * jnp.take(params, ids, axis=0))

    ids, scale = jnp.array([[0, 1], [1, 2]]), jnp.array([1.0, jnp.nan])
    _, grads = per_example.value_and_grad(loss_fn)(jnp.ones((3, 2)), ids, scale)
    np.testing.assert_array_equal(
        grads.weighted_sum(jnp.array([2.0, 0.0])), [[2.0, 2.0], [2.0, 2.0], [0.0, 0.0]]
    )


def test_squared_norms_never_below_zero():
    """Cancelling tokens: the gradient is 0, and rounding of the Gram form must not give NaN."""
    a = jax.random.normal(jax.random.key(0), (64, 1, 3)) * 1e3
    g = jax.random.normal(jax.random.key(1), (64, 1, 5)) * 1e3
    a = jnp.concatenate([a, a / 3, a], axis=1)
    g = jnp.concatenate([g, -3 * g, jnp.zeros_like(g)], axis=1)
    leaf = gradients.Leaf(
        (3, 5), jnp.dtype("float32"), (gradients.Part("outer", (0,), (0,), (0,), (1,)),)
    )
    grads = gradients.PerExampleGrads((a,), (g,), (), 64, (leaf,), jax.tree.structure(0))
    assert np.isfinite(grads.norms()).all()


@pytest.mark.parametrize("weights", [jnp.ones(3), jnp.ones((5, 1)), 1.0])
def test_weights_of_another_shape_are_refused(make_case, weights):
    case = make_case("dense")
    _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *case.batch)
    with pytest.raises(ValueError, match=r"pass \[5\]"):
        grads.weighted_sum(weights)


def test_direction_of_another_tree_is_refused(make_case):
    case = make_case("dense")
    _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *case.batch)
    with pytest.raises(ValueError, match="not a tree like params"):
        grads.dot({"first": case.params["first"]})


def test_weighted_sum_is_differentiable_in_weights_and_in_gradients(make_case):
    """d/dw ⟨Σ w_i ∇ℓ_i, v⟩ = ⟨∇ℓ_i, v⟩, and what a weight of 0 leaves out moves nothing."""
    case = make_case("dense")
    _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *case.batch)
    weights = jnp.array([0.5, 0.0, -1.0, 2.0, 0.25])

    def along(grads, weights):
        total = grads.weighted_sum(weights)
        products = jax.tree.map(lambda g, p: jnp.sum(g * p), total, case.params)
        return sum(jax.tree.leaves(products))

    dots = np.asarray(grads.dot(case.params))
    of_grads, of_weights = jax.grad(along, argnums=(0, 1), allow_int=True)(grads, weights)
    used = np.array(weights) != 0
    np.testing.assert_allclose(of_weights[used], dots[used], rtol=1e-5)
    for leaf in jax.tree.leaves(of_grads):
        assert not np.any(leaf[1])
        assert np.all(np.any(np.asarray(leaf)[used], axis=tuple(range(1, leaf.ndim))))
    _, forward = jax.jvp(lambda w: along(grads, w), (weights,), (jnp.ones(5),))
    np.testing.assert_allclose(forward, of_weights.sum(), rtol=1e-5)


@pytest.mark.parametrize("number", [1, 5])
def test_groups_are_sums_of_consecutive_examples(case, number, assert_trees_close):
    """Every form: one group of all examples, and groups of one."""

    @jax.jit
    def compute(params, *batch):
        _, grads = per_example.value_and_grad(case.loss_fn)(params, *batch)
        groups = grads.grouped(number)
        twice = grads.grouped(number, grads)
        norms = groups.norms(), twice.norms()
        return grads.materialize(), groups.materialize(), norms, grads.agreement(groups)

    each, groups, (norms, twice), agreement = compute(case.params, *case.batch)
    expected = jax.tree.map(lambda g: g.reshape(number, -1, *g.shape[1:]).sum(1), each)
    assert_trees_close(groups, expected, rtol=1e-5, atol=1e-5)
    terms, sums = (
        np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in leaves], 1)
        for leaves in (jax.tree.leaves(each), jax.tree.leaves(expected))
    )
    np.testing.assert_allclose(norms, np.linalg.norm(sums, axis=1), rtol=1e-5)
    np.testing.assert_allclose(twice, 2 * norms, rtol=1e-5)
    along = np.sum(terms * np.repeat(sums, len(terms) // number, axis=0), axis=1)
    np.testing.assert_allclose(agreement, along, rtol=1e-4, atol=1e-5)


def test_groups_of_other_sizes_and_params_are_refused(make_case):
    case, other = make_case("dense"), make_case("embedding")
    _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *case.batch)
    _, others = per_example.value_and_grad(other.loss_fn)(other.params, *other.batch)
    with pytest.raises(ValueError, match="5 examples are not 2 groups of one size"):
        grads.grouped(2)
    with pytest.raises(ValueError, match="5 examples are not 0 groups of one size"):
        grads.grouped(0)
    with pytest.raises(ValueError, match="grouped: the other gradients are of other params"):
        grads.grouped(5, others)
    with pytest.raises(ValueError, match="agreement: the other gradients are of other params"):
        grads.agreement(others)
    _, fewer = per_example.value_and_grad(case.loss_fn)(
        case.params, *(values[:2] for values in case.batch)
    )
    with pytest.raises(ValueError, match="agreement: 5 examples are not in 2 groups"):
        grads.agreement(fewer)


def test_no_example_has_no_mean():
    _, grads = per_example.value_and_grad(lambda p, x: jnp.sum(p * x))(
        jnp.ones(3), jnp.ones((0, 3))
    )
    assert grads.norms().shape == (0,)
    np.testing.assert_array_equal(grads.weighted_sum(jnp.ones(0)), np.zeros(3))
    with pytest.raises(ValueError, match="mean: the batch has no example"):
        grads.mean()
