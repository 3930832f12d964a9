"""Losses of one example, one for each way a weight meets data, and comparison of trees."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compile_quickly

__all__ = ["compile_quickly"]

B, T = 5, 6


class Case(NamedTuple):
    loss_fn: Callable[..., Any]
    params: dict[str, Any]
    batch: tuple[Any, ...]
    forms: dict[str, str]  # what each leaf's gradient must be kept as


def _normal(seed: int, *shape: int) -> jax.Array:
    # float64 where x64 is enabled, float32 otherwise.
    return jax.random.normal(jax.random.key(seed), shape, jnp.result_type(float)) / 2


def _ids(*values: int) -> jax.Array:
    return jnp.resize(jnp.array(values), (B, T))


def dense() -> Case:
    def loss_fn(params, x):
        hidden = jnp.tanh(x @ params["first"] + params["bias"])
        return jnp.sum(jnp.tanh(hidden @ params["second"]) ** 2)

    params = {"first": _normal(0, 4, 3), "bias": _normal(1, 3), "second": _normal(2, 3, 2)}
    forms = {"first": "Outer", "bias": "Dense", "second": "Outer"}
    return Case(loss_fn, params, (_normal(3, B, T, 4),), forms)


def long_sequence() -> Case:
    """T above in·out/(in+out): the norm is computed directly, not by the Gram form."""

    def loss_fn(params, x):
        return jnp.sum(jnp.tanh(x @ params["kernel"]))

    return Case(loss_fn, {"kernel": _normal(0, 2, 3)}, (_normal(1, B, 20, 2),), {"kernel": "Outer"})


def vector_input() -> Case:
    """No sequence axis, the weight on the left, as in Equinox's Linear."""

    def loss_fn(params, x):
        return jnp.sum(jnp.tanh(params["kernel"] @ x))

    return Case(loss_fn, {"kernel": _normal(0, 3, 4)}, (_normal(1, B, 4),), {"kernel": "Outer"})


def dense_general() -> Case:
    """Heads: one axis into two and two into one, contracted out of order, and a transpose."""

    def loss_fn(params, x):
        heads = jnp.tanh(jnp.einsum("td,dhk->thk", x, params["split"]))
        merged = jnp.tanh(jnp.einsum("thk,khd->td", heads, params["merge"]))
        return jnp.sum((merged @ params["transposed"].T) ** 2)

    params = {
        "split": _normal(0, 4, 2, 3),
        "merge": _normal(1, 3, 2, 4),
        "transposed": _normal(2, 5, 4),
    }
    return Case(loss_fn, params, (_normal(3, B, T, 4),), dict.fromkeys(params, "Outer"))


def shared_input() -> Case:
    """Query, key and value read one input; their Gram of the data is computed once."""

    def loss_fn(params, x):
        query, key, value = (x @ params[name] for name in ("query", "key", "value"))
        return jnp.sum((jax.nn.softmax(query @ key.T) @ value) ** 2)

    params = {name: _normal(seed, 20, 20) for seed, name in enumerate(("query", "key", "value"))}
    return Case(loss_fn, params, (_normal(3, B, T, 20),), dict.fromkeys(params, "Outer"))


def embedding() -> Case:
    """Repeated ids, negative ids (which wrap) and ids out of range, in every mode."""

    def loss_fn(params, ids, fine):
        filled = params["filled"].at[ids].get(mode="fill", fill_value=0)
        clipped = jnp.take(params["clipped"], ids, axis=0, mode="clip")
        promised = params["promised"][fine]
        small = jnp.take(params["small"], ids % 2, axis=0)  # fewer rows than T²: summed rows
        return jnp.sum((filled + promised) ** 2 * clipped * small)

    params = {
        "filled": _normal(0, 50, 3),
        "clipped": _normal(1, 50, 3),
        "promised": _normal(2, 50, 3),
        "small": _normal(3, 2, 3),
    }
    batch = (_ids(1, 1, 49, -1, 50, 1000, 3), _ids(0, 2, 2, -3, 49))
    return Case(loss_fn, params, batch, dict.fromkeys(params, "Rows"))


def layer_norm() -> Case:
    def loss_fn(params, x):
        x = x @ params["kernel"]
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-3)
        return jnp.sum(jnp.tanh(scaled * params["scale"] + params["bias"]))

    params = {"kernel": _normal(0, 4, 4), "scale": 1 + _normal(1, 4), "bias": _normal(2, 4)}
    forms = {"kernel": "Outer", "scale": "Dense", "bias": "Dense"}
    return Case(loss_fn, params, (_normal(3, B, T, 4),), forms)


def used_twice() -> Case:
    """Two towers of one weight: the cross terms of the norm are there."""

    def loss_fn(params, left_ids, right_ids):
        left = jnp.tanh(jnp.take(params["table"], left_ids, axis=0) @ params["kernel"])
        right = jnp.tanh(jnp.take(params["table"], right_ids, axis=0) @ params["kernel"])
        return jnp.sum(left * right)

    params = {"table": _normal(0, 40, 4), "kernel": _normal(1, 4, 3)}
    forms = {"table": "Rows", "kernel": "Outer"}
    return Case(loss_fn, params, (_ids(1, 2, 3, 2), _ids(3, 1, 4)), forms)


