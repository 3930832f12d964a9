"""The contract: on every model of the zoo, every method against `jax.vmap(jax.value_and_grad)`."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array, lax

from sie_jax import per_example
from tests.per_example import zoo
from tests.per_example.zoo import Model, normal

pytestmark = pytest.mark.slow

# Errors are relative to the largest norm in the batch (its square for inner products). float64:
# far above the 1e-16 of a rounding, far below any mistake. float32: some hundred roundings of 6e-8.
FLOAT64, FLOAT32 = 1e-10, 1e-5
# bfloat16 has 8 bits, so a rounding is up to 2^-9 = 0.002; the some fifty roundings that follow
# each other on the way through a model and back add up to about 0.002·√50 = 0.014 of the largest
# norm. Twice that is allowed.
BFLOAT16 = 3e-2
DIM = 6  # of projections
KEY = 7

# What a person should see kept as factors, and what plain AD has to compute because of which
# primitive: patterns of parameter paths. What neither pattern names is a bias or a scale.
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "bert": ("kernel|_embeddings", {}),
    "linen_transformer": ("kernel|embedding", {}),
    "equinox_mlp": ("weight", {}),
    "equinox_convolution": ("linear.weight", {"convolution.weight": "conv_general_dilated"}),
    "gru": ("input|hidden|readout", {}),
    "scanned_transformer": ("table|query|key|value|merge|up|down|readout", {}),
    "remat_transformer": ("table|query|key|value|merge|up|down|readout", {}),
    "scan_remat_transformer": ("table|query|key|value|merge|up|down|readout", {}),
    "nested_scan": ("input|hidden|readout", {}),
    "tied_language_model": ("table|kernel", {}),
    "lora_closed_over": ("down|up", {}),
    "lora_passed_whole": ("down|up", {}),
    "conditional": ("kernel", {"gate": "cond"}),
    "three_places": ("kernel", {}),
    "straight_and_transposed": ("", {"kernel": "do not join"}),
    "custom_derivative": ("kernel", {"custom": "custom_vjp"}),
}


def oracle(model: Model) -> tuple[Array, Any]:
    """Losses and per-example gradients by plain AD."""
    in_axes = model.in_axes if isinstance(model.in_axes, tuple) else (0,) * len(model.batch)
    transform = jax.vmap(jax.value_and_grad(model.loss_fn), in_axes=(None, *in_axes))
    return jax.jit(transform)(model.params, *model.batch)


def flat(grads: Any) -> np.ndarray:
    """[B, all parameters], float64."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(grads)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def flat_one(tree: Any) -> np.ndarray:
    return flat(jax.tree.map(lambda leaf: leaf[None], tree))[0]


def inner_product(params: Any, vectors: Any) -> Array:
    """A loss whose gradient is `vectors`, whatever params is."""
    products = jax.tree.map(lambda p, v: jnp.sum(p * v), params, vectors)
    return sum(jax.tree.leaves(products), jnp.zeros(()))


def assert_close(actual: Any, expected: Any, atol: float, name: str) -> None:
    actual = np.asarray(actual, np.float64)
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=0, atol=atol, err_msg=name)


def assert_same_structure(actual: Any, expected: Any) -> None:
    of_actual: Any = jax.tree.structure(actual)
    assert of_actual == jax.tree.structure(expected)


