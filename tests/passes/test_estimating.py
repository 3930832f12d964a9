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
from sie_jax.passes.influence import Options
from sie_jax.training.cost import CostMeter
from sie_jax.training.history import Visits

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
    pairs = training["label"].to_numpy(), training["query_id"].to_numpy()
    targets = [values[:TARGETS] for values in pairs]

    def call(names: Any, folder: Path, **changes: Any) -> sweep.Columns:
        def clock_of(name: str) -> CostMeter:
            return CostMeter(folder / "clocks" / f"{name}.json")

        return estimating.columns(
            names,
            shop.task,
            evidence._replace(**changes),
            estimating.Pairs(shop.in_order(), *pairs),
            estimating.Pairs(shop._planned([plan]), *targets),
            sweep.Workspace(shop.mesh, folder / "parts", clock_of, Console(quiet=True)),
            Options(SEED, projection_size=6),
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
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"score"} | passes
    np.testing.assert_array_equal(found[name], columns[name])


@pytest.mark.parametrize("name", importance.ESTIMATORS)
def test_the_registry_states_what_the_passes_cost(name: str) -> None:
    estimator = importance.ESTIMATORS[name]
    for checkpoints in (1, 2, 5):
        cost = forward_equivalents(name, checkpoints=checkpoints, examples=7, targets=0)
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
    assert stops >= 8  # passes: score, preconditioned, embeddings of both, influence of two states
    for name, values in columns.items():
        np.testing.assert_array_equal(done[name], values, err_msg=name)


def test_out_of_fold_predictions_have_to_be_there(
    estimate: Any, columns: sweep.Columns, folder: Path
) -> None:
    with pytest.raises(ValueError, match="out-of-fold probabilities are needed"):
        estimate(("out_of_fold_loss",), folder, held_out=None)


def forward_equivalents(name: str, *, checkpoints: int, examples: int, targets: int) -> int:
    """The passes that an estimator needs beside the score pass, written out.

    A full pass is 3 and a forward pass 1. Of a checkpoint there is one pass over the training pairs
    and one over the targets where they are looked at; EK-FAC fits the curvature in two passes.
    """
    every = {"grand": 0, "gradient_variance": 0, "tracin_self": 0, "trak_self": 0}
    every |= {"tracin": targets, "trak": targets}
    last = {"gradient_similarity": targets, "ekfac_self": 0, "ekfac": targets}
    if name in every:
        return checkpoints * 3 * (examples + every[name])
    if name in last:
        curvature = 6 * examples if name.startswith("ekfac") else 0
        return 3 * (examples + last[name]) + curvature
    if name == "preconditioned_norm":
        return 3 * examples
    return examples + targets if name in ("knn_shapley", "query_agreement") else 0


@pytest.mark.parametrize("name", importance.ESTIMATORS)
def test_entries_are_charged_what_the_estimator_needs(
    shop: Any, columns: sweep.Columns, folder: Path, name: str
) -> None:
    clocks = [
        CostMeter(folder / "clocks" / f"{entry}.json")
        for entry in estimating.entries(name, checkpoints=len(RATES))
    ]
    assert all(clock.recorded.seconds > 0 for clock in clocks)
    assert sum(clock.recorded.forward_equivalents for clock in clocks) == forward_equivalents(
        name, checkpoints=len(RATES), examples=len(shop.rows), targets=TARGETS
    )


def test_every_pass_is_an_entry_of_some_estimator(
    shop: Any, columns: sweep.Columns, folder: Path
) -> None:
    made = {path.stem for path in (folder / "clocks").iterdir()}
    entries = [estimating.entries(name, checkpoints=2) for name in importance.ESTIMATORS]
    assert made == {"score"}.union(*entries)
    score = CostMeter(folder / "clocks" / "score.json")
    assert score.recorded[1:] == (len(shop.rows), 2 * len(shop.rows))
