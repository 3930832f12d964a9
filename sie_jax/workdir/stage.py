"""A stage is a function memoised in the workdir: made once, and again only where it has to be.

A stage declares the files that it leaves. Its arguments are the results of other stages, sections
of the config, and JSON values; one called `inputs` tells what is read from outside the workdir.
Once it is done a marker in the folder `stages` says what it was made of (its settings, the ids of
the results it was given), what it left (size and digest of every file) and what that cost. The
marker is written last, so a stage is done or not, whenever the process dies.

    marker and files as they were, same settings, same inputs    nothing runs
    a file missing or damaged                                    named, and made again
    an input was made again and differs                          made again, which is said
    other settings, the stage costs training                     UserError that names --redo=STAGE
    other settings, the stage costs no training                  made again, which is said
    named in --redo                                              made again
    stopped before it was done                                   resumed

A stage that is made again from the same things and equals what it was leaves later stages as they
are: its id is the digest of its files, and times are in none of them.
"""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from sie_jax import processes
from sie_jax.errors import UserError
from sie_jax.files import digest, read_json, remove, write_json
from sie_jax.sections import differences, plain
from sie_jax.training.cost import Cost
from sie_jax.workdir.job import STAGES, Job, Workdir

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
Leaves = Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Made(Generic[T]):
    """What a stage left.

    stage: its name. id: the digest of its files. cost: what each piece of its work took.
    """

    stage: str
    id: str
    cost: dict[str, Cost]
    folder: Path
    reader: Callable[["Made[T]"], T]

    @functools.cached_property
    def value(self) -> T:
        """What later stages work with; read from the files when it is first asked for."""
        return self.reader(self)

    def read_as(self, reader: "Callable[[Made[Any]], U]") -> "Made[U]":
        """The same files, read as something else."""
        return Made(self.stage, self.id, self.cost, self.folder, reader)


def stage(
    *,
    leaves: Leaves,
    read: Callable[[Made[T]], T],
    trains: bool = True,
    runs: Sequence[str] = (),
    run: str = "",
    edited: Sequence[str] = (),
) -> Callable[[Callable[Concatenate[Job, P], None]], Callable[Concatenate[Workdir, P], Made[T]]]:
    """Declares `make(job, ...)`, called as `made = make(workdir, ...)`; see this module's table.

    Args:
      leaves: the files, or folders of files, that `make` leaves, by their paths in the workdir; or
        a function of the arguments that gives them.
      read: gives what later stages work with, from the workdir `made.folder`.
      trains: whether other settings are refused (it trains, or what trains depends on it) or make
        it again.
      runs: patterns of the names of the training runs that it makes, such as `fold-*`.
      run: the argument that holds the one run (`training.run.Run`) that this stage makes: each run
        is then a stage of its own, called after the function and the run.
      edited: those of the files that people write into. A changed one is moved aside, never lost.
    """

    def declare(
        make: Callable[Concatenate[Job, P], None],
    ) -> Callable[Concatenate[Workdir, P], Made[T]]:
        signature = inspect.signature(make)

        @functools.wraps(make)
        def once(workdir: Workdir, *args: P.args, **kwargs: P.kwargs) -> Made[T]:
            bound = signature.bind(None, *args, **kwargs)
            bound.apply_defaults()
            given = dict(list(bound.arguments.items())[1:])
            name = make.__name__
            own_runs = tuple(runs)
            if run:
                name, own_runs = f"{name}/{given[run].name}", (given[run].name,)
            making = _Making(
                workdir,
                name,
                leaves=tuple(leaves(given) if callable(leaves) else leaves),
                given=given,
                trains=trains,
                runs=own_runs,
                edited=tuple(edited),
            )
            marker = processes.told(making.decide)
            if marker is None:
                try:
                    with workdir.telling(name):
                        make(making.job, *args, **kwargs)
                except BaseException:
                    making.abandon()
                    raise
                processes.together()
                marker = processes.told(making.conclude)
            cost = {entry: Cost.from_json(one) for entry, one in marker["cost"].items()}
            return Made(name, marker["id"], cost, workdir.folder, read)

        return once

    return declare