def check(model: Model, tolerance: float, expected: Any = None, chunk_size: int | None = 2) -> None:
    """Every method on the model; `expected`: the oracle's result where it is not model's own."""
    loss_fn, params, batch, in_axes = model
    transform = jax.jit(per_example.value_and_grad(loss_fn, in_axes=in_axes))
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(batch)
    reversed_batch = [
        x if axis is None else jax.tree.map(lambda v: v[::-1], x)
        for x, axis in zip(batch, axes, strict=True)
    ]
    losses, grads = transform(params, *batch)
    _, other = transform(params, *reversed_batch)
    want_losses, want = oracle(model) if expected is None else expected
    matrix = flat(want)
    size = np.linalg.norm(matrix, axis=1).max()
    count = len(matrix)
    weights = np.resize(np.array([0.5, 0.0, -1.0, 2.0]), count)
    direction = jax.tree.map(
        lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params
    )

    @jax.jit
    def compute(params: Any, grads: Any, other: Any, vectors: Any, direction: Any) -> Any:
        _, of_vectors = per_example.value_and_grad(inner_product)(params, vectors)
        key = jax.random.key(KEY, impl="unsafe_rbg")  # quickest to compile
        trees = grads.weighted_sum(weights), grads.mean()
        numbers = {
            "norms": grads.norms(),
            "dot": grads.dot(direction),
            "gram": grads.gram(),
            "gram(other)": grads.gram(other),
            "project": grads.project(key, DIM),
            "project by oracle": of_vectors.project(key, DIM),
        }
        return grads.materialize(), trees, grads.norms(per_leaf=True), numbers

    each, (weighted, mean), per_leaf, numbers = compute(params, grads, other, want, direction)
    error = tolerance * size
    assert_close(losses, want_losses, tolerance * np.abs(want_losses).max(), "losses")
    for name, got, like in (
        ("materialize", each, want),
        ("weighted_sum", weighted, params),
        ("mean", mean, params),
        ("norms(per_leaf)", per_leaf, params),
    ):
        assert_same_structure(got, like)
        if name != "norms(per_leaf)":
            jax.tree.map(lambda a, b, name=name: _assert_alike(a, b, name), got, like)
    assert_close(flat(each), matrix, error, "materialize")
    assert_close(flat_one(weighted), weights @ matrix, error * 4, "weighted_sum")
    assert_close(flat_one(mean), matrix.mean(0), error, "mean")
    for got, leaf in zip(jax.tree.leaves(per_leaf), jax.tree.leaves(want), strict=True):
        assert_close(got, np.linalg.norm(flat(leaf), axis=1), error, "norms(per_leaf)")
    along = flat_one(direction)
    assert_close(numbers["norms"], np.linalg.norm(matrix, axis=1), error, "norms")
    assert_close(numbers["dot"], matrix @ along, error * np.linalg.norm(along), "dot")
    assert_close(numbers["gram"], matrix @ matrix.T, error * size, "gram")
    assert_close(numbers["gram(other)"], matrix @ matrix[::-1].T, error * size, "gram(other)")
    assert numbers["project"].shape == (count, DIM)
    by_oracle = np.asarray(numbers["project by oracle"], np.float64)
    assert_close(numbers["project"], by_oracle, error, "project")
    wide = jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)
    for name, got in numbers.items():
        assert got.dtype == wide, name
    alone = jax.jit(per_example.grad_norms(loss_fn, chunk_size=chunk_size, in_axes=in_axes))
    assert_close(alone(params, *batch), np.linalg.norm(matrix, axis=1), error, "grad_norms")


def _assert_alike(got: Array, like: Array, name: str) -> None:
    assert (got.shape, got.dtype) == (like.shape, like.dtype), name


@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_method_equals_the_oracle_in_float64(name: str) -> None:
    with jax.enable_x64(True):
        check(zoo.MODELS[name](), FLOAT64)


# a bias, a loop, layers in one, recomputation, a weight in two roles, one that is closed over, and
# plain AD; every way to meet data is tested in float32 in test_transform, BERT in test_models
@pytest.mark.parametrize(
    "name",
    [
        "equinox_mlp",
        "gru",
        "scan_remat_transformer",
        "tied_language_model",
        "lora_closed_over",
        "custom_derivative",
    ],
)
def test_every_method_equals_the_oracle_in_float32(name: str) -> None:
    check(zoo.MODELS[name](), FLOAT32, chunk_size=None)


@pytest.mark.parametrize("name", ["gru", "scanned_transformer", "tied_language_model"])
def test_every_method_equals_the_oracle_in_bfloat16(name: str) -> None:
    """Parameters, data and compute in bfloat16; the oracle is float32 at the same values."""
    model = zoo.MODELS[name]()
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        (model.params, model.batch),
    )
    in_float32 = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, rounded
    )
    losses, grads = oracle(Model(model.loss_fn, *in_float32))
    grads = jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads)
    check(Model(model.loss_fn, *rounded), BFLOAT16, (losses, grads))


