"""Makes the example files, all of generated shops: judged pairs, labels to audit, a click log.

    pip install -e '.[benchmark]'
    PYTHONPATH=benchmarks python examples/make.py

The pairs are of the market that the quickstart trains on, of another seed and with a tenth of the
labels wrong. The labels are of the shop `synthetic`, whose labels follow from its words, a tenth of
them wrong too; beside each stand the right one and the probabilities of trees on features of the
words that have not seen the query (benchmarks/audit_model.py). The clicks are those that
benchmarks/clicks.py simulates.
"""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from clicks import World, simulate

from sie_jax.data.schema import ESCI_SCALE
from sie_jax.data.sources import synthetic
from sie_jax.data.sources.market import MarketConfig
from sie_jax.data.sources.section import Request

HERE = Path(__file__).parent
# of the shop whose labels are audited; all but two of its queries are, for right labels find none
QUERIES, TEST, NOISE, SEED = 200, 0.01, 0.1, 7


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


def labels() -> pa.Table:
    """The columns query, title, label and true_label, the latter two 0 to 3."""
    table = synthetic.read(queries=QUERIES, test=TEST, noise=NOISE, seed=SEED, dirt=0.0).table
    table = table.take(np.flatnonzero(np.array(table["split"].to_pylist()) != "test"))
    grades = {name: str(grade) for grade, name in enumerate(ESCI_SCALE.names)}
    found = table.select(["query", "title"])
    for name, of in (("label", "label"), ("true_label", "truth")):
        found = found.append_column(name, pa.array([grades[one] for one in table[of].to_pylist()]))
    return found


def judged_labels() -> pa.Table:
    """Likewise, with a column of probabilities for each label."""
    import audit_model  # what it needs is not needed for the other files

    setting = audit_model.Setting("synthetic", "uniform", NOISE, SEED, queries=QUERIES, test=TEST)
    shop = audit_model.shop(setting)
    probabilities, _ = audit_model.out_of_fold(shop, shop.label)
    found = labels()
    for grade, column in enumerate(probabilities.round(4).T):
        found = found.append_column(f"probability_{grade}", pa.array(column))
    return found


def clicks() -> pa.Table:
    """A click log, one row for each item that was shown."""
    log, _ = simulate(World(queries=60, searches=2000), seed=0)
    return log


def main() -> None:
    pa.csv.write_csv(judged_labels(), HERE / "labels.csv")
    write_pairs_and_clicks()


def write_pairs_and_clicks() -> None:
    """The files that no model is trained for."""
    pa.csv.write_csv(pairs(), HERE / "pairs.csv")
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(clicks(), sink)
    content = sink.getvalue().to_pybytes()
    (HERE / "clicks.csv.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
