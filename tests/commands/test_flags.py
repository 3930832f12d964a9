from pathlib import Path

import pytest

from sie_jax.commands.flags import Command, parse
from sie_jax.errors import UserError

CONFIG = """
from sie_jax.config import Config


def get_config():
    config = Config(name="tiny")
    config.data.gains = (0.0, 1.0)
    return config
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "tiny.py").write_text(CONFIG)
    return f"--config={tmp_path / 'tiny.py'}"


def read(*flags: str) -> Command:
    return parse(["train.py", *flags])


def told(*flags: str) -> str:
    with pytest.raises(UserError) as caught:
        read(*flags)
    return str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        ["--config.data.gains=0,0.5,2"],
        ["--config.data.gains=0", "--config.data.gains=0.5", "--config.data.gains=2"],
        ["--config.data.gains=0,0.5", "--config.data.gains=2"],
        ["--config.data.gains", "0,0.5,2"],
        ["--config.data.gains", "0", "--config.data.gains", "0.5,2"],
        ["-config.data.gains= 0, 0.5 ,2"],
        ["--config.data.gains=0,0.5,2,"],
    ],
    ids=" ".join,
)
def test_a_tuple_takes_commas_repeated_flags_and_a_value_after_a_space(
    config: str, flags: list[str]
) -> None:
    for line in ([config, *flags], [*flags, config]):
        assert read(*line).config.data.gains == (0.0, 0.5, 2.0)


def test_a_tuple_keeps_the_files_values_unless_a_flag_gives_others(config: str) -> None:
    assert read(config).config.data.gains == (0.0, 1.0)
    assert read(config, "--config.data.gains=").config.data.gains == ()


def test_a_tuples_values_have_its_type(config: str) -> None:
    given = read(
        config, "--config.data.table.labels=1,2", "--config.train.profile_steps=3,4"
    ).config
    assert given.data.table.labels == ("1", "2")
    assert given.train.profile_steps == (3, 4)
    assert all(type(step) is int for step in given.train.profile_steps)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.gains=0,a"], "data.gains is '0,a': give values of type float"),
        (["--config.data.gains=0", "--config.data.gains=b"], "data.gains is '0,b'"),
        (["--config.train.profile_steps=1.5"], "train.profile_steps is '1.5'"),
        (["--config.data.gains"], "--config.data.gains: give a value, as in"),
        (["--config.train.batch_size=a"], "--config.train.batch_size=a: give a value of type int"),
        (["--distributed=maybe"], "--distributed=maybe: give a value of type bool"),
        (["--nosuch"], "--nosuch is not a flag: the flags are --config,"),
        (["word"], "'word' is not a flag"),
        (["--config.train.epoch=1"], "there is no field 'train.epoch'; did you mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_a_flag_does_not_take_is_named(config: str, flags: list[str], message: str) -> None:
    assert message in told(config, *flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("x = 1", "give it a get_config"),
        ("def get_config():\n    return 1", "give it a get_config"),
        ("def get_config():\n    return 1 / 0", "bad.py, line 2: ZeroDivisionError"),
        ("def get_config(:", "SyntaxError"),
    ],
)
def test_a_config_file_that_gives_no_config_is_named(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "bad.py").write_text(text)
    assert message in told(f"--config={tmp_path / 'bad.py'}")


def test_the_workdir_is_named_after_the_config(config: str) -> None:
    assert read(config).workdir == "runs/tiny"
    assert read(config, "--config.name=other").workdir == "runs/other"
    assert read(config, "--workdir=here").workdir == "here"


def test_redo_takes_commas_and_repeated_flags(config: str) -> None:
    assert read(config).redo == ()
    for flags in (
        ["--redo=score,train"],
        ["--redo=score", "--redo=train"],
        ["--redo", "score,train"],
    ):
        assert read(config, *flags).redo == ("score", "train")
