import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sie_jax
from sie_jax.commands import main


def test_every_command_is_a_module_and_has_a_line_of_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["sie-jax"], ["sie-jax", "--help"], ["sie-jax", "-h"]):
        assert main.entry(words) == 0
        out = capsys.readouterr().out
        for name, does in main.COMMANDS.items():
            assert importlib.util.find_spec(f"sie_jax.commands.{name}")
            assert re.search(rf"^  {name} +{does}$", out, re.MULTILINE)
        assert max(map(len, out.split("\n"))) <= 100


def test_the_version_stands_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.entry(["sie-jax", "--version"]) == 0
    assert capsys.readouterr().out == f"{sie_jax.__version__}\n"
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "sie_jax.__version__" }' in text
    assert not re.search(r'^version = "', text, re.MULTILINE)


@pytest.mark.parametrize(
    ("word", "said"),
    [("trian", "did you mean train?"), ("xyz", "the commands are train, prepare, predict,")],
)
def test_an_unknown_command_names_the_nearest_or_all(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.entry(["sie-jax", word]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: sie-jax {word}: there is no such command; {said}")
    assert err.count("\n") == 1


def test_a_flag_in_place_of_the_command_says_where_it_belongs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.entry(["sie-jax", "--help=data.clicks"]) == 2
    err = capsys.readouterr().err
    assert "the command comes first, as in sie-jax train --help=data.clicks; the commands" in err
    assert err.count("\n") == 1


def test_a_command_gets_the_rest_of_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.entry(["sie-jax", "prepare", "--help", "--", "--runner=x"]) == 0
    assert "sie-jax prepare --config=FILE" in capsys.readouterr().out


def test_what_is_printed_first_waits_for_no_import_of_jax() -> None:
    code = (
        "import sys\n"
        "from sie_jax.commands import main, prepare, train\n"
        "main.entry(['sie-jax', '--help'])\n"
        "assert not {'jax', 'numpy', 'rich', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
