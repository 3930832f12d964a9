"""The shop's labels follow its rule, its noise the stated rate, and the seed decides every bit."""

import re
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.data.cleaning import RULES, clean
from sie_jax.data.repairs import REPAIRS
from sie_jax.data.schema import ESCI_SCALE, RAW_SCHEMA, SPLITS, normalise_query
from sie_jax.data.sources import synthetic
from sie_jax.data.sources.market import dirt as soiling
from sie_jax.data.sources.market import noise as mislabelling
from sie_jax.data.sources.shop import ACCESSORY_MAKERS, CATEGORIES, FILLERS, Category
from sie_jax.data.splitting import split
from sie_jax.errors import UserError


def columns(**arguments: Any) -> dict[str, list[Any]]:
    return synthetic.read(**arguments).table.to_pydict()


def names(text: str, phrase: str) -> bool:
    return re.search(rf"\b{phrase}\b", text) is not None


def values_in(text: str, category: Category) -> dict[str, set[int]]:
    """Which value of each attribute the text names, read from its words alone."""
    return {
        kind: {
            place
            for place, value in enumerate(getattr(category, kind))
            if any(names(text, way) for way in value)
        }
        for kind in ("brands", "colours", "features", "sizes")
    }


def category_of(text: str) -> int:
    (found,) = [
        place
        for place, category in enumerate(CATEGORIES)
        if any(names(text, noun) for noun in category.nouns)
    ]
    return found


def test_the_labels_can_be_read_off_the_texts() -> None:
    """The rule again, from the words: nothing of how the shop was made is used."""
    table = columns(queries=150, noise=0.0, dirt=0.0, typos=0.0)
    judged = 0
    for query, title, text, truth in zip(
        table["query"], table["title"], table["text"], table["truth"], strict=True
    ):
        wanted, found = category_of(query), category_of(title)
        if wanted != found:
            assert truth == "I"
            continue
        if " for " in title:
            assert truth == "C"
            continue
        asked = values_in(query, CATEGORIES[wanted])
        has = values_in(f"{title} {text}", CATEGORIES[wanted])
        if any(asked[kind] and not has[kind] for kind in asked):
            continue  # a hidden attribute: the texts do not tell
        assert truth == ("E" if all(asked[kind] <= has[kind] for kind in asked) else "S")
        judged += 1
    assert judged > 0.98 * (table["truth"].count("E") + table["truth"].count("S"))


def test_what_a_query_asks_for_and_an_item_has_is_normally_in_the_title() -> None:
    table = columns(queries=150, noise=0.0, dirt=0.0, typos=0.0)
    shown = [
        all(
            values_in(query, CATEGORIES[category_of(query)])[kind] <= named
            for kind, named in values_in(title, CATEGORIES[category_of(query)]).items()
        )
        for query, title, truth in zip(table["query"], table["title"], table["truth"], strict=True)
        if truth == "E"
    ]
    assert np.mean(shown) > 0.9
    assert not all(shown)


def test_the_words_of_the_shop_can_be_told_apart() -> None:
    nouns = [noun for category in CATEGORIES for noun in category.nouns]
    assert len(set(nouns)) == len(nouns)
    for category in CATEGORIES:
        phrases = [
            (kind, place, way)
            for kind in ("brands", "colours", "features", "sizes")
            for place, value in enumerate(getattr(category, kind))
            for way in value
        ]
        for kind, place, way in phrases:
            for other_kind, other_place, other in phrases:
                if (kind, place) != (other_kind, other_place):
                    assert not names(way, other)
        rest = [*ACCESSORY_MAKERS, *FILLERS, *category.accessories]
        assert not any(names(word, noun) for word in rest for noun in nouns)
        assert not any(names(word, way) for word in rest for _, _, way in phrases)


def test_the_mix_is_about_that_of_esci() -> None:
    table = columns()
    rows = len(table["truth"])
    shares = {label: count / rows for label, count in Counter(table["truth"]).items()}
    expected = {"E": 0.45, "S": 0.25, "C": 0.12, "I": 0.18}
    assert all(abs(shares[label] - expected[label]) < 0.03 for label in expected)
    items = Counter(table["query_id"])
    assert len(items) == 400
    # Duplicates and conflicts add a row now and then.
    assert min(items.values()) >= 16
    assert sorted(items.values())[380] <= 20


