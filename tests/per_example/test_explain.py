"""The explanation of a loss: forms, costs by formula, and reasons."""

import jax
import jax.numpy as jnp

from sie_jax import per_example


def test_costs_are_the_formulas(make_case):
    case = make_case("dense")
    found = per_example.explain(case.loss_fn, case.params, *case.batch)
    first = next(leaf for leaf in found.leaves if leaf.path == "['first']")
    T, size_in, size_out = 6, 4, 3
    assert first.form == "Outer"
    assert first.norm == "direct"
    assert first.flops == first.materialized_flops == 2 * (T + 1) * size_in * size_out
    assert first.bytes == 4 * T * (size_in + size_out)
    assert first.materialized_bytes == 4 * size_in * size_out


def test_gram_form_of_shared_data_is_counted_once():
    def loss_fn(params, x):
        return jnp.sum((x @ params["a"]) * (x @ params["b"]))

    params = {name: jnp.ones((30, 40)) for name in "ab"}
    found = per_example.explain(loss_fn, params, jnp.ones((2, 3, 30)))
    assert [leaf.norm for leaf in found.leaves] == ["Gram", "Gram"]
    assert [leaf.flops for leaf in found.leaves] == [2 * 3 * 3 * (15 + 40)] * 2


def test_reasons_name_the_primitive(make_case):
    expected = {
        "convolution": {"kernel": "conv_general_dilated"},
        "carried": {"carried": "scan (carry)", "returned": "returned by remat2"},
        "scanned": {},
        "rematerialised": {},
        "tied": {},
    }
    for name, reasons in expected.items():
        case = make_case(name)
        found = per_example.explain(case.loss_fn, case.params, *case.batch)
        given = {leaf.path: leaf.reason for leaf in found.leaves if leaf.reason}
        assert given == {f"['{leaf}']": reason for leaf, reason in reasons.items()}


def test_table_has_a_line_for_every_leaf_and_works_on_shapes_alone(make_case):
    case = make_case("layer_norm")
    shapes = jax.eval_shape(lambda: (case.params, case.batch))
    table = str(per_example.explain(case.loss_fn, shapes[0], *shapes[1]))
    assert table == str(per_example.explain(case.loss_fn, case.params, *case.batch))
    for text in ("['kernel']", "Outer", "['scale']", "Dense", "broadcast_in_dim", "total"):
        assert text in table
    lines = [line for line in table.splitlines() if line.startswith(("[", "total"))]
    assert len(lines) == 4
    assert all(line.endswith((": plain AD", "with data")) for line in lines[:-1])


def test_several_params_and_batch_arguments_by_keyword():
    def loss_fn(x, kernel, bias, *, scale):
        return jnp.sum(x @ kernel["k"] + bias) * scale

    x, kernel, bias = jnp.ones((2, 3)), {"k": jnp.ones((3, 4))}, jnp.ones(4)
    found = per_example.explain(loss_fn, x, kernel, bias, scale=jnp.ones(2), argnums=(1, 2))
    shapes = {leaf.path: leaf.shape for leaf in found.leaves}
    assert shapes == {"[0]['k']": (3, 4), "[1]": (4,)}
    assert found.leaves[0].why == "a matrix product with data"


def test_nothing_to_explain():
    found = per_example.explain(lambda params, x: jnp.sum(x), {}, jnp.ones((2, 3)))
    assert "total" in str(found)


def test_a_table_costs_what_is_touched_here_and_all_of_it_as_an_array():
    """Of 128 places a sum of rows is less to do than the products of all places."""

    def loss_fn(params, ids):
        return jnp.sum(params["table"][ids] ** 2)

    params = {"table": jnp.ones((1000, 32))}
    found = per_example.explain(loss_fn, params, jnp.zeros((2, 128), int))
    (leaf,) = found.leaves
    assert (leaf.form, leaf.norm) == ("Rows", "direct")
    assert leaf.flops == (128 + 2 * 128) * 32
    assert leaf.materialized_flops == (128 + 2 * 1000) * 32
