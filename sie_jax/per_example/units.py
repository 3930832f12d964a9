"""Units of a coupled loss: the functions that make their outputs, checked and traced."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sie_jax.per_example.call import Call

OutputsFns = Callable[..., Any] | Sequence[Callable[..., Any]]
SCALAR = "coupling must return one floating scalar"


def functions_of(outputs_fns: OutputsFns) -> tuple[tuple[Callable[..., Any], ...], bool]:
    if callable(outputs_fns):
        return (outputs_fns,), True
    if not outputs_fns:
        raise ValueError("outputs_fns is empty; pass a function or a tuple of functions")
    return tuple(outputs_fns), False


def calls_of(
    functions: Sequence[Callable[..., Any]], single: bool, params: Any, units: Any
) -> list[Call]:
    """Each function traced for one of its units."""
    units = (units,) if single else units
    if len(units) != len(functions) or not all(isinstance(unit, tuple) for unit in units):
        raise ValueError(
            "units must be a tuple of the outputs function's arguments after params, and for "
            f"{len(functions)} functions in a tuple as many such tuples"
        )
    calls = []
    for place, (function, unit) in enumerate(zip(functions, units, strict=True)):
        lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(unit)}
        if len(lengths) != 1 or () in lengths:
            raise ValueError(
                f"the units of outputs function {place} must share one leading axis; found "
                f"{sorted(lengths)}: give each of their arrays one entry for each unit"
            )
        try:
            call = Call(function, (params, *unit), {}, 0, 0, _floating)
        except NameError as error:
            if "axis name" not in str(error):
                raise
            raise ValueError(_reads_others(place, str(error))) from error
        if call.sites.axes:
            raise ValueError(_reads_others(place, f"a collective over {call.sites.axes}"))
        calls.append(call)
    return calls


def _reads_others(place: int, why: str) -> str:
    return (
        f"outputs function {place} reads other units than its own ({why}): its outputs have no "
        "contributions by unit; let the coupling combine units, or make the group the unit"
    )


def _floating(outputs: Any) -> tuple[Any, Any]:
    """All outputs are differentiated."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"outputs{jax.tree_util.keystr(path)} is {leaf.dtype}; return floating arrays "
                "only and pass the rest to the coupling as arguments"
            )
    return outputs, ()


def check_rest(rest: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(rest):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"rest{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}; it holds floating "
                "parameters of the coupling only: pass the others as arguments"
            )
