"""value_and_grad and grad_norms against `jax.vmap(jax.grad(…))`."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example

# float32: sums of some hundred products in another order differ by about sqrt(100)·6e-8 relative
# to the largest term; 1e-5 leaves room for cancellation in norms, the absolute part in entries.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
FLOAT64 = {"rtol": 1e-12, "atol": 1e-12}


def oracle(loss_fn, params, batch):
    axes = (None, *(0 for _ in batch))
    return jax.jit(jax.vmap(jax.grad(loss_fn), in_axes=axes))(params, *batch)


def computed(loss_fn):
    """Losses, norms, materialised gradients and norms without factors, in one compilation."""

    @jax.jit
    def compute(params, *batch):
        losses, grads = per_example.value_and_grad(loss_fn)(params, *batch)
        alone = per_example.grad_norms(loss_fn)(params, *batch)
        return losses, grads.norms(), grads.materialize(), alone

    return compute


def norms_of(grads):
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(grads)]
    return np.sqrt(sum((leaf.reshape(len(leaf), -1) ** 2).sum(1) for leaf in leaves))


def test_gradients_equal_vmap_grad(case, assert_trees_close):
    loss_fn, params, batch, _ = case
    losses, norms, grads, norms_alone = computed(loss_fn)(params, *batch)
    expected = oracle(loss_fn, params, batch)
    assert_trees_close(grads, expected, **FLOAT32)
    np.testing.assert_allclose(norms, norms_of(expected), rtol=1e-5)
    np.testing.assert_allclose(norms_alone, norms_of(expected), rtol=1e-5)
    values = jax.jit(jax.vmap(loss_fn, in_axes=(None, *(0 for _ in batch))))
    np.testing.assert_allclose(losses, values(params, *batch), rtol=1e-5)


def test_gradients_equal_vmap_grad_in_float64(case_float64, assert_trees_close):
    loss_fn, params, batch, _ = case_float64
    _, norms, grads, norms_alone = computed(loss_fn)(params, *batch)
    expected = oracle(loss_fn, params, batch)
    assert_trees_close(grads, expected, **FLOAT64)
    assert norms.dtype == norms_alone.dtype == jnp.float64
    np.testing.assert_allclose(norms, norms_of(expected), rtol=1e-12)
    np.testing.assert_allclose(norms_alone, norms_of(expected), rtol=1e-12)


@pytest.mark.parametrize("name", ["embedding", "used_twice"])
@pytest.mark.parametrize("chunk_size", [1, 2, 64])
def test_chunks_give_the_same_norms(make_case, name, chunk_size):
    """Batches of 5: chunks of one, with a rest, and larger than the batch."""
    loss_fn, params, batch, _ = make_case(name)
    norms = jax.jit(per_example.grad_norms(loss_fn, chunk_size=chunk_size))(params, *batch)
    np.testing.assert_allclose(norms, norms_of(oracle(loss_fn, params, batch)), rtol=1e-5)


def test_norms_of_every_leaf(case):
    """Leaves with one site, with several, and with none that is recognised."""
    loss_fn, params, batch, _ = case
    transform = per_example.grad_norms(loss_fn, per_leaf=True)
    norms = jax.jit(transform)(params, *batch)
    expected = jax.tree.map(lambda leaf: norms_of([leaf]), oracle(loss_fn, params, batch))
    assert jax.tree.structure(norms) == jax.tree.structure(params)
    for got, wanted in zip(jax.tree.leaves(norms), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["shared_input", "used_twice", "odd_uses"])
def test_crosses_jit(make_case, name):
    case = make_case(name)
    transform = jax.jit(per_example.value_and_grad(case.loss_fn))
    _, grads = transform(case.params, *case.batch)
    assert isinstance(grads, per_example.PerExampleGrads)
    assert grads.batch_size == case.batch[0].shape[0]
    norms = jax.jit(lambda kept: kept.norms())(grads)
    expected = oracle(case.loss_fn, case.params, case.batch)
    np.testing.assert_allclose(norms, norms_of(expected), rtol=1e-5)


def test_bfloat16_compute_keeps_factors_in_bfloat16_and_norms_in_float32(make_case):
    case = make_case("dense")

    def loss_fn(params, x):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return case.loss_fn(params, x.astype(jnp.bfloat16)).astype(jnp.float32)

    _, grads = per_example.value_and_grad(loss_fn)(case.params, *case.batch)
    first = grads.forms()[1]
    assert first.a.dtype == first.g.dtype == jnp.bfloat16
    assert grads.norms().dtype == jnp.float32
    # From the same bfloat16 factors, in float64: only the products' accumulation differs.
    matrices = np.einsum("bti,bto->bio", *(np.asarray(f, np.float64) for f in (first.a, first.g)))
    norms = grads.norms(per_leaf=True)["first"]
    np.testing.assert_allclose(norms, norms_of([matrices]), rtol=1e-6)
    # bfloat16 has 8 bits: each of the few roundings on the way to a gradient is up to 2^-9.
    expected = oracle(loss_fn, case.params, case.batch)
    np.testing.assert_allclose(grads.norms(), norms_of(expected), rtol=2e-2)
    total = grads.mean()["first"]
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, expected["first"].mean(0), atol=2e-2)


def test_in_axes_and_aux(assert_trees_close):
    def loss_fn(params, example, temperature):
        logits = example["x"] @ params["kernel"] / temperature
        return jax.nn.logsumexp(logits), {"logits": logits, "kernel": params["kernel"]}

    params = {"kernel": jnp.arange(6.0).reshape(2, 3) / 6}
    batch = {"x": jnp.arange(8.0).reshape(2, 4)}  # examples along axis 1
    in_axes = ({"x": 1}, None)
    transform = per_example.value_and_grad(loss_fn, has_aux=True, in_axes=in_axes)
    (losses, aux), grads = transform(params, batch, 2.0)
    expected, expected_aux = jax.vmap(jax.grad(loss_fn, has_aux=True), in_axes=(None, *in_axes))(
        params, batch, 2.0
    )
    assert losses.shape == (4,)
    assert_trees_close(grads.materialize(), expected, **FLOAT32)
    assert_trees_close(aux, expected_aux, **FLOAT32)
    for chunk_size in (None, 3):
        norms, aux = per_example.grad_norms(
            loss_fn, has_aux=True, in_axes=in_axes, chunk_size=chunk_size
        )(params, batch, 2.0)
        np.testing.assert_allclose(norms, norms_of(expected), rtol=1e-5)
        assert_trees_close(aux, expected_aux, **FLOAT32)


def test_batch_arguments_by_keyword():
    """As in `jax.vmap`: in_axes is of the arguments that have a place."""
    x, y = jnp.arange(6.0).reshape(2, 3), jnp.array([1.0, 2.0, 5.0])
    norms = per_example.grad_norms(lambda w, x, y: (w @ x) * y, in_axes=1)
    np.testing.assert_allclose(norms(jnp.ones(2), x, y=y), np.linalg.norm(x, axis=0) * y, rtol=1e-6)


def test_weights_closed_over_by_the_loss_are_constants():
    """A loss may close over traced values, as inside another transformation."""

    @jax.jit
    def norms(scale, params, x):
        transform = per_example.value_and_grad(lambda p, x: jnp.sum(scale * (x @ p)))
        return transform(params, x)[1].norms()

    x = jnp.array([[3.0, 4.0], [1.0, 0.0]])
    np.testing.assert_allclose(norms(2.0, jnp.ones(2), x), 2 * np.linalg.norm(x, axis=1))


def test_custom_derivatives_are_kept():
    @jax.custom_vjp
    def clip_gradient(x):
        return x

    clip_gradient.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -1, 1),))

    def loss_fn(params, x):
        return 100 * clip_gradient(x @ params)

    _, grads = per_example.value_and_grad(loss_fn)(jnp.ones(2), jnp.eye(2))
    np.testing.assert_allclose(grads.materialize(), np.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f: f(lambda p, x: p @ x)({"n": jnp.arange(2)}, jnp.ones((3, 2))),
            r"\['n'\] is int",
        ),
        (lambda f: f(lambda p, x: p * x)(jnp.ones(2), jnp.ones((3, 2))), "one floating scalar"),
        (lambda f: f(lambda p, x: (p @ x, 0))(jnp.ones(2), jnp.ones((3, 2))), "has_aux=True"),
        (lambda f: f(lambda p, x, y: p @ x)(jnp.ones(2), jnp.ones((3, 2)), jnp.ones(4)), "3, 4"),
        (lambda f: f(lambda p, x: p @ x)(jnp.ones(2), 1.0), "lacks the batch axis"),
        (lambda f: f(lambda p, x: p @ x, in_axes=(0, 0))(jnp.ones(2), jnp.ones(3)), "in_axes"),
        (lambda f: f(lambda p: p @ p)(jnp.ones(2)), "batch size"),
    ],
)
@pytest.mark.parametrize("transform", [per_example.value_and_grad, per_example.grad_norms])
def test_user_errors_are_one_line(transform, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(transform)
    assert "\n" not in str(error.value)


def test_chunk_size_must_be_positive():
    with pytest.raises(ValueError, match="chunk_size is 0"):
        per_example.grad_norms(lambda p, x: p @ x, chunk_size=0)


INSTALLED = """
import re, sys
from importlib import metadata

