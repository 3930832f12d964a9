import numpy as np

from sie_jax.stages.converse import by_need


def test_chats_that_end_in_the_same_items_count_once() -> None:
    values = np.array([1.0, 0.0, 0.5, 0.5])
    found = by_need(values, [[3, 5], [5, 3], [3], [7]])
    assert sorted(found.tolist()) == [0.5, 0.5, 0.5]
    assert by_need(values, [[1], [2], [3], [4]]).tolist() == values.tolist()
