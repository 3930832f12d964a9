"""Small tables of scores, and the ids that go into them, as the tests of tables share them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sie_jax.tables import parts
from sie_jax.tables.provenance import IDENTITY, Provenance

HERE, ELSEWHERE = "a" * 64, "b" * 64  # versions of the data


def origin(*names: str, data_version: str = HERE, seed: int = 0) -> dict[str, Provenance]:
    return {
        name: Provenance(
            score=name, checkpoint="run/7", seed=seed, data_version=data_version, config="c"
        )
        for name in names
    }


def scored(ids: Sequence[str], **scores: Sequence[float]) -> pa.Table:
    columns = {name: pa.array(values, pa.float32()) for name, values in scores.items()}
    return pa.table({"example_id": pa.array(ids, pa.string()), **columns})


def pairs(ids: Sequence[str], **scores: Sequence[float]) -> pa.Table:
    """Scores with the other identity columns too."""
    made = scored(ids, **scores)
    for place, (name, values) in enumerate(
        {
            "query_id": pa.array([f"q{i // 2}" for i in range(len(ids))], pa.string()),
            "item_id": pa.array([f"i{i}" for i in range(len(ids))], pa.string()),
            "label": pa.array([i % 3 for i in range(len(ids))], pa.int32()),
        }.items(),
        start=1,
    ):
        made = made.add_column(place, name, values)
    return made


def store(
    folder: Path,
    made: pa.Table,
    *,
    part_rows: int | None = None,
    provenance: Mapping[str, Provenance] | None = None,
) -> Path:
    """Writes a table as one process, of origin `HERE` if no other is given."""
    names = [name for name in made.column_names if name not in IDENTITY]
    parts.write_parts(
        folder,
        [made],
        process_index=0,
        provenance=origin(*names) if provenance is None else provenance,
        part_rows=part_rows,
    )
    return folder


def names_of(count: int, seed: int = 0) -> list[str]:
    """Ids of many lengths, "" and letters beyond ASCII among them."""
    generator = np.random.default_rng(seed)
    letters = list("abcäß靴0123456789-")
    found: dict[str, None] = {"": None, "靴": None, "x" * 300: None}
    while len(found) < count:
        found["".join(generator.choice(letters, size=generator.integers(1, 9)))] = None
    ids = list(found)[:count]
    generator.shuffle(ids)
    return ids
