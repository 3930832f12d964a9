"""The table of the form each parameter's gradient takes, why, and what it costs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from sie_jax.per_example import forms
from sie_jax.per_example.transform import value_and_grad


@dataclasses.dataclass(frozen=True)
class LeafExplanation:
    """One parameter leaf, per example.

    form: "Outer", "Rows", "Tied", "Stacked", "Dense" or "Zero". norm: "Gram" or "direct". flops,
    bytes: of the squared norm and of what is kept; materialized_flops, materialized_bytes: of the
    same by `vmap(grad)`. reason: the primitives that made the gradient be materialised, else "".
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


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` found; `str()` of it is a table, `leaves` the same as data."""

    leaves: tuple[LeafExplanation, ...]

    def __str__(self) -> str:
        header = ("parameter", "shape", "form", "norm", "FLOPs", "of", "bytes", "of", "reason")
        rows = [header]
        for leaf in self.leaves:
            rows.append(
                (
                    leaf.path,
                    "x".join(map(str, leaf.shape)) or "scalar",
                    leaf.form,
                    leaf.norm,
                    _short(leaf.flops),
                    _short(leaf.materialized_flops),
                    _short(leaf.bytes),
                    _short(leaf.materialized_bytes),
                    leaf.reason,
                )
            )
        rows.append(
            (
                "total",
                "",
                "",
                "",
                _short(sum(leaf.flops for leaf in self.leaves)),
                _short(sum(leaf.materialized_flops for leaf in self.leaves)),
                _short(sum(leaf.bytes for leaf in self.leaves)),
                _short(sum(leaf.materialized_bytes for leaf in self.leaves)),
                "",
            )
        )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                cell.rjust(width) if 4 <= place <= 7 else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        rule = "-" * max(map(len, lines))
        note = (
            "FLOPs and bytes are per example: the squared norm and what is kept for it, 'of' what"
        )
        note += " vmap(grad) takes."
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], note])


def explain(loss_fn: Callable[..., Any], params: Any, *batch: Any, **options: Any) -> Explanation:
    """The form that each parameter's per-example gradient takes; traces the loss, computes nothing.

    Args:
      loss_fn, params, *batch, options: as for `value_and_grad` (arrays or ShapeDtypeStructs).

    Raises:
      ValueError: as `value_and_grad`.
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    explained: list[LeafExplanation] = []

    def trace(params: Any, *batch: Any) -> None:
        _, grads = value_and_grad(loss_fn, **options)(params, *batch)
        found = zip(paths, jax.tree.leaves(params), grads.forms(), grads.reasons(), strict=True)
        explained.extend(_explain(*each) for each in found)

    jax.eval_shape(trace, params, *batch)
    return Explanation(tuple(explained))


def _explain(path: str, leaf: Any, form: forms.Form, reasons: tuple[str, ...]) -> LeafExplanation:
    size = leaf.size
    itemsize = leaf.dtype.itemsize
    square = 2 * size
    norm, flops, materialized, kept = "direct", square, square, size * itemsize
    if isinstance(form, forms.Zero):
        norm, flops, kept = "", 0, 0
    elif not isinstance(form, forms.Dense):
        norm = "Gram" if form.uses_gram else "direct"
        flops = form.gram_flops if form.uses_gram else form.direct_flops
        materialized = form.direct_flops
        kept = _kept_bytes(form)
    return LeafExplanation(
        path=path,
        shape=tuple(leaf.shape),
        form=type(form).__name__,
        norm=norm,
        flops=flops,
        materialized_flops=materialized,
        bytes=kept,
        materialized_bytes=size * itemsize,
        reason=", ".join(reasons),
    )


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
