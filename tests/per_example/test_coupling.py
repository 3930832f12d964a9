"""Contributions of units under coupled losses against their definition by `jax.vjp`."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example
from tests.per_example import coupled
from tests.per_example.coupled import LISTS, SIZE, Case, T

pytestmark = pytest.mark.slow

# relative to the sum of the units' norms, which bounds every term of what is compared
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
EVERY = [
    pytest.param((name, dtype), id=f"{name}-{dtype}")
    for dtype in TOLERANCES
    for name in coupled.ALL
    if dtype == "float32" or name not in coupled.ONLY_FLOAT32
]


def tuples(case: Case) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Functions and units as tuples, and what makes of one value each what the case has."""
    if callable(case.functions):
        return (case.functions,), (case.units,), lambda values: values[0]
    return case.functions, case.units, tuple


def mapped(function: Any, unit: tuple[Any, ...]) -> Any:
    return jax.vmap(function, in_axes=(None, *(0 for _ in unit)))


def reference(case: Case) -> dict[str, Any]:
    """By definition: ∇F by `jax.grad`, and c_u by `jax.vjp` of one unit's outputs."""
    functions, units, as_given = tuples(case)

    def value(params: Any, rest: Any) -> Any:
        pairs = zip(functions, units, strict=True)
        outputs = [mapped(function, unit)(params, *unit) for function, unit in pairs]
        return case.coupling(as_given(outputs), rest, *case.arguments)

    def contribution(function: Any, unit: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda params: function(params, *unit), case.params)[1](cotangent)[0]

    def compute() -> dict[str, Any]:
        pairs = list(zip(functions, units, strict=True))
        outputs = tuple(mapped(function, unit)(case.params, *unit) for function, unit in pairs)
        cotangents = jax.grad(
            lambda outputs: case.coupling(as_given(outputs), case.rest, *case.arguments)
        )(outputs)
        each = [
            jax.vmap(functools.partial(contribution, function))(unit, held)
            for (function, unit), held in zip(pairs, cotangents, strict=True)
        ]
        found, (of_params, of_rest) = jax.value_and_grad(value, argnums=(0, 1))(
            case.params, case.rest
        )
        if case.rest is case.params:
            of_both = jax.grad(lambda params: value(params, params))(case.params)
        else:
            of_both = of_params
        return {"value": found, "grad": of_both, "rest": of_rest, "each": each}

    return jax.jit(compute)()


