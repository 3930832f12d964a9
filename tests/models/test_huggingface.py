"""Hugging Face folders: what is written comes back, every layout is read, every fault is named."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from model_folders import NAMES, rewrite, set_config, shard, user_error
from safetensors import safe_open
from safetensors.flax import save_file as save_flax_file
from safetensors.numpy import load_file, save_file

from sie_jax.models import FlaxBert, PairClassifier


def assert_same_parameters(left, right):
    jax.tree.map(np.testing.assert_array_equal, nnx.state(left), nnx.state(right))


def test_bert_round_trip_is_exact(bert, folder, batch):
    read = FlaxBert.from_pretrained(folder)
    assert_same_parameters(read, bert)
    np.testing.assert_array_equal(read(*batch), bert(*batch))
    assert FlaxBert.from_pretrained(folder, dtype=jnp.bfloat16)(*batch).dtype == jnp.bfloat16


def test_classifier_round_trip_is_exact(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    for arguments in ({}, {"num_labels": 3}, {"label_names": NAMES}):
        read, report = PairClassifier.from_pretrained(tmp_path, **arguments)
        assert_same_parameters(read, classifier)
        assert (report.initialised, report.ignored) == ([], [])
        assert read.config.id2label == dict(enumerate(NAMES))


def test_bert_without_pooler_round_trip(config, randomise, tmp_path):
    bert = randomise(FlaxBert(config, rngs=nnx.Rngs(0), add_pooling_layer=False))
    bert.save_pretrained(tmp_path)
    read = FlaxBert.from_pretrained(tmp_path)
    assert read.pooler is None
    assert_same_parameters(read, bert)


def test_written_files(classifier, bert, tmp_path):
    classifier.save_pretrained(str(tmp_path / "new" / "model"))
    folder = tmp_path / "new" / "model"
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    fields = json.loads((folder / "config.json").read_text())
    assert fields["model_type"] == "bert"
    assert fields["architectures"] == ["BertForSequenceClassification"]
    assert fields["id2label"] == {"0": "irrelevant", "1": "partial", "2": "exact"}
    assert fields["label2id"] == {"irrelevant": 0, "partial": 1, "exact": 2}
    assert fields["problem_type"] == "single_label_classification"
    with safe_open(folder / "model.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) >= {"bert.pooler.dense.weight", "classifier.weight"}
        kernel = opened.get_tensor("bert.encoder.layer.1.output.dense.weight")
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel.T, classifier.bert.layers[1].output.kernel[...])

    bert.save_pretrained(folder)  # over what is there
    fields = json.loads((folder / "config.json").read_text())
    assert fields["architectures"] == ["BertModel"]
    assert_same_parameters(FlaxBert.from_pretrained(folder), bert)


def test_a_broken_write_leaves_the_old_files(bert, folder, randomise, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    randomise(bert, seed=1)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("sie_jax.models.huggingface.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        bert.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_prefixes_old_names_and_foreign_heads(prefix, bert, folder):
    def old(tensors):
        renamed = {
            prefix
            + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in tensors.items()
        }
        return renamed | {
            prefix + "embeddings.position_ids": np.arange(10)[None],
            "cls.predictions.bias": np.zeros(23, np.float32),
            "qa_outputs.weight": np.zeros((2, 12), np.float32),
        }

    rewrite(folder, old)
    assert_same_parameters(FlaxBert.from_pretrained(folder), bert)
    model, report = PairClassifier.from_pretrained(folder, num_labels=2)
    assert_same_parameters(model.bert, bert)
    assert report.initialised == ["classifier.bias", "classifier.weight"]
    assert report.ignored == sorted(
        [prefix + "embeddings.position_ids", "cls.predictions.bias", "qa_outputs.weight"]
    )


def test_absent_pooler_is_initialised_and_said(bert, folder):
    rewrite(folder, lambda t: {k: v for k, v in t.items() if not k.startswith("pooler")})
    model, report = PairClassifier.from_pretrained(folder, num_labels=2)
    assert report.initialised == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ]
    assert model.bert.pooler.kernel[...].std() > 0
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(model)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_labels": 4},
        {"num_labels": 3, "label_names": ["exact", "partial", "irrelevant"]},
        {"label_names": ["a", "b", "c"]},
    ],
)
def test_another_classifier_is_initialised_and_said(arguments, classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    model, report = PairClassifier.from_pretrained(tmp_path, **arguments)
    heads = ["classifier.bias", "classifier.weight"]
    assert (report.initialised, report.ignored) == (heads, heads)
    assert_same_parameters(model.bert, classifier.bert)
    labels = arguments.get("num_labels", 3)
    assert model.classifier.kernel.shape == (12, labels)
    names = arguments.get("label_names", [f"LABEL_{i}" for i in range(labels)])
    assert list(model.config.id2label.values()) == names


def test_made_up_label_names_do_not_count(config, randomise, tmp_path):
    plain = randomise(PairClassifier(config, num_labels=3, rngs=nnx.Rngs(0)))
    plain.save_pretrained(tmp_path)
    model, report = PairClassifier.from_pretrained(tmp_path, label_names=NAMES)
    assert report.initialised == []
    assert_same_parameters(model, plain)


def test_half_a_head_is_no_head(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda t: {k: v for k, v in t.items() if k != "classifier.weight"})
    _, report = PairClassifier.from_pretrained(tmp_path)
    assert report.initialised == ["classifier.bias", "classifier.weight"]
    assert report.ignored == ["classifier.bias"]


def test_label_names_must_be_different_and_as_many(folder):
    for arguments in ({"label_names": ["a", "a"]}, {"num_labels": 3, "label_names": ["a", "b"]}):
        with pytest.raises(ValueError, match="different names"):
            PairClassifier.from_pretrained(folder, **arguments)


def test_sharded_safetensors(bert, folder):
    shard(folder)
    assert_same_parameters(FlaxBert.from_pretrained(folder), bert)
    bert.save_pretrained(folder)  # the index would name another model's shards
    assert not (folder / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_stored_dtypes_become_float32(dtype, bert, folder):
    tensors = load_file(folder / "model.safetensors")
    path = folder / "model.safetensors"
    if dtype == "bfloat16":
        save_flax_file({k: jnp.asarray(v, dtype) for k, v in tensors.items()}, path)
    else:
        save_file({k: v.astype(dtype) for k, v in tensors.items()}, path)
    read = nnx.state(FlaxBert.from_pretrained(folder))
    for leaf, original in zip(jax.tree.leaves(read), jax.tree.leaves(nnx.state(bert)), strict=True):
        expected = np.asarray(original).astype(jnp.dtype(dtype)).astype(np.float32)
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, expected)


def test_missing_folder(tmp_path):
    message = user_error(lambda: FlaxBert.from_pretrained(tmp_path / "absent"))
    assert str(tmp_path / "absent") in message
    assert "no such folder" in message


def test_missing_config(folder):
    (folder / "config.json").unlink()
    assert user_error(lambda: FlaxBert.from_pretrained(folder)) == (
        f"{folder / 'config.json'}: no such file"
    )


@pytest.mark.parametrize(
    "text", ["{", "[]", b"\xff", "[" * 100_000, '{"hidden_size": 1' + "0" * 5000]
)
def test_unreadable_config(text, folder):
    path = folder / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert user_error(lambda: FlaxBert.from_pretrained(folder)).startswith(f"{path}: ")


def test_a_configuration_that_transformers_refuses(folder):
    set_config(folder, hidden_size="wide")
    message = user_error(lambda: FlaxBert.from_pretrained(folder))
    assert message.startswith(f"{folder / 'config.json'}: not a BertConfig: ")
    assert "hidden_size" in message


@pytest.mark.parametrize("kind", ["roberta", None])
def test_other_model_type(kind, folder):
    set_config(folder, model_type=kind)
    assert f"model_type is {kind!r}" in user_error(lambda: FlaxBert.from_pretrained(folder))


def test_pytorch_weights_alone(folder):
    (folder / "model.safetensors").unlink()
    assert f"{folder}: no model.safetensors" in user_error(lambda: FlaxBert.from_pretrained(folder))
    (folder / "pytorch_model.bin").write_bytes(b"")
    message = user_error(lambda: FlaxBert.from_pretrained(folder))
    assert "pytorch_model.bin" in message
    assert "convert" in message


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_unreadable_safetensors(content, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    message = user_error(lambda: FlaxBert.from_pretrained(folder))
    assert message.startswith(f"{path}: cannot be read: ")


def test_missing_shard_and_bad_index(folder):
    files = shard(folder)
    (folder / files[1]).unlink()
    assert files[1] in user_error(lambda: FlaxBert.from_pretrained(folder))
    index = folder / "model.safetensors.index.json"
    for text in ("{", "{}", '{"weight_map": {"a": 1}}'):
        index.write_text(text)
        assert str(index) in user_error(lambda: FlaxBert.from_pretrained(folder))


def test_all_missing_and_misshaped_tensors_are_named_at_once(folder):
    def spoil(tensors):
        del tensors["encoder.layer.1.attention.self.query.weight"]
        del tensors["embeddings.LayerNorm.bias"]
        tensors["encoder.layer.0.output.dense.weight"] = np.zeros((12, 19), np.float32)
        return tensors

    rewrite(folder, spoil)
    for call in (
        lambda: FlaxBert.from_pretrained(folder),
        lambda: PairClassifier.from_pretrained(folder, num_labels=2),
    ):
        message = user_error(call)
        assert str(folder) in message
        assert "encoder.layer.1.attention.self.query.weight is missing" in message
        assert "embeddings.LayerNorm.bias is missing" in message
        shapes = "has shape [12, 19], expected [12, 20]"
        assert f"encoder.layer.0.output.dense.weight {shapes}" in message
