import numpy as np
import pytest

from sie_jax.data import folds as crossfit


def test_a_query_is_in_one_fold_and_folds_are_even() -> None:
    queries = [f"q{i % 23}" for i in range(200)]
    fold = crossfit.assign(queries, folds=5, seed=0)
    of_query: dict[str, set[int]] = {}
    for query, number in zip(queries, fold, strict=True):
        of_query.setdefault(query, set()).add(int(number))
    assert all(len(numbers) == 1 for numbers in of_query.values())
    sizes = np.bincount([numbers.pop() for numbers in of_query.values()], minlength=5)
    assert sorted(sizes) == [4, 4, 5, 5, 5]  # 23 queries


def test_the_seed_makes_a_difference_and_the_order_of_rows_does_not() -> None:
    queries = np.array([f"q{i % 40}" for i in range(120)])
    order = np.random.default_rng(1).permutation(120)
    fold = crossfit.assign(queries, folds=4, seed=0)
    np.testing.assert_array_equal(crossfit.assign(queries[order], folds=4, seed=0), fold[order])
    assert (crossfit.assign(queries, folds=4, seed=1) != fold).any()


@pytest.mark.parametrize("folds", [1, 4])
def test_too_few_queries_or_folds(folds: int) -> None:
    with pytest.raises(ValueError, match="folds of 3 queries"):
        crossfit.assign(["a", "b", "c", "c"], folds=folds, seed=0)
