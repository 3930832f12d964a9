"""Histories: reads, cleans, orders and splits the events; and describes the items."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sie_jax import processes, remote
from sie_jax.data.histories import texts
from sie_jax.data.histories.histories import FILES, TRAIN, Histories, counted, make
from sie_jax.data.histories.section import HistoriesConfig
from sie_jax.files import digests, whole, write_json
from sie_jax.models.history_section import WORDS
from sie_jax.tables.spool import write_parquet
from sie_jax.workdir import Job, Made, stage

CLEANING, REJECTED, VECTORS = "cleaning.json", "rejected.parquet", "item_vectors.npy"


def read(made: Made[Histories]) -> Histories:
    """The histories."""
    return Histories.load(made.folder)


def inputs_of(data: HistoriesConfig) -> dict[str, Any]:
    """What tells the content of every file that is read."""
    return {
        name: {
            file: f"content {one[:16]}" for file, one in digests(Path(remote.local(path))).items()
        }
        for name, path in data.paths.items()
    }


@stage(leaves=(*FILES, CLEANING, REJECTED), read=read)
def histories(job: Job, *, data: HistoriesConfig, inputs: Mapping[str, Any]) -> None:
    """Leaves events, users and items, the rows that were left out and why, and what was counted."""

    def leave() -> None:
        found = data.read()
        made, counts = make(found, data.splitting, timed=data.timed)
        made.save(job.folder)
        write_parquet(job.folder / REJECTED, found.unreadable)
        reasons = counted(found.unreadable)
        rejected = found.unreadable.num_rows
        rows = found.table.num_rows + rejected
        told = {
            "read": rows,
            "kept": rows - rejected - counts["repeated"],
            "rejected": reasons | {"repeated": counts["repeated"]},
            **counts,
        }
        write_json(job.folder / CLEANING, told)
        _say(job, told, made)

    processes.alone(leave)


def _say(job: Job, told: Mapping[str, Any], made: Histories) -> None:
    left_out = ", ".join(f"{count:,} {name}" for name, count in told["rejected"].items() if count)
    job.say(
        f"{told['read']:,} events read, {told['kept']:,} kept"
        + (f" (left out: {left_out})" if left_out else "")
        + f": {told['users']:,} users, {told['items']:,} items"
    )
    if told["returns"]:
        job.say(
            f"{told['returns']:,} events are returns: they take {told['taken_back']:,} earlier "
            "events back, which are not to be predicted"
        )
    if told["users_with_one_event"]:
        job.say(f"{told['users_with_one_event']:,} users have one event: nothing is learnt of them")
    met = np.unique(made.item[made.split == TRAIN])
    if len(met) < len(made.items):
        job.say(
            f"{len(made.items) - len(met):,} of {len(made.items):,} items have no training event: "
            "only their texts can say what they are like (model.text)"
        )


def read_vectors(made: Made[np.ndarray]) -> np.ndarray:
    """The vector of each item `[I + 1, H]`, 0 of item 0."""
    return np.load(made.folder / VECTORS)


@stage(leaves=(VECTORS,), read=read_vectors, trains=False)
def describe_items(
    job: Job, histories: Made[Histories], *, text: str, pretrained: str, width: int
) -> None:
    """Leaves a vector of each item's text, of `width` numbers (`data.histories.texts`)."""

    def leave() -> None:
        given = histories.value.texts
        if text == WORDS:
            found = texts.by_words(given, width)
        else:
            found = texts.by_encoder(given, pretrained, width)
        none = np.zeros((1, width), np.float32)
        with whole(job.folder / VECTORS) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate([none, found]))

    processes.alone(leave)
