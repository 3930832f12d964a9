from pathlib import Path

import pytest

from sie_jax.data.utterances import IntentsConfig, read_table
from sie_jax.errors import UserError


def test_a_sentence_of_two_tables_is_trained_on_in_none_but_train(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    rows = [f"cancel it {n},cancel\nwhere is it {n},track\n" for n in range(30)]
    train.write_text("text,intent\n" + "".join(rows) + "Cancel  it now,cancel\n,track\nhm,\n")
    test.write_text("text,intent\ncancel it now,cancel\nwhere,track\n")
    found = IntentsConfig(path=str(train), test_path=str(test)).read()
    texts, intents = found.of("test")
    assert texts == ["cancel it now", "where"]
    assert intents == ["cancel", "track"]
    assert "Cancel  it now" not in found.texts
    assert found.repeated == 1
    assert found.unreadable["reason"].to_pylist() == ["no_text", "no_intent"]
    assert set(found.split) == {"train", "validation", "test"}


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("text,intent\n,a\n")
    with pytest.raises(UserError, match=r"no sentence that can be used \(1 no_text\)"):
        read_table(str(path), "text", "intent")
    with pytest.raises(UserError, match="has no column 'wish'"):
        read_table(str(path), "text", "wish")
    other = tmp_path / "other.csv"
    path.write_text("text,intent\n" + "".join(f"t{n},a\n" for n in range(20)))
    other.write_text("text,intent\nnew,b\n")
    with pytest.raises(UserError, match="the intent 'b' of test has no training sentence"):
        IntentsConfig(path=str(path), test_path=str(other)).read()
    with pytest.raises(UserError, match=r"intents\.seeds is 1"):
        IntentsConfig(path=str(path), seeds=1).check()