@pytest.mark.parametrize("name", zoo.MODELS)
def test_weights_that_meet_data_are_not_materialised(name: str) -> None:
    loss_fn, params, batch, in_axes = zoo.MODELS[name]()
    factored, materialised = EXPECTED[name]
    transform = per_example.value_and_grad(loss_fn, in_axes=in_axes)
    forms: list[str] = []
    jax.eval_shape(
        lambda: forms.extend(type(form).__name__ for form in transform(params, *batch)[1].forms())
    )
    explained = per_example.explain(loss_fn, params, *batch, in_axes=in_axes).leaves
    assert [leaf.form for leaf in explained] == forms
    kept = [leaf for leaf in explained if factored and re.search(factored, leaf.path)]
    assert bool(kept) == bool(factored)
    for leaf in kept:
        assert leaf.form != "Dense", leaf
        assert leaf.reason == "", leaf
    for path, primitive in materialised.items():
        (leaf,) = [leaf for leaf in explained if re.search(path, leaf.path)]
        assert leaf.form == "Dense"
        assert primitive in leaf.reason
    named = "|".join(filter(None, [factored, *materialised, "bias", "scale"]))
    assert all(re.search(named, leaf.path) for leaf in explained)


@pytest.mark.parametrize("name", zoo.PROGRAMS)
def test_uncommon_programs_are_exact(name: str) -> None:
    with jax.enable_x64(True):
        check(zoo.PROGRAMS[name](), FLOAT64)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_contraction(data: st.DataObject) -> None:
    """A product over one or two axes, axes in any order, the weight on either side."""
    contracted = "xy"[: data.draw(st.integers(1, 2))]
    of_data = "abc"[: data.draw(st.integers(0, 2))]
    of_weight = "ijk"[: data.draw(st.integers(0, 2))]
    sizes = {axis: data.draw(st.integers(1, 4)) for axis in "xyabcijk"}
    left = "".join(data.draw(st.permutations(of_data + contracted)))
    right = "".join(data.draw(st.permutations(of_weight + contracted)))
    result = "".join(data.draw(st.permutations(of_data + of_weight)))
    weight_first = data.draw(st.booleans())

    def loss_fn(params: Any, x: Array) -> Array:
        if weight_first:
            return jnp.sum(jnp.sin(jnp.einsum(f"{right},{left}->{result}", params, x)))
        return jnp.sum(jnp.sin(jnp.einsum(f"{left},{right}->{result}", x, params)))

    with jax.enable_x64(True):
        params = normal(0, *(sizes[axis] for axis in right))
        batch = (normal(1, 3, *(sizes[axis] for axis in left)),)
        check(Model(loss_fn, params, batch), FLOAT64)
        explained = per_example.explain(loss_fn, params, *batch).leaves
        assert [leaf.form for leaf in explained] == ["Outer"]


SEQUENCE_MODELS = ["gru", "scanned_transformer", "tied_language_model"]


def cut(model: Model, examples: int, length: int) -> Model:
    return model._replace(batch=tuple(x[:examples, :length] for x in model.batch))


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
@pytest.mark.parametrize(("examples", "length"), [(1, zoo.T), (3, 1)])
def test_one_example_and_one_token(name: str, examples: int, length: int) -> None:
    with jax.enable_x64(True):
        check(cut(zoo.MODELS[name](), examples, length), FLOAT64)


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_padding_contributes_nothing(name: str) -> None:
    """With two positions masked everything is as for the sequences without them."""
    with jax.enable_x64(True):
        model = zoo.MODELS[name]()
        data, mask = model.batch
        shorter = cut(model, zoo.B, zoo.T - 2)
        check(model._replace(batch=(data, mask.at[:, -2:].set(0))), FLOAT64, oracle(shorter))


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_gram_with_other_numbers_and_lengths(name: str) -> None:
    with jax.enable_x64(True):
        model = zoo.MODELS[name]()
        shorter = cut(model, 2, 3)
        transform = jax.jit(per_example.value_and_grad(model.loss_fn))
        (_, grads), (_, other) = (transform(m.params, *m.batch) for m in (model, shorter))
        left, right = flat(oracle(model)[1]), flat(oracle(shorter)[1])
        size = np.linalg.norm(left, axis=1).max() * np.linalg.norm(right, axis=1).max()
        gram = jax.jit(lambda grads, other: grads.gram(other))
        assert_close(gram(grads, other), left @ right.T, FLOAT64 * size, "gram")


