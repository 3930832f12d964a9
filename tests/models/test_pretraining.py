"""PretrainingModel: its formula, and its folder."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sie_jax.models import FlaxBert, PairClassifier, PretrainingModel


@pytest.fixture
def model(config, randomise):
    return randomise(PretrainingModel(config, rngs=nnx.Rngs(0)))


@pytest.fixture
def positions():
    return np.array([[0, 3], [5, 2], [0, 0]], np.int32)


def test_logits_equal_numpy(model, config, batch, positions, numpy_hidden_states, tmp_path):
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    t = {name.removeprefix("bert."): value.astype(np.float64) for name, value in stored.items()}
    ids, types, mask = batch
    words, pair = model(*batch, positions)
    assert words.shape == (3, 2, config.vocab_size)
    assert pair.shape == (3, 2)
    for row in range(3):
        length = mask[row].sum()
        hidden = numpy_hidden_states(t, config, ids[row, :length], types[row, :length])[-1]
        head = "cls.predictions.transform"
        x = hidden[positions[row]] @ t[f"{head}.dense.weight"].T + t[f"{head}.dense.bias"]
        x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        x = x * t[f"{head}.LayerNorm.weight"] + t[f"{head}.LayerNorm.bias"]
        expected = x @ t["embeddings.word_embeddings.weight"].T + t["cls.predictions.bias"]
        # logits of some tens, of sums over 12 units in float32
        np.testing.assert_allclose(words[row], expected, rtol=1e-4, atol=1e-4)
        pooled = np.tanh(t["pooler.dense.weight"] @ hidden[0] + t["pooler.dense.bias"])
        expected = t["cls.seq_relationship.weight"] @ pooled + t["cls.seq_relationship.bias"]
        np.testing.assert_allclose(pair[row], expected, rtol=1e-4, atol=1e-4)


def test_folder_has_the_names_of_bert_for_pre_training(model, tmp_path):
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {name for name in names if not name.startswith("bert.")} == {
        "cls.predictions.bias",
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    }


def test_what_is_written_reads_back_the_same(model, batch, positions, tmp_path):
    model.save_pretrained(tmp_path)
    again, report = PretrainingModel.from_pretrained(tmp_path)
    assert report.initialised == []
    assert report.ignored == []
    for one, other in zip(model(*batch, positions), again(*batch, positions), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_classifier_starts_from_its_encoder_and_pooler(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    classifier, report = PairClassifier.from_pretrained(tmp_path, num_labels=4)
    assert report.initialised == ["classifier.bias", "classifier.weight"]
    hidden = model.bert(*batch)
    np.testing.assert_array_equal(classifier.bert(*batch), hidden)
    np.testing.assert_array_equal(classifier.bert.pool(hidden), model.bert.pool(hidden))


def test_heads_that_a_folder_lacks_are_initialised_and_half_a_head_is_none(
    config, model, batch, tmp_path
):
    FlaxBert(config, rngs=nnx.Rngs(1), add_pooling_layer=False).save_pretrained(tmp_path / "plain")
    loaded, report = PretrainingModel.from_pretrained(tmp_path / "plain", rngs=nnx.Rngs(2))
    assert len(report.initialised) == 9  # the pooler's two and those of the heads
    assert np.isfinite(loaded(*batch, np.zeros((3, 1), np.int32))[0]).all()

    model.save_pretrained(tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    tensors = load_file(file)
    del tensors["cls.predictions.bias"]
    save_file(tensors, file)
    _, report = PretrainingModel.from_pretrained(tmp_path / "half")
    assert len(report.initialised) == 5
    assert all(name.startswith("cls.predictions") for name in report.initialised)


def test_the_word_embeddings_learn_from_both_ends(model, batch):
    """They are shared: a word that no text has is moved all the same, as a word not to be named."""
    graphdef, params = nnx.split(model)

    def loss(params):
        words, _ = nnx.merge(graphdef, params)(*batch, np.array([[1], [1], [0]]))
        return jnp.sum(jax.nn.log_softmax(words)[..., 0])

    gradient = jax.grad(loss)(params)["bert"]["word_embeddings"][...]
    absent = np.setdiff1d(np.arange(len(gradient)), batch[0])
    assert len(absent) > 0
    assert (np.abs(gradient[absent]).sum(1) > 0).all()
