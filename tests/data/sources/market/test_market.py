"""The generated market: the seed decides every bit, its truth holds, and its words differ."""

import re
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sie_jax.data.cleaning import RULES, Cleaned, clean
from sie_jax.data.schema import ATTRIBUTE, ESCI_SCALE, RAW_COLUMNS, normalise_query
from sie_jax.data.sources.market import Market, MarketConfig, generate, noise
from sie_jax.data.sources.market import market as market_file
from sie_jax.data.sources.market.needs import EXACT, NOT, judge
from sie_jax.data.sources.section import Request
from sie_jax.errors import UserError
from sie_jax.evaluation import ranking

SMALL = {"queries": 150, "items": 1500}


@cache
def market(**settings: Any) -> Market:
    return generate(MarketConfig(**{**SMALL, **settings}))


def cleaned(table: pa.Table) -> Cleaned:
    return clean(table, ESCI_SCALE, max_query_characters=200, max_title_characters=300)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_the_same_settings_give_the_same_bits() -> None:
    again = generate(MarketConfig(**SMALL))
    assert again.source.table.equals(market().source.table)
    assert again.source.catalogue.equals(market().source.catalogue)
    assert np.array_equal(again.truth.score, market().truth.score)
    assert not market(seed=1).source.table.equals(market().source.table)


def test_the_source_has_the_shape_of_every_source() -> None:
    source = market().source
    brand, category = ATTRIBUTE + "brand", ATTRIBUTE + "category"
    assert source.table.column_names == [*RAW_COLUMNS, brand, category]
    assert source.scale == ESCI_SCALE
    assert len(source.catalogue) == SMALL["items"]
    titles = dict(
        zip(*source.catalogue.select(["item_id", "title"]).to_pydict().values(), strict=True)
    )
    table = source.table.to_pydict()
    assert [titles[item] for item in table["item_id"]] == table["title"]
    assert len(set(table["example_id"])) == len(table["example_id"])
    assert len(set(zip(table["query_id"], table["item_id"], strict=True))) == len(source.table)
    sizes = Counter(table["query_id"])
    assert len(sizes) == SMALL["queries"]
    assert set(sizes.values()) <= set(range(16, 21))
    assert Counter(cleaned(source.table).rejected["reason"].to_pylist()) == {}


def test_labels_are_the_grades_of_the_needs() -> None:
    made = market()
    for query, need in enumerate(made.truth.needs):
        rows = np.flatnonzero(made.truth.query == query)
        grade, score = judge(made.catalogue, need, made.truth.item[rows])
        assert np.array_equal(grade, made.truth.grade[rows])
        assert np.array_equal(score, made.truth.score[rows])
        assert (grade == EXACT).any()
    names = np.array(ESCI_SCALE.names)[made.truth.grade].tolist()
    assert made.source.table["truth"].to_pylist() == names
    assert made.source.table["label"].to_pylist() == names


def test_the_perfect_score_ranks_perfectly() -> None:
    truth = market().truth
    found = ranking.per_query(
        truth.score,
        truth.grade,
        gains=ESCI_SCALE.gains,
        query_index=truth.query,
        num_queries=len(truth.needs),
        example_ids=np.arange(len(truth.query)),
    )
    np.testing.assert_allclose(found["ndcg@10"], 1, rtol=1e-6)


def test_no_query_of_the_test_split_is_trained_on() -> None:
    table = market().source.table.to_pydict()
    texts: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for query, split in zip(table["query"], table["split"], strict=True):
        texts[split].add(normalise_query(query))
    assert {split: len(queries) for split, queries in texts.items()} == {
        "train": 105,
        "validation": 15,
        "test": 30,
    }
    assert len(set.union(*texts.values())) == SMALL["queries"]


def test_words_of_queries_are_often_not_in_the_right_title() -> None:
    made = market()
    exact = np.flatnonzero(made.truth.grade == EXACT)
    fits = (made.truth.grade == 1) & (made.catalogue.accessory[made.truth.item] >= 0)

    def found(rows: np.ndarray) -> np.ndarray:
        return np.array(
            [
                len(asked & words(made.titles[made.truth.item[row]])) / len(asked)
                for row in rows
                for asked in [words(made.texts[made.truth.query[row]])]
            ]
        )

    assert 0.3 < found(exact).mean() < 0.75
    # There are accessories that share all words of the query.
    assert (found(np.flatnonzero(fits)) == 1).mean() > 0.02


