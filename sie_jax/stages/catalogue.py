"""The catalogue as vectors: encoded in parts, by any number of processes, resumed where stopped."""

import dataclasses

import jax
import numpy as np

from sie_jax import processes
from sie_jax.data import sentences
from sie_jax.data.preparing import Prepared
from sie_jax.files import whole
from sie_jax.stages.asked import texts_of
from sie_jax.stages.train import Trained
from sie_jax.training.progress import counter
from sie_jax.workdir import Job, Made, stage

PART = 2048
"""Items of a part: a stop loses one at most."""


def read(made: Made[np.ndarray]) -> np.ndarray:
    """The vectors `[N, H]`, in the order of the catalogue."""
    return np.load(made.folder / _file(made.stage.partition("/")[2]))


def _file(name: str) -> str:
    return f"vectors/{name}.npy"


@dataclasses.dataclass(frozen=True)
class Named:
    """The name of one making of a stage that is made several times."""

    name: str


@stage(leaves=lambda given: (_file(given["name"].name),), read=read, run="name")
def encode(
    job: Job,
    name: Named,
    prepared: Made[Prepared],
    trained: Made[Trained] | None,
    *,
    checkpoint: str,
    item_text: bool,
) -> None:
    """Leaves the unit vectors of all items by a trained encoder, or by that of `checkpoint`.

    Parts are dealt to the processes in turn, and each leaves its own in a folder that all see.
    """
    _, texts = texts_of(prepared.value, item_text=item_text)
    encoder = sentences.load(trained.value.model if trained is not None else checkpoint)
    folder = job.scratch("parts")
    parts = range(0, len(texts), PART)
    with counter("encode", job.console) as progress:
        for number, start in enumerate(parts):
            if number % jax.process_count() != jax.process_index():
                continue
            piece = texts[start : start + PART]
            if not (folder / f"{number}.npy").exists():
                with whole(folder / f"{number}.npy") as temporary, temporary.open("wb") as file:
                    np.save(file, sentences.encode(encoder, piece))
            progress(len(piece))
    processes.together()

    def leave() -> None:
        vectors = np.concatenate(
            [np.load(folder / f"{number}.npy") for number in range(len(parts))]
        )
        with whole(job.folder / _file(name.name)) as temporary, temporary.open("wb") as file:
            np.save(file, vectors)

    processes.alone(leave)
