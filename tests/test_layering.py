"""The folders stand in dependency order: a file imports only from folders above its own."""

import ast
from pathlib import Path

import pytest

import sie_jax

ROOT = Path(sie_jax.__file__).parent
ORDER = [
    "errors",
    "sections",
    "files",
    "outputs",
    "processes",
    "remote",
    "telling",
    "per_example",
    "devices",
    "tables",
    "importance",
    "models",
    "data",
    "tasks",
    "evaluation",
    "training",
    "passes",
    "retrieval",
    "serving",
    "report",
    "workdir",
    "stages",
    "config",
    "recipes",
    "commands",
    "audit",
    "predict",
    "__main__",
]
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def _room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("sie_jax.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_from_folders_above(path: Path) -> None:
    own = ORDER.index(_room(path))
    for name in _imported(path):
        assert ORDER.index(name.split(".")[1]) <= own, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_recipes_and_commands_read_the_config(path: Path) -> None:
    if _room(path) not in ("config", "recipes", "commands"):
        assert not any(name.startswith("sie_jax.config") for name in _imported(path))
