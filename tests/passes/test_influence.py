from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from sie_jax import per_example
from sie_jax.data import batches
from sie_jax.passes import influence as passes
from sie_jax.passes import sweep
from sie_jax.per_example.forms import Outer, Rows
from sie_jax.training.cost import CostMeter

SIZE, DAMPING, SEED = 6, 0.1, 3
RATES = [0.1, 0.03]
TARGETS = 11  # rows, so that their last batch has padding rows too


class Naive(NamedTuple):
    """Of one checkpoint, every training row: materialised gradients [N, P] and projections."""

    losses: np.ndarray  # ∇ℓ
    odds: np.ndarray  # ∇f
    projected_losses: np.ndarray
    projected_odds: np.ndarray
    residuals: np.ndarray


@pytest.fixture(scope="module")
def checkpoints(shop: Any) -> list[tuple[Any, float]]:
    halved = jax.tree.map(lambda leaf: leaf / 2, shop.params)
    return [(halved, RATES[0]), (shop.params, RATES[1])]


@pytest.fixture(scope="module")
def all_rows(shop: Any) -> dict[str, np.ndarray]:
    """All training rows in one batch, in order, none of them padding."""
    made = shop.in_order()
    parts = [made[i] for i in range(len(made))]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    real = np.flatnonzero(joined["mask"])
    order = real[np.argsort(joined["row"][real])]
    return {name: values[order] for name, values in joined.items()}


def _flat(tree: Any, rows: int) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).reshape(rows, -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves, axis=1)


@pytest.fixture(scope="module")
def gradients(shop: Any) -> Callable[..., Any]:
    """(∇ℓ, ∇f, 1 − p, logits) of every row of a batch, materialised."""
    loss_fn = shop.task.loss()

    def odds(params: Any, example: Any) -> Any:
        logits = loss_fn(params, example)[1]
        p = jax.nn.softmax(logits)[example["label"]]
        return jnp.log(p / (1 - p)), 1 - p

    @jax.jit
    def of_batch(params: Any, batch: Any) -> Any:
        losses, logits = jax.vmap(jax.grad(loss_fn, has_aux=True), (None, 0))(params, batch)
        of_odds, residuals = jax.vmap(jax.grad(odds, has_aux=True), (None, 0))(params, batch)
        return losses, of_odds, residuals, logits

    return of_batch


@pytest.fixture(scope="module")
def naive(gradients: Any, checkpoints: Any, all_rows: Any) -> list[Naive]:
    rows = len(all_rows["row"])

    @jax.jit
    def projected(params: Any, directions: Any) -> Any:
        """P v for each direction v, a tree like params with a leading axis."""

        def linear(params: Any, direction: Any) -> Any:
            products = jax.tree.map(lambda x, v: jnp.sum(x * v), params, direction)
            return sum(jax.tree.leaves(products))

        grads = per_example.value_and_grad(linear)(params, directions)[1]
        return grads.project(jax.random.key(SEED), SIZE)

    made = []
    for params, _ in checkpoints:
        losses, of_odds, residuals, _ = gradients(params, all_rows)
        made.append(
            Naive(
                _flat(losses, rows),
                _flat(of_odds, rows),
                np.asarray(projected(params, losses), np.float64),
                np.asarray(projected(params, of_odds), np.float64),
                np.asarray(residuals, np.float64),
            )
        )
    return made


@pytest.fixture(scope="module")
def run(
    shop: Any, checkpoints: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., sweep.Columns]:
    def call(names: Any = passes.NAMES, folder: Path | None = None) -> sweep.Columns:
        folder = folder or tmp_path_factory.mktemp("influence")
        plan = batches.in_order(
            shop.prepared.lengths["train"][:TARGETS],
            batch_size=8,
            boundaries=shop.prepared.boundaries,
            rows=np.arange(TARGETS),
        )

        def clock_of(name: str) -> CostMeter:
            return CostMeter(folder / f"{name}.json")

        return passes.columns(
            names,
            shop.task,
            checkpoints,
            sweep.Examples(shop.in_order(), shop.rows),
            sweep.Examples(shop._planned([plan]), np.arange(TARGETS)),
            sweep.Workspace(shop.mesh, folder / "influence", clock_of, Console(quiet=True)),
            passes.Options(SEED, SIZE, DAMPING),
        )

    return call


@pytest.fixture(scope="module")
def columns(run: Any) -> sweep.Columns:
    return run()


