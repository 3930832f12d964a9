"""Word translation: probabilities and scores by their formulas, what is learnt, the file."""

import contextlib
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data import translation
from sie_jax.data.translation import Translation
from sie_jax.errors import UserError

QUERIES = ["red couch", "couch", "blue lamp", "lamp", "red lamp", "sofa"]
ITEMS = ["crimson sofa", "sofa oak", "navy light", "light steel", "crimson light", "couch"]
GAINS = np.array([1.0, 0.5, 1.0, 0.25, 1.0, 0.0])


def one_by_one(rounds=5):
    """IBM model 1 in dictionaries, as Brown et al. write it."""
    pairs = [(q.split(), i.split(), g) for q, i, g in zip(QUERIES, ITEMS, GAINS, strict=True) if g]
    chance = defaultdict(lambda: 1.0)
    for _ in range(rounds):
        counts, totals = defaultdict(float), defaultdict(float)
        for query, item, gain in pairs:
            for word in query:
                norm = sum(chance[word, other] for other in item)
                for other in item:
                    share = gain * chance[word, other] / norm
                    counts[word, other] += share
                    totals[other] += share
        chance = defaultdict(float, {key: n / totals[key[1]] for key, n in counts.items()})
    return chance


def table(model):
    width = len(model.item_words)
    return {
        (model.query_words[cell // width], model.item_words[cell % width]): value
        for cell, value in zip(model.cells, model.probabilities, strict=True)
    }


def test_the_probabilities_are_those_of_ibm_model_1():
    model, wanted = translation.learn(QUERIES, ITEMS, GAINS), one_by_one()
    assert table(model) == pytest.approx(wanted)
    assert model.query_words == ("red", "couch", "blue", "lamp")  # "sofa" has gain 0


def test_the_score_is_the_mean_log_probability_of_the_query_s_words():
    model, chance = translation.learn(QUERIES, ITEMS, GAINS), one_by_one()
    # occurrences by gain: red 2, couch 1.5, blue 1, lamp 2.25; half of the least gain for the rest
    share = {"red": 2 / 6.875, "couch": 1.5 / 6.875, "sofa": 0.125 / 6.875}

    def of(word, item):
        translated = sum(chance[word, other] for other in item) / len(item)
        same = (word in item) / len(item)
        return np.log(0.75 * translated + 0.05 * same + 0.2 * share[word])

    found = model.scores(["Red couch", "red sofa", "couch couch"], ["crimson oak oak", "Sofas", ""])
    wanted = [
        np.mean([of("red", ["crimson", "oak"]), of("couch", ["crimson", "oak"])]),
        np.mean([of("red", ["sofa"]), of("sofa", ["sofa"])]),
        np.log(0.2 * share["couch"]),
    ]
    assert found == pytest.approx(wanted)
    assert model.scores(["!", "!"], ["sofa", ""]).tolist() == [0.0, 0.0]
    assert model.scores([], []).shape == (0,)


def test_a_planted_translation_is_found():
    generator = np.random.default_rng(0)
    meant = generator.integers(0, 30, (400, 3))
    queries = [" ".join(f"q{concept}x" for concept in row) for row in meant]
    items = [" ".join(f"t{concept}x" for concept in generator.permutation(row)) for row in meant]
    learnt = table(translation.learn(queries, items, np.ones(400)))
    for concept in range(30):
        chances = {word: p for (word, item), p in learnt.items() if item == f"t{concept}x"}
        assert max(chances, key=chances.get) == f"q{concept}x"


def test_a_score_depends_on_its_own_pair_alone(monkeypatch):
    model = translation.learn(QUERIES, ITEMS, GAINS)
    together = model.scores(QUERIES, ITEMS)
    monkeypatch.setattr(translation, "_CHUNK", 1)
    assert model.scores(QUERIES, ITEMS).tolist() == together.tolist()


def test_what_is_saved_is_read_back_exactly(tmp_path):
    model = translation.learn(QUERIES, ITEMS, GAINS)
    model.save(tmp_path / "translation.parquet")
    back = Translation.load(tmp_path / "translation.parquet")
    assert (back.query_words, back.item_words) == (model.query_words, model.item_words)
    assert back.scores(QUERIES, ITEMS).tolist() == model.scores(QUERIES, ITEMS).tolist()


def test_a_damaged_file_is_said_in_one_line(tmp_path):
    (tmp_path / "translation.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="word translation cannot be read") as caught:
        Translation.load(tmp_path / "translation.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("query_word", "red"),
        ("query_word", [None, "lamp"]),
        ("item_word", []),
        ("cell", [0.5]),
        ("cell", [10**6]),
        ("probability", [float("nan")]),
        ("probability", []),
        ("frequency", [2.0]),
        ("frequency", None),
        ("unseen", []),
        ("unseen", [-0.1]),
    ],
)
def test_a_file_with_other_cells_is_said_in_one_line(tmp_path, column, value):
    path = tmp_path / "translation.parquet"
    translation.learn(["red lamp"], ["lamp"], np.ones(1)).save(path)
    table = pq.read_table(path)
    cells = pa.array([value])
    with contextlib.suppress(pa.ArrowException):  # another type
        cells = cells.cast(table.schema.field(column).type)
    table = table.set_column(table.column_names.index(column), column, cells)
    for damaged in (table, pa.concat_tables([table] * 2), table.drop_columns(column)):
        pq.write_table(damaged, path)
        with pytest.raises(UserError, match="word translation cannot be read") as caught:
            Translation.load(path)
        assert "\n" not in str(caught.value)


def test_without_a_pair_that_teaches_only_equal_words_count():
    for model in (
        translation.learn(QUERIES, ITEMS, np.zeros(6)),
        translation.learn(["red", ""], ["", "red"], np.ones(2)),
        translation.learn([], [], np.empty(0)),
    ):
        found = model.scores(["lamp oak", "lamp"], ["lamp", "light"])
        if model.query_words:  # "red" was seen, alone
            assert found[0] == pytest.approx((np.log(0.05 + 0.2 / 3) + np.log(0.2 / 3)) / 2)
        else:
            assert found == pytest.approx([(np.log(0.25) + np.log(0.2)) / 2, np.log(0.2)])


@pytest.mark.parametrize(
    ("queries", "items", "gains"),
    [(["red"], ["lamp"], [0.0]), (["!!"], ["lamp"], [1.0]), (["red"], ["!"], [1.0]), ([], [], [])],
)
def test_what_learnt_nothing_survives_its_file(tmp_path, queries, items, gains):
    known = translation.learn(queries, items, np.array(gains))
    known.save(tmp_path / "translation.parquet")
    again = translation.Translation.load(tmp_path / "translation.parquet")
    texts = ["red lamp", "lamp", ""], ["a red one", "", "lamp"]
    np.testing.assert_array_equal(again.scores(*texts), known.scores(*texts))
