"""One contract over all forms: every quantity agrees with the materialised gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example
from sie_jax.per_example import forms


def flat(grads):
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(grads)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def test_every_quantity_agrees_with_materialize(case, assert_trees_close):
    """Expected in float64 from float32 gradients; the tolerance is float32's over ~100 terms."""
    weights = np.array([0.5, 0.0, -1.0, 2.0, 0.25], np.float32)
    direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size)).reshape(p.shape), case.params)

    @jax.jit
    def compute(params, *batch):
        _, grads = per_example.value_and_grad(case.loss_fn)(params, *batch)
        totals = (grads.weighted_sum(weights), grads.mean())
        numbers = (grads.norms(), grads.norms(per_leaf=True), grads.gram(), grads.dot(direction))
        return grads.materialize(), totals, numbers

    each, totals, (norms, per_leaf, gram, dots) = compute(case.params, *case.batch)
    matrix = flat(each)
    size = np.abs(matrix).max()
    products = {"rtol": 1e-4, "atol": 1e-5 * size * matrix.shape[1]}
    np.testing.assert_allclose(norms, np.linalg.norm(matrix, axis=1), rtol=1e-5)
    np.testing.assert_allclose(gram, matrix @ matrix.T, rtol=1e-4, atol=products["atol"] * size)
    one = flat(jax.tree.map(lambda leaf: leaf[None], direction))[0]
    np.testing.assert_allclose(dots, matrix @ one, **products)
    for total, coefficients in zip(totals, (weights, np.full(5, 0.2)), strict=True):
        expected = jax.tree.map(
            lambda g, p, c=coefficients: np.tensordot(c, g, 1).astype(p.dtype), each, case.params
        )
        assert_trees_close(total, expected, rtol=1e-4, atol=1e-5 * size)
    for name, leaf in each.items():
        np.testing.assert_allclose(
            per_leaf[name], np.linalg.norm(flat(leaf), axis=1), rtol=1e-5, atol=1e-6
        )


def test_forms_are_the_expected_ones(case):
    found = per_example.explain(case.loss_fn, case.params, *case.batch)
    assert {leaf.path[2:-2]: leaf.form for leaf in found.leaves} == case.forms


def test_long_sequences_take_the_direct_norm_and_short_ones_the_gram_form(make_case):
    for name, gram in (("long_sequence", False), ("vector_input", True)):
        case = make_case(name)
        _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *case.batch)
        assert grads.forms()[0].uses_gram == gram


def test_shared_input_is_kept_once(make_case):
    case = make_case("shared_input")
    _, grads = per_example.value_and_grad(case.loss_fn)(case.params, *case.batch)
    key, query, value = grads.forms()
    assert key.a is query.a is value.a
    assert key.shared == 3
    products = {}
    for form in (key, query, value):
        form.squared_norms(products)
    assert len(products) == 4  # one of the data, three of the cotangents


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
    leaf = forms.Leaf((3, 5), jnp.dtype("float32"), (forms.Part("outer", (0,), (0,), (0,), (1,)),))
    grads = forms.PerExampleGrads((a,), (g,), (), 64, (leaf,), jax.tree.structure(0))
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
