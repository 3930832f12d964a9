"""Makes the example files: a table of judged pairs, and a click log, both of generated shops.

    PYTHONPATH=benchmarks python examples/make.py

The pairs are of the market that the quickstart trains on, of another seed and with a tenth of the
labels wrong. The clicks are those that benchmarks/clicks.py simulates.
"""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from clicks import World, simulate

from sie_jax.data.sources.market import MarketConfig
from sie_jax.data.sources.section import Request

HERE = Path(__file__).parent


def pairs() -> pa.Table:
    """Judged pairs with the columns query, title, brand and label, 0 to 3."""
    market = MarketConfig(queries=150, noise=0.1, seed=7)
    source = market.read(Request(validation=0.1, test=0.2))
    table = source.table
    grades = {name: str(grade) for grade, name in enumerate(source.scale.names)}
    labels = [grades[name] for name in table["label"].to_pylist()]
    columns = ["query", "title", *(name for name in table.column_names if ":brand" in name)]
    found = table.select(columns).rename_columns([name.split(":")[-1] for name in columns])
    return found.append_column("label", pa.array(labels))


def clicks() -> pa.Table:
    """A click log, one row for each item that was shown."""
    log, _ = simulate(World(queries=60, searches=2000), seed=0)
    return log


def main() -> None:
    pa.csv.write_csv(pairs(), HERE / "pairs.csv")
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(clicks(), sink)
    content = sink.getvalue().to_pybytes()
    (HERE / "clicks.csv.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
