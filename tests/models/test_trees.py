"""Trees: scores to the last bit LightGBM's, and which pairs the fits have seen."""

import json
import sys

import numpy as np
import pytest

from sie_jax.errors import UserError
from sie_jax.evaluation import ranking
from sie_jax.models import trees
from sie_jax.models.linear import Lists
from sie_jax.models.trees import TreeRanker

NAMES = ("a", "b", "c")


def graded(seed, *, queries=40, items=8, levels=(0, 0.01, 0.1, 1)):
    """The grade rises with the product of the first two features, which no sum of them gives."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(queries * items, 3)).astype(np.float32)
    utility = features[:, 0] * features[:, 1] + generator.normal(scale=0.3, size=len(features))
    grades = np.digitize(utility, np.quantile(utility, np.linspace(0, 1, len(levels) + 1)[1:-1]))
    return Lists(features, np.array(levels, float)[grades], np.repeat(np.arange(queries), items))


def ranker_of(lists):
    return TreeRanker(NAMES, trees.fit(lists))


def ndcg(scores, lists):
    """By `evaluation.ranking`, which knows of no equal scores."""
    levels, labels = np.unique(lists.gains, return_inverse=True)
    return ranking.per_query(
        scores,
        labels,
        levels,
        lists.query_index,
        num_queries=lists.query_index.max() + 1,
        example_ids=np.arange(len(labels)),
    )["ndcg@10"]


def test_the_scores_are_those_of_lightgbm_to_the_last_bit(monkeypatch):
    lists = graded(0, queries=100)
    booster = trees._boosted(lists)
    monkeypatch.setattr(trees, "_CHUNK", 300)
    found = ranker_of(lists)
    other = graded(1).features
    np.testing.assert_array_equal(found.scores(NAMES, other), booster.predict(other))
    # also at a threshold itself, which is a double between two floats
    thresholds = np.array([tree[1] for tree in found.trees if tree[0] == 0])
    at = np.stack([thresholds, *np.zeros((2, len(thresholds)))], 1)
    np.testing.assert_array_equal(found.scores(NAMES, at), booster.predict(at))
    assert found.scores(NAMES, other[:0]).shape == (0,)


def test_a_score_is_the_sum_of_the_leaves_that_a_pair_falls_into():
    made = TreeRanker(NAMES, ((0, 0.5, 1.0, (2, -1.0, 2.0, 4.0)), 8.0))
    features = np.array([[0.5, 0, 9], [0.6, 0, -1], [0.6, 0, 0]], np.float32)
    np.testing.assert_array_equal(made.scores(NAMES, features), [9, 10, 12])
    with pytest.raises(ValueError, match="takes the features"):
        made.scores(("b", "a", "c"), features)


def test_an_order_that_no_sum_of_features_gives_is_learnt():
    found, fresh = ranker_of(graded(2, queries=200)), graded(3)
    scores, sums = found.scores(NAMES, fresh.features), fresh.features.sum(1)
    # 0.93 and 0.73: the noise takes something, and a sum knows nothing of the product
    assert np.nanmean(ndcg(scores, fresh)) > 0.85 > 0.75 > np.nanmean(ndcg(sums, fresh))


def test_equal_lists_give_equal_files(tmp_path):
    ranker_of(graded(4)).save(tmp_path / "one.json")
    ranker_of(graded(4)).save(tmp_path / "other.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()


def test_a_ranker_survives_its_file(tmp_path):
    made = ranker_of(graded(5))
    assert len(made.trees) == 200
    made.save(tmp_path / "trees.json")
    assert TreeRanker.load(tmp_path / "trees.json") == made


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x.pop("trees"), "'trees'"),
        (lambda x: x.update(names=["a", "b"]), "splits by feature 2 of 2"),
        (lambda x: x.update(names=["a", "b", 5]), "no texts"),
        (lambda x: x.update(names=["a", "b", "a"]), "occurs twice"),
        (lambda x: x.update(trees=[[0, 0.5, 1.0]]), "unpack"),
        (lambda x: x.update(trees=[[True, 0.5, 1.0, 2.0]]), "feature True"),
        (lambda x: x.update(trees=[[0, "0.5", 1.0, 2.0]]), "'0.5' is no finite number"),
        (lambda x: x.update(trees=[[0, 0.5, 1.0, None]]), "None is no finite number"),
        (lambda x: x.update(trees=[float("nan")]), "nan is no finite number"),
        (lambda x: x.update(trees=[10**400]), "cannot be read"),
        (lambda x: x.update(trees=[nested(65)]), "below more than 64 splits"),
    ],
)
def test_a_damaged_file_gets_one_line(tmp_path, change, told):
    path = tmp_path / "trees.json"
    TreeRanker(NAMES, ((2, 0.5, 1.0, 2.0),)).save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=told) as caught:
        TreeRanker.load(path)
    assert str(caught.value).startswith(f"{path}: the trees cannot be read (")
    assert "\n" not in str(caught.value)


def nested(depth):
    return [0, 0.5, 1.0, nested(depth - 1)] if depth else 1.0


@pytest.mark.parametrize("text", ["", "[]", '{"names"', "[" * 100_000])
def test_what_is_no_such_file_gets_one_line(tmp_path, text):
    (tmp_path / "trees.json").write_text(text)
    with pytest.raises(UserError, match=r"trees\.json: the trees cannot be read \("):
        TreeRanker.load(tmp_path / "trees.json")


def test_only_the_ratios_of_gains_matter_and_they_need_not_be_whole():
    lists = graded(6)
    expected = trees.fit(lists)
    # a power of two keeps every digit
    assert trees.fit(lists._replace(gains=lists.gains / 1024)) == expected
    rounder = np.where(lists.gains == 0.1, 0.9, lists.gains)
    assert trees.fit(lists._replace(gains=rounder)) != expected


def test_as_many_gains_as_pairs_are_learnt_from():
    lists = graded(7, queries=200, levels=np.linspace(0.25, 1, 1600))
    assert len(np.unique(lists.gains)) == 1600
    found = ranker_of(lists)
    scores = found.scores(NAMES, lists.features)
    assert np.corrcoef(scores, lists.gains)[0, 1] > 0.7


def test_queries_without_a_gain_change_nothing():
    lists = graded(8)
    silent = lists._replace(gains=np.where(lists.query_index % 4 == 1, 0.0, lists.gains))
    assert trees.fit(silent) == trees.fit(lists.rows(lists.query_index % 4 != 1))


def test_where_a_query_stands_makes_no_difference():
    lists = graded(9)
    moved = lists.rows(np.argsort(lists.query_index % 3, kind="stable"))
    assert trees.fit(moved) == trees.fit(lists)


def test_nothing_to_learn_is_refused():
    lists = graded(10)
    with pytest.raises(ValueError, match="no order to learn"):
        trees.fit(lists._replace(gains=0 * lists.gains))


@pytest.mark.parametrize("rows", [1, 2, 39])
def test_too_few_pairs_for_two_leaves_rank_nothing(rows):
    lists = graded(11, levels=(0.5, 1)).rows(np.arange(rows))
    assert set(trees.fit(lists)) == {0.0}


def test_features_that_do_not_vary_rank_nothing():
    lists = graded(12)
    assert set(trees.fit(lists._replace(features=0 * lists.features))) == {0.0}


def test_a_query_beyond_the_limit_of_lightgbm_is_learnt_in_lists_of_its_rows_in_turns(monkeypatch):
    lists = graded(13, queries=3, items=60)
    monkeypatch.setattr(trees, "LONGEST", 25)  # so that each becomes three lists of 20
    expected = lists.query_index * 3 + np.arange(180) % 3
    found = trees.fit(lists)
    assert found == trees.fit(lists._replace(query_index=expected))
    assert all(isinstance(tree, tuple) for tree in found)


def test_lightgbm_takes_queries_of_that_limit_and_longer_ones_are_divided():
    lists = graded(14, queries=1, items=trees.LONGEST + 1)
    assert all(isinstance(tree, tuple) for tree in trees.fit(lists))


def test_held_out_scores_are_of_trees_that_saw_the_other_folds_alone():
    lists = graded(15)
    folds = lists.query_index % 3
    scores = trees.held_out(lists, folds)
    for fold in range(3):
        alone = ranker_of(lists.rows(folds != fold))
        mine = lists.features[folds == fold]
        np.testing.assert_array_equal(scores[folds == fold], alone.scores(NAMES, mine))
    # whatever the labels of the fold itself are
    other = lists._replace(gains=np.where(folds == 0, 1 - lists.gains, lists.gains))
    found = trees.held_out(other, folds)
    np.testing.assert_array_equal(found[folds == 0], scores[folds == 0])
    assert not np.array_equal(found[folds == 1], scores[folds == 1])


def test_folds_that_teach_nothing_and_a_single_fold_score_nothing():
    lists = graded(16)
    folds = lists.query_index % 2
    silent = lists._replace(gains=np.where(folds == 1, 0.0, lists.gains))
    found = trees.held_out(silent, folds)
    assert not found[folds == 0].any()
    assert found[folds == 1].any()
    assert not trees.held_out(lists, 0 * folds).any()


def test_without_lightgbm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(
        UserError, match=r"cannot be loaded .* on macOS brew install libomp"
    ) as told:
        trees.fit(graded(17))
    assert "\n" not in str(told.value)
