"""A causal transformer over a user's history: after each event, a vector that scores all items."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sie_jax.models.layers import attention, dropout

PADDING = 0
"""The number of no item. Items are numbered from 1."""
GAPS = 24
"""How many classes of time gaps there are (`data.histories.batches.gaps_of`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistoryShape:
    """The sizes of a `HistoryModel`.

    items: I, numbered 1 to I. events: how many types of events there are; with one, types have no
    vectors. length: the most events of a history. gaps: whether the time since the event before is
    read. text: whether items are described by vectors of their texts too. copies: whether what a
    history has may come again.
    """

    items: int
    hidden: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 50
    events: int = 1
    gaps: bool = False
    text: bool = False
    copies: bool = False
    dropout: float = 0.3


class _Block(nnx.Module):
    """Self-attention to events that are not later, then a two-layer perceptron; norms before."""

    def __init__(self, shape: HistoryShape, rngs: nnx.Rngs) -> None:
        width = shape.hidden
        self.heads, self.rate = shape.heads, shape.dropout
        self.attention_norm = nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)
        self.query, self.key, self.value, self.output = (_linear(width, rngs) for _ in range(4))
        self.norm = nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)
        self.inner, self.outer = (_linear(width, rngs) for _ in range(2))

    def __call__(
        self,
        x: Float[Array, "*leading T hidden"],
        mask: Bool[Array, "*leading 1 T T"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "*leading T hidden"]:
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        split = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        normed = self.attention_norm(x)
        attended = attention(
            self.query(normed).reshape(split),
            self.key(normed).reshape(split),
            self.value(normed).reshape(split),
            mask,
            rate=self.rate,
            dropout_key=keys[0],
        )
        x = x + dropout(self.output(attended.reshape(x.shape)), self.rate, keys[1])
        inner = jax.nn.gelu(self.inner(self.norm(x)))
        return x + dropout(self.outer(inner), self.rate, keys[2])


class HistoryModel(nnx.Module):
    """The next item after each event of a history (Kang and McAuley 2018, "SASRec").

        x_t = e(item_t) + position_t [+ type_t] [+ gap_t]       e(j) = id_j [+ x_j A]
        s   = blocks(x), a vector after each event that reads it and what was before it
        logit(t, j) = ⟨s_t, id_j⟩ + b_j [+ ⟨s_t B + Σ_{r ≤ t} d_{t−r} x_{item_r}, x_j⟩]
                      [+ Σ_{r ≤ t, item_r = j} c_{t−r}]

    with x_j the vector of item j's text, which is given and not trained, A, B matrices, b_j what is
    known of all users together, c what an event so many events ago says for its own item, and d
    what it says for items of like texts. So an item that nobody has met yet, whose id says nothing,
    is scored by its text. A user has no parameter: one who was not there in training is known by
    the history alone.

    `begin` sets b to what popularity says, so that training starts from there.

    It holds `nnx.Param` and nothing else, and takes any leading shape. Dropout is on where there is
    a key. What stands behind the end of a history changes nothing before it.
    """

    def __init__(self, shape: HistoryShape, *, rngs: nnx.Rngs) -> None:
        self.shape = shape
        width = shape.hidden
        table = 0.02 * jax.random.normal(rngs.params(), (shape.items + 1, width))
        self.items = nnx.Param(table.at[PADDING].set(0.0), mesh_axes=(None, ("fsdp", "tensor")))
        self.bias = nnx.Param(jnp.zeros(shape.items + 1))
        self.copies = nnx.Param(jnp.zeros(shape.length)) if shape.copies else None
        self.positions = _table(shape.length, width, rngs)
        self.events = _table(shape.events, width, rngs) if shape.events > 1 else None
        self.gaps = _table(GAPS, width, rngs) if shape.gaps else None
        self.read_text = _linear(width, rngs, use_bias=False) if shape.text else None
        self.meet_text = _linear(width, rngs, use_bias=False) if shape.text else None
        self.alike = nnx.Param(jnp.zeros(shape.length)) if shape.text else None
        self.blocks = nnx.List([_Block(shape, rngs) for _ in range(shape.layers)])
        self.norm = nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)

    def __call__(
        self,
        items: Int[Array, "*leading T"],
        events: Int[Array, "*leading T"] | None = None,
        gaps: Int[Array, "*leading T"] | None = None,
        texts: Float[Array, "I+1 hidden"] | None = None,
        known: Bool[Array, "*leading I+1"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading T hidden"]:
        """The vectors s after each event.

        items: PADDING behind the last event. events, gaps: of each event, where the shape has some.
        texts: the vectors x of all items, where the shape has text. known: the items whose id is
        read; all where None.
        """
        vectors = self.items[...][items]
        if known is not None:
            vectors = vectors * jnp.take_along_axis(known, items, -1)[..., None]
        if self.read_text is not None and texts is not None:
            vectors = vectors + self.read_text(texts[items])
        length = items.shape[-1]
        x = vectors * self.shape.hidden**0.5 + self.positions[...][jnp.arange(length)]
        if self.events is not None and events is not None:
            x = x + self.events[...][events]
        if self.gaps is not None and gaps is not None:
            x = x + self.gaps[...][gaps]
        x = dropout(x, self.shape.dropout, _fold(key, 0))
        earlier = jnp.tril(jnp.ones((length, length), bool))
        mask = (earlier & (items != PADDING)[..., None, :])[..., None, :, :]
        for number, block in enumerate(self.blocks, 1):
            x = block(x, mask, _fold(key, number))
        return self.norm(x)

    def asked_of_texts(
        self,
        states: Float[Array, "T hidden"],
        items: Int[Array, " T"],
        texts: Float[Array, "I+1 hidden"] | None,
    ) -> Float[Array, "T hidden"] | None:
        """After each event the vector that meets those of all texts; None without texts."""
        if self.meet_text is None or self.alike is None or texts is None:
            return None
        liked = self._by_ago(self.alike[...], items) @ texts[items]
        return self.meet_text(states) + liked / self.shape.hidden

    def logits(
        self,
        states: Float[Array, "*leading hidden"],
        asked: Float[Array, "*leading hidden"] | None = None,
        texts: Float[Array, "I+1 hidden"] | None = None,
        known: Bool[Array, " I+1"] | None = None,
    ) -> Float[Array, "*leading I+1"]:
        """The logit of every item, but for what an item of the history gets (`weights_of_own`).

        asked: as `asked_of_texts` gives it. That of PADDING is the lowest float.
        """
        found = states @ self.items[...].T
        if known is not None:
            found = found * known
        if asked is not None and texts is not None:
            found = found + asked @ texts.T
        found = found + self.bias[...]
        return found.at[..., PADDING].set(jnp.finfo(found.dtype).min)

    def logits_of(
        self,
        states: Float[Array, "T hidden"],
        items: Int[Array, "*n"],
        asked: Float[Array, "T hidden"] | None = None,
        texts: Float[Array, "I+1 hidden"] | None = None,
        known: Bool[Array, " I+1"] | None = None,
    ) -> Float[Array, T * n]:
        """As `logits`, of some items: of each of n after every event, or, of T, one after each."""
        one = items.shape == states.shape[:1]
        met = "th,th->t" if one else "th,nh->tn"
        vectors = self.items[...][items]
        if known is not None:
            vectors = vectors * known[items][..., None]
        found = jnp.einsum(met, states, vectors)
        if asked is not None and texts is not None:
            found = found + jnp.einsum(met, asked, texts[items])
        return found + self.bias[...][items]

    def last_logits(
        self,
        items: Int[Array, " T"],
        events: Int[Array, " T"] | None = None,
        gaps: Int[Array, " T"] | None = None,
        texts: Float[Array, "I+1 hidden"] | None = None,
        known: Bool[Array, " I+1"] | None = None,
    ) -> Float[Array, " I+1"]:
        """The logit of every item after the last event, all parts of it."""
        states = self(items, events, gaps, texts)
        last = jnp.maximum(jnp.sum(items != PADDING) - 1, 0)
        asked, own = self.asked_of_texts(states, items, texts), self.weights_of_own(items)
        found = self.logits(states[last], None if asked is None else asked[last], texts, known)
        return found if own is None else found.at[items].add(own[last])

    def weights_of_own(self, items: Int[Array, " T"]) -> Float[Array, "T T"] | None:
        """What event r adds after event t to the logit of its own item; None without copies."""
        return None if self.copies is None else self._by_ago(self.copies[...], items)

    def _by_ago(self, values: Float[Array, " length"], items: Int[Array, " T"]) -> Array:
        """For each event t and each r that is not later: the value of t − r events ago `[T, T]`."""
        ago = jnp.arange(len(items))[:, None] - jnp.arange(len(items))
        there = (ago >= 0) & (items != PADDING)
        return jnp.where(there, values[jnp.maximum(ago, 0)], 0.0)


def begin(params: Any, popularity: Int[np.ndarray, " I+1"], *, copies: float) -> Any:
    """The parameters with b_j = log((n_j + 1) / (N + I)) and c = `copies`, set in place.

    n_j are the events of item j in training, and N those of all.
    """
    chance = (popularity + 1) / (popularity.sum() + len(popularity) - 1)
    bias = np.log(chance)
    params["bias"].set_value(jnp.asarray(bias - bias.mean(), jnp.float32))
    if "copies" in params:
        params["copies"].set_value(jnp.full_like(params["copies"][...], copies))
    return params


def _fold(key: PRNGKeyArray | None, index: int) -> PRNGKeyArray | None:
    return None if key is None else jax.random.fold_in(key, index)


def _linear(width: int, rngs: nnx.Rngs, *, use_bias: bool = True) -> nnx.Linear:
    return nnx.Linear(
        width, width, use_bias=use_bias, kernel_init=jax.nn.initializers.normal(0.02), rngs=rngs
    )


def _table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (rows, width)))