def test_titles_are_short_and_the_vocabulary_small() -> None:
    titles = columns(dirt=0.0)["title"]
    lengths = [len(title.split()) for title in titles]
    assert np.mean([6 <= length <= 12 for length in lengths]) > 0.9
    assert max(lengths) <= 12
    assert len({word for title in titles for word in title.split()}) < 400


def test_no_two_queries_are_one() -> None:
    table = columns(queries=2000, items_per_query=1, dirt=0.0)
    queries = dict(zip(table["query_id"], table["query"], strict=True))
    assert len(queries) == 2000
    assert len({normalise_query(query) for query in queries.values()}) == 2000


def test_queries_have_typos_at_about_the_stated_rate() -> None:
    words = {
        word
        for category in CATEGORIES
        for kind in ("nouns", "brands", "colours", "features", "sizes")
        for value in getattr(category, kind)
        for way in ([value] if kind == "nouns" else value)
        for word in way.split()
    } | {"in"}
    for rate in (0.0, 0.05, 0.3):
        table = columns(queries=1500, items_per_query=1, dirt=0.0, typos=rate)
        spoken = [word for query in table["query"] for word in query.split()]
        # Long words that are no words of the shop; doubling and dropping keep most that long.
        long = [word for word in spoken if len(word) >= 4 and word.isalpha()]
        wrong = np.mean([word not in words for word in long])
        assert abs(wrong - rate) <= 5 * np.sqrt(rate * (1 - rate) / len(long)) + 0.15 * rate


def test_near_duplicates_have_another_title_and_the_same_text() -> None:
    table = columns(queries=400, noise=0.0, dirt=0.0)
    items = dict(
        zip(table["item_id"], zip(table["title"], table["text"], strict=True), strict=True)
    )
    pairs = [
        (items[item], items[neighbour])
        for item in items
        if (neighbour := f"i{int(item[1:]) - 1}") in items
        and items[item][1] == items[neighbour][1] != ""
        and " fits " not in items[item][1]
    ]
    # A neighbour can be the same product by chance too (one in 400), and is worded freely then.
    slight = [
        title != original and len(set(title.split()) ^ set(original.split())) <= 2
        for (title, _), (original, _) in pairs
    ]
    assert sum(slight) > 50
    assert np.mean(slight) > 0.9


@cache
def relabelled(kind: str, noise: float, queries: int = 600) -> dict[str, np.ndarray]:
    table = columns(queries=queries, noise=noise, noise_kind=kind, dirt=0.0)
    return {name: np.array(values) for name, values in table.items()}


