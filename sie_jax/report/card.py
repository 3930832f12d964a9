"""The model card: what whoever gets the folder model/ alone has to know of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sie_jax.evaluation.verdict import METRIC
from sie_jax.models.ranker import ENCODER, LINEAR, Ranker
from sie_jax.report import formats
from sie_jax.serving.settings import Settings

FILE = "README.md"
METRICS = (METRIC, "mrr", "recall@10")
_PAIRS = '[("red shoes", "strider red sneakers"), ("red shoes", "red lamp")]'


class Model(NamedTuple):
    """What the folder holds.

    labels: of the encoder, lowest grade first; empty where it has one output. towers: whether the
    encoder reads query and item by themselves. agreement: the share of queries to which the ranker
    and the encoder give the same first item, by models that had not seen them. features: whether
    the encoder's head takes features, which are then part of its score there.
    """

    ranker: Ranker
    settings: Settings
    labels: tuple[str, ...]
    towers: bool
    agreement: float
    features: bool = False


class Data(NamedTuple):
    """What the model was made of: the name of the source, and queries and pairs by split."""

    source: str
    splits: Mapping[str, tuple[int, int]]


def card(model: Model, data: Data, metrics: Mapping[str, Any]) -> str:
    """The card in Markdown, with the front matter that the Hugging Face Hub reads.

    metrics: the content of metrics.json. The card names no path.
    """
    library = "sentence-transformers" if model.towers else "transformers"
    kind = "sentence-similarity" if model.towers else "text-ranking"
    tags = ("sie_jax", "jax", "e-commerce", "bi-encoder" if model.towers else "cross-encoder")
    front = [
        f"library_name: {library}",
        f"pipeline_tag: {kind}",
        "tags:",
        *(f"- {t}" for t in tags),
    ]
    parts = (
        "\n".join(["---", *front, "---"]),
        "# A ranker of query–item pairs",
        _what(model, library),
        "## Use it",
        _use(model),
        "## Data",
        _data(model, data, metrics),
        "## Measured on the test queries",
        _measured(model, metrics),
        "## Intended use",
        "It orders the items that a search has found for a query, in shops like the one that its "
        "data come from. Only the order of the items of one query means something.",
        "## Limits",
        "\n".join(f"- {one}" for one in _limits(model)),
    )
    return "\n\n".join(parts) + "\n"


def _what(model: Model, library: str) -> str:
    ranker = model.ranker
    made = f"The encoder is that of the training run {ranker.run}-{ranker.seed}."
    if ranker.kind == ENCODER and not model.features:
        return f"{made} It is what ranks: {library} alone gives the same order."
    alone = "the cosine of query and item" if model.towers else "the encoder's own score"
    if ranker.kind == ENCODER:
        return (
            f"{made} What ranks is the sum of its score and of features of the pair, with which it "
            "was trained: `python -m sie_jax.predict` reads those from ranker.json. "
            f"{library} alone gives {alone} without them, which is another order."
        )
    told = (
        f"{made} What ranks is {ranker.kind}, not the encoder alone: `python -m sie_jax.predict` "
        f"reads that from ranker.json. {library} alone gives {alone}, which is another order"
    )
    if model.features:
        return f"{told}, and lacks the features of the pair with which the encoder was trained."
    return (
        f"{told}: where the ranker was chosen, by models that had not seen the queries, "
        f"{model.agreement:.0%} of the queries had the same first item."
    )


def _use(model: Model) -> str:
    command = "python -m sie_jax.predict --model=model --input=pairs.csv --output=scored.csv"
    ours = (
        f"```sh\n{command}\n```\n\n"
        "The libraries below give the encoder's score. `model` is the path of this folder."
    )
    snippets = [_towers()] if model.towers else [_transformers(model), _cross_encoder(model)]
    return "\n\n".join([ours, *(f"```python\n{snippet}\n```" for snippet in snippets)])


def _towers() -> str:
    return f"""from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("model")
