"""The table of the form each parameter's gradient takes, why, and what it costs."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sie_jax.per_example import forms
from sie_jax.per_example.gradients import Leaf
from sie_jax.per_example.transform import value_and_grad

_WHY = {
    "Outer": "a matrix product with data",
    "Rows": "a look-up of rows",
    "Tied": "a look-up of rows and a matrix product",
    "Zero": "the loss does not depend on it",
}
_COLUMNS = (
    ("", "parameter"),
    ("", "shape"),
    ("", "form"),
    ("", "norm"),
    ("FLOPs", "here"),
    ("FLOPs of", "vmap(grad)"),
    ("bytes", "here"),
    ("bytes of", "vmap(grad)"),
    ("", "why this form"),
)
_NUMBERS = range(4, 8)  # the columns that hold them
_NOTES = (
    "Per example: FLOPs of the squared norm, bytes kept for it; vmap(grad) builds the gradient.",
    "Gram: the norm from products of positions; direct: from this parameter's gradient alone.",
)


@dataclasses.dataclass(frozen=True)
class LeafExplanation:
    """One parameter leaf, per example.

    form: "Outer", "Rows", "Tied", "Stacked", "Dense" or "Zero". norm: "Gram" or "direct", "" where
    there is none. flops, bytes: of the squared norm and of what is kept; materialized_flops,
    materialized_bytes: of the same by `vmap(grad)`. reason: the primitives that made the gradient
    be materialised, else "". why: what the loss does with the leaf, in words.
    """

    path: str
    shape: tuple[int, ...]
    form: str
    norm: str
    flops: int
    materialized_flops: int
    bytes: int
    materialized_bytes: int
    reason: str
    why: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` found; `str()` of it is a table, `leaves` the same as data."""

    leaves: tuple[LeafExplanation, ...]

    def __str__(self) -> str:
        rows = [
            (
                leaf.path,
                "x".join(map(str, leaf.shape)) or "scalar",
                leaf.form,
                leaf.norm,
                *map(_short, _costs(leaf)),
                leaf.why,
            )
            for leaf in self.leaves
        ]
        sums = [sum(column) for column in zip(*map(_costs, self.leaves), strict=True)]
        total = ("total", "", "", "", *map(_short, sums or (0, 0, 0, 0)), "")
        above, names = zip(*_COLUMNS, strict=True)
        every = [above, names, *rows, total]
        widths = [max(map(len, column)) for column in zip(*every, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if place in _NUMBERS else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in every
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([*lines[:2], rule, *lines[2:-1], rule, lines[-1], *_NOTES])


def explain(
    loss_fn: Callable[..., Any],
    *arguments: Any,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = 0,
    has_aux: bool = False,
    **keywords: Any,
) -> Explanation:
    """The form that each parameter's per-example gradient takes; traces the loss, computes nothing.

    Args:
      loss_fn, argnums, in_axes, has_aux: as for `value_and_grad`.
      arguments, keywords: what its result is called with: params and the batch, as arrays or
        ShapeDtypeStructs.

    Raises:
      ValueError: as `value_and_grad`.
    """
    explained: list[LeafExplanation] = []

    def trace(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        transform = value_and_grad(loss_fn, argnums=argnums, in_axes=in_axes, has_aux=has_aux)
        _, grads = transform(*arguments, **keywords)
        for (path, leaf), form in zip(grads.leaves(), grads.forms(), strict=True):
            explained.append(_explain(path, leaf, form))

    jax.eval_shape(trace, arguments, keywords)
    return Explanation(tuple(explained))


def _explain(path: str, leaf: Leaf, form: forms.Form) -> LeafExplanation:
    size = math.prod(leaf.shape)
    itemsize = leaf.dtype.itemsize
    square = 2 * size
    norm, flops, materialized, kept = "direct", square, square, size * itemsize
    if isinstance(form, forms.Zero):
        norm, flops, kept = "", 0, 0
    elif not isinstance(form, forms.Dense):
        norm = "Gram" if form.uses_gram else "direct"
        flops = form.gram_flops if form.uses_gram else form.direct_flops
        materialized = _building(form)
        kept = _kept_bytes(form)
    return LeafExplanation(
        path=path,
        shape=leaf.shape,
        form=type(form).__name__,
        norm=norm,
        flops=flops,
        materialized_flops=materialized,
        bytes=kept,
        materialized_bytes=size * itemsize,
        reason=", ".join(leaf.reasons),
        why=_why(form, leaf.reasons),
    )


def _why(form: forms.Form, reasons: Sequence[str]) -> str:
    if isinstance(form, forms.Stacked):
        return f"{_why(form.layers, ())}, in each layer of a scan"
    return _WHY.get(type(form).__name__) or f"another use ({', '.join(reasons)}): plain AD"


def _building(form: forms.Outer | forms.Rows | forms.Tied | forms.Stacked) -> int:
    """FLOPs of one example's gradient as an array, and of its squared norm: that of vmap(grad).

    Of a table all rows count there, where `direct_flops` counts those that the example touches.
    """
    if isinstance(form, forms.Stacked):
        layers = form.layers
        return form.direct_flops // layers.direct_flops * _building(layers)
    if isinstance(form, forms.Tied):
        return form.outer.direct_flops + _building(form.rows)
    if isinstance(form, forms.Rows):
        places, size = form.g.shape[-2:]
        return (places + 2 * form.shape[0]) * size
    return form.direct_flops


def _costs(leaf: LeafExplanation) -> tuple[int, int, int, int]:
    return leaf.flops, leaf.materialized_flops, leaf.bytes, leaf.materialized_bytes


def _kept_bytes(form: forms.Outer | forms.Rows | forms.Tied | forms.Stacked) -> int:
    """Of one example's factors; data that several leaves share count once for them all."""
    if isinstance(form, forms.Stacked):
        return _kept_bytes(form.layers)
    if isinstance(form, forms.Tied):
        return _kept_bytes(form.outer) + _kept_bytes(form.rows)
    if isinstance(form, forms.Rows):
        return _bytes(form.ids) + _bytes(form.g)
    return _bytes(form.a) // form.shared + _bytes(form.g)


def _bytes(factor: Any) -> int:
    return factor.size // factor.shape[0] * factor.dtype.itemsize


def _short(number: int) -> str:
    """Three significant digits with a unit."""
    value = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000 or unit == "T":
            break
        value /= 1000
    return f"{value:.3g}{unit}"