def matrix(tree: Any) -> np.ndarray:
    """[B, all parameters] of a tree like params with a leading axis B."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


def vector(tree: Any) -> np.ndarray:
    return matrix(jax.tree.map(lambda leaf: leaf[None], tree))[0]


@functools.cache
def known(name: str, dtype: str) -> tuple[Case, dict[str, Any]]:
    case = coupled.ALL[name]()
    return case, reference(case)


@pytest.fixture(params=EVERY)
def checked(request: pytest.FixtureRequest) -> Iterator[tuple[Case, dict[str, Any], float]]:
    """A case, what its definition gives, and the tolerance of its dtype."""
    name, dtype = request.param
    with jax.enable_x64(dtype == "float64"):
        yield *known(name, dtype), TOLERANCES[dtype]


def close(found: Any, expected: Any, tolerance: float) -> None:
    error = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()
    assert error <= tolerance, (error, tolerance)


def test_one_pass_gives_each_units_contribution(checked):
    case, expected, tolerance = checked
    _, _, as_given = tuples(case)

    @jax.jit
    def compute(params, units, rest, *arguments):
        transform = per_example.coupled_value_and_grad(case.functions, case.coupling)
        value, found = transform(params, units, rest, *arguments)
        lists = found.lists(LISTS)
        return {
            "value": value,
            "rest": found.rest,
            "each": found._each([grads.materialize() for grads in found._units]),
            "norms": found.norms(),
            "total": found.total(),
            "dot": found.dot(found.total()),
            "gram": found.gram(),
            "lists": lists.materialize(),
            "list norms": lists.norms(),
            "list total": lists.weighted_sum(jnp.arange(1.0, 1 + LISTS)),
            "list gram": lists.gram(),
            "agreement": found.agreement(LISTS),
        }

    found = compute(case.params, case.units, case.rest, *case.arguments)
    contributions = [matrix(each) for each in expected["each"]]
    norms = [np.linalg.norm(each, axis=1) for each in contributions]
    scale = sum(norm.sum() for norm in norms)
    close(found["value"], expected["value"], 10 * tolerance)
    total = vector(found["total"])
    if case.rest is case.params:
        total = total + vector(found["rest"])
    close(np.linalg.norm(total - vector(expected["grad"])), 0, tolerance * scale)
    for got, wanted in zip(
        jax.tree.leaves(found["rest"]), jax.tree.leaves(expected["rest"]), strict=True
    ):
        assert got.dtype == wanted.dtype
        close(got, wanted, tolerance * max(1, float(np.abs(wanted).max())))
    assert jax.tree.structure(found["each"]) == jax.tree.structure(as_given(expected["each"]))

    def each_function(values: Any) -> tuple[Any, ...]:
        return (values,) if callable(case.functions) else values

    for got, wanted in zip(each_function(found["each"]), contributions, strict=True):
        close(np.linalg.norm(matrix(got) - wanted, axis=1), 0, tolerance * scale)
    for got, wanted in zip(each_function(found["norms"]), norms, strict=True):
        close(got, wanted, tolerance * scale)
    every = np.concatenate(contributions)
    for got, wanted in zip(each_function(found["dot"]), contributions, strict=True):
        close(got, wanted @ every.sum(0), tolerance * scale**2)
    close(found["gram"], every @ every.T, tolerance * scale**2)

    blocks = [each.reshape(LISTS, -1, each.shape[1]) for each in contributions]
    lists = sum(block.sum(1) for block in blocks)
    close(np.linalg.norm(matrix(found["lists"]) - lists, axis=1), 0, tolerance * scale)
    close(found["list norms"], np.linalg.norm(lists, axis=1), tolerance * scale)
    weighted = np.arange(1.0, 1 + LISTS) @ lists
    close(np.linalg.norm(vector(found["list total"]) - weighted), 0, LISTS * tolerance * scale)
    close(found["list gram"], lists @ lists.T, tolerance * scale**2)
    for got, block in zip(each_function(found["agreement"]), blocks, strict=True):
        along = np.einsum("nsp,np->ns", block, lists).reshape(-1)
        close(got, along, tolerance * scale**2)

    for unit in case.padded:
        assert found["norms"][unit] == 0
        assert found["agreement"][unit] == 0
        assert not matrix(found["each"])[unit].any()


def test_norms_alone_give_the_same(checked):
    case, expected, tolerance = checked
    functions, units, as_given = tuples(case)

    @jax.jit
    def compute(params, units, rest, *arguments):
        transform = per_example.coupled_grad_norms(case.functions, case.coupling, lists=LISTS)
        return transform(params, units, rest, *arguments)

    value, found = compute(case.params, case.units, case.rest, *case.arguments)
    contributions = [matrix(each) for each in expected["each"]]
    norms = [np.linalg.norm(each, axis=1) for each in contributions]
    scale = sum(norm.sum() for norm in norms)
    close(value, expected["value"], 10 * tolerance)
    assert jax.tree.structure(found.units) == jax.tree.structure(as_given(norms))
    for got, wanted in zip(jax.tree.leaves(found.units), norms, strict=True):
        close(got, wanted, tolerance * scale)
    lists = sum(each.reshape(LISTS, -1, each.shape[1]).sum(1) for each in contributions)
    close(found.lists, np.linalg.norm(lists, axis=1), tolerance * scale)
    for got, wanted in zip(
        jax.tree.leaves(found.rest), jax.tree.leaves(expected["rest"]), strict=True
    ):
        close(got, wanted, tolerance * max(1, float(np.abs(wanted).max())))
    for unit in case.padded:
        assert found.units[unit] == 0

    # the second pass of a weighted step, here of weights 1
    cotangents = (found.cotangents,) if callable(case.functions) else found.cotangents

    def held(params):
        each = zip(functions, units, strict=True)
        outputs = tuple(mapped(function, unit)(params, *unit) for function, unit in each)
        products = jax.tree.map(lambda c, s: jnp.sum(c * s), cotangents, outputs)
        return sum(jax.tree.leaves(products))

    total = vector(jax.jit(jax.grad(held))(case.params))
    close(total, sum(each.sum(0) for each in contributions), tolerance * scale)


@pytest.mark.parametrize(("name", "chunk_size"), [("softmax", 5), ("towers", 1)])
def test_chunks_give_the_same_norms(name, chunk_size):
    """Of units one by one and with a rest; of lists one at a time, and by twos."""
    case, expected = known(name, "float32")
    transform = per_example.coupled_grad_norms(
        case.functions, case.coupling, lists=LISTS, chunk_size=chunk_size
    )
    _, found = jax.jit(transform)(case.params, case.units, case.rest, *case.arguments)
    contributions = [matrix(each) for each in expected["each"]]
    for got, wanted in zip(jax.tree.leaves(found.units), contributions, strict=True):
        np.testing.assert_allclose(got, np.linalg.norm(wanted, axis=1), rtol=1e-5)
    lists = sum(each.reshape(LISTS, -1, each.shape[1]).sum(1) for each in contributions)
    np.testing.assert_allclose(found.lists, np.linalg.norm(lists, axis=1), rtol=1e-4)


def test_weights_of_units_and_lists():
    """A weight of 0 leaves a NaN out; the weights of two functions add up."""
    case = coupled.towers()
    transform = jax.jit(per_example.coupled_value_and_grad(case.functions, case.coupling))
    _, found = transform(case.params, case.units, case.rest)
    queries, items = (grads.materialize() for grads in found.units)
    weights = jnp.arange(1.0, 1 + LISTS), jnp.arange(2 * LISTS) / LISTS
    expected = jax.tree.map(
        lambda q, i: jnp.tensordot(weights[0], q, 1) + jnp.tensordot(weights[1], i, 1),
        queries,
        items,
    )
    np.testing.assert_allclose(
        vector(found.weighted_sum(weights)), vector(expected), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="1 arrays of weights; pass one for each of the 2"):
        found.weighted_sum([jnp.ones(LISTS)])


def test_a_unit_of_weight_zero_may_be_nan():
    def outputs(params, x):
        return jnp.sum(jnp.tanh(x @ params))

    def coupling(scores, rest):
        return jnp.sum(scores**2)

    x = jax.random.normal(jax.random.key(0), (4, 3, 5))
    params = jax.random.normal(jax.random.key(1), (5, 2))
    transform = jax.jit(per_example.coupled_value_and_grad(outputs, coupling))
    _, found = transform(params, (x.at[1].set(jnp.nan),), None)
    _, clean = transform(params, (x,), None)
    weights = jnp.array([1.0, 0.0, 2.0, 0.5])
    assert np.isnan(found.norms()[1])
    np.testing.assert_array_equal(found.weighted_sum(weights), clean.weighted_sum(weights))


def identical_pairs() -> Case:
    """Lists whose items are all the same pair: by symmetry, the contributions cancel exactly.

    The layer is so wide that products of tokens are the cheaper way to a list's norm.
    """
    case = coupled.softmax()
    width = 128
    params = {
        "table": coupled.normal(0, coupled.VOCABULARY, width),
        "kernel": coupled.normal(1, width, width) / 4,
        "bias": coupled.normal(2, width),
        "head": coupled.normal(3, width),
    }
    ids = jnp.repeat(coupled._ids(30, LISTS, T), SIZE, axis=0)
    keys = jnp.repeat(jax.random.split(jax.random.key(31), LISTS), SIZE)
    gains, there = coupled.labels()
    there = jnp.ones_like(there)
    return case._replace(params=params, units=(ids, keys), arguments=(gains, there))


@pytest.mark.parametrize("route", ["one pass", "norms alone"])
def test_lists_whose_contributions_cancel_have_a_norm_of_zero(route):
    """By products of tokens in float32, the norm would be about √ε of the units' norms: 3e-4."""
    case = identical_pairs()
    if route == "one pass":
        transform = per_example.coupled_value_and_grad(case.functions, case.coupling)
        _, found = jax.jit(transform)(case.params, case.units, None, *case.arguments)
        units, lists = found.norms(), found.lists(LISTS).norms()
    else:
        transform = per_example.coupled_grad_norms(case.functions, case.coupling, lists=LISTS)
        _, found = jax.jit(transform)(case.params, case.units, None, *case.arguments)
        units, lists = found.units, found.lists
    sums = units.reshape(LISTS, SIZE).sum(1)
    assert (sums > 0.01).all()
    assert (lists <= 1e-6 * sums).all(), lists / sums


