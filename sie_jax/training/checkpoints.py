"""Checkpoints of one training run: state, step, counts and config in one."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from sie_jax import processes
from sie_jax.errors import UserError
from sie_jax.files import digest, read_json, write_json
from sie_jax.training.state import TrainState

LOGGER = logging.getLogger(__name__)


class RunCheckpoints:
    """The checkpoints of one run, written by Orbax while training goes on.

    Everything a resume needs is in one checkpoint: the train state, and `record`, a JSON value
    (counts so far, and the config the run was started with). The position in the data is the step.
    The newest two are kept, and those of the steps `keep`.

    Once a checkpoint is on disk the digest of each of its files is written down, in the folder
    beside it called `<folder>.digests`: a file that is torn, altered or gone since is noticed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: Sequence[int] = (),
        tell: Callable[[str], None] = LOGGER.error,
    ) -> None:
        policies = ocp.training.preservation_policies
        self._folder, self._tell = folder.absolute(), tell
        self._undigested: list[int] = []
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(2), policies.CustomSteps(keep)]
            ),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: TrainState, record: dict[str, Any]) -> None:
        """Begins to write a checkpoint; waits only for the one before it."""
        self.wait()
        self._checkpointer.save_checkpointables_async(
            step, {"state": state._asdict(), "record": {"json": json.dumps(record)}}
        )
        self._undigested.append(step)

    def restore(
        self, state: TrainState, *, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any], int]:
        """Loads a checkpoint onto the placement of `state`: the state, the record and its step.

        That of `step`; where None the newest that is whole. One that is not is moved aside to
        `<folder>.broken`, and `tell` is told. Raises FileNotFoundError where there is no
        checkpoint, and UserError where none of them can be read.
        """
        if self._checkpointer.latest is None:
            raise FileNotFoundError(f"no checkpoint in {self._folder}")
        steps = [one.step for one in self._checkpointer.checkpoints]
        reasons: dict[int, str] = {}
        for at in sorted(steps, reverse=True) if step is None else [step]:
            reason = self._fault(at)
            if not reason:
                try:
                    loaded = self._checkpointer.load_checkpointables(
                        at,
                        {"state": jax.tree.map(_abstract, state._asdict()), "record": None},
                    )
                except Exception as error:  # whatever Orbax and tensorstore make of broken files
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                else:
                    self._set_aside(reasons)
                    record = json.loads(loaded["record"]["json"])
                    return TrainState(**loaded["state"]), record, at
            reasons[at] = reason
        told = "; ".join(f"step {at}: {reason}" for at, reason in reasons.items())
        raise UserError(
            f"no checkpoint in {self._folder} can be read ({told}): restore the folder from a "
            "backup, or remove it to begin this run again"
        )

    def wait(self) -> None:
        """Returns once everything begun is on disk."""
        self._checkpointer.wait()
        for step in self._undigested:
            if processes.first() and (self._folder / str(step)).exists():
                write_json(self._digests(step), _digests(self._folder / str(step)))
        self._undigested = []
        if processes.first():
            kept = {str(one.step) for one in self._checkpointer.checkpoints}
            for path in self._digests(0).parent.glob("*.json"):
                if path.stem not in kept:
                    path.unlink()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self.wait()
        self._checkpointer.close()

    def _digests(self, step: int) -> Path:
        return self._folder.with_name(f"{self._folder.name}.digests") / f"{step}.json"

    def _fault(self, step: int) -> str:
        """What is wrong with the files of a checkpoint, empty where nothing is.

        A process killed in the moment after a checkpoint leaves one without digests: Orbax's own
        commit says that it is whole.
        """
        file = self._digests(step)
        if not file.exists():
            return ""
        try:
            wanted: dict[str, str] = read_json(file)
        except ValueError:
            return f"{file.parent.name}/{file.name} is damaged"
        found = _digests(self._folder / str(step))
        for name, written in wanted.items():
            if name not in found:
                return f"{name} is missing"
            if found[name] != written:
                return f"{name} is not what was written"
        return ""

    def _set_aside(self, reasons: dict[int, str]) -> None:
        """Moves broken checkpoints away, so that their steps can be saved again; and says so."""
        if not reasons:
            return
        aside = self._folder.with_name(f"{self._folder.name}.broken")

        def move() -> None:
            for step, reason in reasons.items():
                self._tell(
                    f"the checkpoint {self._folder / str(step)} is broken ({reason}): it is moved "
                    f"to {aside}, and the one before it is used"
                )
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / str(step), ignore_errors=True)
                os.replace(self._folder / str(step), aside / str(step))
                self._digests(step).unlink(missing_ok=True)

        processes.alone(move)
        self._checkpointer.reload()


def _digests(folder: Path) -> dict[str, str]:
    """The digest of every file in a folder, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest(path) for path in paths}


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