class _Making:
    """One call of a stage: whether it has to be made, and its marker."""

    def __init__(
        self,
        workdir: Workdir,
        name: str,
        *,
        leaves: tuple[str, ...],
        given: Mapping[str, Any],
        trains: bool,
        runs: tuple[str, ...],
        edited: tuple[str, ...],
    ) -> None:
        self._workdir, self._name, self._leaves, self._trains = workdir, name, leaves, trains
        self._edited, self._basis = edited, _ids(given)
        self._settings = _settings(given)
        self._file = workdir.folder / STAGES / f"{name}.json"
        self.job = Job(workdir, name, runs=runs, begin=self._begin)

    def decide(self) -> dict[str, Any] | None:
        """The marker where the stage stands, None where it has to be made; process 0 decides."""
        marker, reason = self._marker(), ""
        redo = bool({self._name, self._name.partition("/")[0]} & self._workdir.redo)
        fresh = False
        if marker is None:
            self.job.clear()  # nothing says what earlier jobs made their parts and runs of
        elif found := self._other_settings(marker):
            if self._trains and not redo:
                kind = "inputs" if all(one.startswith("inputs.") for one in found) else "settings"
                raise UserError(
                    f"stage {self._name} in {self._workdir.folder} was made with other {kind} "
                    f"({'; '.join(found)}): give these, or another --workdir, or "
                    f"--redo={self._name} to make it and what follows from it again"
                )
            fresh, reason = True, "; ".join(found)
        elif changed := [key for key, one in self._basis.items() if one != marker["basis"][key]]:
            fresh, reason = True, f"its input {', '.join(changed)} is no longer the same"
        elif redo and marker["done"]:
            fresh, reason = True, "--redo names it"
        elif marker["done"]:
            faults = _faults(self._workdir.folder, marker["files"])
            if not faults:
                return marker
            reason = "; ".join(faults)
        if reason:
            self._workdir.say(f"stage {self._name} is made again: {reason}")
        if fresh:
            self.job.clear()
            self._file.unlink()
        for name in self._edited:
            self._set_aside(name, {} if marker is None else marker["files"].get(name, {}))
        for leaf in self._leaves:
            remove(self._workdir.folder / leaf)
        # by this folder a workdir is known as one, even if the process dies before the first marker
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return None

    def abandon(self) -> None:
        """Leaves nothing of a stage that was refused before it kept anything."""
        if processes.first():
            for folder in (self._file.parent, self._workdir.folder / STAGES):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _set_aside(self, name: str, written: Mapping[str, Any]) -> None:
        """Moves a file that somebody changed out of the way of the new one."""
        path = self._workdir.folder / name
        if not path.exists() or digest(path) == written.get("digest"):
            return
        numbers = itertools.count(1)
        names = (path.with_name(f"{path.stem}.changed-{i}{path.suffix}") for i in numbers)
        aside = next(one for one in names if not one.exists())
        os.replace(path, aside)
        self._workdir.say(f"{path} was changed: it is kept as {aside}")

    def conclude(self) -> dict[str, Any]:
        """Writes the marker, once all processes have made their part; process 0 calls it."""
        folder = self._workdir.folder
        files = {}
        for leaf in self._leaves:
            for path in _below(folder / leaf):
                name = str(path.relative_to(folder))
                stat = path.stat()
                files[name] = {
                    "size": stat.st_size,
                    "digest": digest(path),
                    "modified": stat.st_mtime_ns,
                }
        content = [[name, one["digest"]] for name, one in sorted(files.items())]
        marker = {
            **self._head(done=True),
            "files": files,
            "cost": {entry: one._asdict() for entry, one in self.job.ledger.entries().items()},
            "id": hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest(),
        }
        write_json(self._file, marker)
        self._workdir.write_config()
        self.job.clear_scratch()
        return marker

    def _other_settings(self, marker: Mapping[str, Any]) -> list[str]:
        """What the user changed since the marker was written; nothing where an input changed.

        Settings may follow from an input, as a learning rate from the stage that chose it.
        """
        ours, theirs = self._basis, marker["basis"]
        if ours.keys() == theirs.keys():
            return [] if ours != theirs else differences(self._settings, marker["settings"])
        told = (
            ("was not there", ours.keys() - theirs.keys()),
            ("is gone", theirs.keys() - ours.keys()),
        )
        return [f"input {key} {what}" for what, keys in told for key in sorted(keys)]

    def _begin(self) -> None:
        """Says in the marker what a stopped job was making, before it keeps anything."""

        def begin() -> None:
            if self._marker() is None:
                write_json(self._file, {**self._head(done=False), "files": {}})
            self._workdir.write_config()

        processes.alone(begin)

    def _head(self, *, done: bool) -> dict[str, Any]:
        return {"done": done, "settings": self._settings, "basis": self._basis}

    def _marker(self) -> dict[str, Any] | None:
        if not os.path.lexists(self._file):
            return None
        try:
            marker: dict[str, Any] = read_json(self._file)
            _check_marker(marker)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            self._workdir.say(
                f"{self._file} is damaged ({error}): stage {self._name} is made again"
            )
            self._file.unlink()
            return None
        return marker


