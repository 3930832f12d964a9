"""A further family of encoders takes its own file and one entry in the list."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from transformers import BertConfig, DistilBertConfig

from sie_jax.errors import UserError
from sie_jax.models import FlaxBert, PairClassifier, PretrainingModel, families
from sie_jax.models.architecture import Architecture
from sie_jax.models.bert import BERT


class OtherConfig(BertConfig):
    model_type = "other"


class OtherEncoder(FlaxBert):
    """Differs from BERT in what it states, and nothing else."""

    @property
    def architecture(self) -> Architecture:
        return OTHER

    @property
    def config(self) -> Any:
        return OtherConfig.from_dict(super().config.to_dict())


OTHER = Architecture(
    model_type="other",
    prefix="backbone",
    class_name="Other",
    config=OtherConfig,
    encoder=OtherEncoder,
    names={**BERT.names, "layers": "blocks", "pooler": "head.dense", "classifier": "head.out"},
)


@pytest.fixture
def two_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (BERT, OTHER))


def test_every_listed_family_is_told_from_the_others() -> None:
    for family in families.FAMILIES:
        assert families.of(family.config()) is family
        assert hash(family) == hash(family)
    assert len({family.model_type for family in families.FAMILIES}) == len(families.FAMILIES)


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.model_type)
def test_a_configuration_has_what_heads_and_the_section_read(family: Architecture) -> None:
    config = family.config(classifier_dropout=None)
    for name in (
        *("vocab_size", "hidden_size", "max_position_embeddings", "initializer_range"),
        *("hidden_dropout_prob", "classifier_dropout", "hidden_act", "layer_norm_eps"),
    ):
        assert hasattr(config, name), name


def test_a_configuration_of_no_family() -> None:
    with pytest.raises(ValueError, match="'distilbert' is not the model_type of a family"):
        families.of(DistilBertConfig())


@pytest.mark.usefixtures("two_families")
def test_a_classifier_of_another_family(config: Any, randomise: Any, batch: Any, tmp_path: Path):
    other = OtherConfig.from_dict({**config.to_dict(), "model_type": "other"})
    model = randomise(PairClassifier(other, num_labels=3, rngs=nnx.Rngs(0)))
    assert model.architecture is model.encoder.architecture is OTHER
    assert model.encoder is model.backbone
    same = randomise(PairClassifier(config, num_labels=3, rngs=nnx.Rngs(0)))
    # `randomise` goes by the names in order, and `backbone` is before `classifier` as `bert` is
    np.testing.assert_array_equal(model(*batch), same(*batch))

    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {"head.out.weight", "backbone.head.dense.bias"} < names
    assert "backbone.blocks.1.attention.self.query.weight" in names
    read, report = PairClassifier.from_pretrained(tmp_path)
    assert (report.initialised, report.ignored) == ([], [])
    np.testing.assert_array_equal(read(*batch), model(*batch))
    _, report = PairClassifier.from_pretrained(tmp_path, num_labels=2)
    assert report.initialised == report.ignored == ["head.out.bias", "head.out.weight"]
    pretraining, report = PretrainingModel.from_pretrained(tmp_path)
    assert pretraining.architecture is OTHER
    assert len(report.initialised) == 7  # the two heads
    with pytest.raises(UserError, match="model_type is 'other', only 'bert' can be read"):
        FlaxBert.from_pretrained(tmp_path)
