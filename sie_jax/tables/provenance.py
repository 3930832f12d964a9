"""Where a column of scores, weights or vectors came from, as Parquet metadata state it.

The metadata hold a `Provenance` for each column under the key `sie_jax.provenance`, as JSON by
column, so that every Parquet reader shows it.
"""

import dataclasses
import json
from collections.abc import Mapping

import pyarrow as pa

IDENTITY = ("example_id", "query_id", "item_id", "label")
"""The columns that say which example a row is. They come from the data: they have no provenance."""

_KEY = b"sie_jax.provenance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a column of scores (or weights, or vectors) comes from.

    score: the name of the estimator (or policy), whatever the column is called.
    checkpoint: the parameters that were scored: their digest, or the checkpoint's path and step.
    seed: the seed of the pass or of the training before it.
    data_version: `hashing.data_version` of the pairs that were scored.
    config: a digest of the configuration.
    """

    score: str
    checkpoint: str
    seed: int
    data_version: str
    config: str


def as_metadata(columns: pa.Table, origin: Mapping[str, Provenance]) -> dict[bytes, bytes]:
    """The metadata that state the provenance of all columns of a table but the identity.

    Raises:
      ValueError: `origin` is not of exactly these columns, or of several versions of the data.
    """
    scores = [name for name in columns.column_names if name not in IDENTITY]
    if set(origin) != set(scores):
        raise ValueError(f"provenance is of {sorted(origin)}, the columns are {sorted(scores)}")
    if len({one.data_version for one in origin.values()}) > 1:
        raise ValueError("the columns of one table must be computed on one version of the data")
    facts = {name: dataclasses.asdict(origin[name]) for name in scores}
    return {_KEY: json.dumps(facts).encode()}


def from_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, Provenance]:
    """What `as_metadata` was given; empty if the metadata state no provenance."""
    facts = json.loads((metadata or {}).get(_KEY, b"{}"))
    return {name: Provenance(**value) for name, value in facts.items()}
