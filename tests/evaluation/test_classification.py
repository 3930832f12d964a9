"""Classification metrics against loops over pairs and scikit-learn's definitions by hand."""

import numpy as np
import pytest

from sie_jax.evaluation import classification


def random_pairs(seed, *, num_pairs=200, num_queries=7, num_classes=4):
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_pairs)
    predictions = np.where(
        generator.random(num_pairs) < 0.5, labels, generator.integers(num_classes, size=num_pairs)
    )
    return labels, predictions, generator.integers(num_queries, size=num_pairs)


def test_confusion_counts_every_pair_in_its_cell():
    labels, predictions, query_index = random_pairs(0)
    expected = np.zeros((8, 4, 4), np.int64)
    for q, i, j in zip(query_index, labels, predictions, strict=True):
        expected[q, i, j] += 1
    actual = classification.confusion_per_query(
        labels, predictions, query_index, num_queries=8, num_classes=4
    )
    assert actual.dtype == np.int64
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("bad", ["labels", "predictions", "query_index"])
@pytest.mark.parametrize("value", [-1, 2])
def test_confusion_refuses_values_out_of_range(bad, value):
    arrays = {name: np.array([0, 1]) for name in ("labels", "predictions", "query_index")}
    arrays[bad] = np.array([0, value])
    with pytest.raises(ValueError, match=rf"^{bad} must lie in \[0, 2\)$"):
        classification.confusion_per_query(**arrays, num_queries=2, num_classes=2)


def reference(labels, predictions, num_classes):
    """Precision, recall and F1 of each class by comparing pair by pair."""
    precision, recall, f1 = [], [], []
    for k in range(num_classes):
        hits = sum(1 for i, j in zip(labels, predictions, strict=True) if i == j == k)
        true = sum(1 for i in labels if i == k)
        predicted = sum(1 for j in predictions if j == k)
        precision.append(hits / predicted if predicted else 0.0)
        recall.append(hits / true if true else 0.0)
        f1.append(2 * hits / (true + predicted) if true + predicted else 0.0)
    return precision, recall, f1


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_a_loop(seed):
    labels, predictions, query_index = random_pairs(seed)
    confusion = classification.confusion_per_query(
        labels, predictions, query_index, num_queries=7, num_classes=4
    ).sum(0)
    actual = classification.metrics(confusion, ["I", "C", "S", "E"])
    precision, recall, f1 = reference(labels, predictions, 4)
    accuracy = np.mean(labels == predictions)
    assert actual["accuracy"] == pytest.approx(accuracy)
    assert actual["micro_f1"] == pytest.approx(accuracy)
    assert actual["macro_f1"] == pytest.approx(np.mean(f1))
    for k, name in enumerate("ICSE"):
        assert actual[f"precision_{name}"] == pytest.approx(precision[k])
        assert actual[f"recall_{name}"] == pytest.approx(recall[k])


def test_leading_axes_are_batch_axes():
    labels, predictions, query_index = random_pairs(1)
    confusion = classification.confusion_per_query(
        labels, predictions, query_index, num_queries=6 + 1, num_classes=4
    )[:6]
    batched = classification.metrics(confusion.reshape(2, 3, 4, 4), "ICSE")
    for q in range(6):
        for name, value in classification.metrics(confusion[q], "ICSE").items():
            assert batched[name].shape == (2, 3)
            assert batched[name][divmod(q, 3)] == value


def test_zero_over_zero_is_zero_and_no_pairs_are_nan():
    # Class 2 is never true and never predicted; class 1 is true once and never predicted.
    values = classification.metrics(np.array([[3, 0, 0], [1, 0, 0], [0, 0, 0]]), "abc")
    assert values["precision_a"] == 3 / 4
    assert values["recall_a"] == 1
    for name in ("precision_b", "recall_b", "precision_c", "recall_c"):
        assert values[name] == 0
    assert values["macro_f1"] == pytest.approx((2 * 3 / (4 + 3) + 0 + 0) / 3)
    assert all(np.isnan(v) for v in classification.metrics(np.zeros((3, 3)), "abc").values())


def test_metrics_refuse_a_matrix_of_another_size():
    with pytest.raises(ValueError, match="must end in"):
        classification.metrics(np.zeros((5, 3, 3)), "ab")
