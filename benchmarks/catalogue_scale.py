"""What do a million items cost to encode, index and search, and how much does approximation lose?

    python benchmarks/catalogue_scale.py --towers=TOWERS --pretrained=BERT \\
        --out=benchmarks/results/catalogue_scale.json

TOWERS is the folder models/uniform-0 of a run of `configs/retrieval.py`, and BERT a
sentence-transformers folder, of which the throughput alone is measured, on the first THROUGHPUT
texts. Titles are halves of two titles of the generated shop. They are encoded in parts that are
kept in WORKDIR, so that what was stopped resumes; the seconds are those of parts that were made by
this process, once the programs are compiled.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine
from same_results import commit_of

from sie_jax.data import sentences
from sie_jax.data.sources.market import MarketConfig, generate
from sie_jax.files import whole, write_json
from sie_jax.retrieval.index import EXACT, HNSW, IVF, IndexConfig, VectorIndex, found_share

PART, QUERIES, DEPTH, THROUGHPUT = 65_536, 500, 100, 2_048
SETTINGS = ((IVF, 1000, 8), (IVF, 1000, 64))
"""Kind, size and effort of each index. With 1,000 items a cell faiss finds 1,000 cells in a minute;
with 100 it has a hundred times as much to do."""
OF_GRAPH = ((HNSW, 16, 64), (HNSW, 16, 256))
SMALLER = 100_000
"""Items of the graph: building one of a million takes longer than all else here."""


def titles(count: int) -> list[str]:
    """`count` different titles."""
    own = [title.split() for title in generate(MarketConfig(items=3000, queries=300)).titles]
    generator = np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < count:
        for a, b in generator.integers(len(own), size=(count, 2)).tolist():
            first, second = own[a], own[b]
            found[" ".join((*first[: len(first) // 2], *second[len(second) // 2 :]))] = None
    return list(found)[:count]


def encoded(folder: Path, texts: list[str], workdir: Path) -> tuple[np.ndarray, dict[str, float]]:
    """The vectors, and what encoding took."""
    encoder, parts, seconds, made = sentences.load(folder), [], 0.0, 0
    sentences.encode(encoder, texts[:2_048])  # compiles
    for start in range(0, len(texts), PART):
        path, piece = workdir / f"{start}.npy", texts[start : start + PART]
        if not path.exists():
            started = time.perf_counter()
            vectors = sentences.encode(encoder, piece)
            seconds, made = seconds + time.perf_counter() - started, made + len(piece)
            with whole(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors)
        parts.append(np.load(path))
    rate = made / seconds if seconds else float("nan")
    return np.concatenate(parts), {"texts_per_second": rate, "texts": made}


def searched(
    vectors: np.ndarray, queries: np.ndarray, settings: Any, exact: np.ndarray | None
) -> dict[str, Any]:
    """What building and searching an index takes, and its recall against the exact one."""
    kind, size, effort = settings
    started = time.perf_counter()
    index = VectorIndex.build(vectors, IndexConfig(kind=kind, size=size, effort=effort), {})
    building = time.perf_counter() - started
    index.search(queries[:8], DEPTH)
    started = time.perf_counter()
    found = index.search(queries, DEPTH)[0]
    seconds = time.perf_counter() - started
    return {
        "kind": kind,
        "size": size,
        "effort": effort,
        "items": len(vectors),
        "build_seconds": building,
        "milliseconds": 1000 * seconds / len(queries),
        "recall": 1.0 if exact is None else found_share(found, exact),
        "found": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--towers", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--workdir", type=Path, default=Path("runs/catalogue_scale"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.workdir.mkdir(parents=True, exist_ok=True)
    texts = titles(given.items)
    vectors, told = encoded(given.towers, texts, given.workdir)
    pretrained = sentences.load(given.pretrained)
    sentences.encode(pretrained, texts[-THROUGHPUT:])  # compiles
    started = time.perf_counter()
    sentences.encode(pretrained, texts[:THROUGHPUT])
    rate = THROUGHPUT / (time.perf_counter() - started)
    queries = sentences.encode(sentences.load(given.towers), texts[-QUERIES:])
    noise = np.random.default_rng(1).normal(size=queries.shape) / queries.shape[1] ** 0.5
    queries = (queries + 0.5 * noise).astype(np.float32)  # near items, not on them
    rows = []
    for of, settings in ((vectors, SETTINGS), (vectors[:SMALLER], OF_GRAPH)):
        exact = searched(of, queries, (EXACT, 2, 1), None)
        rows += [exact, *(searched(of, queries, one, exact["found"]) for one in settings)]
    for row in rows:
        del row["found"]
    write_json(
        given.out,
        {
            **machine(),
            "commit": commit_of("HEAD"),
            "items": len(texts),
            "width": int(vectors.shape[1]),
            "bytes": int(vectors.nbytes),
            "encoding": {"towers": told, "pretrained": {"texts_per_second": rate, "width": 384}},
            "searched": rows,
            "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
    )


if __name__ == "__main__":
    main()