def test_aux_comes_beside_the_value():
    case = coupled.softmax()

    def coupling(scores, rest, gains, there):
        return case.coupling(scores, rest, gains, there), {"scores": scores}

    for transform in (per_example.coupled_value_and_grad, per_example.coupled_grad_norms):
        run = jax.jit(transform(case.functions, coupling, has_aux=True))
        (value, aux), _ = run(case.params, case.units, None, *case.arguments)
        scores = mapped(case.functions, case.units)(case.params, *case.units)
        np.testing.assert_allclose(aux["scores"], scores, rtol=1e-5)
        np.testing.assert_allclose(value, case.coupling(scores, None, *case.arguments), rtol=1e-5)


TRANSFORMS = pytest.mark.parametrize(
    "transform", [per_example.coupled_value_and_grad, per_example.coupled_grad_norms]
)


@TRANSFORMS
def test_outputs_that_read_other_units_are_refused(transform):
    """Batch statistics, without an axis around and with one."""

    def normalised(params, x):
        z = x @ params
        return z - jax.lax.pmean(z, "batch")

    def coupling(outputs, rest):
        return jnp.sum(outputs**2)

    run = transform(normalised, coupling)
    params, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"outputs function 0 reads other units .*make the group"):
        run(params, (x,), None)
    with pytest.raises(ValueError, match=r"outputs function 0 reads other units .*'batch'"):
        jax.vmap(lambda x: run(params, (x,), None)[0], axis_name="batch")(x[None])