def _check_marker(marker: dict[str, Any]) -> None:
    """Raises ValueError, TypeError or AttributeError for what no stage ever wrote."""
    kinds = {"done": bool, "settings": dict, "basis": dict, "files": dict}
    if marker.get("done"):
        kinds |= {"cost": dict, "id": str}
    if wrong := [name for name, kind in kinds.items() if not isinstance(marker.get(name), kind)]:
        raise ValueError(f"it has no {', '.join(wrong)}")
    if not all({"size", "digest", "modified"} <= one.keys() for one in marker["files"].values()):
        raise ValueError("it does not say what the files were")
    for one in marker.get("cost", {}).values():
        Cost.from_json(one)


def _ids(given: Any, prefix: str = "") -> dict[str, str]:
    """The ids of the results of other stages among the arguments, also inside of containers."""
    if isinstance(given, Made):
        return {prefix: given.id}
    found: dict[str, str] = {}
    for key, one in _items(given):
        found |= _ids(one, f"{prefix}.{key}" if prefix else key)
    return found


def _items(given: Any) -> list[tuple[str, Any]]:
    """What a container holds, by name or place; nothing of anything else."""
    if dataclasses.is_dataclass(given):
        return [(one.name, getattr(given, one.name)) for one in dataclasses.fields(given)]
    if isinstance(given, tuple | list):
        return [(str(place), one) for place, one in enumerate(given)]
    return [(str(key), one) for key, one in given.items()] if isinstance(given, Mapping) else []


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are no results of stages, as JSON.

    What bundles results with settings counts as if its fields were arguments.
    """
    found = {}
    for key, one in given.items():
        if not _ids(one):
            found[key] = plain(one)
        elif dataclasses.is_dataclass(one) and not isinstance(one, Made):
            found |= _settings(dict(_items(one)))
    return found


def _below(path: Path) -> list[Path]:
    """The file itself, or all files in a folder; AssertionError where there is none."""
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not found:
        raise AssertionError(f"a stage has not left {path}")
    return found


def _faults(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the files of a marker, a text for each."""
    faults = []
    for name, written in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
            continue
        stat = path.stat()
        if stat.st_size != written["size"]:
            faults.append(f"{name} has {stat.st_size} bytes and not {written['size']}")
        # a file that nothing touched since need not be read
        elif stat.st_mtime_ns != written["modified"] and digest(path) != written["digest"]:
            faults.append(f"{name} is not what was written")
    return faults
