"""What the generated tables share: reading a result, writing a table, where a result comes from."""

import ast
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sie_jax.files import read_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CONFIGS = ("quickstart", "esci", "icecat")  # whose results are the metrics.json of a run
# result files and their benchmarks
OF_ANOTHER_NAME = {
    "chaining_esci": "chaining",
    "chaining_shop": "chaining",
    "fuzz_sources": "fuzz",
    "list_weights_again": "list_weights",
    "nested_encoders": "nested",
    "nested_features": "nested",
    "nested_head": "nested",
    "recommending_beauty": "recommending",
    "recommending_online_retail": "recommending",
    "recommending_toys": "recommending",
    "retrieving_clicked": "retrieving",
    "retrieving_esci": "retrieving",
    "retrieving_shop": "retrieving",
    "sie_bench": "run_sie_bench",
    "sie_bench_again": "again_sie_bench",
    "sie_bench_cost": "cost_sie_bench",
    "sie_bench_further": "run_sie_bench",
    "sie_bench_tracks": "run_sie_bench",
    "sie_bench_real": "run_sie_bench_real",
    "training_tasks_esci": "training_tasks",
    "training_tasks_esci_features": "training_tasks",
    "training_tasks_esci_text": "training_tasks",
    "training_tasks_few": "training_tasks",
    "training_tasks_few_features": "training_tasks",
    "training_tasks_icecat": "training_tasks",
    "training_tasks_shop": "training_tasks",
    "training_tasks_shop_features": "training_tasks",
}
ABOUT = ("cpu", "device", "cores", "platform", "jax", "python", "date", "commit")


def result(name: str) -> Any:
    """The content of a result file."""
    return read_json(RESULTS / f"{name}.json")


def rows_as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    return (f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}").replace("-", "−")


def with_interval(found: Mapping[str, float], digits: int = 3, *, sign: bool = False) -> str:
    value, low, high = (number(found[key], digits, sign=sign) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Where results come from


def device(name: str) -> str:
    """What a result file says of the machine, the versions and the date."""
    found = dict[str, Any]()

    def look(node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                look(value)
            elif key in ABOUT:
                found.setdefault(key, value)

    look(result(name))
    if "cpu" in found:  # the name of what `device` and `platform` only give the kind of
        found.pop("device", None)
        found.pop("platform", None)
    cores = f"{found.pop('cores')} cores" if "cores" in found else ""
    texts = [
        f"{key} {found[key]}" if key in ("jax", "python", "commit") else str(found[key])
        for key in ABOUT
        if key in found
    ]
    return ", ".join(filter(None, [*texts[:1], cores, *texts[1:]])) or "not recorded"


def command(name: str) -> str:
    """The command that makes a result file, from the head of its benchmark or config."""
    if name in CONFIGS:
        return _docstring(ROOT / "configs" / f"{name}.py").splitlines()[0]
    script = OF_ANOTHER_NAME.get(name, name)
    lines = re.sub(r" *\\\n *", " ", _docstring(ROOT / "benchmarks" / f"{script}.py")).splitlines()
    commands = [line for line in lines if re.match(r" +(.*&& )?python benchmarks/", line)]
    if not commands:
        raise ValueError(f"the head of benchmarks/{script}.py names no command")
    # the one that names the file is how it was made; otherwise the first leaves it by default
    text = next((line for line in commands if f"results/{name}.json" in line), commands[0])
    return re.sub(r" +(#.*|\[[^]]*\])", "", text).strip()  # without comment and options


def measured_by(name: str) -> str:
    """A sentence on how a result was measured."""
    where = device(name)
    on = "" if where == "not recorded" else f" on {where}"
    return f"Measured by `{command(name)}`{on} (`benchmarks/results/{name}.json`)."


def provenance() -> str:
    """All result files: what each answers, the command that makes it, and where it was measured."""
    rows = []
    for file in sorted(RESULTS.glob("*.json")):
        script = OF_ANOTHER_NAME.get(file.stem, file.stem)
        text = (
            f"a run of `configs/{script}.py`"
            if file.stem in CONFIGS
            else _docstring(ROOT / "benchmarks" / f"{script}.py").splitlines()[0]
        )
        rows.append([f"`{file.name}`", text, f"`{command(file.stem)}`", device(file.stem)])
    return rows_as_table(["result file", "what it holds", "command", "measured on"], rows)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


PARTS: dict[str, Callable[[], str]] = {
    "result files": provenance,
    **{
        f"measured by {file.stem}": functools.partial(measured_by, file.stem)
        for file in sorted(RESULTS.glob("*.json"))
    },
}
