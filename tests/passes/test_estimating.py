from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from sie_jax import importance
from sie_jax.data import batches
from sie_jax.passes import estimating, influence, sweep
from sie_jax.training.history import Visits
from sie_jax.training.logs import Clock

# the seed, the targets and the size of projections are those of test_influence: passes of equal
# arguments are compiled once for both
SEED, RATES = 3, (0.1, 0.03)
TARGETS = 11  # rows, so that their last batch has padding rows too
PASS = {
    *importance.SCORES,
    "last_layer_norm",
    "layer_norms",
    *(f"probability_{c}" for c in range(4)),
}
"""What the score pass gives, whatever is named."""


@pytest.fixture(scope="module")
def evidence(shop: Any) -> estimating.Evidence:
    """Two checkpoints, and what a run of three epochs might have shown."""
    generator, rows = np.random.default_rng(0), len(shop.rows)
    halved = jax.tree.map(lambda leaf: leaf / 2, shop.params)
    visits = Visits(generator.normal(size=(3, rows)), generator.exponential(size=(3, rows)))
    held_out = generator.dirichlet(np.ones(4), rows).astype(np.float32)
    moments = jax.tree.map(jnp.square, shop.params)
    checkpoints = list(zip((halved, shop.params), RATES, strict=True))
    return estimating.Evidence(checkpoints, moments, visits, held_out)


@pytest.fixture(scope="module")
def estimate(shop: Any, evidence: Any) -> Callable[..., sweep.Columns]:
    plan = batches.in_order(
        shop.prepared.lengths["train"][:TARGETS],
        batch_size=8,
        boundaries=shop.prepared.boundaries,
        rows=np.arange(TARGETS),
    )
    training = shop.prepared.split("train")
    pairs = estimating.Pairs(training["label"].to_numpy(), training["query_id"].to_numpy())

    def call(names: Any, folder: Path, **changes: Any) -> sweep.Columns:
        return estimating.columns(
            names,
            shop.graphdef,
            shop.mesh,
            evidence._replace(**changes),
            shop.in_order(),
            shop._planned([plan]),
            pairs=pairs,
            target_pairs=estimating.Pairs(*(values[:TARGETS] for values in pairs)),
            folder=folder / "parts",
            projection_size=6,
            seed=SEED,
            clock=Clock(folder / "clock.json"),
            further_clock=Clock(folder / "further.json"),
            console=Console(quiet=True),
        )

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("estimated")


@pytest.fixture(scope="module")
def columns(estimate: Any, folder: Path) -> sweep.Columns:
    return estimate(importance.ESTIMATORS, folder)


def test_every_estimator_has_a_column(shop: Any, columns: sweep.Columns) -> None:
    assert columns.keys() == {*importance.ESTIMATORS, *PASS, "embedding"}
    influential = importance.needing(importance.ESTIMATORS, *estimating.INFLUENTIAL)
    assert set(influential) == set(influence.NAMES)
    for name in importance.ESTIMATORS:
        assert columns[name].shape == shop.rows.shape, name
        assert np.issubdtype(columns[name].dtype, np.floating), name
        assert np.isfinite(columns[name]).all(), name
        if (most := importance.ESTIMATORS[name].most) is not None:
            assert columns[name].max() <= most, name
        assert importance.hardness(name, columns[name]).min() >= 0, name


