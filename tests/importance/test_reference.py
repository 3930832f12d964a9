"""Reference scores equal loops written from the papers, all subsets, and the authors' package."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint, estimate_joint, get_confident_thresholds
from cleanlab.filter import find_label_issues

from sie_jax.importance import reference
from sie_jax.importance.reference import (
    confident_learning,
    knn_shapley,
    out_of_fold_loss,
    query_agreement,
    reducible_loss,
)

ROWS = 60


def _data(seed: int = 0, classes: int = 4, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Labels with a third wrong, probabilities that lean to the truth, embeddings, queries."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=rows)
    labels = np.where(rng.random(rows) < 1 / 3, rng.integers(classes, size=rows), truth)
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {
        "labels": labels,
        "probabilities": probabilities,
        "embeddings": rng.normal(size=(rows, 3)),
        "queries": rng.integers(max(1, rows // 5), size=rows),
        "loss": rng.exponential(size=rows),
        "holdout_loss": rng.exponential(size=rows),
    }


def _targets(seed: int = 1) -> dict[str, Any]:
    targets = _data(seed, rows=7)
    return {
        "target_embeddings": targets["embeddings"],
        "target_labels": targets["labels"],
        "neighbours": 3,
    }


# Each score of the family, by name, as a function of _data().
SCORES: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {
    "reducible_loss": lambda d: reducible_loss(d["loss"], d["holdout_loss"]),
    "out_of_fold_loss": lambda d: out_of_fold_loss(d["probabilities"], d["labels"]),
    "confident_learning": lambda d: confident_learning(d["labels"], d["probabilities"]).score,
    "knn_shapley": lambda d: knn_shapley(d["embeddings"], d["labels"], **_targets()),
    "query_agreement": lambda d: query_agreement(
        d["embeddings"], d["labels"], d["queries"], num_classes=4
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_finite_wide_and_follow_their_examples(name: str) -> None:
    data = _data()
    before = {key: values.copy() for key, values in data.items()}
    scores = SCORES[name](data)
    assert scores.shape == (ROWS,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert all(np.array_equal(data[key], before[key]) for key in data)
    order = np.random.default_rng(2).permutation(ROWS)
    reordered = SCORES[name]({key: values[order] for key, values in data.items()})
    # sums over examples in another order, of at most ROWS terms of about 1
    np.testing.assert_allclose(reordered, scores[order], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", SCORES)
def test_float32_and_narrow_labels_give_the_same_to_their_own_precision(name: str) -> None:
    data = _data()
    narrow = {
        key: values.astype(np.float32 if values.dtype == np.float64 else np.int8)
        for key, values in data.items()
    }
    # float32 has 6e-8 of each input, of about 1; nothing amplifies it but the temperature, by 10
    np.testing.assert_allclose(SCORES[name](narrow), SCORES[name](data), rtol=1e-5, atol=1e-5)


def test_reducible_loss_is_high_for_what_is_learnable_and_not_yet_learned() -> None:
    learnable, noise, redundant, by_heart = 0, 1, 2, 3
    scores = reducible_loss(np.array([2.0, 3.0, 0.1, 0.1]), np.array([0.1, 3.0, 0.1, 3.0]))
    np.testing.assert_array_equal(scores, [2.0 - 0.1, 0.0, 0.0, 0.1 - 3.0])
    assert scores[learnable] > scores[noise] == scores[redundant] > scores[by_heart]
    with pytest.raises(ValueError, match=r"losses \(3,\) for holdout losses \(4,\)"):
        reducible_loss(np.zeros(3), np.zeros(4))


def test_out_of_fold_loss_is_the_log_loss_and_finite_at_0() -> None:
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0], [1.0, 0.0], [1.0, 1e-200]])
    losses = out_of_fold_loss(probabilities, np.array([1, 0, 1, 1]))
    floor = 126 * math.log(2)
    # a logarithm is right to a unit in the last place
    np.testing.assert_allclose(losses, [-math.log(0.75), 0.0, floor, floor], rtol=1e-15)
    assert not np.signbit(losses).any()


def _confident_learning(labels: list[int], p: list[list[float]]) -> dict[str, Any]:
    """Equations 1 to 3 of the paper in loops; every class has a label and a confident example."""
    classes = range(len(p[0]))
    t = [np.mean([row[j] for row, y in zip(p, labels, strict=True) if y == j]) for j in classes]
    joint = [[0 for _ in classes] for _ in classes]
    off = []
    for y, row in zip(labels, p, strict=True):
        reached = [j for j in classes if row[j] >= t[j]]
        if reached:
            joint[y][max(reached, key=lambda j: row[j])] += 1
        off.append(bool(reached) and max(reached, key=lambda j: row[j]) != y)
    calibrated = [[joint[i][j] / sum(joint[i]) * labels.count(i) for j in classes] for i in classes]
    total = sum(map(sum, calibrated))
    return {
        "thresholds": t,
        "confident_joint": joint,
        "joint": [[value / total for value in row] for row in calibrated],
        "off_diagonal": off,
    }


@pytest.mark.parametrize("seed", range(4))
def test_confident_learning_equals_the_paper(seed: int) -> None:
    # With two classes, the most probable of several reached is the most probable of all.
    data = _data(seed, classes=2)
    labels, p = data["labels"], data["probabilities"]
    found = confident_learning(labels, p)
    expected = _confident_learning(labels.tolist(), p.tolist())
    np.testing.assert_array_equal(found.confident_joint, expected["confident_joint"])
    # means and quotients of sums of ROWS terms
    np.testing.assert_allclose(found.thresholds, expected["thresholds"], rtol=1e-13)
    np.testing.assert_allclose(found.joint, expected["joint"], rtol=1e-13, atol=1e-16)
    given, other = p[np.arange(ROWS), labels], p[np.arange(ROWS), 1 - labels]
    suspected = np.array(expected["off_diagonal"]) & (other > given)
    assert 0 < suspected.sum() < ROWS
    np.testing.assert_array_equal(found.suspected, suspected)
    np.testing.assert_allclose(found.score, suspected + (1 + other - given) / 2, rtol=1e-13)


@pytest.mark.parametrize("missing", [False, True], ids=["all classes", "a class without labels"])
@pytest.mark.parametrize("classes", [3, 4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_confident_learning_agrees_with_cleanlab(seed: int, classes: int, missing: bool) -> None:
    data = _data(seed, classes, rows=300)
    labels, p = data["labels"], data["probabilities"]
    if missing:
        labels = np.where(labels == 1, 0, labels)
    found = confident_learning(labels, p)
    labelled = np.isin(np.arange(classes), labels)
    np.testing.assert_allclose(
        found.thresholds[labelled], get_confident_thresholds(labels, p)[labelled], rtol=1e-13
    )
    assert np.isinf(found.thresholds[~labelled]).all()
    np.testing.assert_array_equal(
        found.confident_joint, compute_confident_joint(labels, p, calibrate=False)
    )
    # the package rounds the calibrated counts to whole examples, up or down
    assert (300 * np.abs(found.joint - estimate_joint(labels, p)) < 1 + 1e-9).all()
    np.testing.assert_allclose(
        300 * found.joint.sum(axis=1), np.bincount(labels, minlength=classes), rtol=1e-13
    )
    issues = find_label_issues(labels, p, filter_by="confident_learning", n_jobs=1)
    assert issues.any()
    np.testing.assert_array_equal(found.suspected, issues)
    ranked = find_label_issues(
        labels,
        p,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    np.testing.assert_array_equal(np.argsort(-found.score, kind="stable")[: len(ranked)], ranked)


def test_confident_learning_counts_for_the_most_probable_of_all_as_cleanlab_does() -> None:
    # the last reaches t_1 = t_2 = 0.2 but not t_0 = 0.9; the paper would count it for class 1
    p = np.array([[0.9, 0.05, 0.05], [0.7, 0.2, 0.1], [0.72, 0.1, 0.18], [0.5, 0.28, 0.22]])
    labels = np.array([0, 1, 2, 2])
    found = confident_learning(labels, p)
    np.testing.assert_allclose(found.thresholds, [0.9, 0.2, 0.2], rtol=1e-13)
    assert found.confident_joint[2].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(
        found.confident_joint, compute_confident_joint(labels, p, calibrate=False)
    )


def test_the_suspected_rank_first() -> None:
    data = _data()
    found = confident_learning(data["labels"], data["probabilities"])
    assert ((found.score > 1) == found.suspected).all()
    assert found.score.min() >= 0
    assert found.score.max() <= 2


def test_certain_and_equal_probabilities_are_no_trouble() -> None:
    certain = confident_learning(np.array([0, 1, 0]), np.array([[1.0, 0], [0, 1.0], [0, 1.0]]))
    assert certain.suspected.tolist() == [False, False, True]
    assert certain.score.tolist() == [0.0, 0.0, 2.0]
    # all equal: the mean, rounded, is reached, and nobody is suspected
    equal = confident_learning(np.array([0, 1, 2] * 10), np.full((30, 3), 1 / 3))
    assert not equal.suspected.any()


def _shapley(worth: Callable[[tuple[int, ...]], float], players: int) -> list[float]:
    """The Shapley value from its definition, over all subsets."""
    values = []
    for player in range(players):
        others = [other for other in range(players) if other != player]
        value = 0.0
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1)
            for subset in itertools.combinations(others, size):
                value += weight * (worth((*subset, player)) - worth(subset))
        values.append(value / math.factorial(players))
    return values


def _share_of_votes(
    subset: tuple[int, ...], distances: np.ndarray, right: np.ndarray, neighbours: int
) -> float:
    nearest = sorted(subset, key=lambda player: (distances[player], player))[:neighbours]
    return sum(bool(right[player]) for player in nearest) / neighbours


@pytest.mark.parametrize("neighbours", [1, 2, 5, 9])
@pytest.mark.parametrize("rows", [1, 2, 5, 7])
def test_knn_shapley_is_the_shapley_value_over_all_subsets(rows: int, neighbours: int) -> None:
    data, targets = _data(rows, classes=2, rows=rows), _data(9, classes=2, rows=3)
    values = knn_shapley(
        data["embeddings"],
        data["labels"],
        targets["embeddings"],
        targets["labels"],
        neighbours=neighbours,
    )
    expected = []
    for point, label in zip(targets["embeddings"], targets["labels"], strict=True):
        distances = np.linalg.norm(data["embeddings"] - point, axis=1)
        right = data["labels"] == label

        def worth(
            subset: tuple[int, ...], distances: np.ndarray = distances, right: np.ndarray = right
        ) -> float:
            return _share_of_votes(subset, distances, right, neighbours)

        expected.append(_shapley(worth, rows))
    # at most 2^6 terms of at most 1
    np.testing.assert_allclose(values, np.mean(expected, axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cells", [1, 2 * ROWS, 10_000])
def test_knn_shapley_takes_targets_in_parts_and_sums_to_the_worth_of_all(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, targets = _data(), _targets()
    whole = knn_shapley(data["embeddings"], data["labels"], **targets)
    monkeypatch.setattr(reference, "_CELLS", cells)
    values = knn_shapley(data["embeddings"], data["labels"], **targets)
    # distances that differ in the last place keep their order here: no two are equal
    np.testing.assert_allclose(values, whole, rtol=1e-12, atol=1e-15)
    everyone = tuple(range(ROWS))
    worth = [
        _share_of_votes(
            everyone,
            np.linalg.norm(data["embeddings"] - point, axis=1),
            data["labels"] == label,
            targets["neighbours"],
        )
        for point, label in zip(targets["target_embeddings"], targets["target_labels"], strict=True)
    ]
    np.testing.assert_allclose(values.sum(), np.mean(worth), rtol=1e-12)


def test_knn_shapley_is_negative_for_a_wrong_label_among_right_ones() -> None:
    # two clusters, and a wrong label in the midst of the first; whole numbers, so distances tie
    points = np.array([[0], [1], [0], [10], [11], [12]])
    labels = np.array([0, 0, 1, 1, 1, 1])
    values = knn_shapley(points, labels, np.array([[0], [11]]), np.array([0, 1]), neighbours=1)
    assert values.argmin() == 2
    assert values[2] < 0 < values[0]
    # the earlier of the two at distance 0 votes: for the first target 0 alone is right
    assert values.sum() == pytest.approx(1.0, rel=1e-12)


def _agreement(d: dict[str, np.ndarray], example: int, classes: int, temperature: float) -> float:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / math.sqrt((a @ a) * (b @ b))) if a.any() and b.any() else 0.0

    kernel, disagreement = 0.0, 0.0
    for other in range(len(d["labels"])):
        if other != example and d["queries"][other] == d["queries"][example]:
            e = d["embeddings"]
            k = math.exp(cosine(e[example], e[other]) / temperature)
            kernel += k
            disagreement += k * abs(int(d["labels"][example]) - int(d["labels"][other]))
    return 1 - disagreement / ((classes - 1) * kernel) if kernel else 1.0


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_query_agreement_equals_a_loop(classes: int, temperature: float) -> None:
    data = _data(3, classes)
    data["queries"][0] = 1000  # a query of one item
    data["embeddings"][5] = 0
    scores = query_agreement(
        data["embeddings"],
        data["labels"],
        data["queries"],
        num_classes=classes,
        temperature=temperature,
    )
    expected = [_agreement(data, example, classes, temperature) for example in range(ROWS)]
    # exp multiplies the cosine's error, some 1e-16, by at most 1/0.05
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-13)
    assert scores[0] == 1.0
    named = np.array([f"q{query}" for query in data["queries"]])
    again = query_agreement(
        data["embeddings"], data["labels"], named, num_classes=classes, temperature=temperature
    )
    np.testing.assert_allclose(again, scores, rtol=1e-12, atol=1e-13)


def test_query_agreement_hears_the_most_similar_item_and_grades_by_distance() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.01], [-1.0, 0.0]])
    for near, far, expected in ((3, 0, 1.0), (2, 0, 2 / 3), (0, 3, 0.0)):
        scores = query_agreement(
            embeddings, np.array([3, near, far]), np.zeros(3), num_classes=4, temperature=1e-4
        )
        # the other item's share is exp(−2/τ) = 0 in float64
        np.testing.assert_allclose(scores[0], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("function", ["out_of_fold_loss", "confident_learning"])
@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("labels", 4, r"1 labels are outside \[0, 4\), the first is 4 of example 7"),
        ("labels", -1, "the first is -1 of example 7"),
        ("probabilities", np.nan, r"1 examples have probabilities outside .*, the first is 7"),
        ("probabilities", 1.1, "give the softmax"),
        ("probabilities", -0.1, "give the softmax"),
    ],
)
def test_broken_probabilities_and_labels(function: str, place: str, value: Any, words: str) -> None:
    data = _data()
    data[place][7] = value
    with pytest.raises(ValueError, match=words):
        SCORES[function](data)


@pytest.mark.parametrize("function", ["out_of_fold_loss", "confident_learning"])
def test_lengths_of_probabilities_and_labels(function: str) -> None:
    data = _data()
    data["labels"] = data["labels"][1:]
    with pytest.raises(ValueError, match=r"probabilities \(60, 4\) for labels \(59,\)"):
        SCORES[function](data)


@pytest.mark.parametrize("shape", [(0, 3), (5, 1)])
def test_confident_learning_needs_examples_and_classes(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="give one example and two classes or more"):
        confident_learning(np.zeros(shape[0], int), np.ones(shape))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"neighbours": 0}, "neighbours is 0; give 1 or more"),
        ({"labels": np.zeros(3, int)}, r"with labels \(3,\)"),
        ({"target_embeddings": np.zeros((7, 2))}, r"target_embeddings \(7, 2\) with"),
        ({"embeddings": np.full((ROWS, 3), np.inf)}, "60 embeddings are not finite"),
        (
            {"target_embeddings": np.zeros((0, 3)), "target_labels": np.zeros(0, int)},
            "give one example and one target or more",
        ),
    ],
)
def test_arguments_of_knn_shapley(change: dict[str, Any], words: str) -> None:
    data = _data()
    arguments = {"embeddings": data["embeddings"], "labels": data["labels"], **_targets()}
    with pytest.raises(ValueError, match=words):
        knn_shapley(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 3}, r"labels are outside \[0, 3\)"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"queries": np.zeros(3)}, r"queries \(3,\)"),
        ({"embeddings": np.full((ROWS, 3), np.nan)}, "60 embeddings are not finite"),
    ],
)
def test_arguments_of_query_agreement(change: dict[str, Any], words: str) -> None:
    data = _data()
    arguments = {key: data[key] for key in ("embeddings", "labels", "queries")}
    with pytest.raises(ValueError, match=words):
        query_agreement(**{**arguments, "num_classes": 4, **change})
