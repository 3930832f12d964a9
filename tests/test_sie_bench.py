"""SIE-Bench: its faults, its policies, what it chooses, and that its cells resume."""

import dataclasses
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from running import ROOT
from scipy import stats

from sie_jax.data.sources.market import noise
from sie_jax.evaluation import ranking

MODULES = (
    *("attribute", "cells", "departments", "faults", "further", "grid", "model", "negatives"),
    *("policies", "scores", "shops", "summary", "tracks", "worlds"),
)


@pytest.fixture(scope="module")
def bench() -> SimpleNamespace:
    """The bench's modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        found = {name: importlib.import_module(f"sie_bench.{name}") for name in MODULES}
    return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def shop(bench: SimpleNamespace) -> Any:
    """A shop of 400 queries with 10 pairs each of random grades; a tenth is tested."""
    rng = np.random.default_rng(0)
    query = np.repeat(np.arange(400), 10)
    judged = noise.Judged(
        rng.choice(4, size=4000, p=[0.26, 0.27, 0.27, 0.2]),
        query,
        rng.integers(11, size=4000),
        query >= 40,
    )
    position = np.tile(np.arange(10), 400)
    brand = rng.integers(40, size=4000)
    return bench.shops.Shop(3, None, None, None, None, judged, brand, position, (), ())


def test_each_fault_has_its_rate_and_leaves_tested_rows(bench: SimpleNamespace, shop: Any) -> None:
    truth, where = shop.judged.truth, shop.judged.where
    for fault, rate in bench.faults.RATES.items():
        labels = bench.faults.labels(shop, fault)
        np.testing.assert_array_equal(labels, bench.faults.labels(shop, fault))
        assert (labels == truth)[~where].all()
        # five standard errors of a share; for annotators, whole queries of ten are drawn; sellers
        # end with the last whole one, a fortieth of the rows at most; mixed ones overlap
        slack = {"annotator": 0.1, "sellers": 0.03, "mixed": 0.05, "mild": 0.05}.get(fault, 0.035)
        assert abs((labels != truth)[where].mean() - rate) < slack * (rate > 0) + 1e-12


def test_a_seller_pushes_all_of_its_items(bench: SimpleNamespace, shop: Any) -> None:
    labels = bench.faults.labels(shop, "sellers")
    wrong = labels != shop.judged.truth
    assert (labels[wrong] == 3).all()
    pushed = np.isin(shop.brand, shop.brand[wrong]) & shop.judged.where
    assert (labels[pushed] == 3).all()


def test_a_place_is_looked_at_by_its_propensity(bench: SimpleNamespace, shop: Any) -> None:
    look = bench.faults.propensity(shop, 0.2)
    relevant = (shop.judged.truth > 0) & shop.judged.where
    assert abs((1 - look)[relevant].sum() / shop.judged.where.sum() - 0.2) < 1e-9
    assert look[0] == 1  # at the first place
    assert (np.diff(look[:10]) < 0).all()


def test_what_is_kept(bench: SimpleNamespace) -> None:
    values = np.array([[3.0, 1.0, 9.0], [2.0, 4.0, 0.0]])
    mask = np.array([[True, True, False], [True, True, True]])
    kept = bench.policies.kept(values, mask, 0.6)
    np.testing.assert_array_equal(kept, [[False, True, False], [True, False, True]])
    labels = np.array([[0, 0, 0], [1, 1, 1]])
    banded = bench.policies.banded(values, labels, mask, 0.5)
    np.testing.assert_array_equal(banded, [[False, True, False], [True, False, True]])


def test_targets_between_labels_and_probabilities(bench: SimpleNamespace) -> None:
    p = np.array([[0.1, 0.2, 0.3, 0.4]])
    found = bench.policies.mixture(np.array([1]), p, 0.5)
    np.testing.assert_allclose(found, [[0.05, 0.6, 0.15, 0.2]], rtol=1e-6)


def test_suspected_labels_are_corrected_and_sure_pairs_weigh_more(bench: SimpleNamespace) -> None:
    p = np.array([[0.1, 0.6, 0.2, 0.1], [0.1, 0.6, 0.2, 0.1]])
    weights, targets = bench.policies.settled(p, np.array([1, 2]))
    np.testing.assert_allclose(weights, [0.6, 0.6])
    np.testing.assert_allclose(targets, [[0, 1, 0, 0], p[1]], rtol=1e-6)


def test_transitions_are_counted(bench: SimpleNamespace) -> None:
    found = bench.policies.counted_transition(np.array([3, 3, 3]), np.array([0, 0, 3]))
    np.testing.assert_allclose(found, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.5, 0, 0, 0.5]])
    # sure predictions that contradict a label count as its right class
    p = np.eye(4)[[3, 3, 0, 1, 2, 3]]
    found = bench.policies.confident_transition(p, np.array([0, 3, 0, 1, 2, 3]))
    np.testing.assert_allclose(found[3], [1 / 4, 0, 0, 3 / 4])


def test_the_posterior_undoes_a_known_fault(bench: SimpleNamespace) -> None:
    transition = np.eye(4)
    transition[3] = [0.5, 0, 0, 0.5]  # half of E is missed
    right = np.array([0.2, 0.2, 0.2, 0.4])
    found = bench.policies.posterior((right @ transition)[None], np.array([0]), transition)
    # P(E | labelled I) = 0.4 / 2 / (0.2 + 0.4 / 2); the rounds of EM end within a hundredth
    np.testing.assert_allclose(found, [[0.5, 0, 0, 0.5]], atol=0.01)


def test_inverse_propensity_is_unbiased(bench: SimpleNamespace) -> None:
    p, truth = 0.4, 2
    seen = bench.policies.unbiased(np.array([truth]), np.array([p]))
    unseen = bench.policies.unbiased(np.array([0]), np.array([p]))
    np.testing.assert_allclose(p * seen + (1 - p) * unseen, np.eye(4)[[truth]], atol=1e-6)


def test_forward_correction(bench: SimpleNamespace) -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4]))
    target = np.eye(4)[0]
    plain = bench.model.losses(logits, target, np.eye(4))
    np.testing.assert_allclose(plain, -np.log(0.1), rtol=1e-6)
    transition = np.eye(4)
    transition[3] = [0.5, 0, 0, 0.5]
    found = bench.model.losses(logits, target, transition)
    np.testing.assert_allclose(found, -np.log(0.1 + 0.4 / 2), rtol=1e-6)


def test_means_of_groups_are_shrunken(bench: SimpleNamespace) -> None:
    values, groups = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
    where = np.ones(3, bool)
    found = bench.scores.group_mean(values, groups, where)
    np.testing.assert_allclose(found, [(3 + 15) / 7, (3 + 15) / 7, (6 + 15) / 6])
    alone = bench.scores.group_mean(values, groups, where, others=True)
    np.testing.assert_allclose(alone, [(2 + 15) / 6, (1 + 15) / 6, 15 / 5])


def test_shares_of_sellers_leave_out_their_own_list(bench: SimpleNamespace) -> None:
    mask = np.array([[True, True], [True, False]])
    lists = bench.shops.Lists(*[None] * 9)._replace(mask=mask, brand=np.array([[0, 1], [0, 0]]))
    signal = np.array([[1.0, 0.0], [0.0, 9.0]])  # the last is no pair
    left, every = bench.scores.seller_shares(signal, lists, np.array([0, 1, 2]))
    mean = 1 / 3
    np.testing.assert_allclose(left[mask], [2 * mean / 3, mean, (1 + 2 * mean) / 3])
    np.testing.assert_allclose(every, [(1 + 2 * mean) / 4, 2 * mean / 3, mean])


def test_trusted_lists_are_learnt_as_they_are(bench: SimpleNamespace) -> None:
    def lists(count: int) -> Any:
        return bench.shops.Lists(*[np.zeros((count, 3), int)] * 9)._replace(
            mask=np.ones((count, 3), bool), truth=np.full((count, 3), 2)
        )

    seen = SimpleNamespace(lists=lists(4), trusted=SimpleNamespace(lists=lists(2)))
    treatment = bench.model.plain(np.ones((4, 3), int), seen.lists.mask)
    treatment = treatment._replace(weights=treatment.weights / 2)
    together, given = bench.tracks.with_trusted(seen, treatment)
    assert together.mask.shape == (6, 3)
    np.testing.assert_array_equal(given.weights[:, 0], [0.5, 0.5, 0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(given.targets.argmax(-1)[:, 0], [1, 1, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="transition"):
        bench.tracks.with_trusted(seen, treatment._replace(transition=np.full((4, 4), 0.25)))


def test_what_is_chosen_under_each_access(bench: SimpleNamespace) -> None:
    cells = [*bench.grid.weight(1, "annotator")]
    core = bench.grid.core(cells)
    flat = {"validation": [0.5, 0.6, 0.7], "test": 0.5}
    better = {"validation": [0.6, 0.7, 0.8], "test": 0.6}
    found = {cell: {"a": flat, "b": flat, "departs": False} for cell in core}
    settle, believe, keep = (
        next(one for one in core if one.policy == policy and one.taught == taught)
        for policy, taught in (("settle", True), ("believe", True), ("keep", False))
    )
    groups = [one for one in core if one.policy == "doubtful_groups"]

    def picked(access: str) -> Any:
        return bench.summary._picked(found, cells, flat, access)

    assert picked("a") is None
    assert picked("b") == next(one for one in groups if one.taught)
    found[keep] = found[settle] = {"a": better, "b": better, "departs": True}
    assert (picked("a"), picked("b")) == (keep, settle)
    # what finds groups is taken under access a, whatever the faulty validation labels say
    found[next(one for one in groups if not one.taught)]["departs"] = True
    assert picked("a").policy == "doubtful_groups"
    assert believe in core


def test_ndcg_is_that_of_the_library(bench: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    scores, grades = rng.normal(size=(30, 20)), rng.integers(4, size=(30, 20))
    mask = rng.random((30, 20)) < 0.8
    grades[0] = 0
    found = bench.model.ndcg(scores, grades, mask)
    expected = ranking.per_query(
        scores[mask],
        grades[mask],
        gains=bench.shops.GAINS,
        query_index=np.nonzero(mask)[0],
        num_queries=30,
        example_ids=np.flatnonzero(mask),
    )["ndcg@10"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_cell_is_measured_once(bench: SimpleNamespace, tmp_path: Path) -> None:
    cell = bench.cells.Cell("find", 1, "annotator", 0.2, "held_out_loss", "")
    calls: list[Any] = []

    def measure(one: Any) -> dict[str, float]:
        calls.append(one)
        return {"auroc": 0.1 + 0.2}

    first = bench.cells.measured(cell, tmp_path, measure)
    assert bench.cells.measured(cell, tmp_path, measure) == first
    assert first["values"] == {"auroc": 0.1 + 0.2}
    assert calls == [cell]


def test_kept_cells_are_not_measured_again(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [bench.cells.Cell("find", 7, "annotator", 0.2, score, "") for score in ("a", "b")]
    for place, one in enumerate(cells):
        bench.cells.measured(one, tmp_path / "here", lambda _, place=place: {"auroc": place / 3})
    kept = tmp_path / "kept"
    kept.mkdir()
    bench.cells.keep(7, cells, tmp_path / "here", into=kept)
    before = (kept / "7.json.gz").read_bytes()
    bench.cells.keep(7, cells[::-1], tmp_path / "here", into=kept)
    assert (kept / "7.json.gz").read_bytes() == before
    of = bench.cells._kept
    monkeypatch.setattr(bench.cells, "_kept", lambda shop: of(shop, kept))
    found = [bench.cells.stored(one, tmp_path / "elsewhere")["values"] for one in cells]
    assert found == [{"auroc": 0.0}, {"auroc": 1 / 3}]


def test_a_hash_is_of_what_a_cell_depends_on(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [
        cell
        for track in bench.grid.TRACKS.values()
        for fault in bench.grid.FAULTS
        for cell in track(1, fault)
    ]
    assert len({cell.hash for cell in every}) == len(every)
    keep = bench.cells.Cell("weight", 1, "annotator", 0.2, "held_out_loss", "keep", 0.8)
    soften = bench.cells.Cell("weight", 1, "annotator", 0.2, "", "soften", 0.8)
    before = keep.hash, soften.hash
    assert dataclasses.replace(keep, strength=0.9).hash != keep.hash
    # `keep` calls `kept`; `soften` does not
    monkeypatch.setitem(bench.cells._POLICIES, "kept", bench.cells._POLICIES["mixture"])
    monkeypatch.setattr(bench.cells, "_code", bench.cells._code.__wrapped__)
    assert keep.hash != before[0]
    assert soften.hash == before[1]


def test_every_track_is_of_twenty_cells_at_least(bench: SimpleNamespace) -> None:
    for track in bench.grid.TRACKS.values():
        shops = bench.grid.REPORTED[:3]
        assert (
            sum(1 for shop in shops for fault in bench.grid.FAULTS for _ in track(shop, fault))
            >= 20
        )


def test_what_is_chosen_without_the_truth(bench: SimpleNamespace) -> None:
    plain = {"validation": [0.5, 0.6, None, 0.7]}
    better = {"validation": [0.6, 0.7, None, 0.8]}
    luckier = {"validation": [0.5, 0.6, None, 1.2]}  # higher, but by one query: t = 1
    chosen = bench.summary.chosen
    assert chosen({"one": better}, plain, 1.0) == "one"
    assert chosen({"one": better, "other": luckier}, plain, 0.9) == "other"
    assert chosen({"one": better, "other": luckier}, plain, 2.0) is None
    assert chosen({"one": plain}, plain, 0.0) is None
    assert chosen({}, plain, 1.0) is None


def test_the_share_that_is_closed(bench: SimpleNamespace) -> None:
    gains, headrooms = np.array([0.01, 0.02, 0.03]), np.array([0.04, 0.04, 0.05])
    found = bench.summary.ratio(gains, headrooms)
    assert found["value"] == pytest.approx(0.06 / 0.13, abs=1e-4)
    assert found["low"] <= found["value"] <= found["high"]
    # of equal headrooms it is Student's interval of the gains; of gains in proportion it is a point
    even = bench.summary.ratio(gains, np.full(3, 0.04))
    interval = stats.ttest_1samp(gains / 0.04, 0).confidence_interval(0.95)
    assert [even["low"], even["high"]] == pytest.approx([interval.low, interval.high], abs=1e-4)
    half = bench.summary.ratio(headrooms / 2, headrooms)
    assert half == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5}, abs=1e-4)
    assert bench.summary.ratio(gains, np.array([0.04, -0.04, 0.0])) is None


def test_the_datamodelling_score_is_spearmans(bench: SimpleNamespace) -> None:
    rng = np.random.default_rng(2)
    predicted, found = rng.normal(size=(12, 5)), rng.integers(4, size=(12, 5)).astype(float)
    expected = [
        stats.spearmanr(*columns).statistic for columns in zip(predicted.T, found.T, strict=True)
    ]
    score = bench.attribute.datamodelling(predicted, found)
    np.testing.assert_allclose(score, np.mean(expected), rtol=1e-12)


def test_guards_weigh_the_negatives(bench: SimpleNamespace) -> None:
    of = bench.negatives
    cosines = np.array([[0.8, 0.79, 0.1], [0.2, 0.5, 0.3], [0.0, 0.1, 0.9]])
    queries = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    known, false = 1 - np.eye(3), np.zeros((3, 3), bool)
    false[0, 2] = True
    batch = of.Batch(*map(jnp.asarray, (cosines, queries, known, false, cosines.T)), None)

    def weights(guard: str, strength: float) -> np.ndarray:
        return np.asarray(of.GUARDS[guard](batch, strength))

    np.testing.assert_array_equal(weights("known", 0), known)
    np.testing.assert_array_equal(weights("oracle", 0), known * ~false)
    assert weights("below", 0.9)[0].tolist() == [0, 0, 1]
    assert weights("below_taught", 0.9)[1].tolist() == [0, 0, 1]
    np.testing.assert_allclose(weights("agreement", 3)[0], [0, np.exp(-3 * 0.6), 1], rtol=1e-6)
    # of two negatives with shares a > b the clipped one weighs (a + b) / 2a
    share = np.exp((cosines[0, 1:] - 1) / of.TEMPERATURE)
    np.testing.assert_allclose(weights("clipped", 1)[0, 1], share.mean() / share[0], rtol=1e-5)
    np.testing.assert_allclose(weights("clipped", 1)[0, 2], 1)


def test_recall_is_of_as_many_as_fit(bench: SimpleNamespace) -> None:
    wanted = np.array([[True, False, False, True], [True, True, True, False]])
    top = np.array([[3, 1, 0], [3, 0, 1]])
    assert bench.negatives.recall(top, wanted, 1) == 1 / 2
    assert bench.negatives.recall(top, wanted, 2) == np.mean([1 / 2, 1 / 2])
    assert bench.negatives.recall(top, wanted, 3) == np.mean([2 / 2, 2 / 3])


def test_departments_weigh_alike(bench: SimpleNamespace) -> None:
    row = np.arange(12).reshape(6, 2)
    lists = bench.shops.Lists(*[np.zeros((6, 2), int)] * 9)._replace(
        row=row, mask=np.ones((6, 2), bool)
    )
    shop = SimpleNamespace(judged=SimpleNamespace(query=np.arange(12) // 2), seed=0, train=lists)
    world = SimpleNamespace(department=np.array([0, 0, 0, 0, 1, 1]))
    seen = bench.departments.Departments(shop, world)
    vars(seen)["skewed"] = lists
    weights = bench.departments.by_department(seen, 1.0).weights
    np.testing.assert_allclose(weights[:4].sum(), weights[4:].sum(), rtol=1e-6)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)


def test_further_tracks_are_compared_with_their_reference(bench: SimpleNamespace) -> None:
    shops, gains = (1, 2, 3, 4), {1: 0.01, 2: 0.03, 3: 0.02, 4: 0.02}
    found = {
        cell: {"recall@10": 0.5 + gains[shop] * (cell.policy == "oracle"), "recall@100": 0.8}
        for shop in shops
        for cell in bench.grid.TRACKS["negatives"](shop, "none")
    }
    of = bench.summary.compared(found, shops, "negatives")
    others = 2 * (len(bench.further.ARMS["negatives"]) - 1)  # by either recall
    p = stats.ttest_1samp([*gains.values()], 0).pvalue
    less = of["arms"]["oracle"]["less_reference"]
    assert less["recall@10"]["value"] == pytest.approx(0.02)
    assert less["recall@10"]["holm"] == pytest.approx(others * p, abs=1e-5)
    assert less["recall@100"]["value"] == 0
    assert of["arms"]["everything"]["less_reference"] == {}
    found.popitem()
    assert bench.summary.compared(found, shops, "negatives")["shops"] == [1, 2, 3]
    assert bench.summary.compared(found, shops[2:], "negatives") == {}
