"""Every estimator by name: what it needs, and what a high score means."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array

from sie_jax.importance import outputs

OUTPUT_SCORES: dict[str, Callable[..., Array]] = {
    "loss": outputs.loss,
    "el2n": outputs.el2n,
    "margin": outputs.margin,
    "entropy": outputs.entropy,
}
"""The scores of one forward pass: functions of (logits, labels)."""


class Estimator(NamedTuple):
    """What an estimator needs beside the data, and the sign of its score.

    needs: one of NEEDS. high: what a high score says of an example: "hard" (the least is 0),
    "easy", "helpful" (to the validation pairs) or "useful" (to learn from). most: the greatest
    value that an easy, helpful or useful score can have, None where it has none.
    """

    needs: str
    high: str
    most: float | None = None


NEEDS = {
    "outputs": "a forward pass",
    "gradients": "a backward pass of norms beside it",
    "optimizer": "the second moments of Adam and materialised gradients",
    "history": "what training showed of every example in each epoch",
    "checkpoints": "a backward pass at the end of every epoch",
    "targets": "those and the gradient of the validation pairs",
    "curvature": "the Fisher matrix: two passes more over the data",
    "embeddings": "the encoder's vectors",
    "reference": "predictions of models that never saw the query: train.folds",
}
"""What an estimator can need, from the cheapest on."""

ESTIMATORS: dict[str, Estimator] = {
    "grad_norm": Estimator("gradients", "hard"),
    "loss": Estimator("outputs", "hard"),
    "el2n": Estimator("outputs", "hard"),
    "margin": Estimator("outputs", "easy", 1.0),
    "entropy": Estimator("outputs", "hard"),
    "last_layer_norm": Estimator("gradients", "hard"),
    "preconditioned_norm": Estimator("optimizer", "hard"),
    "grand": Estimator("checkpoints", "hard"),
    "gradient_variance": Estimator("checkpoints", "hard"),
    "forgetting_events": Estimator("history", "hard"),
    "area_under_margin": Estimator("history", "easy"),
    "confidence": Estimator("history", "easy", 1.0),
    "variability": Estimator("history", "hard"),
    "correctness": Estimator("history", "easy", 1.0),
    "tracin_self": Estimator("checkpoints", "hard"),
    "tracin": Estimator("targets", "helpful"),
    "gradient_similarity": Estimator("targets", "helpful", 1.0),
    "trak_self": Estimator("checkpoints", "hard"),
    "trak": Estimator("targets", "helpful"),
    "ekfac_self": Estimator("curvature", "hard"),
    "ekfac": Estimator("curvature", "helpful"),
    "out_of_fold_loss": Estimator("reference", "hard"),
    "reducible_loss": Estimator("reference", "useful"),
    "confident_learning": Estimator("reference", "hard"),
    "knn_shapley": Estimator("embeddings", "useful"),
    "query_agreement": Estimator("embeddings", "easy", 1.0),
}
"""All estimators; each one's function has the formula, the source and the cost."""

SCORES = ("grad_norm", *OUTPUT_SCORES)
"""The scores that every run has: those of one pass, and of one batch alone."""


Scores = TypeVar("Scores", Array, np.ndarray)


def hardness(name: str, scores: Scores) -> Scores:
    """A score turned so that high means hard, or harmful, and nothing is below 0.

    Policies take this, and errors are looked for by it. A hard score stays as it is; any other is
    taken from the greatest value that it can have (1 − margin), or else from the greatest one among
    `scores`, which are to be those of the whole training set then. NumPy and JAX arrays alike.
    """
    _, high, most = ESTIMATORS[name]
    if high == "hard":
        return scores
    return (scores.max() if most is None else most) - scores


def needing(names: Iterable[str], *needs: str) -> list[str]:
    """Those of the names whose estimators need one of these."""
    return [name for name in names if ESTIMATORS[name].needs in needs]
