"""Losses that couple their units, one for each coupling and each kind of model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import rax
from flax import nnx
from jax import Array
from transformers import BertConfig

from sie_jax.models import PairClassifier

LISTS, SIZE, T, VOCABULARY, WIDTH = 8, 3, 6, 20, 8
UNITS = LISTS * SIZE


class Case(NamedTuple):
    """Arguments of the transforms; `padded` are the units that the coupling leaves out."""

    functions: Any
    coupling: Callable[..., Any]
    params: Any
    units: Any
    rest: Any
    arguments: tuple[Any, ...]
    padded: tuple[int, ...] = ()


def normal(seed: int, *shape: int) -> Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.result_type(float)) / 2


def _ids(seed: int, *shape: int) -> Array:
    return jax.random.randint(jax.random.key(seed), shape, 0, VOCABULARY)


def _params() -> dict[str, Array]:
    return {
        "table": normal(0, VOCABULARY, WIDTH),
        "kernel": normal(1, WIDTH, WIDTH),
        "bias": normal(2, WIDTH),
        "head": normal(3, WIDTH),
        "unused": normal(4, 2),
    }


def score(params: Any, ids: Array, key: Array) -> Array:
    """A pair's score: looked up, a layer, dropout, a mean over tokens, a head."""
    hidden = jnp.tanh(params["table"][ids] @ params["kernel"] + params["bias"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.8, hidden.shape), hidden / 0.8, 0)
    return hidden.mean(0) @ params["head"]


def _pairs(seed: int = 10) -> tuple[Array, Array]:
    return _ids(seed, UNITS, T), jax.random.split(jax.random.key(seed), UNITS)


GAINS = ((2.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 2.0, 0.0))


def labels() -> tuple[Array, Array]:
    """Gains [lists, size] and the mask of items that are there, not all in two lists of four."""
    there = jnp.array([[True] * 3, [True] * 3, [True, True, False], [True, True, False]])
    return jnp.tile(jnp.array(GAINS, jnp.result_type(float)), (2, 1)), jnp.tile(there, (2, 1))


def _of_lists(loss: Callable[..., Array]) -> Callable[..., Array]:
    def coupling(scores: Array, rest: Any, gains: Array, there: Array) -> Array:
        return loss(scores.reshape(gains.shape), gains, where=there)

    return coupling


softmax_coupling = _of_lists(rax.softmax_loss)
PADDED = (8, 11, 20, 23)


def _listwise(loss: Callable[..., Array]) -> Case:
    return Case(score, _of_lists(loss), _params(), _pairs(), None, labels(), PADDED)


def softmax() -> Case:
    return _listwise(rax.softmax_loss)


def approx_ndcg() -> Case:
    """As `rax.approx_t12n(rax.ndcg_metric)`, which needs a module that JAX no longer has."""

    def loss(scores: Array, gains: Array, where: Array) -> Array:
        smooth = {"rank_fn": rax.utils.approx_ranks, "cutoff_fn": rax.utils.approx_cutoff}
        return -rax.ndcg_metric(scores, gains, where=where, **smooth)

    return _listwise(loss)


def lambda_loss() -> Case:
    def loss(scores: Array, gains: Array, where: Array) -> Array:
        return rax.pairwise_logistic_loss(
            scores, gains, where=where, lambdaweight_fn=rax.dcg2_lambdaweight
        )

    return _listwise(loss)