def test_columns_are_of_the_evidence_that_they_name(
    shop: Any, evidence: Any, columns: sweep.Columns
) -> None:
    labels = shop.prepared.split("train")["label"].to_numpy()
    given = columns["out_of_fold_loss"]
    np.testing.assert_allclose(given, -np.log(evidence.held_out[shop.rows, labels]), rtol=1e-5)
    np.testing.assert_allclose(columns["reducible_loss"], columns["loss"] - given, rtol=1e-5)
    shown = np.exp(-evidence.visits.losses).mean(0)
    np.testing.assert_allclose(columns["confidence"], shown, rtol=1e-12)
    np.testing.assert_allclose(columns["area_under_margin"], evidence.visits.margins.mean(0))
    # the score pass and the influence passes are two ways to the norms of the last checkpoint, in
    # float32; with those of the first eliminated, η_0 (2 grand − n)² + η_1 n² is tracin_self
    last = columns["grad_norm"]
    first = 2 * columns["grand"] - last
    expected = RATES[0] * first**2 + RATES[1] * last**2
    np.testing.assert_allclose(columns["tracin_self"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "further", "passes"),
    [
        ("entropy", set(), set()),
        ("correctness", set(importance.needing(importance.ESTIMATORS, "history")), set()),
        ("confident_learning", set(importance.needing(importance.ESTIMATORS, "reference")), set()),
        ("preconditioned_norm", {"preconditioned_norm"}, {"preconditioned"}),
        (
            "query_agreement",
            {"query_agreement", "knn_shapley", "embedding"},
            {"embeddings", "target_embeddings"},
        ),
    ],
)
def test_only_what_a_name_asks_for_is_computed(
    estimate: Any,
    columns: sweep.Columns,
    tmp_path: Path,
    name: str,
    further: set[str],
    passes: set[str],
) -> None:
    found = estimate((name,), tmp_path)
    assert found.keys() == PASS | further
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"scores"} | passes
    np.testing.assert_array_equal(found[name], columns[name])


@pytest.mark.parametrize("name", importance.ESTIMATORS)
def test_the_registry_states_what_the_passes_cost(name: str) -> None:
    estimator = importance.ESTIMATORS[name]
    for checkpoints in (1, 2, 5):
        cost = estimating.forward_equivalents(
            [name], checkpoints=checkpoints, examples=7, targets=0
        )
        assert cost == 7 * (estimator.once + checkpoints * estimator.per_checkpoint)


def test_a_stopped_call_goes_on_to_the_same_bits(
    estimate: Any,
    columns: sweep.Columns,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped again and again, within every kind of pass."""
    place, left, stops, done = sweep.meshes.place_batch, [0], 0, None

    def stopping(*arguments: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return place(*arguments)

    monkeypatch.setattr(sweep, "PART_BATCHES", 3)
    monkeypatch.setattr(sweep.meshes, "place_batch", stopping)
    while done is None:
        left[0] = 7  # no pass has more batches
        try:
            done = estimate(importance.ESTIMATORS, tmp_path)
        except KeyboardInterrupt:
            stops += 1
            assert stops < 30
    assert stops >= 8  # passes: scores, preconditioned, embeddings of both, influence of two states
    for name, values in columns.items():
        np.testing.assert_array_equal(done[name], values, err_msg=name)


def test_out_of_fold_predictions_have_to_be_there(
    estimate: Any, columns: sweep.Columns, folder: Path
) -> None:
    with pytest.raises(ValueError, match="out-of-fold probabilities are needed"):
        estimate(("out_of_fold_loss",), folder, held_out=None)


@pytest.mark.parametrize(
    ("names", "total"),
    [
        # 100 examples, 10 targets, 2 checkpoints; a full pass 3, a forward pass 1
        ((), 0),
        (importance.SCORES, 0),  # the score pass is charged elsewhere
        (("last_layer_norm", "forgetting_events", "out_of_fold_loss"), 0),
        (("preconditioned_norm",), 3 * 100),
        (("grand",), 2 * 3 * 100),
        (("grand", "tracin_self", "gradient_variance", "trak_self"), 2 * 3 * 100),
        (("tracin",), 2 * 3 * (100 + 10)),
        (("trak", "tracin"), 2 * 3 * (100 + 10)),
        (("gradient_similarity",), 3 * (100 + 10)),  # of the last checkpoint alone
        (("ekfac_self",), 3 * 100 + 6 * 100),
        (("ekfac",), 3 * (100 + 10) + 6 * 100),
        (("grand", "ekfac"), 2 * 3 * 100 + 3 * 10 + 6 * 100),
        (("knn_shapley", "query_agreement"), 100 + 10),
        (importance.ESTIMATORS, 3 * 100 + 2 * 3 * (100 + 10) + 6 * 100 + (100 + 10)),
    ],
)
def test_forward_equivalents_by_hand(names: Any, total: int) -> None:
    found = estimating.forward_equivalents(names, checkpoints=2, examples=100, targets=10)
    assert found == total
