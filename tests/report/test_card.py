"""The model card: what the Hub reads of it, and that its snippets give the model's own scores."""

import re
from pathlib import Path
from typing import Any

import checkpoints
import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard

from sie_jax import serving
from sie_jax.models import PairClassifier
from sie_jax.models.ranker import Ranker
from sie_jax.report import card
from sie_jax.serving import Settings

GAINS = (0.0, 0.25, 1.0)
LABELS = ("bad", "fair", "good")
DATA = card.Data("table", {"train": (1200, 24_000), "test": (100, 2_000)})
ENTRY = {"value": 0.75, "low": 0.5, "high": None}
METRICS: dict[str, Any] = {
    "rows": {"read": 27_000, "kept": 26_000, "rejected": 1_000},
    "test": {run: {"ndcg@10": ENTRY | {"high": 0.875}} for run in ("uniform", "linear", "bm25")},
    "verdict": {"ranker": "uniform", "best_baseline": "bm25", "notes": ["It is ahead."]},
}


def made(
    kind: str = "encoder", labels: tuple[str, ...] = LABELS, *, towers: bool = False
) -> card.Model:
    return card.Model(Ranker(kind, "uniform", 3), Settings(GAINS, 24), labels, towers, 0.25)


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)


def test_what_the_card_says() -> None:
    text = card.card(made(), DATA, METRICS)
    for said in (
        "the training run uniform-3",
        "transformers alone gives the same order.",
        "Of 27,000 rows 26,000 were used and 1,000 rejected.",
        "| train | 1,200 | 24,000 |",
        "bad 0, fair 0.25, good 1",
        "24 tokens are read at most",
        "| uniform, exported | 0.7500 (0.5000 to 0.8750) | – | – |",
        "| bm25, best baseline |",
        "It is ahead.",
        "## Intended use",
        "## Limits",
    ):
        assert said in text
    other = card.card(made("linear"), DATA, METRICS)
    assert "What ranks is linear, not the encoder alone" in other
    assert "which is another order" in other
    assert "25% of the queries had the same first item" in other


@pytest.mark.parametrize(
    ("model", "library", "task"),
    [
        (made(), "transformers", "text-ranking"),
        (made(labels=()), "transformers", "text-ranking"),
        (made(labels=(), towers=True), "sentence-transformers", "sentence-similarity"),
    ],
)
def test_the_hub_reads_its_front_matter_and_python_its_snippets(
    model: card.Model, library: str, task: str
) -> None:
    text = card.card(model, DATA, METRICS)
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == (library, task)
    assert "sie_jax" in (data.tags or [])
    found = snippets(text)
    assert len(found) == (1 if model.towers else 2)
    for snippet in found:
        compile(snippet, "card", "exec")


def test_the_snippet_for_transformers_gives_the_scores_of_serving(tmp_path: Path) -> None:
    """But for torch, which is not here: our encoder takes the place of theirs."""
    folder = checkpoints.write(
        tmp_path / "model",
        ["red shoes strider sneakers lamp"],
        num_labels=3,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    Settings(GAINS, 24).write(folder)
    text = card.card(made(), DATA, METRICS)
    snippet = snippets(text)[0].replace('"model"', repr(str(folder)))
    without_torch = [
        line.replace('"pt"', '"np"')
        for line in snippet.splitlines()
        if line.startswith(("from", "tokenizer", "pairs", "tokens"))
    ]
    names: dict[str, Any] = {}
    exec("\n".join(without_torch), names)
    encoder, _ = PairClassifier.from_pretrained(folder)
    inputs = [names["tokens"][one] for one in ("input_ids", "token_type_ids", "attention_mask")]
    logits = jax.jit(encoder)(*inputs)
    (gains,) = re.findall(r"torch\.tensor\((.*)\)", snippet)
    rows = [{"query": query, "title": title} for query, title in names["pairs"]]
    scored = serving.score(serving.load(folder), rows)["score"].to_numpy()
    found = np.asarray(jax.nn.softmax(logits)) @ np.array(eval(gains))
    # float32; serving pads to other lengths
    np.testing.assert_allclose(found, scored, rtol=1e-5, atol=1e-6)
