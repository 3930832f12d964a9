"""Intents: models of what a sentence wants, fitted, calibrated, chosen, and judged."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sie_jax import processes, remote
from sie_jax.data import sentences
from sie_jax.data.utterances import IntentsConfig, Utterances
from sie_jax.evaluation import calibration, claims, classification
from sie_jax.files import read_json, whole_folder, write_json
from sie_jax.models import intents as models
from sie_jax.models.intents import RIDGES, IntentModel
from sie_jax.stages.histories import counted
from sie_jax.tables.spool import write_parquet
from sie_jax.training.progress import counter
from sie_jax.workdir import Job, Made, stage

FOLDER, FILE, REJECTED = "intents", "intents.json", "rejected_sentences.parquet"
WORDS, VECTORS, BOTH = "words", "vectors", "words and vectors"


def read(made: Made[dict[str, Any]]) -> dict[str, Any]:
    """What was measured."""
    values: dict[str, Any] = read_json(made.folder / FILE)
    return values


@stage(leaves=(FOLDER, FILE, REJECTED), read=read, trains=False)
def intents(job: Job, *, config: IntentsConfig, inputs: Mapping[str, Any]) -> None:
    """Leaves intents/, the model that is best on validation sentences, and intents.json.

    `words` is a linear model on TF-IDF of pieces of words, the rival that costs nothing; `vectors`
    reads those of an encoder, and `words and vectors` both. Ridge and model are chosen by the
    cross-entropy of the validation sentences; the temperature too. With `few` examples of each
    intent nothing is left to choose by: the ridge is that of all examples, for their sum as it was.
    """
    found = config.read()
    names = sorted(set(found.intents))
    vectors = _vectors(job, found, remote.local(config.pretrained)) if config.pretrained else None
    data = _Data(found, names, vectors)
    fitted = {name: data.best(name) for name in _models(vectors)}
    chosen = min(fitted, key=lambda name: fitted[name][1])
    model = fitted[chosen][0]
    threshold = data.threshold(model, config.accuracy)
    measured = {name: data.measured(one) for name, (one, _, _) in fitted.items()}
    told = {
        "intents": names,
        "sentences": {split: int((found.split == split).sum()) for split in set(found.split)},
        "rejected": counted(found.unreadable) | {"repeated": found.repeated},
        "chosen": chosen,
        "test": {name: one["test"] for name, one in measured.items()},
        "difference": {
            name: claims.fixed(one["right"] - measured[WORDS]["right"])
            for name, one in measured.items()
            if name != WORDS
        },
        "handed_over": data.handed_over(model, threshold),
        "few": _few(data, config, {name: one[2] for name, one in fitted.items()}),
        "wrong": data.wrong(model),
    }
    job.say(
        f"intents: {chosen} is taken; test accuracy "
        + ", ".join(
            f"{name} {one['test']['accuracy']['value']:.4f}" for name, one in measured.items()
        )
    )

    def leave() -> None:
        with whole_folder(job.folder / FOLDER) as temporary:
            model.save(temporary)
        write_parquet(job.folder / REJECTED, found.unreadable)
        write_json(job.folder / FILE, told)

    processes.alone(leave)


def _models(vectors: np.ndarray | None) -> tuple[str, ...]:
    return (WORDS,) if vectors is None else (WORDS, VECTORS, BOTH)


def _vectors(job: Job, found: Utterances, folder: str) -> np.ndarray:
    encoder = sentences.load(folder)
    parts = []
    with counter("encode", job.console) as progress:
        for start in range(0, len(found.texts), 1024):
            piece = found.texts[start : start + 1024]
            parts.append(sentences.encode(encoder, piece))
            progress(len(piece))
    return np.concatenate(parts)


class _Data:
    """The sentences, their vectors, and models of them."""

    def __init__(self, found: Utterances, names: Sequence[str], vectors: np.ndarray | None) -> None:
        number = {name: place for place, name in enumerate(names)}
        self.names, self.texts = names, np.array(found.texts, object)
        self.labels = np.array([number[one] for one in found.intents])
        self.vectors = vectors
        self.rows = {
            split: np.flatnonzero(found.split == split) for split in ("train", "validation", "test")
        }

    def fit(self, name: str, rows: np.ndarray, ridge: float) -> IntentModel:
        """A model of some sentences."""
        return models.fit(
            self.texts[rows].tolist(),
            self.labels[rows],
            self.names,
            ridge=ridge,
            words=name != VECTORS,
            vectors=None if name == WORDS or self.vectors is None else self.vectors[rows],
        )

    def probabilities(self, model: IntentModel, rows: np.ndarray) -> np.ndarray:
        vectors = None if self.vectors is None else self.vectors[rows]
        return model.probabilities(self.texts[rows].tolist(), vectors)

    def best(self, name: str) -> tuple[IntentModel, float, float]:
        """The calibrated model of the best ridge, its validation cross-entropy, and the ridge."""
        rows = self.rows["validation"]
        vectors = None if self.vectors is None else self.vectors[rows]
        tried = []
        for ridge in RIDGES:
            model = models.calibrated(
                self.fit(name, self.rows["train"], ridge),
                self.texts[rows].tolist(),
                self.labels[rows],
                vectors,
            )
            share = self.probabilities(model, rows)[np.arange(len(rows)), self.labels[rows]]
            tried.append((model, float(-np.log(np.maximum(share, 1e-12)).mean()), ridge))
        return min(tried, key=lambda one: one[1])

    def measured(self, model: IntentModel) -> dict[str, Any]:
        """What it says of the test sentences, and which it gets `right`."""
        rows = self.rows["test"]
        shares, labels = self.probabilities(model, rows), self.labels[rows]
        predicted = shares.argmax(1)
        right = (predicted == labels).astype(np.float64)
        confusion = classification.confusion_per_query(
            labels,
            predicted,
            np.zeros(len(labels), np.int64),
            num_queries=1,
            num_classes=len(self.names),
        )[0]
        return {
            "right": right,
            "test": {
                "accuracy": claims.fixed(right),
                "macro_f1": float(classification.metrics(confusion, self.names)["macro_f1"]),
                "calibration_error": calibration.expected_error(shares.max(1), right),
            },
        }

    def threshold(self, model: IntentModel, accuracy: float) -> float:
        """The least confidence whose validation sentences, and all surer ones, are right so often.

        1 where none is.
        """
        rows = self.rows["validation"]
        shares = self.probabilities(model, rows)
        sure = shares.max(1)
        order = np.argsort(-sure, kind="stable")
        right = (shares.argmax(1) == self.labels[rows])[order]
        rates = right.cumsum() / np.arange(1, len(right) + 1)
        able = np.flatnonzero(rates >= accuracy)
        return float(sure[order][able[-1]]) if len(able) else 1.0

    def handed_over(self, model: IntentModel, threshold: float) -> dict[str, Any]:
        """What becomes of the test sentences at a threshold."""
        rows = self.rows["test"]
        shares = self.probabilities(model, rows)
        kept = shares.max(1) >= threshold
        right = (shares.argmax(1) == self.labels[rows]).astype(np.float64)
        return {
            "threshold": threshold,
            "answered": float(kept.mean()),
            "accuracy_of_answered": claims.fixed(right[kept]),
        }

    def wrong(self, model: IntentModel) -> list[dict[str, Any]]:
        """The test sentences that it gets wrong, the surest ones first, ten at most."""
        rows = self.rows["test"]
        shares = self.probabilities(model, rows)
        predicted, sure = shares.argmax(1), shares.max(1)
        faults = np.flatnonzero(predicted != self.labels[rows])
        return [
            {
                "text": str(self.texts[rows[one]]),
                "intent": self.names[self.labels[rows[one]]],
                "predicted": self.names[predicted[one]],
                "confidence": float(sure[one]),
            }
            for one in faults[np.argsort(-sure[faults], kind="stable")][:10]
        ]


def _few(data: _Data, config: IntentsConfig, ridges: Mapping[str, float]) -> dict[str, Any]:
    """The accuracy of models of few examples of each intent, drawn several times."""
    found = {}
    test, train = data.rows["test"], data.rows["train"]
    for count in config.few:
        right: dict[str, list[np.ndarray]] = {name: [] for name in ridges}
        for seed in range(config.seeds):
            generator = np.random.default_rng([config.seed, 9, seed])
            rows = np.concatenate(
                [
                    generator.permutation(train[data.labels[train] == label])[:count]
                    for label in range(len(data.names))
                ]
            )
            for name, ridge in ridges.items():
                scaled = ridge * len(train) / len(rows)
                shares = data.probabilities(data.fit(name, rows, scaled), test)
                right[name].append((shares.argmax(1) == data.labels[test]).astype(np.float64))
        stacked = {name: np.stack(one) for name, one in right.items()}
        found[str(count)] = {
            "accuracy": {name: claims.procedure(one) for name, one in stacked.items()},
            "difference": {
                name: claims.procedure(one - stacked[WORDS])
                for name, one in stacked.items()
                if name != WORDS
            },
        }
    return found
