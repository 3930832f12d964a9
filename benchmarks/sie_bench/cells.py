"""A cell of the grid: its fields, the hash of what it depends on, and its file."""

import ast
import functools
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sie_bench import evidence, faults, further, model, policies, scores, shops, tracks
from sie_jax.files import read_json, whole, write_json

KEPT = Path(__file__).parent.parent / "results" / "sie_bench_cells"


@dataclass(frozen=True)
class Cell:
    """One measurement. track: of `grid.TRACKS`. data: the shop's seed.

    score, policy, strength: what is done. setting: how it trains, the first fields of
    `model.Setting`. budget: the share of labels that is read, or of lists that is kept. seed: of
    training. compute: of pruning. taught: whether the run learns from the trusted lists too.
    """

    track: str
    data: int
    fault: str
    rate: float
    score: str
    policy: str
    strength: float = 0.0
    setting: tuple[float, ...] = (4, 1.0)
    budget: float = 1.0
    seed: int = 0
    compute: str = ""
    taught: bool = False

    @property
    def hash(self) -> str:
        """A digest of the fields and of the code that the cell depends on.

        All of shops, faults, model and evidence; of `policies` and `scores` the functions that the
        cell uses, so that a new policy leaves the other cells as they are; of the tracks of
        `further` their whole modules.
        """
        fields = json.dumps(asdict(self), sort_keys=True)
        code = _code(self.track, self.policy, self.score)
        return hashlib.sha256(f"{fields}\0{code}".encode()).hexdigest()[:20]


def measured(cell: Cell, folder: Path, measure: Callable[[Cell], dict[str, Any]]) -> dict[str, Any]:
    """What the cell's file holds; measured and written first where there is none."""
    if (found := stored(cell, folder)) is not None:
        return found
    started = time.perf_counter()
    values = measure(cell)
    seconds = round(time.perf_counter() - started, 3)
    write_json(_path(cell, folder), {"cell": asdict(cell), "seconds": seconds, "values": values})
    return read_json(_path(cell, folder))  # as it will be read from now on


def stored(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """What the cell's file holds, or what is kept of it; None where there is neither."""
    path = _path(cell, folder)
    return read_json(path) if path.exists() else _kept(cell.data).get(cell.hash)


def keep(shop: int, cells: Iterable[Cell], folder: Path, *, into: Path = KEPT) -> None:
    """Writes the cells of a shop that are there into one small file of the repository.

    So another machine goes on where this one stopped. Where nothing is new it is not touched.
    """
    found = {cell.hash: one for cell in cells if (one := stored(cell, folder)) is not None}
    content = {
        name: {key: one[key] for key in ("seconds", "values")} for name, one in found.items()
    }
    if content and content != _kept(shop, into):
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        with whole(into / f"{shop}.json.gz") as temporary:
            temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
        _kept.cache_clear()


@functools.cache
def _kept(shop: int, folder: Path = KEPT) -> dict[str, dict[str, Any]]:
    """What is kept of a shop's cells, by their hash."""
    path = folder / f"{shop}.json.gz"
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        found = json.loads(gzip.decompress(path.read_bytes()))
    return found


def _path(cell: Cell, folder: Path) -> Path:
    return folder / cell.track / f"{cell.hash}.json"


def _tree(module: ModuleType) -> ast.Module:
    """A module without comments, docstrings and layout, which change no result."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(body=[ast.Expr(ast.Constant()), *rest])
                | ast.ClassDef(body=[ast.Expr(ast.Constant()), *rest])
            ):
                node.body = rest or [ast.Pass()]
            case ast.Module(body=body):
                node.body = [one for one in body if not isinstance(one, ast.Expr)]
    return tree


def _named(module: ModuleType) -> dict[str, ast.stmt]:
    """A module's functions, and its constants that are written out."""
    found: dict[str, ast.stmt] = {}
    for one in _tree(module).body:
        match one:
            case ast.FunctionDef(name=name):
                found[name] = one
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if not any(isinstance(node, ast.Name) for node in ast.walk(value)):
                    found[name] = one
    return found


@functools.cache
def _code(track: str, policy: str, score: str) -> str:
    """All code that cells of a track, policy and score depend on."""
    if track in further.MODULES:
        return "\0".join([*_BASE, *(ast.unparse(_tree(one)) for one in further.MODULES[track])])
    parts = [*_BASE, *_sources(policy, _POLICIES), *_sources(score, _SCORES)]
    return "\0".join([*parts, *_sources(track, _TRACKS), *_sources(policy, _TRACKS)])


def _sources(name: str, named: dict[str, ast.stmt]) -> list[str]:
    """The code of a function and of all that it names in the bench's modules, in turn."""
    found: set[str] = set()
    todo = [named.get(name)]
    while todo:
        if (one := todo.pop()) is None or (code := ast.unparse(one)) in found:
            continue
        found.add(code)
        for node in ast.walk(one):
            if isinstance(node, ast.Name):  # of the same module, or imported from another one
                todo += [named.get(node.id), _SCORES.get(node.id)]
            elif isinstance(node, ast.Attribute):
                todo += [_SCORES.get(node.attr), _POLICIES.get(node.attr)]
    return sorted(found)


# read once, so that a change while a grid runs has no part in it
_BASE = [ast.unparse(_tree(module)) for module in (shops, faults, model, evidence)]
_POLICIES, _SCORES, _TRACKS = map(_named, (policies, scores, tracks))
