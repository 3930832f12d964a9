"""PairClassifier: its formula, its dropout, its label names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sie_jax.models import FlaxBert, PairClassifier


@pytest.fixture
def classifier(config, randomise):
    return randomise(PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0)))


def test_logits_equal_numpy(classifier, config, batch, numpy_hidden_states, tmp_path):
    classifier.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    tensors = {name.removeprefix("bert."): value for name, value in stored.items()}
    ids, types, mask = batch
    logits = classifier(*batch)
    assert logits.shape == (3, 4)
    for row in range(3):
        length = mask[row].sum()
        hidden = numpy_hidden_states(tensors, config, ids[row, :length], types[row, :length])[-1]
        pooled = np.tanh(tensors["pooler.dense.weight"] @ hidden[0] + tensors["pooler.dense.bias"])
        expected = tensors["classifier.weight"] @ pooled + tensors["classifier.bias"]
        np.testing.assert_allclose(logits[row], expected, rtol=0, atol=5e-5)


def test_features_are_a_further_layer_that_no_folder_has(config, randomise, batch, tmp_path):
    model = randomise(PairClassifier(config, num_labels=1, num_features=2, rngs=nnx.Rngs(0)))
    features = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    expected = np.asarray(model(*batch)) + features @ np.asarray(model.features.kernel[...])
    np.testing.assert_allclose(model(*batch, features=features), expected, rtol=1e-6, atol=1e-6)
    model.save_pretrained(tmp_path)
    assert "features.weight" not in load_file(tmp_path / "model.safetensors")
    again, report = PairClassifier.from_pretrained(tmp_path, num_features=2)
    assert (report.initialised, report.ignored) == ([], [])
    assert again.features.kernel.shape == (2, 1)
    np.testing.assert_array_equal(again(*batch), model(*batch))
    assert not hasattr(PairClassifier.from_pretrained(tmp_path)[0], "features")
    with pytest.raises(ValueError, match="num_features must be at least 0"):
        PairClassifier(config, num_labels=1, num_features=-1, rngs=nnx.Rngs(0))


def test_leading_shapes_agree(classifier, batch):
    run = jax.jit(lambda *inputs: classifier(*inputs))
    logits = run(*batch)
    np.testing.assert_allclose(jax.vmap(run)(*batch), logits, rtol=0, atol=1e-5)
    deep = run(*(part[None, :, None] for part in batch))
    assert deep.shape == (1, 3, 1, 4)
    np.testing.assert_allclose(deep[0, :, 0], logits, rtol=0, atol=1e-5)


def test_logits_are_float32_in_bfloat16(config, randomise, batch, classifier):
    low = randomise(PairClassifier(config, num_labels=4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert low(*batch).dtype == jnp.float32
    np.testing.assert_allclose(low(*batch), classifier(*batch), rtol=0, atol=0.15)


def test_the_embedding_is_what_the_classifier_receives(config, randomise, batch):
    model = randomise(PairClassifier(config, num_labels=4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    embedded = model.embed(*batch)
    assert (embedded.shape, embedded.dtype) == ((3, 12), jnp.float32)
    np.testing.assert_array_equal(model.classifier(embedded), model(*batch))


def test_rematerialisation_is_the_encoders(classifier):
    assert classifier.remat == "none"
    classifier.remat = "layers"
    graphdef, params = nnx.split(classifier)
    assert nnx.merge(graphdef, params).remat == classifier.bert.remat == "layers"


def test_split_gives_params_alone(classifier):
    _, params = nnx.split(classifier)
    assert {type(leaf) for _, leaf in nnx.to_flat_state(params)} == {nnx.Param}


def test_classifier_dropout_falls_back_to_hidden_dropout(config, randomise, batch):
    key = jax.random.key(0)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0

    def logits(**rates):
        for name, rate in rates.items():
            setattr(config, name, rate)
        model = randomise(PairClassifier(config, num_labels=2, rngs=nnx.Rngs(0)))
        with pytest.raises(ValueError, match="needs a key"):
            model(*batch, deterministic=False)
        first = model(*batch, deterministic=False, key=key)
        np.testing.assert_array_equal(model(*batch, deterministic=False, key=key), first)
        np.testing.assert_array_equal(model(*batch, key=key), plain)
        return first

    quiet = randomise(PairClassifier(config, num_labels=2, rngs=nnx.Rngs(0)))
    plain = quiet(*batch)
    np.testing.assert_array_equal(quiet(*batch, deterministic=False), plain)
    own = logits(classifier_dropout=0.5)
    assert np.abs(own - plain).max() > 0.01
    both = logits(hidden_dropout_prob=0.5, classifier_dropout=None)
    assert np.abs(both - own).max() > 0.01


def test_label_names_stay_where_there_are_as_many(config):
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    two = PairClassifier(config, num_labels=2, rngs=nnx.Rngs(0)).config
    assert two.id2label == {0: "no", 1: "yes"}
    three = PairClassifier(config, num_labels=3, rngs=nnx.Rngs(0)).config
    assert three.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.num_labels == 2  # the caller's configuration is left alone


def test_no_classes_is_an_error(config):
    with pytest.raises(ValueError, match="num_labels must be at least 1"):
        PairClassifier(config, num_labels=0, rngs=nnx.Rngs(0))


def test_encoder_saved_alone_starts_a_classifier(config, randomise, batch, tmp_path):
    bert = randomise(FlaxBert(config, rngs=nnx.Rngs(0)))
    bert.save_pretrained(tmp_path)
    model, report = PairClassifier.from_pretrained(tmp_path, label_names=["a", "b", "c"])
    assert report.initialised == ["classifier.bias", "classifier.weight"]
    assert report.ignored == []
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    np.testing.assert_array_equal(model.bert(*batch), bert(*batch))
    other, _ = PairClassifier.from_pretrained(tmp_path, num_labels=3, rngs=nnx.Rngs(5))
    assert (other.classifier.kernel[...] != model.classifier.kernel[...]).any()


def test_a_model_of_grades_is_the_start_of_one_with_one_output(config, tmp_path):
    """What its folder says of its own head is left behind."""
    PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0)).save_pretrained(tmp_path / "graded")
    names = ["relevance"]
    model, report = PairClassifier.from_pretrained(tmp_path / "graded", label_names=names)
    assert report.initialised == ["classifier.bias", "classifier.weight"]
    assert (model.config.num_labels, model.config.problem_type) == (1, None)
    model.save_pretrained(tmp_path / "relevance")
    again, report = PairClassifier.from_pretrained(tmp_path / "relevance", label_names=names)
    assert not report.initialised
    assert again.config.id2label == {0: "relevance"}
