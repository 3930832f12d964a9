"""Does any mutated input end a command in a traceback, without its one line, or not at all?

    python benchmarks/fuzz.py                 # some ten minutes on two cores
    python benchmarks/fuzz.py --only=jobs/17  # one input again, with its traceback
    python benchmarks/fuzz.py --sources --out=benchmarks/results/fuzz_sources.json

Model folders, tables, corrections, unfinished predictions, workdirs and configs, each sound and
tiny, are changed at random: bytes, lines, cells, JSON values, tensors, columns, names, encodings
(`mutations.py`; `fuzz_kinds.py` has the kinds). With `--sources` they are judgment lists, events,
catalogues, qrels and runs (`fuzz_sources.py`). The seed is committed, and each input depends on
its own number alone. All of them go through the entry points of the commands in one process; a
config goes through the checks alone, and a table to train on and a workdir through the checks and
the stage `prepare`, because a sound one would be trained on. A hundred go through the real commands
too; of configs and tables to train on, some that were refused.

An input holds where the exit code is 0 and the output is there; or is 2 or 3, the last line on
stderr is the error, and there is no output; and where the real command ends likewise. Exits 1 where
one does not hold.
"""

import argparse
import contextlib
import faulthandler
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fuzz_sources
import jax
from fuzz_kinds import KINDS, ROOT, TRAIN, Kind, sound
from fuzz_sources import SOURCES
from interleaved import machine
from same_results import commit_of

from sie_jax.files import write_json

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SEED = 0
EVERY = KINDS | SOURCES
OUTCOMES = {0: "accepted", 2: "refused", 3: "not finite"}
TRACEBACK, TIME_OUT, UNTOLD = "traceback", "time-out", "not told in one line"
SECONDS, COMMAND_SECONDS = 30, 90  # the most that an input may take


class _TimeOutError(BaseException):
    """Not an Exception, so that no command takes it for its own."""


def _late(*_: object) -> None:
    raise _TimeOutError


class Inputs:
    """Makes inputs in folders below `folder`, from the sound files there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._sound = folder, folder / "sound"
        self._sound.mkdir()
        nothing = io.StringIO()
        with (
            contextlib.chdir(self._sound),
            contextlib.redirect_stdout(nothing),
            contextlib.redirect_stderr(nothing),
        ):
            sound(self._sound)
            fuzz_sources.sound(self._sound)

    @contextlib.contextmanager
    def made(self, name: str, number: int) -> Iterator[tuple[Path, list[str], str]]:
        """The folder of an input, its flags, and what was changed."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name} {number} ", dir=self.folder))
        shutil.copytree(self._sound, folder, dirs_exist_ok=True)
        draw = random.Random(f"{SEED}/{name}/{number}")
        try:
            yield folder, *EVERY[name].change(draw, folder)
        finally:
            shutil.rmtree(folder)

    def tried(self, name: str, number: int) -> dict[str, Any]:
        """How an input ends in this process."""
        kind, said, error = EVERY[name], io.StringIO(), ""
        with self.made(name, number) as (folder, flags, change):
            started = time.perf_counter()
            code: int | None = None
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            faulthandler.dump_traceback_later(10 * SECONDS, exit=True)
            try:
                with (
                    contextlib.chdir(folder),
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(said),
                ):
                    code = kind.entry(["", *flags])
            except KeyboardInterrupt:
                raise
            except _TimeOutError:
                error = TIME_OUT
            except BaseException:
                error = traceback.format_exc()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
            outcome = _outcome(kind, folder, code, said.getvalue(), error)
            return {
                "input": f"{name}/{number}",
                "change": change,
                "exit code": code,
                "outcome": outcome,
                "seconds": time.perf_counter() - started,
                "said": _without_paths(error or said.getvalue()),
            }

    def commanded(self, name: str, number: int) -> dict[str, Any]:
        """How an input ends as a real command."""
        kind, code, said, error = EVERY[name], None, "", ""
        with self.made(name, number) as (folder, flags, change):
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            try:
                done = subprocess.run(
                    [sys.executable, *kind.words, *flags],
                    env=environment,
                    cwd=folder,
                    capture_output=True,
                    timeout=COMMAND_SECONDS,
                    stdin=subprocess.DEVNULL,
                )
                code, said = done.returncode, done.stderr.decode(errors="replace")
                error = said if "Traceback" in said else ""
            except subprocess.TimeoutExpired:
                error = TIME_OUT
            return {
                "input": f"{name}/{number}",
                "change": change,
                "exit code": code,
                "outcome": _outcome(kind, folder, code, said, error),
                "said": _without_paths(error or said),
            }


