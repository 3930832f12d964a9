import json
from pathlib import Path
from typing import Any

import pytest

from sie_jax.errors import UserError
from sie_jax.serving import Settings


def test_round_trip(tmp_path: Path) -> None:
    settings = Settings((0.0, 0.1, 1.0), 64, True, max_query_characters=60)
    settings.write(tmp_path)
    assert Settings.read(tmp_path) == settings
    assert json.loads((tmp_path / "sie_jax.json").read_text())["gains"] == [0.0, 0.1, 1.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_length", "32"),
        ("max_length", 0),
        ("max_length", 7),
        ("max_length", 32.5),
        ("max_length", 10**12),
        ("max_length", True),
        ("gains", ["0", "1"]),
        ("gains", "01"),
        ("gains", [0, float("nan")]),
        ("gains", [0, 10**400]),
        ("item_text", "false"),
        ("item_text", 1),
        ("max_query_characters", "512"),
        ("max_title_characters", 0),
        ("max_title_characters", None),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path: Path, field: str, value: Any) -> None:
    stated = {**Settings((0.0, 1.0), 64)._asdict(), field: value}
    (tmp_path / "sie_jax.json").write_text(json.dumps(stated))
    with pytest.raises(UserError, match=rf"sie_jax\.json cannot be read: {field} is .*: give "):
        Settings.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "",
        "{",
        "[]",
        '{"gains": [0, 1]}',
        '{"gains": 1, "max_length": 8}',
        '{"other": 1}',
    ],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sie_jax.json").write_text(text)
    with pytest.raises(UserError, match=r"sie_jax\.json cannot be read"):
        Settings.read(tmp_path)


def test_a_folder_without_the_file_asks_for_the_flags(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no sie_jax\.json.*--gains and --max_length"):
        Settings.read(tmp_path)
