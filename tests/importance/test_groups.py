import numpy as np
import pyarrow as pa
import pytest

from sie_jax.importance import groups


def test_shares_lift_and_mean_score() -> None:
    column = pa.chunked_array([["a", "b"], [None, "a", ""]])
    weights = np.array([1.0, 4.0, 0.0, 3.0, 2.0])
    scores = np.array([1.0, 5.0, 2.0, 2.0, 6.0])
    table = groups.by_group(column, weights, scores)
    assert table.column_names == list(groups.COLUMNS)
    assert table.to_pydict() == {
        "group": ["b", "a", ""],
        "rows": [1, 2, 2],
        "share_of_rows": [1 / 5, 2 / 5, 2 / 5],
        "share_of_weight": [4 / 10, 4 / 10, 2 / 10],
        "lift": [(4 / 10) / (1 / 5), (4 / 10) / (2 / 5), (2 / 10) / (2 / 5)],
        "score": [5.0, (1 + 2) / 2, (2 + 6) / 2],
    }


def test_equal_weights_lift_nothing() -> None:
    column = pa.chunked_array([[f"g{i % 7}" for i in range(50)]])
    table = groups.by_group(column, np.ones(50, np.float32), np.zeros(50, np.float32))
    np.testing.assert_allclose(table["lift"], 1.0, rtol=1e-12)
    assert table["group"].to_pylist()[0] == "g0"  # 8 rows, then the name


def test_lengths_and_sum_are_checked() -> None:
    with pytest.raises(ValueError, match="2 groups"):
        groups.by_group(pa.chunked_array([["a", "b"]]), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="sum to 0"):
        groups.by_group(pa.chunked_array([["a"]]), np.zeros(1), np.ones(1))
