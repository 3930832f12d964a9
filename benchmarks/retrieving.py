"""What finds more in a whole catalogue: words, a checkpoint's vectors, tuned ones, or both?

    python benchmarks/retrieving.py --set=shop --out=benchmarks/results/retrieving_shop.json
    python benchmarks/retrieving.py --set=esci --pretrained=BERT \\
        --out=benchmarks/results/retrieving_esci.json

shop is `configs/retrieval.py`: towers from random weights. esci is the products of the ESCI sample
in the folder that $SIE_JAX_DATA names as the catalogue, its judged pairs as the truth, and BERT a
sentence-transformers folder, as it is and tuned on the training queries. Runs the recipe in
WORKDIR/SET, one seed: what was stopped resumes.
"""

import argparse
import os
import runpy
from pathlib import Path

from interleaved import machine
from same_results import commit_of

from sie_jax.config import RetrievalConfig
from sie_jax.files import read_json, write_json
from sie_jax.recipes import retrieval

ROOT = Path(__file__).parent.parent


def config_of(name: str, pretrained: str) -> RetrievalConfig:
    """The recipe's config for a set."""
    made: RetrievalConfig = runpy.run_path(str(ROOT / "configs" / "retrieval.py"))["get_config"]()
    made.name = name
    if name == "esci":
        made.data.source = "esci"
        made.data.path = str(Path(os.environ["SIE_JAX_DATA"]) / "esci")
        made.data.max_length = 48
        made.model.pretrained = pretrained
        made.model.dropout = 0.1
        made.train.batch_size, made.train.epochs = 64, 1
        made.train.learning_rate = 1e-5
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", choices=("shop", "esci"), required=True)
    parser.add_argument("--pretrained", default="")
    parser.add_argument("--workdir", type=Path, default=Path("runs/retrieving"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workdir = given.workdir / given.set
    retrieval.run(config_of(given.set, given.pretrained), workdir)
    metrics = read_json(workdir / "metrics.json")
    kept = ("queries", "catalogue", "test", "difference", "unjudged", "weights", "index", "verdict")
    found = {name: metrics[name] for name in kept}
    write_json(given.out, {**machine(), "commit": commit_of("HEAD"), "set": given.set, **found})


if __name__ == "__main__":
    main()
