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


def test_tables_take_the_direct_norm_where_that_is_less_to_do():
    """A product of all places with each other grows with their square, a sum of rows does not."""

    def uses_gram(places: int, rows: int) -> bool:
        ids, g = jnp.zeros((4, places), int), jnp.zeros((4, places, 384))
        return forms.Rows(ids, g, (rows, 384), g.dtype).uses_gram

    assert uses_gram(32, 512)
    assert not uses_gram(128, 512)
    assert not uses_gram(32, 2)  # two token types


@pytest.mark.parametrize("places", [3, 5, 40, 90])
def test_the_norm_of_a_table_is_that_of_its_summed_rows(places):
    """Of 7 rows or of 80, fewer or more than there are places; some places name no row."""
    for rows in (7, 80):
        ids = jax.random.randint(jax.random.key(places), (4, places), 0, rows + 1)
        form = forms.Rows(
            ids, jax.random.normal(jax.random.key(1), (4, places, 2)), (rows, 2), jnp.float32
        )
        squares = jnp.sum(form.materialize() ** 2, (1, 2))
        assert jnp.allclose(form.squared_norms({}), squares, rtol=1e-5)


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
