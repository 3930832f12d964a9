"""What makes one training run: written as run.json beside its checkpoints, read by all others."""

import dataclasses
from pathlib import Path
from typing import Any

from sie_jax.errors import UserError
from sie_jax.files import read_json, write_json
from sie_jax.sections import differences, plain
from sie_jax.training.section import Schedule

FILE = "run.json"


@dataclasses.dataclass(frozen=True)
class Weighting:
    """How a run treats its examples.

    kind: "uniform"; "weights", fixed ones in every batch; "sampling", batches drawn by
      probabilities and corrected for it; "online", weights that a policy makes of each batch's own
      scores; "learned", weights that are learned from validation pairs while the run trains.
    score: what weights are made of, "" for uniform. policy: its name, "" for learned ones.
    """

    kind: str = "uniform"
    score: str = ""
    policy: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run. Its name is that of its folder, its stage and its lines in the log.

    seed: of parameters, batches and dropout. train: the task, the optimiser and its schedule.
    weighting: see `Weighting`.
    """

    name: str
    seed: int
    train: Schedule
    weighting: Weighting = Weighting()

    def write(self, folder: Path) -> None:
        """Leaves run.json in the run's folder.

        Raises UserError where the folder holds another run: its checkpoints are not of this one.
        """
        if (folder / FILE).exists():
            found = differences(plain(self), _read(folder / FILE))
            if found:
                raise UserError(
                    f"{folder} holds a run that was made with other settings "
                    f"({'; '.join(found)}): remove this folder, or give another --workdir"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder} has checkpoints but no {FILE}, which says what they are of: remove this "
                "folder to train the run again, or give another --workdir"
            )
        write_json(folder / FILE, plain(self))

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """The run whose folder it is; UserError where run.json is missing or damaged."""
        values = _read(folder / FILE)
        try:
            return cls(
                **{
                    **values,
                    "train": Schedule(
                        **{**values["train"], "select": tuple(values["train"]["select"])}
                    ),
                    "weighting": Weighting(**values["weighting"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / FILE} is damaged ({error}): {_WAY_ON}") from None


_WAY_ON = "remove its folder, and the same command trains the run again"


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = read_json(path)
        if not isinstance(values, dict):
            raise ValueError("it holds no fields")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): {_WAY_ON}") from None
    return values