def _outcome(kind: Kind, folder: Path, code: int | None, said: str, error: str) -> str:
    if error:
        return TIME_OUT if error == TIME_OUT else TRACEBACK
    lines = said.strip().splitlines()
    told = code == 0 or (bool(lines) and lines[-1].startswith("error: "))
    if code not in OUTCOMES or not told:
        return UNTOLD
    if kind.output:
        told = (folder / kind.output).is_file() == (code == 0)
    return OUTCOMES[code] if told else UNTOLD


def _without_paths(text: str) -> str:
    """A text without the paths of this machine, its end."""
    for place in (ROOT, sys.prefix, sys.base_prefix):
        text = text.replace(f"{place}/", "")
    return text[-2000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs and commands")
    parser.add_argument("--only", default="", metavar="KIND/NUMBER")
    parser.add_argument("--sources", action="store_true", help="sources other than a table")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _late)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as second:
        cache = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        jax.config.update("jax_compilation_cache_dir", cache)
        inputs = Inputs(Path(folder))
        if options.only:
            name, _, number = options.only.partition("/")
            for made in (inputs.tried, inputs.commanded):
                print(
                    *(f"{key}: {value}" for key, value in made(name, int(number)).items()), sep="\n"
                )
            return
        tried: dict[str, list[dict[str, Any]]] = {}
        commands: dict[str, list[Future[dict[str, Any]]]] = {}
        for name, kind in (SOURCES if options.sources else KINDS).items():
            tried[name] = []
            for number in range(int(kind.inputs * options.share)):
                tried[name].append(inputs.tried(name, number))
                if number % 50 == 49:
                    seconds = time.perf_counter() - started
                    counts = Counter(one["outcome"] for one in tried[name])
                    print(f"{seconds:4.0f} s  {name}, {number + 1}: {dict(counts)}", flush=True)
            checks_alone = kind.words is TRAIN
            able = [
                number
                for number, one in enumerate(tried[name])
                if not checks_alone or one["outcome"] == "refused"
            ]
            wanted = int(kind.commands * options.share)
            chosen = able[:: max(1, len(able) // max(wanted, 1))][:wanted]
            commands[name] = [second.submit(inputs.commanded, name, number) for number in chosen]
        done = {name: [one.result() for one in futures] for name, futures in commands.items()}
    found = _summary(tried, done)
    found["seconds"] = round(time.perf_counter() - started)
    write_json(options.out, found | machine() | {"commit": commit_of("HEAD")})
    for failure in found["failures"]:
        print(*(f"{key}: {value}" for key, value in failure.items()), "", sep="\n")
    print({name: found[name] for name in ("inputs", "commands", "seconds")})
    sys.exit(bool(found["failures"]))


def _summary(
    tried: dict[str, list[dict[str, Any]]], done: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The counts by kind, and each input that does not hold."""
    holding = (*OUTCOMES.values(),)
    failures = [
        {"as": how, **{key: one[key] for key in ("input", "change", "outcome", "said")}}
        for how, ended in (("in one process", tried), ("as a command", done))
        for ones in ended.values()
        for one in ones
        if one["outcome"] not in holding
    ]
    for name, ones in done.items():
        for one in ones:
            alone = tried[name][int(one["input"].rpartition("/")[2])]
            if one["outcome"] != alone["outcome"]:
                failures.append({**one, "as": f"as a command; in one process {alone['outcome']}"})
    return {
        "seed": SEED,
        "inputs": _counts(tried),
        "commands": _counts(done),
        "slowest_seconds": round(max(one["seconds"] for ones in tried.values() for one in ones), 1),
        "failures": failures,
    }


def _counts(ended: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    outcomes = (*OUTCOMES.values(), TRACEBACK, TIME_OUT, UNTOLD)

    def counted(ones: Sequence[dict[str, Any]]) -> dict[str, Any]:
        times = Counter(one["outcome"] for one in ones)
        codes = Counter(str(one["exit code"]) for one in ones)
        return {
            "all": len(ones),
            **{outcome: times[outcome] for outcome in outcomes},
            "exit codes": dict(sorted(codes.items())),
        }

    every = [one for ones in ended.values() for one in ones]
    return {**{name: counted(ones) for name, ones in ended.items()}, "together": counted(every)}


if __name__ == "__main__":
    main()
