"""Checkpoints of one training run: state, data position, step, counts and config in one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import jax
from orbax.checkpoint import v1 as ocp

from sie_jax.training.state import TrainState


class RunCheckpoints:
    """The checkpoints of one run, written by Orbax while training goes on.

    Everything a resume needs is in one checkpoint: the train state, the data iterator's position,
    and `record`, a JSON value (counts so far, and the config the run was started with). The newest
    two are kept, and those of the steps `keep`.
    """

    def __init__(self, folder: Path, *, keep: Sequence[int] = ()) -> None:
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(2), policies.CustomSteps(keep)]
            ),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(
        self, step: int, state: TrainState, iterator: grain.DatasetIterator, record: dict[str, Any]
    ) -> None:
        """Begins to write a checkpoint; waits only for the one before it."""
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": state._asdict(), "data": iterator, "record": {"json": json.dumps(record)}},
        )

    def restore(
        self,
        state: TrainState,
        iterator: grain.DatasetIterator | None = None,
        *,
        step: int | None = None,
    ) -> tuple[TrainState, dict[str, Any]]:
        """Loads a checkpoint onto the placement of `state` and moves the iterator there.

        That of `step`, the newest where None. Gives the state and the record. Raises
        FileNotFoundError where there is no checkpoint.
        """
        if self._checkpointer.latest is None:
            raise FileNotFoundError(f"no checkpoint in {self._checkpointer.directory}")
        wanted: dict[str, Any] = {
            "state": jax.tree.map(_abstract, state._asdict()),
            "record": None,
        }
        if iterator is not None:
            wanted["data"] = iterator
        loaded = self._checkpointer.load_checkpointables(
            self._checkpointer.latest if step is None else step, wanted
        )
        return TrainState(**loaded["state"]), json.loads(loaded["record"]["json"])

    def wait(self) -> None:
        """Returns once everything begun is on disk."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._checkpointer.close()


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