def test_every_phenomenon_occurs_at_about_its_share() -> None:
    made = market(queries=600)
    needs = made.truth.needs
    shares = {
        "hypernym": np.mean([need.kind < 0 for need in needs]),
        "accessory": np.mean([need.accessory >= 0 for need in needs]),
        "negated": np.mean([any(one.mode == NOT for one in need.constraints) for need in needs]),
        "bounded": np.mean(
            [any(one.mode in ("under", "over") for one in need.constraints) for need in needs]
        ),
    }
    assert 0.05 < shares["hypernym"] < 0.2
    assert 0.12 < shares["accessory"] < 0.3
    assert 0.08 < shares["negated"] < 0.4
    assert 0.08 < shares["bounded"] < 0.4
    nicknames = {brand.ways[1] for department in made.ontology.brands for brand in department}
    assert any(words(text) & nicknames for text in made.texts)
    assert all(
        not words(title) & nicknames for title in made.titles
    )  # sellers write their brands in full
    foreign = {kind.foreign for kind in made.ontology.kinds}
    assert 0.01 < np.mean([bool(words(text) & foreign) for text in made.texts]) < 0.15
    assert 0.02 < np.mean([bool(words(title) & foreign) for title in made.titles]) < 0.15


def test_settings_without_gap_typos_and_languages_speak_alike() -> None:
    made = market(gap=0.0, typos=0.0, second_language=0.0)
    foreign = {
        concept.foreign
        for concept in (*made.ontology.kinds, *made.ontology.hypernyms, *made.ontology.colours)
    }
    assert not any(words(text) & foreign for text in made.texts)
    for kind in made.ontology.kinds:
        np.testing.assert_allclose(*kind.habits)
    nicknames = {brand.ways[1] for department in made.ontology.brands for brand in department}
    assert not any(words(text) & nicknames for text in made.texts)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_noise_spares_the_test_split_and_the_texts(kind: str) -> None:
    clean_table = market().source.table
    table = market(noise=0.1, noise_kind=kind).source.table
    assert table.drop_columns("label").equals(clean_table.drop_columns("label"))
    label, truth, split = (np.array(table[name]) for name in ("label", "truth", "split"))
    assert np.array_equal(label[split == "test"], truth[split == "test"])
    assert 0.03 < (label != truth)[split != "test"].mean() < 0.2


def test_dirt_is_found_by_cleaning_and_the_truth_stays_in_line() -> None:
    made = market(dirt=0.3)
    table = made.source.table
    assert len(table) == len(made.truth.grade) > len(market().source.table)
    names = np.array(ESCI_SCALE.names)[made.truth.grade].tolist()
    assert table["truth"].to_pylist() == names
    assert [f"q{one}" for one in made.truth.query] == table["query_id"].to_pylist()
    rejected = Counter(cleaned(table).rejected["reason"].to_pylist())
    assert set(rejected) <= set(RULES)
    assert len(rejected) >= 4


def test_popular_items_are_judged_more_often() -> None:
    made = market(queries=600)
    often = np.bincount(made.truth.item, minlength=len(made.catalogue))
    order = np.argsort(-made.catalogue.popularity)
    tenth = len(order) // 10
    assert often[order[:tenth]].mean() > 1.5 * often[order[-tenth:]].mean()


def test_a_section_reads_the_shop_with_the_splits_asked_for() -> None:
    source = MarketConfig(**SMALL).read(Request(validation=0.2, test=0.4))
    queries = dict(
        zip(source.table["query_id"].to_pylist(), source.table["split"].to_pylist(), strict=True)
    )
    assert Counter(queries.values()) == {"train": 60, "validation": 30, "test": 60}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 2}, "market.queries"),
        ({"items": 10}, "market.items"),
        ({"gap": 1.5}, "market.gap"),
        ({"noise": -0.1}, "market.noise"),
        ({"noise_kind": "rude"}, "noise_kind is 'rude'; give one of uniform"),
        ({"seed": -1}, "market.seed"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(MarketConfig(**{**SMALL, **settings}))


def test_a_shop_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_file, "_TRIES", 1)  # two of 2,000 needs in the same words are likely
    with pytest.raises(UserError, match="give more items or fewer queries"):
        generate(MarketConfig(queries=2000, items=200))


def test_shares_of_splits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="sum below 1"):
        generate(MarketConfig(**SMALL), validation=0.5, test=0.5)


def test_the_truth_about_all_items_is_that_of_the_rule() -> None:
    found = market()
    assert found.source.complete is not None
    table = found.source.complete()
    splits = dict(
        zip(*(found.source.table[name].to_pylist() for name in ("query_id", "split")), strict=True)
    )
    queries = set(table["query_id"].to_pylist())
    assert queries == {query for query, split in splits.items() if split != "train"}
    query = sorted(queries)[0]
    grade, _ = judge(
        found.catalogue, found.truth.needs[int(query[1:])], np.arange(len(found.catalogue))
    )
    rows = table.filter(pc.equal(table["query_id"], query)).to_pylist()
    told = {row["item_id"]: row["label"] for row in rows}
    expected = {f"i{item}": ESCI_SCALE.names[grade[item]] for item in np.flatnonzero(grade)}
    assert told == expected
