"""Dropout and attention by themselves."""

import jax
import jax.numpy as jnp
import numpy as np

from sie_jax.models.layers import attention, dropout


def test_dropout_zeroes_with_its_rate_and_scales_the_rest():
    x = jnp.arange(1.0, 100_001.0)
    dropped = np.asarray(dropout(x, 0.3, jax.random.key(0)))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
    # The share kept is binomial: five standard deviations of sqrt(0.3 · 0.7 / n).
    assert abs(kept.mean() - 0.7) < 5 * (0.3 * 0.7 / x.size) ** 0.5
    assert dropout(x, 0.3, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x


def test_attention_dropout_acts_on_the_probabilities():
    query, key = jax.random.normal(jax.random.key(0), (2, 2, 8, 3, 8))
    # Values that are the identity: the output is the attention probabilities themselves.
    value = jnp.broadcast_to(jnp.eye(8)[:, None, :], (2, 8, 3, 8))
    mask = (jnp.arange(8) < 6)[None, None, None, :]
    plain = np.asarray(
        attention(query, key, value, jnp.repeat(mask, 2, axis=0), rate=0.0, dropout_key=None)
    )
    np.testing.assert_allclose(plain.sum(-1), 1, rtol=1e-5)
    rate = 0.25
    dropped = np.asarray(
        attention(query, key, value, mask, rate=rate, dropout_key=jax.random.key(1))
    )
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], plain[kept] / (1 - rate), rtol=1e-5)
    assert not kept[..., 6:].any()
    assert 0.6 < kept[..., :6].mean() < 0.9
