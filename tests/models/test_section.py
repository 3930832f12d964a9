"""The section `model` makes the models that its fields describe."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sie_jax.errors import UserError
from sie_jax.models import FlaxBert
from sie_jax.models.section import ModelConfig

NAMES = ("bad", "fair", "good")
SMALL = ModelConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    dropout=0.2,
    dtype="bfloat16",
    remat="dots",
)
GIVEN: dict[str, Any] = {"vocabulary_size": 23, "max_length": 10, "seed": 3}


@pytest.fixture
def pretrained(config: Any, randomise: Any, tmp_path: Path) -> ModelConfig:
    """A folder with an encoder and its pooler, and no classifier."""
    randomise(FlaxBert(config, rngs=nnx.Rngs(0))).save_pretrained(tmp_path)
    return dataclasses.replace(SMALL, pretrained=str(tmp_path))


def equal(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(nnx.state(left)), jax.tree.leaves(nnx.state(right)), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("max_length", [10, 600])
def test_random_weights_of_the_size_given(max_length: int) -> None:
    given = {**GIVEN, "max_length": max_length}
    model, notes = SMALL.classifier(NAMES, **given)
    assert notes == []
    config = model.config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (23, 16, 1)
    assert (config.num_attention_heads, config.intermediate_size) == (2, 24)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.2
    assert config.max_position_embeddings == max(512, max_length)
    assert config.initializer_range == 0.25
    assert config.id2label == dict(enumerate(NAMES))
    assert model.remat == "dots"
    assert model.encoder(np.ones(4, int)).dtype == jnp.bfloat16
    assert equal(model, SMALL.classifier(NAMES, **given)[0])
    assert not equal(model, SMALL.classifier(NAMES, **{**given, "seed": 4})[0])
    heads, _ = SMALL.pretraining_model(NAMES, **given)
    assert (heads.config.to_dict(), heads.remat) == (config.to_dict(), "dots")


def test_a_checkpoint_and_the_notes_on_it(
    pretrained: ModelConfig, config: Any, tmp_path: Path
) -> None:
    model, notes = pretrained.classifier(NAMES, **GIVEN)
    assert notes == [f"{tmp_path}: initialised classifier.bias, classifier.weight"]
    assert model.config.hidden_size == config.hidden_size  # of the folder, not of the section
    assert (model.remat, model.encoder(np.ones(4, int)).dtype) == ("dots", jnp.bfloat16)
    assert equal(model.bert, FlaxBert.from_pretrained(tmp_path))
    heads, notes = pretrained.pretraining_model(NAMES, **GIVEN)
    assert len(notes) == 1
    assert "initialised cls.predictions.bias" in notes[0]
    assert (heads.remat, equal(heads.bert, model.bert)) == ("dots", True)


def test_another_folder_in_place_of_the_checkpoint(pretrained: ModelConfig, tmp_path: Path) -> None:
    other, _ = SMALL.classifier(NAMES, **GIVEN)
    other.save_pretrained(tmp_path / "other")
    model, notes = pretrained.classifier(NAMES, **GIVEN, folder=tmp_path / "other")
    assert notes == []
    assert equal(model, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_length": 11}, r"max_length is 11, but the checkpoint .* has 10 positions: lower it"),
        ({"vocabulary_size": 24}, r"the tokenizer has 24 tokens, but vocab_size in .* is 23: take"),
    ],
)
def test_a_checkpoint_that_is_too_small(
    pretrained: ModelConfig, changed: dict[str, int], message: str
) -> None:
    for make in (pretrained.classifier, pretrained.pretraining_model):
        with pytest.raises(UserError, match=message):
            make(NAMES, **{**GIVEN, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": 10**6, "num_attention_heads": 8}, "hidden_size 1000000"),
        ({"intermediate_size": 10**12}, "intermediate_size in the BERT configuration is"),
    ],
)
def test_a_size_beyond_any_memory(changed: dict[str, int], message: str) -> None:
    section = dataclasses.replace(SMALL, **changed)
    for make in (section.classifier, section.pretraining_model):
        with pytest.raises(UserError, match=message):
            make(NAMES, **GIVEN)
    with pytest.raises(UserError, match=r"vocab_size 2000000000, .* of memory, but this machine"):
        SMALL.towers(**{**GIVEN, "vocabulary_size": 2 * 10**9})
    with pytest.raises(
        UserError, match=r"model\.num_hidden_layers is 100000: give a number from 1 to"
    ):
        dataclasses.replace(SMALL, num_hidden_layers=100_000).check()


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    absent = dataclasses.replace(SMALL, pretrained=str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"model\.pretrained: .*absent: no such folder"):
        absent.folder()
    assert SMALL.folder() == ""
