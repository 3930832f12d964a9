from pathlib import Path

import pytest

from sie_jax.commands.fields import Group, comments, groups, listing
from sie_jax.commands.flags import parse
from sie_jax.config import Config, as_json
from sie_jax.data.section import SOURCES
from sie_jax.errors import UserError
from sie_jax.importance import ESTIMATORS, POLICIES
from sie_jax.importance.section import AUTO
from sie_jax.sections import flat
from sie_jax.tasks import TASKS


@pytest.fixture(scope="module")
def found() -> list[Group]:
    return list(groups())


def test_every_field_has_a_meaning_and_stands_once(found: list[Group]) -> None:
    fields = [field for group in found for field in group.fields]
    assert sorted(field.name for field in fields) == sorted(flat(as_json(Config())))
    assert [field.name for field in fields if not field.meaning or not field.kind] == []
    assert [group.name for group in found if not group.about] == []


def test_choices_are_those_of_the_checks(found: list[Group]) -> None:
    choices = {field.name: field.choices for group in found for field in group.fields}
    assert choices["data.source"] == SOURCES
    assert choices["train.task"] == tuple(TASKS)
    assert choices["importance.score"] == choices["importance.estimators"] == tuple(ESTIMATORS)
    assert choices["importance.policy"] == (*POLICIES, AUTO)
    assert set(choices["data.esci.version"]) == {"large", "small"}
    assert choices["data.path"] == choices["data.gains"] == choices["train.batch_size"] == ()


def test_the_listing_fits_a_terminal_and_is_what_flags_take() -> None:
    lines = listing().split("\n")
    assert max(map(len, lines)) <= 100
    flags = [line.strip() for line in lines if line.startswith("  --config.")]
    assert len(flags) == len(flat(as_json(Config())))
    file = Path(__file__).parents[2] / "configs/quickstart.py"
    assert parse(["train", f"--config={file}", *flags]).config == Config()
    assert "  --config.data.gains=" in lines


def test_a_section_alone_is_listed_by_its_name() -> None:
    text = listing("data.clicks")
    flags = [line for line in text.split("\n") if line.startswith("  --")]
    assert flags
    assert all(flag.startswith("  --config.data.clicks.") for flag in flags)
    assert listing("train.task").count("  --config") == 1
    with pytest.raises(UserError, match="did you mean data"):
        listing("data.click")
    with pytest.raises(UserError, match=r"the sections are data, data\.synthetic, .*, tracking"):
        listing("data.nothing")


class Documented:
    """A section of which two fields have a comment."""

    behind: int = 1  # behind it
    # above it, in
    # two lines
    above: tuple[int, ...] = ()
    none: str = "# no comment"


def test_a_comment_of_a_field_is_behind_it_or_above_it() -> None:
    assert comments(Documented) == {
        "behind": "behind it",
        "above": "above it, in two lines",
        "none": "",
    }
