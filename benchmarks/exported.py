"""Does a run's model/ folder give the same scores in transformers and in sentence-transformers?

    pip install torch transformers sentence-transformers    # in a virtual environment of their own
    python -m sie_jax.predict --model=W/model --encoder_alone --input=in.csv --output=scored.parquet
    python benchmarks/exported.py --model=W/model --scored=scored.parquet --name=quickstart

Needs nothing of sie_jax. Scores the first pairs of the file again, by BertForSequenceClassification
and by CrossEncoder, both with what the folder says and nothing else, and prints the largest
difference of a probability; and the largest of a score that the snippets of the model card give,
run as they stand, but for the folder and the pairs. Appends them, under the name, to
benchmarks/results/exported.json.
"""

import argparse
import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

RESULTS = Path(__file__).parent / "results" / "exported.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scored", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--pairs", type=int, default=500)
    arguments = parser.parse_args()
    scored = pq.read_table(arguments.scored).slice(0, arguments.pairs)
    names = [name for name in scored.column_names if name.startswith("probability_")]
    ours = np.stack([scored[name].to_numpy() for name in names], 1)
    texts = list(zip(scored["query"].to_pylist(), scored["title"].to_pylist(), strict=True))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    found = {"pairs": len(texts), "max_length": tokenizer.model_max_length, "device": "cpu"}
    model = BertForSequenceClassification.from_pretrained(arguments.model).eval()
    theirs = []
    with torch.no_grad():
        for start in range(0, len(texts), 32):
            queries, items = zip(*texts[start : start + 32], strict=True)
            encoded = tokenizer(
                list(queries), list(items), truncation=True, padding=True, return_tensors="pt"
            )
            theirs.append(model(**encoded).logits.softmax(-1).numpy())
    found["transformers"] = {
        "version": importlib.metadata.version("transformers"),
        "largest_difference": float(np.abs(np.concatenate(theirs) - ours).max()),
    }
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        found["sentence-transformers"] = {"not run": str(error)}
    else:
        encoder = CrossEncoder(str(arguments.model), device="cpu")
        scores = encoder.predict(texts, apply_softmax=True)
        found["sentence-transformers"] = {
            "version": importlib.metadata.version("sentence-transformers"),
            "largest_difference": float(np.abs(np.asarray(scores) - ours).max()),
        }
    some = scored.slice(0, 32)
    found["card"] = of_card(arguments.model, texts[:32], some["score"].to_numpy())
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    text = json.dumps({**results, arguments.name: found}, indent=2)
    RESULTS.write_text(text + "\n")
    print(text)


def of_card(folder: Path, texts: list[tuple[str, str]], ours: np.ndarray) -> list[float]:
    """The largest difference of a score from ours for each snippet of the folder's card."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    differences = []
    for snippet in re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL):
        code = snippet.replace('"model"', repr(str(folder)))
        code = re.sub(r"^pairs = .*$", lambda _: f"pairs = {texts!r}", code, flags=re.MULTILINE)
        names: dict[str, Any] = {}
        exec(code, names)
        differences.append(float(np.abs(np.asarray(names["scores"]) - ours).max()))
    return differences


if __name__ == "__main__":
    main()