def towers() -> Case:
    """A query and two items a list, in-batch negatives, other lengths, a learned temperature."""

    def embed(params: Any, ids: Array, key: Array) -> Array:
        hidden = jnp.tanh(params["table"][ids] @ params["kernel"] + params["bias"])
        hidden = jnp.where(jax.random.bernoulli(key, 0.8, hidden.shape), hidden / 0.8, 0)
        pooled = hidden.mean(0)
        return pooled * jax.lax.rsqrt(jnp.sum(pooled**2) + 1e-6)

    def query(params: Any, ids: Array, key: Array) -> Array:
        return embed(params, ids, key)

    def item(params: Any, ids: Array, key: Array) -> Array:
        return embed(params, ids, key) + params["item"]

    def coupling(outputs: tuple[Array, Array], rest: Any) -> Array:
        queries, items = outputs
        similarities = queries @ items.T * jnp.exp(rest["log_scale"])
        own = jnp.arange(len(queries)) * (len(items) // len(queries))
        return -jnp.mean(jax.nn.log_softmax(similarities)[jnp.arange(len(queries)), own])

    params = _params() | {"item": normal(5, WIDTH)}
    units = tuple(
        (_ids(seed, number, length), jax.random.split(jax.random.key(seed), number))
        for seed, number, length in ((20, LISTS, 3), (21, 2 * LISTS, 7))
    )
    rest = {"log_scale": jnp.asarray(1.5, jnp.result_type(float))}
    return Case((query, item), coupling, params, units, rest, ())


def rest_in_params() -> Case:
    """The coupling reads params itself: a temperature there, and a penalty on a weight."""

    def coupling(scores: Array, rest: Any, gains: Array, there: Array) -> Array:
        scaled = scores * jnp.exp(rest["log_scale"])
        return softmax_coupling(scaled, None, gains, there) + 0.1 * jnp.sum(rest["kernel"] ** 2)

    params = _params() | {"log_scale": jnp.asarray(0.5, jnp.result_type(float))}
    return Case(score, coupling, params, _pairs(), params, labels(), PADDED)


def scanned() -> Case:
    """Layers in a scan, in a checkpoint; a table of each layer; a leaf that is returned."""

    def outputs(params: Any, ids: Array) -> dict[str, Array]:
        def layer(hidden: Array, weights: tuple[Array, Array]) -> tuple[Array, None]:
            kernel, table = weights
            return jnp.tanh(hidden @ kernel + table[ids]), None

        weights = (params["kernels"], params["tables"])
        hidden, _ = jax.lax.scan(jax.checkpoint(layer), params["table"][ids], weights)
        return {"score": hidden.mean(0) @ params["head"], "returned": params["returned"]}

    def coupling(outputs: dict[str, Array], rest: Any, gains: Array, there: Array) -> Array:
        shifted = outputs["score"] * (1 + outputs["returned"] @ jnp.array([1.0, -0.5]))
        return softmax_coupling(shifted, rest, gains, there)

    params = {
        "table": normal(0, VOCABULARY, WIDTH),
        "tables": normal(1, 2, VOCABULARY, WIDTH),
        "kernels": normal(2, 2, WIDTH, WIDTH),
        "head": normal(3, WIDTH),
        "returned": normal(4, 2),
    }
    return Case(outputs, coupling, params, _pairs()[:1], None, labels(), PADDED)


def tied() -> Case:
    """A table that is looked up and multiplied with; and towers that use a weight in two ways."""

    def words(params: Any, ids: Array) -> Array:
        hidden = jnp.tanh(params["table"][ids] @ params["kernel"])
        return jax.nn.log_softmax(hidden @ params["table"].T).mean(0)

    def bags(params: Any, counts: Array) -> Array:
        return jnp.tanh(counts @ params["table"] @ params["kernel"].T) @ params["table"].T

    def coupling(outputs: tuple[Array, Array], rest: Any) -> Array:
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(outputs[0] @ outputs[1].T)))

    params = {"table": normal(0, VOCABULARY, WIDTH), "kernel": normal(1, WIDTH, WIDTH)}
    units = ((_ids(11, LISTS, T),), (jnp.abs(normal(12, LISTS, VOCABULARY)),))
    return Case((words, bags), coupling, params, units, None, ())


def cross_encoder() -> Case:
    """BERT with one output, with dropout."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    graphdef, params = nnx.split(PairClassifier(config, num_labels=1, rngs=nnx.Rngs(0)))
    # larger than BERT's initial weights, so that no gradient is tiny beside another
    params = jax.tree.map(lambda leaf: leaf * 5 if leaf.ndim > 1 else leaf, params)

    def outputs(params: Any, ids: Array, types: Array, mask: Array, key: Array) -> Array:
        model = nnx.merge(graphdef, params)
        return model(ids, types, mask, deterministic=False, key=key)[0]

    ids, keys = _pairs()
    types = jnp.tile(jnp.arange(T) > 2, (UNITS, 1)).astype(jnp.int32)
    mask = jnp.arange(T) < jnp.resize(jnp.array([6, 4, 5]), (UNITS, 1))
    return Case(outputs, softmax_coupling, params, (ids, types, mask, keys), None, labels(), PADDED)


def batch_of_one_kind() -> Case:
    """No unit has a sequence: one product each, outputs that are vectors."""

    def outputs(params: Any, x: Array) -> Array:
        return jnp.tanh(x @ params["first"]) @ params["second"]

    def coupling(vectors: Array, rest: Any) -> Array:
        centred = vectors - vectors.mean(0)
        return jnp.sum(jnp.tanh(centred @ centred.T))

    params = {"first": normal(0, 5, WIDTH), "second": normal(1, WIDTH, 3)}
    return Case(outputs, coupling, params, (normal(2, UNITS, 5),), None, ())


ALL: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        softmax,
        approx_ndcg,
        lambda_loss,
        towers,
        rest_in_params,
        scanned,
        tied,
        batch_of_one_kind,
        cross_encoder,
    )
}
# the first is float32 whatever the parameters are; the others are kept so for their time
ONLY_FLOAT32 = ("cross_encoder", "scanned", "tied", "batch_of_one_kind", "rest_in_params")