@TRANSFORMS
def test_what_is_wrong_is_said(transform):
    def score(params, x):
        return jnp.sum(x @ params)

    def coupling(scores, rest):
        return jnp.sum(scores)

    params, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    good = transform(score, coupling)
    with pytest.raises(ValueError, match=r"found \[\(3,\), \(4,\)\]: give each"):
        transform(lambda params, x, y: score(params, x), coupling)(params, (x, jnp.ones(3)), None)
    with pytest.raises(ValueError, match="units must be a tuple of the outputs function's"):
        good(params, x, None)
    with pytest.raises(ValueError, match="for 2 functions in a tuple as many such tuples"):
        transform((score, score), coupling)(params, ((x,),), None)
    with pytest.raises(ValueError, match="outputs_fns is empty"):
        transform((), coupling)
    with pytest.raises(ValueError, match="outputs is int32; return floating arrays only"):
        transform(lambda params, x: jnp.argmax(x @ params), coupling)(params, (x,), None)
    with pytest.raises(ValueError, match="coupling must return one floating scalar"):
        transform(score, lambda scores, rest: scores)(params, (x,), None)
    with pytest.raises(ValueError, match=r"rest\['k'\] is int32; it holds floating parameters"):
        good(params, (x,), {"k": 1})
    with pytest.raises(ValueError, match="params is int32; pass floating parameters"):
        good(params.astype(int), (x,), None)
    with pytest.raises(NameError, match="nowhere"):
        transform(lambda params, x: nowhere, coupling)(params, (x,), None)


def test_lists_that_do_not_divide_the_units_are_refused():
    def score(params, x):
        return jnp.sum(x @ params)

    def coupling(scores, rest):
        return jnp.sum(scores)

    params, units = jnp.ones((3, 2)), (jnp.ones((4, 3)),)
    _, found = per_example.coupled_value_and_grad(score, coupling)(params, units, None)
    with pytest.raises(ValueError, match="4 examples are not 3 groups of one size"):
        found.lists(3)
    with pytest.raises(ValueError, match=r"units \[4\] are not 3 lists of one size"):
        per_example.coupled_grad_norms(score, coupling, lists=3)(params, units, None)
    with pytest.raises(ValueError, match="chunk_size is 0; pass a positive number"):
        per_example.coupled_grad_norms(score, coupling, chunk_size=0)