def tied() -> Case:
    """An embedding that is the output layer too: the norm has one cross term."""

    def loss_fn(params, ids):
        hidden = jnp.take(params["table"], ids, axis=0) @ params["kernel"]
        return jnp.sum(jax.nn.log_softmax(hidden @ params["table"].T) ** 2)

    params = {"table": _normal(0, 7, 4), "kernel": _normal(1, 4, 4)}
    return Case(loss_fn, params, (_ids(1, 2, 3, 2),), {"table": "Tied", "kernel": "Outer"})


def convolution() -> Case:
    def loss_fn(params, x):
        windows = jax.lax.conv_general_dilated(x.T[None], params["kernel"], (1,), "SAME")
        return jnp.sum(jnp.tanh(windows[0].T @ params["dense"]) ** 2)

    params = {"kernel": _normal(0, 3, 4, 3), "dense": _normal(1, 3, 2)}
    return Case(loss_fn, params, (_normal(2, B, T, 4),), {"kernel": "Dense", "dense": "Outer"})


def scanned() -> Case:
    def loss_fn(params, x):
        def layer(hidden, kernel):
            return jnp.tanh(hidden @ kernel), None

        hidden, _ = jax.lax.scan(layer, x @ params["first"], params["layers"])
        return jnp.sum(hidden)

    params = {"first": _normal(0, 4, 4), "layers": _normal(1, 3, 4, 4)}
    return Case(loss_fn, params, (_normal(2, B, T, 4),), {"first": "Outer", "layers": "Stacked"})


def recurrent() -> Case:
    """A cell whose weight every step meets, layer over layer: the weights are stacked by layer."""

    def loss_fn(params, x):
        def layer(sequence, weights):
            inward, recurrent = weights

            def step(state, entry):
                state = jnp.tanh(entry @ inward + state @ recurrent)
                return state, state

            return jax.lax.scan(step, jnp.zeros(4, x.dtype), sequence, reverse=True)[1], None

        hidden, _ = jax.lax.scan(layer, x, (params["inward"], params["recurrent"]))
        return jnp.sum(hidden**2)

    params = {"inward": _normal(0, 2, 4, 4), "recurrent": _normal(1, 2, 4, 4)}
    return Case(loss_fn, params, (_normal(2, B, T, 4),), dict.fromkeys(params, "Stacked"))


def carried() -> Case:
    """A weight that a scan carries and changes, and one that a checkpoint gives back: plain AD."""

    def loss_fn(params, x):
        def step(carry, entry):
            weight, total = carry
            return (weight / 2, total + jnp.sum(jnp.tanh(entry @ weight))), None

        (_, total), _ = jax.lax.scan(step, (params["carried"], jnp.zeros((), x.dtype)), x)
        returned = jax.checkpoint(lambda weight: weight)(params["returned"])
        return total + jnp.sum(jnp.tanh(x @ returned))

    params = {"carried": _normal(0, 4, 3), "returned": _normal(1, 4, 3)}
    return Case(loss_fn, params, (_normal(2, B, T, 4),), dict.fromkeys(params, "Dense"))


def rematerialised() -> Case:
    def loss_fn(params, x):
        block = jax.checkpoint(lambda kernel, hidden: jnp.tanh(hidden @ kernel))
        return jnp.sum(block(params["inside"], jnp.tanh(x @ params["outside"])))

    params = {"inside": _normal(0, 4, 4), "outside": _normal(1, 4, 4)}
    return Case(loss_fn, params, (_normal(2, B, T, 4),), {"inside": "Outer", "outside": "Outer"})


def odd_uses() -> Case:
    """A penalty on a weight, a product of two weights, a scalar, an unused and a dead leaf."""

    def loss_fn(params, x):
        _ = jnp.exp(params["dead"])
        low_rank = params["down"] @ params["up"]
        y = jnp.tanh(x @ params["kernel"] + x @ low_rank) * params["scalar"]
        return jnp.sum(y) + jnp.sum(params["penalised"] ** 2) * jnp.sum(x @ params["penalised"])

    params = {
        "kernel": _normal(0, 4, 3),
        "down": _normal(1, 4, 1),
        "up": _normal(2, 1, 3),
        "scalar": jnp.asarray(0.7, jnp.result_type(float)),
        "penalised": _normal(3, 4, 2),
        "unused": _normal(4, 2),
        "dead": _normal(5, 2),
    }
    forms = dict.fromkeys(params, "Dense") | {"kernel": "Outer", "unused": "Zero", "dead": "Zero"}
    return Case(loss_fn, params, (_normal(6, B, T, 4),), forms)


ALL = {
    case.__name__: case
    for case in (
        dense,
        long_sequence,
        vector_input,
        dense_general,
        shared_input,
        embedding,
        layer_norm,
        used_twice,
        tied,
        convolution,
        scanned,
        recurrent,
        carried,
        rematerialised,
        odd_uses,
    )
}


@pytest.fixture(params=ALL)
def case(request):
    return ALL[request.param]()


@pytest.fixture(params=ALL)
def case_float64(request):
    with jax.enable_x64(True):
        yield ALL[request.param]()


@pytest.fixture
def make_case():
    return lambda name: ALL[name]()


@pytest.fixture
def assert_trees_close():
    def check(actual, expected, *, rtol, atol=0.0):
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        for path, want in jax.tree_util.tree_leaves_with_path(expected):
            got = dict(jax.tree_util.tree_leaves_with_path(actual))[path]
            assert got.dtype == want.dtype
            np.testing.assert_allclose(
                np.asarray(got, np.float64),
                np.asarray(want, np.float64),
                rtol=rtol,
                atol=atol,
                err_msg=jax.tree_util.keystr(path),
            )

    return check