pairs = {_PAIRS}
queries, items = (encoder.encode(list(texts)) for texts in zip(*pairs))
scores = (queries * items).sum(1)"""


def _transformers(model: Model) -> str:
    scores = (
        f"scores = logits.softmax(-1) @ torch.tensor({list(model.settings.gains)})"
        if model.labels
        else "scores = logits[:, 0]"
    )
    return f"""import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("model")
encoder = AutoModelForSequenceClassification.from_pretrained("model").eval()
pairs = {_PAIRS}
tokens = tokenizer(*zip(*pairs), truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = encoder(**tokens).logits
{scores}"""


def _cross_encoder(model: Model) -> str:
    call = "predict(pairs, activation_fn=torch.nn.Identity())"
    scores = f'scores = CrossEncoder("model").{call}'
    if model.labels:
        gains = list(model.settings.gains)
        scores = f'scores = CrossEncoder("model").predict(pairs, apply_softmax=True) @ {gains}'
    imports = "" if model.labels else "import torch\n"
    return f"""{imports}from sentence_transformers import CrossEncoder

pairs = {_PAIRS}
{scores}"""


def _data(model: Model, data: Data, metrics: Mapping[str, Any]) -> str:
    rows, settings = metrics["rows"], model.settings
    table = ["| split | queries | pairs |", "| --- | --- | --- |"]
    table += [f"| {name} | {q:,} | {pairs:,} |" for name, (q, pairs) in data.splits.items()]
    texts = [
        f"Source: `{data.source}`. Of {rows['read']:,} rows {rows['kept']:,} were used and "
        f"{rows['rejected']:,} rejected. A query is in one split alone.",
        "\n".join(table),
    ]
    if model.labels:
        gains = zip(model.labels, settings.gains, strict=True)
        texts.append(
            "Labels and their gains: " + ", ".join(f"{one} {g:g}" for one, g in gains) + "."
        )
    further = (
        "its title and its further text, joined by a blank" if settings.item_text else "its title"
    )
    of = "each text" if model.towers else "a pair"
    texts.append(
        f"An item is read as {further}. Of {of}, {settings.max_length} tokens are read at most."
    )
    return "\n\n".join(texts)


def _measured(model: Model, metrics: Mapping[str, Any]) -> str:
    verdict, test = metrics["verdict"], metrics["test"]
    runs = dict.fromkeys((verdict["ranker"], model.ranker.run, LINEAR, verdict["best_baseline"]))
    table = [f"| ranker | {' | '.join(METRICS)} |", "| --- " * (1 + len(METRICS)) + "|"]
    for run in runs:
        found = test.get(run, {})
        cells = [_cell(found[metric]) if metric in found else "–" for metric in METRICS]
        of = {verdict["ranker"]: ", exported", verdict["best_baseline"]: ", best baseline"}
        table.append(f"| {run}{of.get(run, '')} | {' | '.join(cells)} |")
    notes = " ".join(verdict["notes"])
    return "\n".join(table) + f"\n\nIn brackets the interval. {notes}".rstrip()


def _cell(entry: Mapping[str, float | None]) -> str:
    return f"{formats.value(entry['value'])} ({formats.bounds(entry)})"


def _limits(model: Model) -> list[str]:
    found = [
        "It was measured on queries like those it was trained on: of other shops, languages and "
        "times nothing is known.",
        "Labels are those of the data, with their errors.",
        "sie_jax repairs texts before it reads them (HTML, white space, letters that were broken); "
        "the other libraries take them as they are.",
        "The tokenizer's vocabulary, and word statistics where there are some, hold words of the "
        "training data: look at them before you publish the folder.",
        "No licence is stated: those of the data and of the pretrained checkpoint, if any, hold.",
    ]
    if model.ranker.kind != ENCODER or model.features:
        found.append(
            "What ranks compares an item with the others of its query: give all of them at once."
        )
    return found
