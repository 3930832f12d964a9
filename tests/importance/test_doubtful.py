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
    labels = np.where(query < 80, rng.integers(4, size=len(labels)), labels)
    # groups are in the order of their values, whatever these are
    names = np.array([f"q{one:03}" for one in query])
    for groups in (query, names):
        chance, share = doubtful.blind_groups(p, labels, groups)
        # of twelve pairs a few agree by chance: of a hundred queries hardly one is mistaken
        assert ((chance > 0.5) == (np.arange(400) < 80)).mean() > 0.99
        assert share == pytest.approx(0.2, abs=0.01)


def test_how_grades_are_distributed_says_nothing(pairs) -> None:
    """All items of a query irrelevant, or predicted alike: as likely blind as any other."""
    p, labels, query = pairs
    labels = np.where(query < 80, 0, labels)
    p = np.where((query % 80 < 40)[:, None], p, [0.1, 0.2, 0.3, 0.4])
    chance, share = doubtful.blind_groups(p, labels, query)
    same = (np.arange(400) < 80) | (np.arange(400) % 80 >= 40)
    np.testing.assert_allclose(chance[same], share, rtol=1e-6)
    assert share < 0.005


def test_the_ratio_is_that_of_all_permutations() -> None:
    p = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    labels, query = np.array([0, 1, 0]), np.zeros(3, int)
    # three different orders of (0, 1, 0) are equally likely
    orders = [(0, 1, 0), (1, 0, 0), (0, 0, 1)]
    mean = np.mean([np.prod(p[np.arange(3), list(order)]) for order in orders])
    expected = np.prod(p[np.arange(3), labels]) / mean
    found = np.exp(doubtful._log_ratio(np.log(p), labels, query)[0])
    # the mean of 200 draws of values between 0.05 and 0.4 of their sum
    assert found == pytest.approx(expected, rel=0.2)


def test_an_annotator_is_judged_by_all_of_his_queries(rng: np.random.Generator) -> None:
    query = np.repeat(np.arange(300), 3)  # too few pairs to tell by the query alone
    p = rng.dirichlet(np.full(4, 0.2), size=900)
    labels = (p.cumsum(-1) > rng.random((900, 1))).argmax(-1)
    who = np.array(list("abcdef"))[query % 6]
    labels = np.where(who == "c", rng.integers(4, size=900), labels)
    chance, share = doubtful.blind_groups(p, labels, query, who)
    np.testing.assert_allclose(chance, [0, 0, 1, 0, 0, 0], atol=1e-6)
    assert share == pytest.approx(1 / 6)


def test_a_seller_unlike_all_others_is_far_away(rng: np.random.Generator) -> None:
    seller = np.repeat(np.arange(40), 100)
    labels, query = rng.integers(4, size=4000), np.arange(4000)
    assert doubtful.outlying_groups(labels, seller, query).max() < doubtful.OUTLYING
    labels[seller == 7] = 3
    found = doubtful.outlying_groups(labels, seller, query)
    share = np.stack([(labels == k).reshape(40, 100).mean(1) for k in range(4)], 1)
    away = np.abs(share - np.median(share, 0))
    spread = 1.4826 * np.median(away, 0)
    usual = np.stack([(labels == k).mean() for k in range(4)])
    # each row is a query of its own, so that the error is that of a share of independent draws
    error = np.maximum(share * (1 - share) * 100 / 99, usual * (1 - usual)) / 100
    np.testing.assert_allclose(found, (away / np.sqrt(spread**2 + error)).max(1))
    assert found[7] > 1.5 * doubtful.OUTLYING
    assert np.delete(found, 7).max() < doubtful.OUTLYING


def test_rows_of_a_query_are_one_draw() -> None:
    """A brand that a query names is relevant there: a few such queries are no outlier."""
    seller, place = np.repeat(np.arange(40), 100), np.arange(4000)
    labels = (place % 2).astype(int)
    labels[seller == 7] = (np.arange(100) < 90).astype(int)
    of_ten = np.where(seller == 7, place // 10, place)  # one of ten queries has no relevant row
    far, near = (doubtful.outlying_groups(labels, seller, one)[7] for one in (place, of_ten))
    # of 90 % the standard error is 0.05 by rows, that of a half, and 0.1 by queries; t is 0
    assert far == pytest.approx(0.4 / 0.05, rel=1e-3)
    assert near == pytest.approx(0.4 / 0.1, rel=1e-3)
    of_two = np.where(seller == 7, place // 50, place)
    assert doubtful.outlying_groups(labels, seller, of_two)[7] == 0, "of too few queries"


def test_few_rows_or_few_sellers_say_nothing(rng: np.random.Generator) -> None:
    seller = np.repeat(np.arange(9), [29, *[100] * 8])
    labels = np.where(seller == 0, 3, rng.integers(4, size=len(seller)))
    query = np.arange(len(seller))
    found = doubtful.outlying_groups(labels, seller, query)
    assert found[0] == 0
    assert (found[1:] > 0).all()
    some = seller < 8  # seven of them have rows enough
    assert not doubtful.outlying_groups(labels[some], seller[some], query[some]).any()


def test_what_is_doubtful_of_a_pair(pairs, rng: np.random.Generator) -> None:
    p, labels, query = pairs
    seller = rng.integers(20, size=len(query))
    groups = doubtful.Groups(query, sellers=seller)
    assert not doubtful.doubtful_groups(p, labels, groups).any()
    labels = np.where(query < 80, rng.integers(4, size=len(labels)), labels)
    labels = np.where(seller == 5, 3, labels)
    found = doubtful.doubtful_groups(p, labels, groups)
    chance = doubtful.blind_groups(p, labels, query).chance[query]
    np.testing.assert_array_equal(found, np.where(seller == 5, 1, chance))
    alone = doubtful.doubtful_groups(p, labels, doubtful.Groups(query, annotators=query // 2))
    halved = doubtful.blind_groups(p, labels, query, query // 2).chance[query // 2]
    np.testing.assert_array_equal(alone, halved)


def test_shapes_that_do_not_fit(pairs) -> None:
    p, labels, query = pairs
    with pytest.raises(ValueError, match="queries"):
        doubtful.blind_groups(p, labels, query[1:])
    with pytest.raises(ValueError, match="one row"):
        doubtful.blind_groups(p[:0], labels[:0], query[:0])
    with pytest.raises(ValueError, match="groups"):
        doubtful.outlying_groups(labels, query[1:], query)
