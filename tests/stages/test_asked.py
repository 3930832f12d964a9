import numpy as np

from sie_jax.stages.asked import Asked

LISTS = np.array([[4, 1, 7], [2, 9, -1]])


def asked(*, complete: bool) -> Asked:
    """Query 0 wants item 4 and finds 1 a substitute; item 9 is known to be nothing to query 1."""
    return Asked(
        ["a", "b"], np.array([0, 0, 1]), np.array([4, 1, 9]), np.array([3, 2, 0]), 4, complete
    )


def test_places_have_the_grade_of_their_judgment() -> None:
    found = asked(complete=False)
    assert found.labels(LISTS, other=-1).tolist() == [[3, 2, -1], [-1, 0, -1]]
    assert asked(complete=True).labels(LISTS, other=-1).tolist() == [[3, 2, 0], [0, 0, 0]]
    empty = Asked(["a", "b"], *(np.empty(0, np.int64) for _ in range(3)), 4, False)
    assert empty.labels(LISTS, other=-1).tolist() == [[-1] * 3] * 2


def test_wanted_is_the_highest_grade_and_gains_are_of_all() -> None:
    found = asked(complete=False)
    assert found.wanted.item.tolist() == [4]
    assert found.counted.tolist() == [True, False]
    gained = found.gained((0.0, 0.01, 0.1, 1.0))
    assert gained.gain is not None
    assert dict(zip(gained.item.tolist(), gained.gain.tolist(), strict=True)) == {4: 1.0, 1: 0.1}


def test_unjudged_is_the_share_of_places_that_nobody_judged() -> None:
    assert asked(complete=False).unjudged(LISTS, 3) == 2 / 5
    assert asked(complete=True).unjudged(LISTS, 3) == 0.0
