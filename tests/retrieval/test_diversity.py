import numpy as np

from sie_jax.retrieval import diversity

VECTORS = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
SCORES = np.array([4.0, 3.0, 2.0, 0.0])


def test_each_place_goes_to_the_highest_marginal_relevance() -> None:
    share, relevance = 0.4, (SCORES - 0) / 4
    order, likeness = diversity.marginal(SCORES, VECTORS, share=share, depth=4)
    left, above = [1, 2, 3], [0]
    for place in range(1, 4):
        nearest = {one: max(VECTORS[one] @ VECTORS[j] for j in above) for one in left}
        best = max(left, key=lambda one: (1 - share) * relevance[one] - share * nearest[one])
        assert order[place] == best
        assert np.isclose(likeness[place], nearest[best])
        left.remove(best)
        above.append(best)
    assert order[0] == 0
    assert likeness[0] == 0
    assert order.tolist() != [0, 1, 2, 3]  # the twin of the first gives way


def test_without_a_share_the_order_stays() -> None:
    order, _ = diversity.marginal(SCORES, VECTORS, share=0.0, depth=3)
    assert order.tolist() == [0, 1, 2]
    equal, _ = diversity.marginal(np.zeros(4), VECTORS, share=0.5, depth=9)
    assert equal.tolist() == [0, 3, 2, 1]


def test_unlike_within_a_list() -> None:
    lists = np.array([[0, 1, -1], [0, 3, -1], [2, -1, -1]])
    assert np.isclose(diversity.within(lists, VECTORS), (0 + 1) / 2)
    assert np.isnan(diversity.within(lists[2:], VECTORS))