needed, todo = set(), {todo!r}
while todo:
    name = todo.pop()
    needed.add(name)
    asked = [one for one in metadata.requires(name) or () if "extra ==" not in one]
    todo += {{re.split("[^a-z0-9_-]", one.lower().replace("_", "-"))[0] for one in asked}} - needed
for module, owners in metadata.packages_distributions().items():
    owners = {{owner.lower().replace("_", "-") for owner in owners}}
    if not owners & {{*needed, "sie-jax"}}:
        sys.modules[module] = None  # as if it were not installed
from sie_jax import per_example
beside = [name for name in sys.modules if name.startswith("sie_jax.")]
assert all(name.startswith("sie_jax.per_example") for name in beside), beside
norms = per_example.grad_norms(lambda w, x: w * x)(2.0, per_example.gradients.jnp.arange(3.0))
assert norms.tolist() == [0.0, 1.0, 2.0]
{then}
"""


@pytest.mark.parametrize(
    ("installed", "then"),
    [(["jax"], ""), (["jax", "jaxtyping"], "import sie_jax.importance")],
    ids=["per_example", "importance"],
)
def test_what_is_to_be_installed_for_it_alone(installed, then):
    code = INSTALLED.format(todo=installed, then=then)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_one_compilation_for_each_shape(make_case):
    """Other values of one shape trace nothing new, nor do gradients that cross jit."""
    loss_fn, params, batch, _ = make_case("dense")
    traced = []

    @jax.jit
    def step(params, batch, weights):
        traced.append(batch[0].shape)
        _, grads = per_example.value_and_grad(loss_fn)(params, *batch)
        norms = per_example.grad_norms(loss_fn, chunk_size=2)(params, *batch)
        return grads, grads.weighted_sum(weights), norms

    read = jax.jit(lambda grads: grads.norms())
    size = batch[0].shape[0]
    for scale in (1.0, 2.0, 3.0):
        scaled = jax.tree.map(lambda x, scale=scale: (scale * x).astype(x.dtype), batch)
        grads, params, _ = step(params, scaled, jnp.full((size,), scale))
        read(grads)
    assert step._cache_size() == read._cache_size() == len(traced) == 1
    grads, *_ = step(params, jax.tree.map(lambda x: x[:-1], batch), jnp.ones(size - 1))
    read(grads)
    assert step._cache_size() == read._cache_size() == len(traced) == 2


@pytest.mark.parametrize("transform", [per_example.value_and_grad, per_example.grad_norms])
def test_large_materialised_gradients_are_warned_of_once_with_their_cause(transform):
    """A leaf of 5 MiB that is only scaled: 16 examples take 80 MiB."""
    params = {"scale": jnp.ones((1280, 1024)), "small": jnp.ones(4)}

    def loss_fn(params, x):
        return jnp.sum(x * params["scale"]) + jnp.sum(x * params["small"])

    with pytest.warns(UserWarning, match="80 MiB, because of .*mul") as caught:
        jax.eval_shape(transform(loss_fn), params, jnp.ones(16))
    (warning,) = caught
    assert "params['scale']: the gradients of all 16 examples" in str(warning.message)