@pytest.mark.parametrize("name", ["scanned_transformer", "tied_language_model"])
def test_duplicate_tokens(name: str) -> None:
    with jax.enable_x64(True):
        model = zoo.MODELS[name]()
        ids, mask = model.batch
        check(model._replace(batch=(jnp.full_like(ids, 3).at[0, 0].set(1), mask)), FLOAT64)


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_zero_gradients(name: str) -> None:
    """An example whose loss is constant has gradient exactly 0."""
    model = zoo.MODELS[name]()
    data, mask = model.batch
    batch = (data, mask.at[1].set(0))
    _, grads = jax.jit(per_example.value_and_grad(model.loss_fn))(model.params, *batch)
    norms, each = jax.jit(lambda grads: (grads.norms(), grads.materialize()))(grads)
    np.testing.assert_array_equal(norms == 0, [False, True, False, False])
    np.testing.assert_array_equal(flat(each)[1], 0)
    alone = jax.jit(per_example.grad_norms(model.loss_fn, chunk_size=2))
    np.testing.assert_array_equal(alone(model.params, *batch) == 0, [False, True, False, False])


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_nan_in_one_example_stays_there(name: str) -> None:
    with jax.enable_x64(True):
        model = zoo.MODELS[name]()
        weights = jnp.array([0.5, 0.0, -1.0, 2.0])
        # A NaN in the mask of a transformer makes the loss and all that flows back from it NaN.
        data, mask = model.batch
        batch = (
            (data.at[1].set(jnp.nan), mask) if name == "gru" else (data, mask.at[1].set(jnp.nan))
        )
        _, grads = jax.jit(per_example.value_and_grad(model.loss_fn))(model.params, *batch)
        finite = np.array([True, False, True, True])

        @jax.jit
        def compute(grads: Any) -> Any:
            numbers = grads.norms(), grads.dot(model.params), grads.gram()
            projected = grads.project(jax.random.key(KEY, impl="unsafe_rbg"), DIM)
            return numbers, projected, grads.weighted_sum(weights)

        (norms, dot, gram), projected, total = compute(grads)
        np.testing.assert_array_equal(np.isfinite(norms), finite)
        np.testing.assert_array_equal(np.isfinite(dot), finite)
        np.testing.assert_array_equal(np.isfinite(gram), finite[:, None] & finite)
        np.testing.assert_array_equal(np.isfinite(projected), finite[:, None] & np.ones(DIM, bool))
        alone = jax.jit(per_example.grad_norms(model.loss_fn, chunk_size=2))
        np.testing.assert_array_equal(np.isfinite(alone(model.params, *batch)), finite)
        matrix = flat(oracle(model)[1])
        error = FLOAT64 * np.linalg.norm(matrix, axis=1).max()
        assert_close(flat_one(total), weights @ matrix, error * 4, "weighted_sum")


def test_empty_subtree() -> None:
    model = zoo.three_places()

    def loss_fn(params: Any, x: Array) -> Array:
        return model.loss_fn(params["used"], x)

    check(Model(loss_fn, {"empty": {}, "used": model.params, "none": None}, model.batch), FLOAT32)


def test_none_in_the_batch() -> None:
    """As an absent mask is passed, and as Equinox's filtered trees hold."""

    def loss_fn(params: Any, example: Any) -> Array:
        assert example["mask"] is None
        return jnp.sum(jnp.tanh(example["x"] @ params["kernel"]))

    params = {"kernel": normal(0, 4, 3)}
    check(Model(loss_fn, params, ({"x": normal(1, 3, 4), "mask": None},)), FLOAT32)


