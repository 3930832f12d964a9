import numpy as np
import pytest

from sie_jax.importance import doubtful


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.fixture
def pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """400 queries of 12 to 15 pairs, whose labels are drawn from the predictions."""
    query = np.repeat(np.arange(400), rng.integers(12, 16, 400))
    p = rng.dirichlet(np.full(4, 0.2), size=len(query))
    labels = (p.cumsum(-1) > rng.random((len(query), 1))).argmax(-1)
    return p, labels, query


def test_labels_given_blindly_show_by_query(pairs, rng: np.random.Generator) -> None:
    p, labels, query = pairs
    chance, share = doubtful.blind_groups(p, labels, query)
    assert share < 0.005
    assert (chance < 0.5).all()
    blind = query < 80
    labels = np.where(blind, rng.integers(4, size=len(labels)), labels)
    # groups are in the order of their values, whatever these are
    names = np.array([f"q{one:03}" for one in query])
    for groups in (query, names):
        chance, share = doubtful.blind_groups(p, labels, groups)
        # of twelve pairs a few agree by chance: of a hundred queries hardly one is mistaken
        assert ((chance > 0.5) == (np.arange(400) < 80)).mean() > 0.99
        assert share == pytest.approx(0.2, abs=0.01)


def test_the_chance_is_that_of_bayes(pairs) -> None:
    """One round more changes nothing: π and q are those of the chances that they give."""
    p, labels, query = pairs
    labels = np.where(query < 80, 2, labels)  # one grade for all: a distribution of its own
    chance, share = doubtful.blind_groups(p, labels, query)
    q = 1 + np.bincount(labels, chance[query], 4)
    q /= q.sum()
    looked = np.log(np.maximum(p[np.arange(len(p)), labels], 1e-4))
    log_odds = np.bincount(query, (np.log(q)[labels] - looked) / 2)
    expected = 1 / (1 + (1 - share) / share * np.exp(-log_odds))
    np.testing.assert_allclose(chance, expected, atol=1e-6)
    assert share == pytest.approx(chance.mean())
    assert q[2] > 0.95


def test_a_seller_unlike_all_others_is_far_away(rng: np.random.Generator) -> None:
    seller = np.repeat(np.arange(40), 100)
    labels = rng.integers(4, size=4000)
    assert doubtful.outlying_groups(labels, seller).max() < doubtful.OUTLYING
    labels[seller == 7] = 3
    found = doubtful.outlying_groups(labels, seller)
    share = np.stack([(labels == k).reshape(40, 100).mean(1) for k in range(4)], 1)
    middle = np.median(share, 0)
    spread = 1.4826 * np.median(np.abs(share - middle), 0)
    deviation = np.sqrt(spread**2 + middle * (1 - middle) / 100)
    np.testing.assert_allclose(found, (np.abs(share - middle) / deviation).max(1))
    assert found[7] > 1.5 * doubtful.OUTLYING
    assert np.delete(found, 7).max() < doubtful.OUTLYING


def test_few_rows_or_few_sellers_say_nothing(rng: np.random.Generator) -> None:
    seller = np.repeat(np.arange(9), [29, *[100] * 8])
    labels = np.where(seller == 0, 3, rng.integers(4, size=len(seller)))
    found = doubtful.outlying_groups(labels, seller)
    assert found[0] == 0
    assert (found[1:] > 0).all()
    some = seller < 8  # seven of them have rows enough
    assert not doubtful.outlying_groups(labels[some], seller[some]).any()


def test_what_is_doubtful_of_a_pair(pairs, rng: np.random.Generator) -> None:
    p, labels, query = pairs
    seller = rng.integers(20, size=len(query))
    assert not doubtful.doubtful_groups(p, labels, doubtful.Groups(query, seller)).any()
    labels = np.where(query < 80, rng.integers(4, size=len(labels)), labels)
    labels = np.where(seller == 5, 3, labels)
    found = doubtful.doubtful_groups(p, labels, doubtful.Groups(query, seller))
    chance = doubtful.blind_groups(p, labels, query).chance[query]
    np.testing.assert_array_equal(found, np.where(seller == 5, 1, chance))
    np.testing.assert_array_equal(
        doubtful.doubtful_groups(p, labels, doubtful.Groups(query)), chance
    )


def test_shapes_that_do_not_fit(pairs) -> None:
    p, labels, query = pairs
    with pytest.raises(ValueError, match="groups"):
        doubtful.blind_groups(p, labels, query[1:])
    with pytest.raises(ValueError, match="one row"):
        doubtful.blind_groups(p[:0], labels[:0], query[:0])
    with pytest.raises(ValueError, match="groups"):
        doubtful.outlying_groups(labels, query[1:])
