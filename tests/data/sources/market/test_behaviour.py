"""Customers, click logs and chats of the generated market follow the rules that they state."""

from functools import cache

import numpy as np

from sie_jax.data.sources.market import Market, MarketConfig, behaviour, generate
from sie_jax.data.sources.market.needs import EXACT, judge


@cache
def market() -> Market:
    return generate(MarketConfig(queries=150, items=1500))


@cache
def log() -> dict[str, np.ndarray]:
    table = behaviour.sessions(market(), behaviour.users(market(), 50), 3000)
    return {name: np.array(table[name]) for name in table.column_names}


def test_the_seed_decides_everything() -> None:
    users = [behaviour.users(market(), 20, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(users[0].departments, users[1].departments)
    assert all(map(np.array_equal, users[0].histories, users[1].histories))
    assert not np.array_equal(users[0].departments, users[2].departments)
    first, second = (behaviour.sessions(market(), users[0], 30) for _ in range(2))
    assert first.equals(second)
    texts = [[chat.texts for chat in behaviour.chats(market(), 20, seed=s)] for s in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_customers_buy_by_their_taste() -> None:
    users = behaviour.users(market(), 200)
    catalogue = market().catalogue
    loyal = [
        catalogue.brand[item] == users.brand[user, catalogue.department[item]]
        for user, history in enumerate(users.histories)
        for item in history
    ]
    # A half of the purchases by loyalty, and a seventh of the others by chance.
    assert abs(np.mean(loyal) - (0.5 + 0.5 / 7)) < 0.06
    top = users.departments.argmax(1)
    bought = [
        (catalogue.department[history] == top[user]).mean()
        for user, history in enumerate(users.histories)
    ]
    assert abs(np.mean(bought) - users.departments.max(1).mean()) < 0.1
    assert all((catalogue.accessory[history] < 0).all() for history in users.histories)


def test_the_log_follows_position_and_grade() -> None:
    rows = log()
    look = behaviour.propensities(10)
    assert np.array_equal(rows["propensity"], look[rows["position"] - 1])
    for position in (1, 3, 10):
        here = rows["position"] == position
        error = np.sqrt(look[position - 1] * (1 - look[position - 1]) / here.sum())
        assert abs(rows["looked"][here].mean() - look[position - 1]) <= 4 * error
    rates = [rows["click"][rows["looked"] & (rows["grade"] == grade)].mean() for grade in range(4)]
    # At least the stated rate, and at most the doubled one of those who like the brand.
    for rate, stated in zip(rates, behaviour.CLICK, strict=True):
        assert 0.5 * stated <= rate <= min(1, 2.2 * stated)
    assert rates == sorted(rates)
    assert (rows["click"] <= rows["looked"]).all()
    assert (rows["cart"] <= rows["click"]).all()
    assert (rows["purchase"] <= rows["cart"]).all()
    assert rows["purchase"].any()


def test_the_log_shows_training_queries_alone_and_items_at_several_positions() -> None:
    rows = log()
    table = market().source.table.to_pydict()
    split = dict(zip(table["query_id"], table["split"], strict=True))
    assert {split[query] for query in rows["query_id"].tolist()} == {"train"}
    pairs = np.char.add(rows["query_id"].astype(str), rows["item_id"].astype(str))
    places: dict[str, set[int]] = {}
    for pair, position in zip(pairs.tolist(), rows["position"].tolist(), strict=True):
        places.setdefault(pair, set()).add(position)
    assert np.mean([len(one) > 1 for one in places.values()]) > 0.5


def test_chats_end_in_a_need_of_a_query() -> None:
    needs = {
        (need.department, need.kind, need.accessory, frozenset(need.constraints))
        for need in market().truth.needs
    }
    chats = behaviour.chats(market(), 200)
    assert {len(chat.texts) for chat in chats} == {2, 3, 4, 5}
    corrected = 0
    for chat in chats:
        assert len(chat.texts) == len(chat.needs)
        last = chat.needs[-1]
        assert (last.department, last.kind, last.accessory, frozenset(last.constraints)) in needs
        assert chat.needs[0].constraints == ()
        everything = np.arange(len(market().catalogue))
        grade, _ = judge(market().catalogue, last, everything)
        assert np.array_equal(chat.exact, np.flatnonzero(grade == EXACT))
        assert len(chat.exact) > 0
        corrected += any(not set(one.constraints) <= set(last.constraints) for one in chat.needs)
    assert corrected > 5
