from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax import per_example
from sie_jax.importance import ekfac

B, T = 5, 4
# float64 throughout, with a few hundred roundings, and an inverse damped to a condition below 1e3
EXACT = 1e-9

pytestmark = pytest.mark.usefixtures("float64")


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) / 2


def _loss(params: Any, ids: Any, scale: Any) -> jax.Array:
    """A leaf of every form: ids [T], scale [T]."""
    x = params["table"][ids] * scale[:, None]
    hidden = jnp.tanh(x @ params["first"] + params["bias"])
    split = jnp.tanh(jnp.einsum("td,hdk->thk", hidden, params["split"]))
    merged = jnp.tanh(jnp.einsum("thk,hkd->td", split, params["merge"]))
    scanned, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), merged, params["layers"])
    both = scanned + params["tied"][ids]
    return jnp.sum((scanned @ params["second"].T) ** 2) + jnp.sum((both @ params["tied"].T) ** 2)


PARAMS = {
    "bias": _normal(0, 4),
    "first": _normal(1, 3, 4),
    "layers": _normal(2, 2, 3, 3),
    "merge": _normal(3, 2, 2, 3),
    "second": _normal(4, 2, 3),
    "split": _normal(5, 2, 4, 2),
    "table": _normal(6, 7, 3),
    "tied": _normal(7, 7, 3),
    "unused": _normal(8, 2),
}

# a leaf that is kept as factors, as [L, in, out]; the others have the Fisher's diagonal
MATRICES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda w: w[None],
    "layers": lambda w: w,
    "merge": lambda w: w.reshape(1, 4, 3),
    "second": lambda w: w.T[None],
    "split": lambda w: np.transpose(w, (1, 0, 2)).reshape(1, 4, 4),
    "table": lambda w: w[None],
}

# ids repeat within an example
IDS = np.array([[0, 1, 1, 2], [3, 3, 3, 3], [0, 4, 5, 0], [2, 1, 2, 1], [5, 4, 3, 2]])
BATCH = (IDS, 1 + _normal(9, B, T) / 4)


@jax.jit
def _gradients(*batch: Any) -> per_example.PerExampleGrads:
    return per_example.value_and_grad(_loss)(PARAMS, *batch)[1]


@jax.jit
def _fit(grads: per_example.PerExampleGrads) -> ekfac.EKFAC:
    bases = ekfac.eigenbases(ekfac.covariance_sums(grads))
    sums = ekfac.eigenvalue_sums(grads, bases)
    return ekfac.EKFAC(bases, [value / grads.batch_size for value in sums], 0.1)


@pytest.fixture(scope="module")
def grads() -> per_example.PerExampleGrads:
    return _gradients(*BATCH)


@pytest.fixture(scope="module")
def curvature(grads: per_example.PerExampleGrads) -> ekfac.EKFAC:
    return _fit(grads)


class Block(NamedTuple):
    """A block of (H + λI)⁻¹ written out, and what gives its coordinates in a leaf."""

    name: str
    inverse: np.ndarray
    vector: Callable[[np.ndarray], np.ndarray]


def _blocks(rows: dict[str, np.ndarray], covariances: Any) -> list[Block]:
    made = []
    for name, gradients in rows.items():
        if name == "unused":
            made.append(Block(name, np.zeros((2, 2)), np.ravel))
        elif name not in MATRICES:
            fisher = (gradients.reshape(B, -1) ** 2).mean(0)
            made.append(Block(name, np.diag(1 / (fisher + 0.1 * fisher.mean())), np.ravel))
        else:
            of = MATRICES[name]
            for layer in range(len(of(gradients[0]))):

                def vector(w: np.ndarray, of: Any = of, layer: int = layer) -> np.ndarray:
                    return of(w)[layer].reshape(-1)

                a, g = (np.asarray(side) for side in covariances[name])
                a, g = (a[layer], g[layer]) if name == "layers" else (a, g)
                inputs = np.eye(len(a)) if a.ndim == 1 else np.linalg.eigh(a)[1]
                basis = np.kron(inputs, np.linalg.eigh(g)[1])  # of row-major matrices
                corrected = np.mean([(basis.T @ vector(row)) ** 2 for row in gradients], axis=0)
                damped = basis @ np.diag(corrected) @ basis.T
                damped += 0.1 * corrected.mean() * np.eye(len(damped))
                made.append(Block(name, np.linalg.inv(damped), vector))
    return made


