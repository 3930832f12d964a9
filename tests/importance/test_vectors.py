import numpy as np
import pyarrow as pa
import pytest

from sie_jax.importance import vectors


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_what_goes_in_comes_out(dtype) -> None:
    values = np.arange(12).reshape(4, 3).astype(dtype)
    column = vectors.as_column(values)
    assert len(column) == 4
    back = vectors.as_array(column)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, values)
    chunked = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    np.testing.assert_array_equal(vectors.as_array(chunked), values)


def test_no_vectors_keep_their_length() -> None:
    assert vectors.as_array(vectors.as_column(np.zeros((0, 3)))).shape == (0, 3)


def test_plain_numbers_stay_plain() -> None:
    np.testing.assert_array_equal(vectors.as_array(pa.array([1.5, 2.5])), [1.5, 2.5])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \[N, D\]"):
        vectors.as_column(np.zeros(3))
