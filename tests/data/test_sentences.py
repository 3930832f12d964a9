"""Vectors of texts: pooled as the folder says, whatever batch and padding, against one by one."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx
from transformers import BertConfig

from sie_jax.data import sentences, tokenization
from sie_jax.errors import UserError
from sie_jax.models import FlaxBert

TEXTS = ["red shoes", "a", "shoe", "blue running shoes for men and women", "red shoes", ""]
# float32 sums over 12 numbers, in another order where another padding is compiled
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A BERT of random weights and its tokenizer, without facts on pooling."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer = tokenization.train(TEXTS, vocabulary_size=60)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    FlaxBert(config, rngs=nnx.Rngs(0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stated(plain, folder, pooling, **facts):
    for file in plain.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == pooling for name in ("mean_tokens", "cls_token")}
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 12, **modes, **facts})
    )
    return folder


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, ids):
    return nnx.merge(graphdef, params)(ids)


def one_by_one(folder, text, pooling, most=32):
    model, tokenizer = FlaxBert.from_pretrained(folder), tokenization.load(folder)
    graphdef, params = nnx.split(model)
    inner = tokenizer.encode(text, add_special_tokens=False)[: most - 2]
    ids = np.array([tokenizer.cls_token_id, *inner, tokenizer.sep_token_id])
    hidden = np.asarray(forward(graphdef, params, ids), np.float64)
    vector = hidden.mean(0) if pooling == "mean" else hidden[0]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_vectors_are_pooled_as_the_folder_says(plain, tmp_path, mode, pooling):
    folder = stated(plain, tmp_path, mode)
    encoder = sentences.load(folder)
    assert (encoder.towers.pooling, encoder.notes) == (pooling, ())
    vectors = sentences.encode(encoder, TEXTS, batch_size=2)
    expected = [one_by_one(folder, text, pooling) for text in TEXTS]
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(vectors[0], vectors[4])


def test_without_facts_the_mean_is_assumed_and_said(plain):
    encoder = sentences.load(plain)
    assert encoder.towers.pooling == "mean"
    assert "the mean over tokens was assumed" in encoder.notes[0]


def test_other_texts_change_a_vector_by_rounding_at_most(plain):
    encoder = sentences.load(plain)
    together = sentences.encode(encoder, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        # the same program, so hardly any rounding: features of a pair must come out again
        np.testing.assert_allclose(sentences.encode(encoder, [text])[0], vector, atol=1e-7)


def test_the_batch_size_changes_a_vector_by_rounding_at_most(plain):
    encoder = sentences.load(plain)
    np.testing.assert_allclose(
        sentences.encode(encoder, TEXTS, batch_size=2),
        sentences.encode(encoder, TEXTS),
        atol=TOLERANCE,
    )


def test_long_texts_are_cut_where_the_folder_says(plain, tmp_path):
    folder = stated(plain, tmp_path, "mean_tokens")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    encoder = sentences.load(folder)
    assert encoder.max_length == 6
    vector = sentences.encode(encoder, TEXTS[3:4])[0]
    np.testing.assert_allclose(vector, one_by_one(folder, TEXTS[3], "mean", most=6), atol=TOLERANCE)
    # no more than the positions that the model has
    assert sentences.load(plain).max_length == 32


def test_cosine(plain):
    encoder = sentences.load(plain)
    vectors = sentences.encode(encoder, TEXTS).astype(np.float64)
    found = sentences.cosine(encoder, TEXTS, TEXTS[::-1])
    np.testing.assert_allclose(found, (vectors * vectors[::-1]).sum(1), atol=TOLERANCE)
    assert sentences.cosine(encoder, ["red"], ["red"])[0] == pytest.approx(1, abs=TOLERANCE)
    assert sentences.cosine(encoder, [], []).shape == (0,)
    with pytest.raises(ValueError, match="one text or more"):
        sentences.encode(encoder, [])


def test_other_pooling_is_refused(plain, tmp_path):
    folder = stated(plain, tmp_path, "max", pooling_mode_max_tokens=True)
    with pytest.raises(UserError, match="asks for pooling by max_tokens"):
        sentences.load(folder)
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        sentences.load(folder)


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_a_saved_encoder_gives_the_same_vectors(plain, tmp_path, pooling):
    (tmp_path / "given").mkdir()
    (tmp_path / "saved").mkdir()
    encoder = sentences.load(stated(plain, tmp_path / "given", pooling))
    sentences.save(encoder, tmp_path / "saved")
    again = sentences.load(tmp_path / "saved")
    assert (again.towers.pooling, again.max_length, again.notes) == (encoder.towers.pooling, 32, ())
    np.testing.assert_array_equal(sentences.encode(again, TEXTS), sentences.encode(encoder, TEXTS))