def all_but_test(table: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and label of train and validation, by name."""
    rows = table["split"] != "test"
    return table["truth"][rows], table["label"][rows]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("kind", mislabelling.KINDS)
def test_noise_has_the_stated_rate_and_spares_the_test_split(kind: str, noise: float) -> None:
    table = relabelled(kind, noise)
    for name, truth in relabelled(kind, 0.0).items():
        if name != "label":
            assert np.array_equal(table[name], truth)
    tested = table["split"] == "test"
    assert np.array_equal(table["truth"][tested], table["label"][tested])
    truth, label = all_but_test(table)
    flipped = truth != label
    # Flips of rows vary at most as a coin; where whole queries flip, the coin is thrown by query:
    # Var Σ = Σ_q (n_q a (1 − a) s + n_q² a² s (1 − s)), s the share of careless queries.
    variance = len(flipped) * noise * (1 - noise)
    if kind == "annotator":
        careless, errs = noise / mislabelling.CARELESS, mislabelling.CARELESS
        sizes = np.unique(table["query_id"][~tested], return_counts=True)[1]
        variance = (sizes * errs * (1 - errs) * careless).sum()
        variance += (sizes**2 * errs**2 * careless * (1 - careless)).sum()
    assert abs(flipped.sum() - noise * len(flipped)) <= 4 * np.sqrt(variance)


@pytest.mark.parametrize("kind", mislabelling.KINDS)
def test_what_little_noise_flips_more_noise_flips_alike(kind: str) -> None:
    truth, little = all_but_test(relabelled(kind, 0.1))
    flipped = little != truth
    assert flipped.any()
    for noise in (0.2, 0.3):
        _, more = all_but_test(relabelled(kind, noise))
        assert np.array_equal(little[flipped], more[flipped])
        assert (more != truth).sum() > flipped.sum()


@pytest.mark.parametrize("kind", ["uniform", "annotator"])
def test_uniform_noise_gives_each_other_label_a_third(kind: str) -> None:
    truth, label = all_but_test(relabelled(kind, 0.3))
    for true in ESCI_SCALE.names:
        moved = label[(truth == true) & (label != true)]
        for other in set(ESCI_SCALE.names) - {true}:
            assert abs((moved == other).sum() - len(moved) / 3) <= 4 * np.sqrt(len(moved) * 2 / 9)


def test_uniform_noise_can_change_every_label() -> None:
    truth, label = all_but_test(relabelled("uniform", 1.0))
    assert (truth != label).all()


def test_adjacent_noise_moves_a_label_to_a_neighbour() -> None:
    truth, label = all_but_test(relabelled("adjacent", 0.3))
    for true, neighbours in {"I": "C", "C": "IS", "S": "CE", "E": "S"}.items():
        moved = label[(truth == true) & (label != true)]
        assert set(moved.tolist()) == set(neighbours)
        for other in neighbours:  # a half each, or all
            share = 1 / len(neighbours)
            error = np.sqrt(len(moved) * share * (1 - share))
            assert abs((moved == other).sum() - len(moved) * share) <= 4 * error


def test_missing_positives_are_exact_items_judged_irrelevant() -> None:
    truth, label = all_but_test(relabelled("missing_positive", 0.3))
    flipped = truth != label
    assert set(truth[flipped].tolist()) == {"E"}
    assert set(label[flipped].tolist()) == {"I"}
    share = (truth == "E").mean()
    with pytest.raises(UserError, match=f"'missing_positive' reaches {share:.3f} here"):
        relabelled("missing_positive", share + 1e-6)
    # The greatest rate there is: every exact row.
    truth, label = all_but_test(relabelled("missing_positive", share))
    assert np.array_equal(truth != label, truth == "E")


def test_a_careless_annotator_judges_whole_queries() -> None:
    table = relabelled("annotator", 0.2)
    wrong, judged = Counter[str](), Counter[str]()
    for query, truth, label, split_of_row in zip(
        table["query_id"], table["truth"], table["label"], table["split"], strict=True
    ):
        if split_of_row != "test":
            judged[query] += 1
            wrong[query] += truth != label
    rates = np.array([wrong[query] / judged[query] for query in judged])
    careless = rates > 0  # all of 16 rows or more right has a chance of 0.2^16
    share = 0.2 / mislabelling.CARELESS
    assert abs(careless.mean() - share) <= 4 * np.sqrt(share * (1 - share) / len(rates))
    rows = np.array([judged[query] for query in judged])[careless].sum()
    error = np.sqrt(mislabelling.CARELESS * (1 - mislabelling.CARELESS) / rows)
    assert abs(sum(wrong.values()) / rows - mislabelling.CARELESS) <= 4 * error


def test_confusions_are_those_of_a_weak_model() -> None:
    """Its model again, in loops over the texts, and its factor by halving."""
    noise = 0.3
    table = relabelled("confusion", noise)
    nouns = {word for category in CATEGORIES for noun in category.nouns for word in noun.split()}
    counts: dict[tuple[int, bool], Counter[str]] = {}
    rows = []
    for query, title, truth, label, split_of_row in zip(
        *(table[name] for name in ("query", "title", "truth", "label", "split")), strict=True
    ):
        if split_of_row == "test":
            continue
        words = set(query.split())
        both = [word for word in words if word in title.split()]
        cell = (int(np.floor(4 * len(both) / len(words))), any(word in nouns for word in both))
        counts.setdefault(cell, Counter(ESCI_SCALE.names))[truth] += 1
        rows.append((cell, truth, label))
    doubt = np.array([1 - counts[cell][truth] / counts[cell].total() for cell, truth, _ in rows])
    low, high = 0.0, 1 / doubt.min()
    for _ in range(60):
        middle = (low + high) / 2
        if np.minimum(1, middle * doubt).mean() < noise:
            low = middle
        else:
            high = middle
    chance = np.minimum(1, high * doubt)
    groups: dict[tuple[tuple[int, bool], str], list[int]] = {}
    for row, (cell, truth, _) in enumerate(rows):
        groups.setdefault((cell, truth), []).append(row)
    assert len(groups) > 20
    label = np.array([label for *_, label in rows])
    for (cell, truth), members in groups.items():
        p = chance[members[0]]
        moved = [row for row in members if label[row] != truth]
        # 4.5 errors, and a row for the discreteness of small groups: some 100 comparisons
        error = 4.5 * np.sqrt(len(members) * p * (1 - p)) + 1
        assert abs(len(moved) - len(members) * p) <= error
        for other in set(ESCI_SCALE.names) - {truth}:
            share = counts[cell][other] / (counts[cell].total() - counts[cell][truth])
            error = 4.5 * np.sqrt(len(moved) * share * (1 - share)) + 1
            assert abs((label[moved] == other).sum() - len(moved) * share) <= error
    # What the model doubts most is flipped most.
    flipped = label != np.array([truth for _, truth, _ in rows])
    assert doubt[flipped].mean() > 1.2 * doubt[~flipped].mean()


def test_confusion_reaches_every_rate() -> None:
    truth, label = all_but_test(relabelled("confusion", 1.0))
    assert (truth != label).all()


@pytest.mark.parametrize("kind", mislabelling.KINDS)
def test_the_smallest_shop_takes_every_kind_of_noise(kind: str) -> None:
    for seed in range(5):
        smallest = {"queries": 3, "items_per_query": 1, "dirt": 0.0, "seed": seed}
        table = columns(noise=0.0, noise_kind=kind, **smallest)
        assert table["label"] == table["truth"]
        if kind != "missing_positive":  # there may be no positive
            table = columns(noise=0.8, noise_kind=kind, **smallest)
            assert set(table["label"]) <= set(ESCI_SCALE.names)


def test_noise_and_dirt_leave_the_texts_as_they_are() -> None:
    bare = columns(queries=60, noise=0.0, dirt=0.0)
    noisy = columns(queries=60, noise=0.4, dirt=0.0)
    dirty = columns(queries=60, noise=0.4, dirt=0.1)
    rows = len(bare["query"])
    for name in ("example_id", "query_id", "query", "item_id", "title", "text", "split", "truth"):
        assert noisy[name] == bare[name]
        if name != "title":
            assert dirty[name][:rows] == bare[name]
    same = [one == other for one, other in zip(noisy["label"], dirty["label"], strict=False)]
    assert np.mean(same) > 0.95


def test_cleaning_undoes_the_dirt() -> None:
    source = synthetic.read(queries=200, noise=0.2, dirt=0.15)
    limit = soiling.LONG_TITLE_CHARACTERS - 1
    result = clean(source.table, source.scale, max_query_characters=500, max_title_characters=limit)
    for rule in RULES:
        assert (result.counts[rule] > 0) == (rule not in ("missing_query", "query_too_long"))
    for rule in REPAIRS:
        assert (result.repaired[rule] > 0) == (rule != "unicode_nfc")
    # What is kept says what the shop without dirt says.
    bare = {row["example_id"]: row for row in
            synthetic.read(queries=200, noise=0.2, dirt=0.0).table.to_pylist()}  # fmt: skip
    for row in result.kept.to_pylist():
        expected = bare[row["example_id"]]
        assert (row["query"], row["title"], row["text"]) == (
            expected["query"],
            expected["title"],
            expected["text"],
        )
        assert ESCI_SCALE.names[row["label"]] == expected["label"]
        assert ESCI_SCALE.names[row["truth"]] == expected["truth"]
    in_test = np.array(result.kept["split"].to_pylist()) == "test"
    labels, truth = (np.array(result.kept[name]) for name in ("label", "truth"))
    assert np.array_equal(labels[in_test], truth[in_test])
    assert abs((labels != truth)[~in_test].mean() - 0.2) < 4 * np.sqrt(0.16 / (~in_test).sum())


def test_dirt_has_about_the_stated_rate() -> None:
    rows = len(columns(queries=600, dirt=0.0)["query"])
    source = synthetic.read(queries=600, dirt=0.1)
    result = clean(source.table, source.scale, max_query_characters=500, max_title_characters=500)
    defects = (
        sum(result.counts.values())
        - result.counts["conflicting_labels"] // 2
        + result.repaired["html_markup"]
        + result.repaired["control_characters"]
    )
    assert abs(defects - 0.1 * rows) < 5 * np.sqrt(0.09 * rows)


def test_without_dirt_there_is_nothing_to_clean() -> None:
    source = synthetic.read(queries=60, dirt=0.0)
    result = clean(source.table, source.scale, max_query_characters=200, max_title_characters=200)
    assert set(result.counts.values()) | set(result.repaired.values()) == {0}


def test_the_splits_are_by_query_with_the_stated_shares() -> None:
    source = synthetic.read(queries=200, items_per_query=2, validation=0.15, test=0.25)
    result = clean(source.table, source.scale, max_query_characters=500, max_title_characters=500)
    kept, leaked = split(result.kept, validation=0.1, test=0.2, seed=0)
    assert leaked.num_rows == 0
    assert kept.equals(result.kept)
    of_query = dict(
        zip(source.table["query_id"].to_pylist(), source.table["split"].to_pylist(), strict=True)
    )
    assert Counter(of_query.values()) == {"train": 120, "validation": 30, "test": 50}


@pytest.mark.parametrize(
    "shares", [(0.1, 0.2), (0.01, 0.01), (0.98, 0.01), (0.01, 0.98), (0.4, 0.5)]
)
def test_three_queries_make_three_splits(shares: tuple[float, float]) -> None:
    table = columns(queries=3, items_per_query=1, validation=shares[0], test=shares[1])
    assert set(table["split"]) == set(SPLITS)


def test_the_seed_decides_every_bit() -> None:
    one, again = synthetic.read(queries=60, seed=3), synthetic.read(queries=60, seed=3)
    assert one.table.equals(again.table)
    assert one.table.schema == RAW_SCHEMA
    assert one.location == "synthetic shop, seed 3"
    assert not one.table.equals(synthetic.read(queries=60, seed=4).table)


def test_the_largest_lists_of_items() -> None:
    table = columns(queries=20, items_per_query=200, dirt=0.0)
    pairs = pa.table({name: table[name] for name in ("query_id", "item_id")})
    assert pairs.group_by(["query_id", "item_id"]).aggregate([]).num_rows == pairs.num_rows
    assert min(Counter(table["query_id"]).values()) >= 160


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"queries": 2}, "queries is 2"),
        ({"queries": synthetic.MAX_QUERIES + 1}, "queries is 20001"),
        ({"items_per_query": 0}, "items_per_query is 0"),
        ({"items_per_query": 201}, "items_per_query is 201"),
        ({"noise": 1.5}, "noise is 1.5"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"dirt": -0.1}, "dirt is -0.1"),
        ({"typos": 2}, "typos is 2"),
        ({"noise_kind": "evil"}, "noise_kind is 'evil'; give one of uniform, adjacent"),
        ({"noise": 0.9, "noise_kind": "annotator"}, "'annotator' reaches 0.8"),
        ({"validation": 0.0}, "validation is 0.0"),
        ({"test": 0.95}, "test is 0.95"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        synthetic.read(**arguments)
    assert "\n" not in str(error.value)
