"""Towers: vectors against NumPy, folders that come back the same, and folders that are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sie_jax.errors import UserError
from sie_jax.models import FlaxBert, PairClassifier, Towers
from sie_jax.models.towers import is_towers


@pytest.fixture(params=["mean", "cls"])
def towers(request, config, randomise):
    return randomise(Towers(config, pooling=request.param, max_length=9, rngs=nnx.Rngs(0)))


def test_vectors_equal_numpy(towers, config, batch, numpy_hidden_states, tmp_path):
    towers.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    ids, _, mask = batch
    vectors = towers(ids, mask)
    assert (vectors.shape, vectors.dtype) == ((3, 12), jnp.float32)
    for row in range(3):
        length = mask[row].sum()
        types = np.zeros(length, np.int32)
        hidden = numpy_hidden_states(tensors, config, ids[row, :length], types)[-1]
        pooled = hidden.mean(0) if towers.pooling == "mean" else hidden[0]
        # float32 through two layers, as the logits of heads
        np.testing.assert_allclose(vectors[row], pooled / np.linalg.norm(pooled), rtol=0, atol=2e-5)


def test_leading_shapes_agree(towers, batch):
    ids, _, mask = batch
    run = jax.jit(lambda *inputs: towers(*inputs))
    np.testing.assert_allclose(jax.vmap(run)(ids, mask), run(ids, mask), rtol=0, atol=1e-5)


def test_a_text_without_tokens_has_no_vector_and_a_finite_gradient(config, randomise):
    graphdef, params = nnx.split(randomise(Towers(config, rngs=nnx.Rngs(0))))

    def total(params):
        return jnp.sum(nnx.merge(graphdef, params)(jnp.ones((4,), int), jnp.zeros((4,), bool)))

    value, gradient = jax.value_and_grad(total)(params)
    assert value == 0
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


def test_dropout_needs_a_key_and_follows_it(config, randomise, batch):
    towers, (ids, _, mask) = randomise(Towers(config, rngs=nnx.Rngs(0))), batch
    with pytest.raises(ValueError, match="needs a key"):
        towers(ids, mask, deterministic=False)
    one, again, other = (
        towers(ids, mask, deterministic=False, key=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(one, axis=-1), 1, rtol=1e-6)


def test_every_parameter_moves_the_vectors(config, randomise, batch):
    graphdef, params = nnx.split(randomise(Towers(config, rngs=nnx.Rngs(0))))
    ids, _, mask = batch

    def total(params):
        return jnp.sum(nnx.merge(graphdef, params)(ids, mask)[..., 0])

    for path, leaf in nnx.to_flat_state(jax.grad(total)(params)):
        if path[-2:] != ("key", "bias"):  # adds the same to all scores of attention
            assert np.abs(leaf[...]).max() > 0, path


def test_a_saved_folder_gives_the_same_model(towers, batch, tmp_path):
    ids, _, mask = batch
    towers.save_pretrained(tmp_path)
    again, notes = Towers.from_pretrained(tmp_path)
    assert is_towers(tmp_path)
    assert (again.pooling, again.max_length, notes) == (towers.pooling, 9, ())
    np.testing.assert_array_equal(again(ids, mask), towers(ids, mask))
    modules = json.loads((tmp_path / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    assert all((tmp_path / module["path"]).is_dir() for module in modules)


def test_a_folder_of_a_new_version_is_read(towers, batch, tmp_path):
    """As sentence-transformers 6 writes it: one word for the pooling, the length by the tokenizer.

    benchmarks/towers_reference.py has the library itself write one.
    """
    towers.save_pretrained(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 12, "pooling_mode": towers.pooling})
    )
    (tmp_path / "sentence_bert_config.json").write_text('{"module_output_name": "any"}')
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 7}')
    modules = json.loads((tmp_path / "modules.json").read_text())
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.base.modules.{kind.lower()}.{kind}"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    again, notes = Towers.from_pretrained(tmp_path)
    assert (again.pooling, again.max_length, notes) == (towers.pooling, 7, ())
    ids, _, mask = batch
    np.testing.assert_array_equal(again(ids, mask), towers(ids, mask))


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_a_folder_without_facts_pools_by_the_mean_and_says_so(
    kind, config, randomise, batch, tmp_path
):
    """Heads and pooler are not read, so that both folders give the encoder's own vectors."""
    encoder = randomise(FlaxBert(config, rngs=nnx.Rngs(0)))
    if kind == "encoder":
        encoder.save_pretrained(tmp_path)
    else:
        classifier = PairClassifier(config, num_labels=3, rngs=nnx.Rngs(0))
        classifier.bert = encoder
        classifier.save_pretrained(tmp_path)
    towers, notes = Towers.from_pretrained(tmp_path)
    assert notes == (f"{tmp_path} has no 1_Pooling/config.json: the mean over tokens was assumed.",)
    assert not is_towers(tmp_path)
    assert towers.max_length == 10  # the positions of the model
    ids, _, mask = batch
    hidden = np.where(mask[..., None], encoder(ids, None, mask), 0).sum(1)
    wanted = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
    np.testing.assert_allclose(towers(ids, mask), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "[", "cannot be read"),
        ("modules.json", "{}", "is no list of modules"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense"}]', "the module Dense"),
        ("1_Pooling/config.json", "{", "cannot be read"),
        ("1_Pooling/config.json", "[]", "not a JSON object"),
        ("1_Pooling/config.json", "{}", "pooling by nothing"),
        ("1_Pooling/config.json", '{"pooling_mode": ["cls", "mean"]}', "by cls, mean"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "by max_tokens"),
        ("1_Pooling/config.json", '{"pooling_mode": 5}', "by 5"),
        ("1_Pooling/config.json", "[" * 100_000, "nested too deeply"),
        ("sentence_bert_config.json", "[]", "not a JSON object"),
        ("sentence_bert_config.json", '{"max_seq_length": NaN}', "is nan: give a number"),
        ("sentence_bert_config.json", '{"max_seq_length": Infinity}', "is inf: give a number"),
        ("sentence_bert_config.json", '{"max_seq_length": 2}', "max_seq_length is 2: give"),
        ("sentence_bert_config.json", '{"max_seq_length": "all"}', "is 'all': give a number"),
    ],
)
def test_other_folders_are_refused_in_one_line(file, content, message, config, randomise, tmp_path):
    randomise(Towers(config, rngs=nnx.Rngs(0))).save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        Towers.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_pooling_is_no_model(config):
    with pytest.raises(ValueError, match="pooling is 'max'"):
        Towers(config, pooling="max", rngs=nnx.Rngs(0))


def test_flops_are_those_of_the_encoder(config):
    towers = Towers(config, rngs=nnx.Rngs(0))
    assert towers.step_flops(3, 6) == 3 * 2 * 3 * towers.bert.products(6)
