import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.compute as pc
import pytest
from rich.console import Console

from sie_jax.passes import explain as explaining
from sie_jax.passes import sweep
from sie_jax.passes.influence import Options
from sie_jax.per_example import value_and_grad
from sie_jax.training.cost import CostMeter

SIZE, SEED, TOP, DAMPING = 64, 3, 4, 0.1


@pytest.fixture(scope="module")
def naive(shop: Any) -> Any:
    """Labels, predictions `[N]`, and what the paper makes of them: τ `[N, N]` of every row, as a
    training pair, on every row's prediction.

    From materialised gradients of the cross-entropy with either class as the label: those of
    log p_c − log(1 − p_c) are −∇ℓ/(1 − p_c).
    """
    loss = shop.task.loss()
    both = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, 0)))
    made = shop.in_order()

    def of_rows(labels: np.ndarray) -> Any:
        """∇ℓ, leaves `[N, …]`, and logits `[N, K]`, one vmap(grad) per batch."""
        parts, rows = [], []
        for i in range(len(made)):
            real = made[i]["mask"].sum()  # padding rows come last
            rows.append(made[i]["row"][:real])
            batch = made[i] | {"label": labels[made[i]["row"]].astype(np.int32)}
            output = both(shop.params, batch)
            parts.append(jax.tree.map(operator.itemgetter(slice(real)), output))
        order = np.argsort(np.concatenate(rows))
        gradients, logits = jax.tree.map(lambda *some: np.concatenate(some)[order], *parts)
        return jax.tree.leaves(gradients), logits.astype(np.float64)

    labels = shop.prepared.split("train")["label"].to_numpy()
    gradients, logits = of_rows(labels)
    predicted = logits.argmax(1)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    residuals = 1 - p[shop.rows, labels]
    of_prediction, _ = of_rows(predicted)
    both_scaled = zip(
        scaled(gradients, -1 / residuals),
        scaled(of_prediction, -1 / (1 - p[shop.rows, predicted])),
        strict=True,
    )
    phi, targets = np.split(projected(shop, [np.concatenate(pair) for pair in both_scaled]), 2)
    kernel = phi.T @ phi
    damped = kernel + DAMPING * np.trace(kernel) / SIZE * np.eye(SIZE)
    return labels, predicted, targets @ np.linalg.inv(damped) @ phi.T * residuals


def projected(shop: Any, leaves: list[np.ndarray]) -> np.ndarray:
    """The library's own projection of given gradients: those of Σ params · coefficients_i."""

    def linear(params: Any, coefficients: Any) -> jax.Array:
        pairs = zip(jax.tree.leaves(params), coefficients, strict=True)
        return sum((jnp.vdot(p, c) for p, c in pairs), jnp.zeros(()))

    @jax.jit
    def run(params: Any, coefficients: Any) -> jax.Array:
        _, gradients = value_and_grad(linear)(params, coefficients)
        return gradients.project(jax.random.key(SEED), SIZE)

    return np.asarray(run(shop.params, leaves), np.float64)


def scaled(leaves: list[np.ndarray], by: np.ndarray) -> list[np.ndarray]:
    return [leaf * by.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(np.float32) for leaf in leaves]


def explain(shop: Any, folder: Path, *, damping: float = DAMPING) -> Any:
    def clock_of(name: str) -> CostMeter:
        return CostMeter(folder / f"{name}.json")

    return explaining.explain(
        shop.task,
        shop.params,
        sweep.Examples(shop.in_order(), shop.rows),
        sweep.Examples(shop.planned(), shop.rows),
        sweep.Workspace(shop.mesh, folder / "explained", clock_of, Console(quiet=True)),
        Options(SEED, SIZE, damping),
        target_ids=np.array([f"id-{row}" for row in shop.rows]),
        top=TOP,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explanations")


@pytest.fixture(scope="module")
def table(shop: Any, folder: Path) -> Any:
    return explain(shop, folder)


def test_explanations_are_traks(shop: Any, naive: Any, table: Any) -> None:
    _, predicted, influence = naive
    size = np.abs(influence).max()
    assert table.schema == explaining.SCHEMA
    for target in shop.rows:
        of_target = table.filter(pc.equal(table["example_id"], f"id-{target}"))
        assert set(of_target["predicted"].to_pylist()) == {predicted[target]}
        for direction, sign in (("for", 1), ("against", -1)):
            lines = of_target.filter(pc.equal(of_target["direction"], direction)).to_pydict()
            pushed = sign * influence[target]
            wanted = np.sort(pushed[pushed > 0])[::-1][:TOP]
            assert lines["rank"] == list(range(1, len(wanted) + 1))
            # float32 gradients and projections, and the inverse, make 1e-5 of them
            found = sign * np.array(lines["influence"])
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * size)
            np.testing.assert_allclose(found, pushed[lines["row"]], rtol=1e-3, atol=1e-4 * size)


def test_a_pair_that_says_what_is_predicted_speaks_for_it(
    shop: Any, naive: Any, table: Any, folder: Path
) -> None:
    """The targets are training pairs: where the label is the prediction, each is its own double."""
    labels, predicted, _ = naive
    right = np.flatnonzero(predicted == labels)
    assert len(right) > 5
    # with little damping and more dimensions than rows, a pair's own direction is nearly its alone
    assert len(labels) < SIZE
    made = explain(shop, folder, damping=1e-3)
    speaking_for = made.filter(pc.equal(made["direction"], "for"))
    for row in right:
        lines = speaking_for.filter(pc.equal(speaking_for["example_id"], f"id-{row}"))
        assert row in lines["row"].to_pylist()[:2]


def test_passes_that_are_there_are_not_repeated(
    shop: Any, table: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "sweep", None)  # no batch can be computed
    assert explain(shop, folder).equals(table)


def test_both_passes_are_charged(shop: Any, table: Any, folder: Path) -> None:
    for name in explaining.ENTRIES:
        clock = CostMeter(folder / f"{name}.json")
        assert clock.recorded[1:] == (len(shop.rows), 3 * len(shop.rows))