def test_argnums_and_in_axes() -> None:
    """in_axes speaks of the arguments that are not differentiated, in their order."""

    def loss_fn(base: Array, x: Array, adapter: Any, scale: Array) -> Array:
        return zoo.adapted(adapter, base, x) * scale

    with jax.enable_x64(True):
        adapter, (base, x) = zoo.lora_passed_whole()[1:3]
        arguments = (base, x, adapter, jnp.array(2.0))
        transposed = (base, jnp.moveaxis(x, 0, 1), adapter, jnp.array(2.0))
        for argnums, in_axes, given_arguments in (
            (2, (None, 0, None), arguments),
            ((2,), (None, 1, None), transposed),
            ((0, 2), (0, None), arguments),
            ((2, 0), (1, None), transposed),
        ):
            transform = per_example.value_and_grad(loss_fn, argnums=argnums, in_axes=in_axes)
            losses, grads = jax.jit(transform)(*given_arguments)
            plain = jax.vmap(
                jax.value_and_grad(loss_fn, argnums=argnums), in_axes=(None, 0, None, None)
            )
            want_losses, want = jax.jit(plain)(*arguments)
            each = grads.materialize()
            assert_same_structure(each, want)
            size = np.linalg.norm(flat(want), axis=1).max()
            assert_close(losses, want_losses, FLOAT64 * np.abs(want_losses).max(), "losses")
            assert_close(flat(each), flat(want), FLOAT64 * size, "materialize")
            norms = np.linalg.norm(flat(want), axis=1)
            assert_close(grads.norms(), norms, FLOAT64 * size, "norms")
            total = grads.weighted_sum(jnp.ones(zoo.B))
            assert_same_structure(total, want)
            assert_close(flat_one(total), flat(want).sum(0), FLOAT64 * size * zoo.B, "sum")


def test_projection_is_one_matrix() -> None:
    """The rows of the matrix are the projections of unit vectors, whatever the batch."""
    with jax.enable_x64(True):
        model = zoo.tied_language_model()
        leaves = jax.tree.leaves(model.params)
        treedef: Any = jax.tree.structure(model.params)
        count = sum(leaf.size for leaf in leaves)
        columns = np.cumsum([0, *(leaf.size for leaf in leaves)])
        units = treedef.unflatten(
            jnp.eye(count)[:, start : start + leaf.size].reshape(count, *leaf.shape)
            for start, leaf in zip(columns, leaves, strict=False)
        )
        _, of_units = per_example.value_and_grad(inner_product)(model.params, units)
        _, grads = per_example.value_and_grad(model.loss_fn)(model.params, *model.batch)
        want = flat(oracle(model)[1])
        for key in (KEY, KEY + 1):
            projected = grads.project(jax.random.key(key), DIM)
            matrix = np.asarray(of_units.project(jax.random.key(key), DIM))
            error = FLOAT64 * np.linalg.norm(want, axis=1).max()
            assert_close(projected, want @ matrix, error, "project")
        assert np.linalg.matrix_rank(matrix) == DIM


@pytest.mark.parametrize("name", ["gru", "scanned_transformer", "tied_language_model"])
def test_projection_is_unbiased(name: str) -> None:
    """Inner products of projections, averaged over keys, within 4.5 standard errors."""
    model = zoo.MODELS[name]()
    num_keys = 400
    _, grads = jax.jit(per_example.value_and_grad(model.loss_fn))(model.params, *model.batch)

    @jax.jit
    def inner_products(grads: Any) -> Array:
        def of_key(key: Array) -> Array:
            projected = grads.project(key, DIM)
            return projected @ projected.T

        return lax.map(of_key, jax.random.split(jax.random.key(KEY), num_keys))

    products = np.asarray(inner_products(grads), np.float64)
    matrix = flat(oracle(model)[1])
    standard_error = products.std(0, ddof=1) / np.sqrt(num_keys)
    z = (products.mean(0) - matrix @ matrix.T) / standard_error
    assert np.abs(z).max() < 4.5


