"""Folders whose config.json or tensors are no model's: each gets one line, and nothing is made."""

import numpy as np
import pytest
from flax import nnx
from model_folders import NAMES, rewrite, set_config, shard, user_error
from safetensors.numpy import load_file

from sie_jax.devices import memory
from sie_jax.models import FlaxBert, PairClassifier, PretrainingModel, Towers

NAN = float("nan")


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 0},
        {"hidden_size": -12},
        {"vocab_size": -23},
        {"max_position_embeddings": 0},
        {"num_attention_heads": -3},
        {"intermediate_size": 10**12},
        {"type_vocab_size": 0},
        {"layer_norm_eps": NAN},
        {"initializer_range": float("inf")},
        {"hidden_dropout_prob": 1.0},
        {"attention_probs_dropout_prob": -0.1},
        {"classifier_dropout": NAN},
        {"pad_token_id": 23},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 10**9},
        {"num_labels": 10**9},
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": {"0": 5}},
    ],
    ids=str,
)
def test_values_that_no_model_has(fields, folder):
    set_config(folder, **fields)
    ((name, _),) = fields.items()
    for kind in (FlaxBert, PairClassifier, PretrainingModel, Towers):
        message = user_error(lambda kind=kind: kind.from_pretrained(folder))
        assert name in message
        assert message.startswith(str(folder))


def test_a_model_beyond_the_memory_is_refused_before_anything_is_made(folder, config, monkeypatch):
    held = sum(tensor.nbytes for tensor in load_file(folder / "model.safetensors").values())
    pooler = 4 * 12 * 13  # which is not counted, and is small
    monkeypatch.setattr(memory, "of_machine", lambda: held - pooler)
    FlaxBert.from_pretrained(folder)
    monkeypatch.setattr(memory, "of_machine", lambda: held - pooler - 1)
    monkeypatch.setattr("sie_jax.models.bert.embedding", None)  # nothing is called
    for make in (
        lambda: FlaxBert.from_pretrained(folder),
        lambda: FlaxBert(config, rngs=nnx.Rngs(0)),
    ):
        assert "hidden_size 12" in user_error(make)
        assert "of memory, but this machine has" in user_error(make)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, old: {name: old.astype(np.int32)}, "holds I32, expected F64 or F32"),
        (lambda name, old: {name: old.astype(bool)}, "holds BOOL, expected F64 or F32"),
        (lambda name, old: {name: np.where(old == old.max(), NAN, old)}, "holds NaN or infinity"),
        # finite where it is stored, and not in float32
        (lambda name, old: {name: old.astype(np.float64) + 1e300}, "holds NaN or infinity"),
        (lambda name, old: {f"bert.{name}": old}, "is the tensor that model.safetensors holds as"),
        (lambda name, old: {f"{name}_scale": old}, "is of no part of the encoder"),
        (lambda name, old: {"embeddings.projection.weight": old}, "is of no part of the encoder"),
    ],
)
@pytest.mark.parametrize("name", ["encoder.layer.1.output.dense.bias", "embeddings.LayerNorm.bias"])
def test_tensors_that_are_no_weights_of_the_model(name, change, message, folder):
    rewrite(folder, lambda tensors: tensors | change(name, tensors[name]))
    for kind in (FlaxBert, PairClassifier):
        assert message in user_error(lambda kind=kind: kind.from_pretrained(folder))


@pytest.mark.parametrize("file", ["../other.safetensors", "sub/other.safetensors", "/other"])
def test_an_index_that_leads_elsewhere(file, folder):
    names = shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(names[1], file))
    message = user_error(lambda: FlaxBert.from_pretrained(folder))
    assert message.startswith(f"{index}: names files that are not of this folder: {file}: ")


def test_labels_of_another_number_than_the_classifiers(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    set_config(tmp_path, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    message = user_error(lambda: PairClassifier.from_pretrained(tmp_path))
    assert (
        "id2label in config.json names 2 labels, but classifier.bias has the shape [3]" in message
    )
    _, report = PairClassifier.from_pretrained(tmp_path, label_names=NAMES)  # its own are asked for
    assert report.initialised == ["classifier.bias", "classifier.weight"]
    set_config(tmp_path, id2label={}, label2id={})
    assert "names no label" in user_error(lambda: PairClassifier.from_pretrained(tmp_path))


def test_one_segment_is_too_few_for_pairs_and_enough_for_towers(config, randomise, tmp_path):
    config.type_vocab_size = 1
    randomise(FlaxBert(config, rngs=nnx.Rngs(0))).save_pretrained(tmp_path)
    for kind in (PairClassifier, PretrainingModel):
        message = user_error(lambda kind=kind: kind.from_pretrained(tmp_path))
        assert "type_vocab_size in the configuration is 1, but a pair" in message
    towers, _ = Towers.from_pretrained(tmp_path)
    assert np.isfinite(towers(np.ones((2, 4), int), np.ones((2, 4), int))).all()