def test_ekfac_equals_the_dense_matrix_written_out(
    grads: per_example.PerExampleGrads, curvature: ekfac.EKFAC
) -> None:
    @jax.jit  # the curvature and the gradients are arguments under jit
    def everything(grads: Any, curvature: ekfac.EKFAC, direction: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf[0], grads.materialize())
        return (
            grads.materialize(),
            grads.covariances(),
            curvature.self_influence(grads),
            curvature.precondition(direction),
            grads.dot(curvature.precondition(first)),
        )

    direction = {name: np.cos(3 * leaf) for name, leaf in PARAMS.items()}
    rows, covariances, own, solved, of_first = jax.device_get(
        everything(grads, curvature, direction)
    )
    expected = np.zeros(B)
    for block in _blocks(rows, covariances):
        vectors = [block.vector(row) for row in rows[block.name]]
        expected += [vector @ block.inverse @ vector for vector in vectors]
        np.testing.assert_allclose(
            block.vector(solved[block.name]),
            block.inverse @ block.vector(direction[block.name]),
            rtol=EXACT,
            atol=EXACT * np.abs(block.inverse).max(),
            err_msg=block.name,
        )
    np.testing.assert_allclose(own, expected, rtol=EXACT)
    # on an example's own gradient, influence is self-influence
    np.testing.assert_allclose(of_first[0], own[0], rtol=EXACT)


def test_ekfac_is_the_dense_fisher_where_its_factors_are_independent() -> None:
    # all pairs of 4 inputs and 3 cotangents: E[aaᵀ ⊗ ggᵀ] is E[aaᵀ] ⊗ E[ggᵀ]
    inputs, cotangents = np.repeat(_normal(0, 4, 2), 3, axis=0), np.tile(_normal(1, 3, 2), (4, 1))
    direction = _normal(3, 2, 2)

    @jax.jit
    def found(kernel: Any) -> Any:
        grads = per_example.value_and_grad(lambda w, a, g: a @ w @ g)(kernel, inputs, cotangents)[1]
        curvature = _fit(grads)
        return curvature.self_influence(grads), curvature.precondition(direction)

    own, solved = found(_normal(2, 2, 2))
    rows = np.einsum("ni,no->nio", inputs, cotangents).reshape(12, 4)
    fisher = sum(np.outer(row, row) for row in rows) / 12
    damped = fisher + 0.1 * np.trace(fisher) / 4 * np.eye(4)
    expected = np.einsum("ni,ij,nj->n", rows, np.linalg.inv(damped), rows)
    np.testing.assert_allclose(own, expected, rtol=EXACT)
    expected = np.linalg.solve(damped, direction.reshape(-1)).reshape(2, 2)
    np.testing.assert_allclose(solved, expected, rtol=EXACT)


def test_padding_counts_nowhere_and_batches_add_up(
    grads: per_example.PerExampleGrads, curvature: ekfac.EKFAC
) -> None:
    # two batches of three, the last row of the second is padding and holds anything
    rows = np.array([[0, 1, 2], [3, 4, 4]])
    scale = BATCH[1][rows]
    scale[1, 2] = np.nan
    mask = np.array([[True] * 3, [True, True, False]])
    made = [_gradients(*batch) for batch in zip(IDS[rows], scale, strict=True)]

    def added(function: Callable[..., Any]) -> Any:
        compiled = jax.jit(function)
        parts = [compiled(each, where=real) for each, real in zip(made, mask, strict=True)]
        return jax.tree.map(lambda one, other: np.asarray(one) + other, *parts)

    bases = ekfac.eigenbases(added(ekfac.covariance_sums))
    total = added(lambda each, where: ekfac.eigenvalue_sums(each, bases, where=where))
    padded = ekfac.EKFAC(bases, [value / B for value in total], 0.1)
    found = jax.jit(ekfac.EKFAC.self_influence)
    np.testing.assert_allclose(found(padded, grads), found(curvature, grads), rtol=EXACT)


def test_positions_without_a_cotangent_count_nowhere() -> None:
    def loss_fn(params: Any, x: Any, mask: Any) -> jax.Array:
        hidden = jnp.tanh(x @ params["kernel"])
        return jnp.sum(jnp.where(mask[:, None], hidden, 0) ** 2)

    @jax.jit
    def sums(x: Any, mask: Any) -> Any:
        grads = per_example.value_and_grad(loss_fn)({"kernel": _normal(0, 3, 2)}, x, mask)[1]
        return ekfac.covariance_sums(grads)

    x = _normal(1, B, T, 3)
    longer = np.concatenate([x, 9 * _normal(2, B, 3, 3)], axis=1)
    mask = np.broadcast_to(np.arange(T + 3) < T, (B, T + 3))
    short, long = sums(x, mask[:, :T])[0], sums(longer, mask)[0]
    np.testing.assert_allclose(short.input, long.input, rtol=EXACT)
    np.testing.assert_allclose(short.output, long.output, rtol=EXACT)


def test_ekfac_says_what_it_wants(
    grads: per_example.PerExampleGrads, curvature: ekfac.EKFAC
) -> None:
    with pytest.raises(ValueError, match="the direction has 1 leaves, the curvature 9"):
        curvature.precondition({"first": PARAMS["first"]})
    with pytest.raises(ValueError, match="damping is 0; pass a positive number"):
        ekfac.EKFAC(curvature.bases, curvature.eigenvalues, 0).self_influence(grads)
