import json
from pathlib import Path

import pytest

from sie_jax.errors import UserError
from sie_jax.serving import Settings


def test_round_trip(tmp_path: Path) -> None:
    settings = Settings((0.0, 0.1, 1.0), 64, True, max_query_characters=60)
    settings.write(tmp_path)
    assert Settings.read(tmp_path) == settings
    assert json.loads((tmp_path / "sie_jax.json").read_text())["gains"] == [0.0, 0.1, 1.0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"gains": [0, 1]}', '{"gains": 1, "max_length": 8}', '{"other": 1}']
)
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sie_jax.json").write_text(text)
    with pytest.raises(UserError, match=r"sie_jax\.json cannot be read"):
        Settings.read(tmp_path)


def test_a_folder_without_the_file_asks_for_the_flags(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no sie_jax\.json.*--gains and --max_length"):
        Settings.read(tmp_path)