def _ekfac(shop: Any, params: Any, rows: Any, gradients: Any) -> tuple[np.ndarray, np.ndarray]:
    """Self-influence and influence on the mean target, leaf by leaf in NumPy."""
    of_labels, _, _, logits = gradients(params, rows)
    keys = [jax.random.fold_in(jax.random.key(SEED), int(row)) for row in rows["row"]]
    own = [int(jax.random.categorical(k, z)) for k, z in zip(keys, logits, strict=True)]
    drawn = {**rows, "label": np.array(own, np.int32)}
    fisher = gradients(params, drawn)[0]
    loss_fn = shop.task.loss()
    of_own = jax.jit(per_example.value_and_grad(loss_fn, has_aux=True))
    forms = of_own(params, drawn)[1].forms()
    own_influence, influences = np.zeros(len(own)), np.zeros(len(own))
    largest = 0.0
    for form, drawn_rows, label_rows in zip(
        forms, jax.tree.leaves(fisher), jax.tree.leaves(of_labels), strict=True
    ):
        inner, outer = np.eye(1), np.eye(1)
        if isinstance(form, Outer | Rows):
            g = np.asarray(form.g, np.float64).reshape(-1, form.g.shape[2])
            inner, outer = np.eye(form.shape[0]), np.linalg.eigh(g.T @ g)[1]
            if isinstance(form, Outer):
                a = np.asarray(form.a, np.float64).reshape(-1, form.a.shape[2])[g.any(1)]
                inner = np.linalg.eigh(a.T @ a)[1]

        def rotated(values: Any, inner: Any = inner, outer: Any = outer) -> np.ndarray:
            matrices = np.asarray(values, np.float64).reshape(len(own), -1, len(outer))
            return (inner.T @ matrices if len(inner) > 1 else matrices) @ outer

        eigenvalues = (rotated(drawn_rows) ** 2).mean(0)
        largest = max(largest, eigenvalues.mean())
        if eigenvalues.mean() < 1e-11 * largest:  # the keys' bias, which softmax cancels
            continue
        inverse = 1 / (eigenvalues + DAMPING * eigenvalues.mean())
        each = rotated(label_rows)
        own_influence += (each**2 * inverse).sum((1, 2))
        influences += (each * inverse * each[:TARGETS].mean(0)).sum((1, 2))
    return own_influence, influences


def test_every_column_is_the_papers(
    shop: Any,
    checkpoints: Any,
    all_rows: Any,
    gradients: Any,
    naive: list[Naive],
    columns: sweep.Columns,
) -> None:
    losses = [one.losses for one in naive]
    aims = [one.losses[:TARGETS].mean(0) for one in naive]
    norms = [np.linalg.norm(one, axis=1) for one in losses]
    deviations = np.stack([one.projected_losses for one in naive])
    deviations = deviations - deviations.mean(0)
    residuals = np.mean([one.residuals for one in naive], axis=0)
    kernels = []
    for one in naive:
        gram = one.projected_odds.T @ one.projected_odds
        damped = gram + DAMPING * np.trace(gram) / SIZE * np.eye(SIZE)
        kernels.append(one.projected_odds @ np.linalg.inv(damped) @ one.projected_odds.T)
    kernel = np.mean(kernels, axis=0)
    ekfac_self, ekfac = _ekfac(shop, checkpoints[-1][0], all_rows, gradients)
    expected = {
        "grand": (norms[0] + norms[1]) / 2,
        "gradient_variance": (deviations**2).sum(2).mean(0),
        "tracin_self": RATES[0] * norms[0] ** 2 + RATES[1] * norms[1] ** 2,
        "tracin": RATES[0] * losses[0] @ aims[0] + RATES[1] * losses[1] @ aims[1],
        "trak_self": np.diag(kernel) * residuals,
        "trak": kernel[:TARGETS].mean(0) * residuals,
        "gradient_similarity": losses[1] @ aims[1] / (norms[1] * np.linalg.norm(aims[1])),
        "ekfac_self": ekfac_self,
        "ekfac": ekfac,
    }
    assert columns.keys() == expected.keys() == set(passes.NAMES)
    for name, values in expected.items():
        assert columns[name].dtype == np.float32
        # float32 gradients, and sums of some thousand products of either sign
        atol = 1e-4 * np.abs(values).max()
        np.testing.assert_allclose(columns[name], values, rtol=1e-3, atol=atol, err_msg=name)


def test_a_stopped_call_goes_on_where_it_was(
    columns: sweep.Columns,
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped within each kind of pass in turn, and once more: the same bits at last."""
    monkeypatch.setattr(sweep, "PART_BATCHES", 3)
    place, left = sweep.meshes.place_batch, [0]

    def stopping(*arguments: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return place(*arguments)

    monkeypatch.setattr(sweep.meshes, "place_batch", stopping)
    stops, done = 0, None
    while done is None:
        left[0] = 7  # a stage takes six batches
        try:
            done = run(folder=tmp_path)
        except KeyboardInterrupt:
            stops += 1
            assert stops < 20
    assert stops >= 4
    for name, values in columns.items():
        np.testing.assert_array_equal(done[name], values, err_msg=name)
    left[0] = 0  # nothing is left to compute
    again = run(folder=tmp_path)
    np.testing.assert_array_equal(again["ekfac"], columns["ekfac"])


def test_only_what_is_named_is_computed(columns: sweep.Columns, run: Any, tmp_path: Path) -> None:
    found = run(("ekfac_self",), tmp_path)
    assert found.keys() == {"ekfac_self"}
    np.testing.assert_allclose(found["ekfac_self"], columns["ekfac_self"], rtol=1e-5)
    made = sorted(path.name for path in (tmp_path / "influence").iterdir())
    assert made == ["covariances.npz", "eigenvalues.npz", "gradients-1"]
    assert run((), tmp_path) == {}


def test_columns_says_what_it_wants(run: Any, checkpoints: Any) -> None:
    with pytest.raises(ValueError, match="no column 'grant': choose of grand, "):
        run(("grand", "grant"))
