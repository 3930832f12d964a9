"""Sizes that no machine has the memory for are refused from the config alone."""

from typing import Any

import pytest

from sie_jax.config import Config
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.recipes import sizes


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("model", "hidden_size", 10**6),
        ("model", "intermediate_size", 10**9),
        ("data", "max_length", 10**10),
        ("data", "vocabulary_size", 10**12),
        ("train", "batch_size", 10**11),
        ("evaluation", "resamples", 10**13),
    ],
)
def test_what_no_machine_holds_is_named(section: str, field: str, value: int) -> None:
    config = Config()
    sizes.check(config, meshes.make(1))
    setattr(getattr(config, section), field, value)
    with pytest.raises(UserError, match=rf"needs .* of memory.*: lower .*({field}|it)"):
        sizes.check(config, meshes.make(1))


def test_pretraining_has_a_batch_of_its_own() -> None:
    config = Config()
    config.pretrain.batch_size = 10**11
    sizes.check(config, meshes.make(1))  # there is none
    config.pretrain.steps = 100
    with pytest.raises(UserError, match=r"^pretrain\.batch_size of 100,000,000,000 on each device"):
        sizes.check(config, meshes.make(1))


def test_the_parameters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bytes each: (100 + 512) · 8 of embeddings, and 2 · (4 · 8² + 2 · 8 · 16) of layers."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        sizes.memory, "require", lambda what, needed, there, fix: told.update({what: needed})
    )
    config = Config()
    config.data.vocabulary_size, config.model.hidden_size = 100, 8
    config.model.num_hidden_layers, config.model.intermediate_size = 2, 16
    sizes.check(config, meshes.make(1))
    assert told["a model of 5,920 parameters"] == 16 * (612 * 8 + 2 * (256 + 256))


def test_layers_that_no_compiler_ends_with_are_refused() -> None:
    config = Config()
    config.model.num_hidden_layers = 100_000
    with pytest.raises(UserError, match="num_hidden_layers is 100000: give a number from 1 to"):
        config.check()
