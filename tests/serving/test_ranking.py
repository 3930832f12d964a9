"""A ranker's folder whose parts do not fit together is refused before anything is scored."""

from dataclasses import replace

import numpy as np
import pytest

from sie_jax.data import translation
from sie_jax.data.sources import table
from sie_jax.errors import UserError
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import Ranker
from sie_jax.models.trees import TreeRanker
from sie_jax.serving import ranking


def total(*names):
    return LinearRanker(names, (0.1,) * len(names), 1.0)


@pytest.mark.parametrize(
    ("linear", "stack", "wrong"),
    [
        (total("phrase", "run:linear"), None, "run:linear"),
        (total("phrase", "example_id"), None, "example_id"),
        (total("phrase", "cosine"), None, "cosine"),  # without a checkpoint
        (total("phrase"), total("phrase", "run:linear"), "run:translation, run:uniform"),
        (
            total("phrase"),
            total("price", "phrase", "run:linear", "run:translation", "run:uniform"),
            "price",
        ),
    ],
)
def test_a_sum_of_what_is_not_made_is_refused(tmp_path, linear, stack, wrong):
    encoders = {} if stack is None else {"run:uniform": "."}
    ranker = Ranker("stack", "uniform", linear=linear, stack=stack, encoders=encoders)
    with pytest.raises(UserError, match=rf"ranker\.json cannot be used \(.* of {wrong}\)"):
        ranking.load(tmp_path, ranker)


def test_a_sum_of_all_that_is_made_is_read(tmp_path):
    """Attributes and numbers of the table's own are told from what is made here."""
    names = ("phrase", "feedback", "attribute:brand", "price")
    translation.learn(["a"], ["b"], [1.0]).save(tmp_path / "words.parquet")
    ranker = Ranker(
        "stack",
        "uniform",
        linear=total(*names),
        stack=total(*names, "run:linear", "run:translation", "run:uniform"),
        encoders={"run:uniform": "."},
        translation="words.parquet",
    )
    assert ranking.load(tmp_path, ranker).ranker == ranker


def test_trees_of_other_features_are_refused(tmp_path):
    trees = TreeRanker(("phrase", "price"), ((1, 0.5, -1.0, 1.0),))
    trees.save(tmp_path / "trees.json")
    ranker = Ranker("trees", "u", trees="trees.json")
    assert ranking.load(tmp_path, ranker).further == {"numeric:price": "price"}
    for linear, wrong in ((total("phrase"), "price"), (total("price", "phrase"), "phrase, price")):
        with pytest.raises(UserError, match=rf"ranker\.json cannot be used \(.* of {wrong}\)"):
            ranking.load(tmp_path, replace(ranker, kind="blend", linear=linear))
    replace(trees, names=("phrase", "cosine")).save(tmp_path / "trees.json")
    with pytest.raises(UserError, match=r"ranker\.json cannot be used \(.* of cosine\)"):
        ranking.load(tmp_path, ranker)
    (tmp_path / "trees.json").write_text("{")
    with pytest.raises(UserError, match=r"trees\.json: the trees cannot be read"):
        ranking.load(tmp_path, ranker)


@pytest.mark.parametrize("kind", ["trees", "blend"])
def test_the_score_is_of_the_leaves_and_blended_with_the_sum(kind):
    """Two features of two queries, the second in one order and the first in the other."""
    trees = TreeRanker(("phrase", "price"), ((1, 0.0, -1.0, 1.0),))
    linear = LinearRanker(trees.names, (3.0, 1.0), 1.0) if kind == "blend" else None
    made = ranking.Ranking(Ranker(kind, "u", linear=linear), None, None, None, trees)
    columns = {"phrase": np.array([1, 0, 0, 1.0]), "price": np.array([5, 9, 7, 7.0])}
    found = ranking.scores(made, columns.__getitem__, np.array([0, 0, 1, 1]))
    # standardised: phrase 1, -1, -1, 1 and price -1, 1, 0, 0; the second query's trees are equal
    expected = {"trees": [-1, 1, -1, -1], "blend": [0, 0, -1, 1]}[kind]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_head_adds_its_features_to_what_the_encoder_gives():
    """By itself, and in the stack before it is standardised: two features of two queries."""
    encoders, heads = {"run:u": "."}, {"run:u": LinearRanker(("phrase", "price"), (3.0, 1.0), 0.0)}
    columns = {
        "phrase": np.array([1, 0, 0, 1.0]),
        "price": np.array([5, 9, 7, 7.0]),
        "run:u": np.array([0.5, 0, 0, 0]),
        "run:translation": np.zeros(4),
    }
    # standardised: phrase 1, -1, -1, 1 and price -1, 1, 0, 0
    whole = np.array([2.5, -2.0, -3.0, 3.0])
    alone = Ranker("encoder", "u", encoders=encoders, heads=heads, corpus="c")
    stacked = total("phrase", "price", "run:linear", "run:translation", "run:u")
    weights = (0.0, 0.0, 0.0, 0.0, 2.0)
    stack = replace(
        alone,
        kind="stack",
        linear=total("phrase", "price"),
        stack=replace(stacked, weights=weights),
    )
    for ranker, expected in ((alone, whole), (stack, np.array([2, -2, -2, 2.0]))):
        made = ranking.Ranking(ranker, None, None, None)
        found = ranking.scores(made, columns.__getitem__, np.array([0, 0, 1, 1]))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_head_of_other_features_is_refused(tmp_path):
    translation.learn(["a"], ["b"], [1.0]).save(tmp_path / "words.parquet")
    ranker = Ranker(
        "stack",
        "u",
        linear=total("phrase"),
        stack=total("phrase", "run:linear", "run:translation", "run:u"),
        encoders={"run:u": "."},
        heads={"run:u": total("phrase", "price")},
        translation="words.parquet",
    )
    with pytest.raises(UserError, match=r"ranker\.json cannot be used \(.* of price\)"):
        ranking.load(tmp_path, ranker)


def test_lists_shorter_than_those_of_the_training_are_said():
    ranker = Ranker("linear", "u", linear=total("phrase"), list_lengths={"low": 7, "median": 20})
    assert ranking.short_lists(ranker, np.array([4, 9])) == ""
    assert ranking.short_lists(replace(ranker, list_lengths={}), np.array([1])) == ""
    assert ranking.short_lists(ranker, np.array([4, 3, 1])).startswith(
        "2 of 3 queries have fewer than 4 items: this ranker compares the items of a query with "
        "each other, and learned from lists of 7 items or more (median 20)"
    )
    assert "1 of 1 queries has fewer" in ranking.short_lists(ranker, np.array([2]))


def test_numbers_of_vectors_are_read_from_their_column(tmp_path):
    """A model that ranks by image[0] and image[1] takes a table's column `image`."""
    ranker = Ranker("linear", "uniform", linear=total("price", "image[0]", "image[1]"))
    found = ranking.load(tmp_path, ranker)
    assert found.further == {
        "numeric:price": "price",
        "numeric:image[0]": "image",
        "numeric:image[1]": "image",
    }
    (tmp_path / "pairs.csv").write_text('query,title,price,image\nmug,cup,2,"[3, 4]"\nmug,a,,\n')
    fields = {"query": "query", "title": "title"}
    rows = list(table.rows(str(tmp_path / "pairs.csv"), columns=fields, further=found.further))
    made = ranking.columns(found, [{"text": "", **row} for row in rows])
    for name, expected in (("price", 2), ("image[0]", 3), ("image[1]", 4)):
        np.testing.assert_array_equal(made[name], [expected, np.nan])
