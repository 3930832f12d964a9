"""The layers that encoders and heads are made of, each with its place on a mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, PRNGKeyArray
from transformers import PretrainedConfig

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}
REMAT: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "layers": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass keeps of a layer's forward pass; it computes the rest again. `none` keeps
all, `dots` the results of the dense layers, `layers` only the input of each layer."""

# Both products of a block are split as Megatron splits them (Shoeybi et al. 2019, section 3): the
# first by columns, the second by rows, so that one sum over `tensor` ends the block.
BY_COLUMNS = ("fsdp", "tensor")
BY_ROWS = ("tensor", "fsdp")
# A layer that meets few of a row's tokens: its product is too small to be split.
STORED_IN_PARTS = ("fsdp", None)


def linear(
    inputs: int,
    outputs: int,
    config: PretrainedConfig,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    *,
    mesh_axes: tuple[str | None, str | None] = (None, None),
    use_bias: bool = True,
) -> nnx.Linear:
    """A dense layer initialised as BERT's: kernel from normal(initializer_range), bias 0.

    mesh_axes: the axes of the mesh that split the kernel's rows and columns. The bias is split over
    `tensor` alone, as its columns are.
    """
    bias_axis = "tensor" if mesh_axes[1] == "tensor" else None
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nnx.with_metadata(
            jax.nn.initializers.normal(config.initializer_range), mesh_axes=mesh_axes
        ),
        bias_init=nnx.with_metadata(jax.nn.initializers.zeros, mesh_axes=(bias_axis,)),
        rngs=rngs,
    )


def embedding(
    config: PretrainedConfig, rows: int, rngs: nnx.Rngs, padding: int | None = None
) -> nnx.Param[Any]:
    """A table of vectors from normal(initializer_range), that of `padding` 0.

    The mesh splits the hidden units, so that every device can look up every row.
    """
    shape = (rows, config.hidden_size)
    table = config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32)
    if padding is not None:
        table = table.at[padding].set(0.0)
    return nnx.Param(table, mesh_axes=(None, ("fsdp", "tensor")))


def layer_norm(config: PretrainedConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation over the hidden units, scale 1 and bias 0, with BERT's epsilon."""
    # The fast variance E[x^2] - E[x]^2 cancels badly; nnx takes the statistics in float32.
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


def dropout(x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray | None) -> Array:
    """Zero each entry with probability `rate` and scale the rest by 1 / (1 - rate).

    With `key=None` or `rate=0` there is no dropout: `x` comes back unchanged.
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def attention(
    query: Float[Array, "*leading T heads depth"],
    key: Float[Array, "*leading T heads depth"],
    value: Float[Array, "*leading T heads depth"],
    mask: Bool[Array, "*leading 1 1 T"] | None,
    *,
    rate: float,
    dropout_key: PRNGKeyArray | None,
) -> Float[Array, "*leading T heads depth"]:
    """softmax(q kᵀ / sqrt(depth)) v with the softmax in float32 and dropout on its result."""
    # jax.nn.dot_product_attention has no dropout, and under `vmap` XLA copies its logits once more;
    # flax's nnx.dot_product_attention takes the softmax in the compute dtype when it has one.
    logits = jnp.einsum("...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    probabilities = dropout(jax.nn.softmax(logits), rate, dropout_key).astype(value.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", probabilities, value)


def rematerialised(layer: Callable[[Array], Array], remat: str) -> Callable[[Array], Array]:
    """The layer as REMAT asks: its values are the same up to rounding."""
    policy = REMAT[remat]
    return layer if policy is None else jax.checkpoint(layer, policy=policy)