def test_covariances_of_a_scan_over_layers() -> None:
    """Cotangents are gradients by a perturbation of zeros where they arise."""

    def loss_fn(params: Any, x: Array, zeros: Array) -> tuple[Array, Array]:
        def layer(hidden: Array, given: Any) -> tuple[Array, Array]:
            kernel, zero = given
            return jnp.tanh(hidden @ kernel + zero), hidden

        hidden, inputs = lax.scan(layer, x, (params["layers"], zeros))
        return jnp.sum((hidden + params["bias"]) ** 2), inputs

    with jax.enable_x64(True):
        params = {"layers": normal(0, zoo.LAYERS, 4, 4), "bias": normal(1, 4)}
        x, zeros = normal(2, zoo.B, zoo.T, 4), jnp.zeros((zoo.B, zoo.LAYERS, zoo.T, 4))
        check_covariance(loss_fn, params, (x, zeros), "layers", "bltd,blte->lde")


def test_covariances_of_a_scan_over_time() -> None:
    def loss_fn(params: Any, x: Array, zeros: Array) -> tuple[Array, Array]:
        def step(hidden: Array, given: Any) -> tuple[Array, Array]:
            token, zero = given
            return jnp.tanh(token + hidden @ params["kernel"] + zero), hidden

        hidden, inputs = lax.scan(step, jnp.ones(4), (x, zeros))
        return jnp.sum((hidden + params["bias"]) ** 2), inputs

    with jax.enable_x64(True):
        params = {"kernel": normal(0, 4, 4), "bias": normal(1, 4)}
        batch = (normal(2, zoo.B, zoo.T, 4), jnp.zeros((zoo.B, zoo.T, 4)))
        check_covariance(loss_fn, params, batch, "kernel", "btd,bte->de")


def test_covariances_of_a_product() -> None:
    """The weight on the left; input and output of different sizes."""

    def loss_fn(params: Any, x: Array, zeros: Array) -> tuple[Array, Array]:
        return jnp.sum(jnp.tanh(params["kernel"] @ x.T + zeros.T) @ x + params["bias"]), x

    with jax.enable_x64(True):
        params = {"kernel": normal(0, 3, 4), "bias": normal(1, 4)}
        batch = (normal(2, zoo.B, zoo.T, 4), jnp.zeros((zoo.B, zoo.T, 3)))
        check_covariance(loss_fn, params, batch, "kernel", "btd,bte->de")


def check_covariance(
    loss_fn: Any, params: Any, batch: tuple[Array, Array], weight: str, equation: str
) -> None:
    _, grads = per_example.value_and_grad(loss_fn, has_aux=True)(params, *batch)
    plain = jax.vmap(jax.grad(loss_fn, argnums=2, has_aux=True), in_axes=(None, 0, 0))
    cotangents, inputs = plain(params, *batch)
    found = grads.covariances()
    assert found["bias"] is None
    assert isinstance(found[weight], per_example.Covariance)
    for got, factor in zip(found[weight], (inputs, cotangents), strict=True):
        want = np.einsum(equation, factor, factor) / zoo.B
        assert_close(got, want, FLOAT64 * np.abs(want).max(), weight)


def test_covariances_of_a_table() -> None:
    """The input's is the mean count of each row; ids out of range count nowhere."""

    def loss_fn(params: Any, ids: Array, zeros: Array) -> Array:
        rows = jnp.take(params["table"], ids, axis=0, mode="fill", fill_value=0)
        return jnp.sum(jnp.tanh(rows + zeros) ** 3 * (ids < zoo.VOCABULARY)[:, None])

    with jax.enable_x64(True):
        params = {"table": normal(0, zoo.VOCABULARY, 3)}
        ids = zoo.tokens(1, zoo.B, zoo.T).at[0, 0].set(zoo.VOCABULARY + 5)
        zeros = jnp.zeros((zoo.B, zoo.T, 3))
        _, grads = per_example.value_and_grad(loss_fn)(params, ids, zeros)
        found = grads.covariances()["table"]
        counts = np.bincount(np.asarray(ids).ravel(), minlength=zoo.VOCABULARY + 6) / zoo.B
        np.testing.assert_allclose(found.input, counts[: zoo.VOCABULARY], rtol=FLOAT64)
        plain = jax.vmap(jax.grad(loss_fn, argnums=2), in_axes=(None, 0, 0))
        cotangents = plain(params, ids, zeros)
        want = np.einsum("btd,bte->de", cotangents, cotangents) / zoo.B
        assert_close(found.cotangent, want, FLOAT64 * np.abs(want).max(), "cotangent")
