"""Chats of the generated shop, searched by words, and a table of intents."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from sie_jax.config import ConversationConfig
from sie_jax.errors import UserError
from sie_jax.recipes import conversation
from sie_jax.serving.conversing import Assistant

pytestmark = pytest.mark.slow


def config_of(folder: Path) -> ConversationConfig:
    config = ConversationConfig(name="talked")
    config.data.market.items, config.data.market.queries = 300, 80
    config.data.market_chats = 150
    table = folder / "intents.csv"
    if not table.exists():
        rows = [f"cancel order {n},cancel\nwhere is order {n},track\n" for n in range(40)]
        table.write_text("text,intent\n" + "".join(rows))
    config.intents.path = str(table)
    config.intents.few, config.intents.seeds = (2,), 2
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talked")
    conversation.run(config_of(folder), folder / "run", console=Console(quiet=True))
    return folder / "run"


def test_chats_and_intents_are_measured(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert {"last", "last 2", "all", "all but frequent words", "selected turns"} <= set(
        metrics["test"]
    )
    assert metrics["test"]["all"]["ndcg@10"]["value"] > metrics["test"]["last"]["ndcg@10"]["value"]
    assert metrics["validation"][metrics["asked_with"]] == max(metrics["validation"].values())
    told = metrics["intents"]
    assert told["test"]["words"]["accuracy"]["value"] == 1.0
    assert told["handed_over"]["answered"] > 0.5
    assert set(told["few"]["2"]["accuracy"]) == {"words"}
    report = (workdir / "report.html").read_text()
    assert "From chat to items" in report
    assert "Accuracy with few examples" in report


def test_the_assistant_of_the_folder_answers_and_finds(workdir: Path) -> None:
    assistant = Assistant.load(workdir / "model")
    answer = assistant.answer("cancel the order")
    assert answer.intent == "cancel"
    assert answer.handed_over == (answer.confidence < assistant.threshold)
    turns = ["hello", "show me a lamp"]
    assert len(assistant.find(turns, count=3)) <= 3
    assert set(assistant.query(turns).split()) <= {"hello", "show", "me", "a", "lamp"}


def test_a_half_may_be_left_out(workdir: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config.data.source = ""
    metrics = conversation.run(config, tmp_path / "run", console=Console(quiet=True))
    assert "test" not in metrics
    assistant = Assistant.load(tmp_path / "run" / "model")
    with pytest.raises(UserError, match="it finds no items"):
        assistant.find(["a lamp"])
    config.intents.path = ""
    with pytest.raises(UserError, match="there are neither chats nor intents"):
        conversation.run(config, tmp_path / "other")
    with pytest.raises(UserError, match="is no folder of an assistant"):
        Assistant.load(tmp_path)


def test_chats_without_a_catalogue_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "chats.csv"
    rows = [f"c{n},1,customer,a lamp,i{n}\n" for n in range(20)]
    table.write_text("conversation,turn,role,text,chosen\n" + "".join(rows))
    config = config_of(tmp_path)
    config.data.source, config.data.path = "table", str(table)
    with pytest.raises(UserError, match="nothing says what can be found"):
        conversation.run(config, tmp_path / "run", console=Console(quiet=True))
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\n" + "".join(f"i{n},lamp {n}\n" for n in range(5)))
    config.data.items.path = str(items)
    metrics = conversation.run(config, tmp_path / "other", console=Console(quiet=True))
    assert metrics["chats"]["items"] == 5
