from pathlib import Path

import pytest

from sie_jax.data.chats import ChatColumnsConfig, Chats, ChatsConfig, read_table
from sie_jax.data.sources.market import generate
from sie_jax.data.sources.market.behaviour import chats
from sie_jax.errors import UserError

ROWS = (
    "conversation,turn,role,text,chosen\n"
    "a,2,customer,in blue,\n"
    "a,1,Customer,a hat please,\n"
    "a,3,agent,here you are,i7 i9\n"
    "b,1,customer,hello,\n"
    ",1,customer,nobody,\n"
    "b,two,customer,when,\n"
    "b,2,customer,,\n"
)


def table(folder: Path, text: str = ROWS, **columns: str) -> Chats:
    path = folder / "chats.csv"
    path.write_text(text)
    return read_table(str(path), ChatColumnsConfig(**columns), ("customer",))


def test_turns_are_in_order_and_what_is_none_is_told(tmp_path: Path) -> None:
    found = table(tmp_path)
    assert found.ids == ["a", "b"]
    assert found.turns == [["a hat please", "in blue"], ["hello"]]
    assert found.chosen == [["i7", "i9"], []]
    assert found.counts == {"turns": 3, "turns_of_others": 1}
    assert found.unreadable["reason"].to_pylist() == [
        "no_conversation",
        "turn_not_a_number",
        "no_text",
    ]
    assert found.of("train") == ([["a hat please", "in blue"]], [["i7", "i9"]])
    found.save(tmp_path)
    again = Chats.load(tmp_path)
    assert (again.ids, again.turns, again.chosen) == (found.ids, found.turns, found.chosen)


def test_without_turns_and_roles_the_rows_are_the_customers_in_order(tmp_path: Path) -> None:
    found = table(tmp_path, "conversation,text\na,first\na,then\n", turn="", role="", chosen="")
    assert found.turns == [["first", "then"]]


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'role'"):
        table(tmp_path, "conversation,turn,text,chosen\na,1,x,\n")
    with pytest.raises(UserError, match="no turn that can be used"):
        table(tmp_path, "conversation,turn,role,text,chosen\n,1,customer,x,\n")
    with pytest.raises(UserError, match=r"data\.path is empty"):
        ChatsConfig(source="table").check()
    with pytest.raises(UserError, match=r"data\.source is 'web'"):
        ChatsConfig(source="web").check()


def test_chats_of_the_shop_have_the_split_of_their_query() -> None:
    data = ChatsConfig(market_chats=60)
    data.market.items, data.market.queries = 300, 60
    found = data.read()
    assert set(found.split) == {"train", "validation", "test"}
    market = generate(data.market, validation=data.validation, test=data.test)
    table = market.source.table
    split_of = dict(zip(table["query_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    made = chats(market, 60, seed=data.seed)
    assert found.split.tolist() == [split_of[f"q{one.query}"] for one in made]
    assert found.turns == [list(one.texts) for one in made]
    assert found.items.num_rows == 300
