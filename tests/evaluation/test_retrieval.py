import ir_measures
import numpy as np
import pytest

from sie_jax.evaluation import retrieval
from sie_jax.evaluation.retrieval import NOTHING, Wanted

DEPTHS = (1, 3, 5)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, Wanted]:
    """Lists of 30 queries over 20 items, some cut short, and 1 to 6 wanted items of each."""
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(20)[:8] for _ in range(30)])
    for row in lists[::4]:
        row[rng.integers(1, 8) :] = NOTHING
    query, item, gain = [], [], []
    for one in range(30):
        chosen = rng.permutation(20)[: rng.integers(1, 7)]
        query += [one] * len(chosen)
        item += chosen.tolist()
        gain += rng.choice([0.1, 0.5, 1.0], len(chosen)).tolist()
    return lists, Wanted(np.array(query), np.array(item), np.array(gain))


def test_metrics_are_those_of_a_loop(drawn: tuple[np.ndarray, Wanted]) -> None:
    lists, wanted = drawn
    found = retrieval.per_query(lists, wanted, depths=DEPTHS)
    for one in range(len(lists)):
        gains = dict(
            zip(
                wanted.item[wanted.query == one].tolist(),
                wanted.gain[wanted.query == one].tolist(),
                strict=True,
            )
        )
        for depth in DEPTHS:
            hits = [item in gains for item in lists[one][:depth].tolist()]
            dcg = sum(
                gains.get(item, 0) / np.log2(rank + 1)
                for rank, item in enumerate(lists[one][:depth].tolist(), 1)
            )
            best = sorted(gains.values(), reverse=True)[:depth]
            ideal = sum(gain / np.log2(rank + 1) for rank, gain in enumerate(best, 1))
            precisions = [sum(hits[: r + 1]) / (r + 1) for r in range(depth) if r < len(hits)]
            expected = {
                "recall": sum(hits) / len(gains),
                "hit": float(any(hits)),
                "mrr": 1 / (1 + hits.index(True)) if any(hits) else 0.0,
                "ndcg": dcg / ideal,
                "map": sum(p for p, hit in zip(precisions, hits, strict=True) if hit)
                / min(depth, len(gains)),
            }
            for name, value in expected.items():
                assert found[f"{name}@{depth}"][one] == pytest.approx(value, abs=1e-12), name


def test_recall_mrr_and_ndcg_are_those_of_trec_eval(drawn: tuple[np.ndarray, Wanted]) -> None:
    lists, wanted = drawn
    binary = wanted._replace(gain=None)
    found = retrieval.per_query(lists, binary, depths=DEPTHS)
    qrels = [
        ir_measures.Qrel(str(q), str(i), 1)
        for q, i in zip(wanted.query.tolist(), wanted.item.tolist(), strict=True)
    ]
    run = [
        ir_measures.ScoredDoc(str(q), str(item), -rank)
        for q, row in enumerate(lists.tolist())
        for rank, item in enumerate(row)
        if item != NOTHING
    ]
    for depth in DEPTHS:
        for name, measure in (
            ("recall", ir_measures.R @ depth),
            ("ndcg", ir_measures.nDCG @ depth),
            ("mrr", ir_measures.RR @ depth),
        ):
            theirs = {
                int(one.query_id): one.value for one in ir_measures.iter_calc([measure], qrels, run)
            }
            ours = found[f"{name}@{depth}"]
            assert [theirs[q] for q in range(len(lists))] == pytest.approx(ours.tolist(), abs=1e-12)


def test_a_query_that_wants_nothing_is_left_out() -> None:
    found = retrieval.per_query(
        np.array([[3, 4], [5, 6]]), Wanted(np.array([1]), np.array([6])), depths=(2,)
    )
    assert np.isnan(found["ndcg@2"][0])
    assert found["ndcg@2"][1] == pytest.approx(1 / np.log2(3))
    assert found["recall@2"][1] == 1.0


def test_lists_have_each_item_once_and_depths_lie_in_them() -> None:
    wanted = Wanted(np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="twice"):
        retrieval.per_query(np.array([[1, 1]]), wanted, depths=(2,))
    with pytest.raises(ValueError, match="depths"):
        retrieval.per_query(np.array([[1, 2]]), wanted, depths=(3,))


def test_what_lists_do_to_the_catalogue() -> None:
    lists = np.array([[0, 1], [0, NOTHING]])
    popularity = np.array([6, 2, 0, 0])
    vectors = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    found = retrieval.of_lists(lists, items=4, popularity=popularity, vectors=vectors)
    assert found["coverage"] == 0.5
    # counts 0, 0, 1, 2: Σ (2i − 5) c = 1·1 + 3·2
    assert found["gini"] == pytest.approx(7 / (4 * 3))
    assert found["popularity"] == pytest.approx((6 + 2 + 6) / 3)
    assert found["novelty"] == pytest.approx(-np.log2([7 / 12, 3 / 12, 7 / 12]).mean())
    assert found["diversity"] == pytest.approx(1 - 1 / np.sqrt(2))
    even = retrieval.of_lists(np.array([[0, 1], [2, 3]]), items=4, popularity=popularity)
    assert even["gini"] == pytest.approx(0)


def test_exposure_adds_up_by_group() -> None:
    found = retrieval.exposure(
        np.array([[0, 1], [2, NOTHING]]), np.array([0, 1, 1]), names=("old", "new")
    )
    total = 2 + 1 / np.log2(3)
    assert found["old"] == {"exposure": pytest.approx(1 / total), "items": pytest.approx(1 / 3)}
    assert found["new"]["exposure"] == pytest.approx((1 + 1 / np.log2(3)) / total)
