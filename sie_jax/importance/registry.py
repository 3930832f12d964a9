"""Every estimator by name: its formula, what it needs, what it costs, and what a high score means.

A new estimator is an entry in the list here, and its function. If it needs more than `function` can
be given, a pass computes it too (`passes`).
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Array

from sie_jax.importance import doubtful, outputs, reference, trajectory

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimator:
    """What an estimator computes, from what, at what cost, and the sign of its score.

    name: what users write, and the column in importance.parquet.
    formula: one line, of a pair with the loss ℓ, the label y and the probabilities p.
    high: what a high score says of an example: "hard" (the least is 0), "easy", "helpful" (to the
        validation pairs) or "useful" (to learn from).
    needs: one of NEEDS.
    once, per_checkpoint: forward-equivalents per training pair beyond the score pass that every run
        makes: in all, and for each checkpoint. Estimators of one need share their passes.
    source: the paper; empty if the formula is common knowledge.
    most: the greatest value that an easy, helpful or useful score can have; None if it has none.
    function: what computes the score from what its need gives, None where only a pass can:
        (logits, labels) of outputs; (margins, probabilities) `[E, N]` of a history; (loss `[N]`,
        out-of-fold probabilities `[N, K]`, labels `[N]`, `doubtful.Groups`) of a reference.
    """

    name: str
    formula: str
    high: str
    needs: str
    once: int = 0
    per_checkpoint: int = 0
    source: str = ""
    most: float | None = None
    function: Callable[..., Any] | None = None

    @property
    def cost(self) -> str:
        """`once` and `per_checkpoint` as one reads them, with C checkpoints: "9" or "3 C"."""
        if self.needs == "reference":
            return "folds"
        parts = [f"{self.once}"] if self.once else []
        parts += [f"{self.per_checkpoint} C"] if self.per_checkpoint else []
        return " + ".join(parts) or "0"


_LIST = (
    Estimator(
        name="grad_norm",
        formula="‖∇ℓ‖",
        high="hard",
        needs="gradients",
        source="Alain et al. 2015",
    ),
    Estimator(
        name="loss",
        formula="−log p_y",
        high="hard",
        needs="outputs",
        function=outputs.loss,
    ),
    Estimator(
        name="el2n",
        formula="‖p − onehot(y)‖",
        high="hard",
        needs="outputs",
        source="Paul et al. 2021, definition 2.2",
        function=outputs.el2n,
    ),
    Estimator(
        name="margin",
        formula="p_y less the greatest other p",
        high="easy",
        needs="outputs",
        source="Northcutt et al. 2021, section 3.2",
        most=1.0,
        function=outputs.margin,
    ),
    Estimator(
        name="entropy",
        formula="−Σ p log p; does not look at the label",
        high="hard",
        needs="outputs",
        function=outputs.entropy,
    ),
    Estimator(
        name="last_layer_norm",
        formula="‖∇ℓ‖ of the classifier alone",
        high="hard",
        needs="gradients",
        source="Katharopoulos and Fleuret 2018",
    ),
    Estimator(
        name="preconditioned_norm",
        formula="‖∇ℓ / (√ν + ε)‖: Adam's step from this pair alone",
        high="hard",
        needs="optimizer",
        once=3,
    ),
    Estimator(
        name="grand",
        formula="mean of ‖∇ℓ‖ over the epochs",
        high="hard",
        needs="checkpoints",
        per_checkpoint=3,
        source="Paul et al. 2021, definition 2.1",
    ),
    Estimator(
        name="gradient_variance",
        formula="variance of ∇ℓ over the epochs, projected",
        high="hard",
        needs="checkpoints",
        per_checkpoint=3,
        source="after Agarwal et al. 2022",
    ),
    Estimator(
        name="forgetting_events",
        formula="how often correct turned incorrect; never correct is the most",
        high="hard",
        needs="history",
        source="Toneva et al. 2019, section 3",
        function=lambda margins, _: trajectory.forgetting_events(margins),
    ),
    Estimator(
        name="area_under_margin",
        formula="mean of z_y less the greatest other z, over the epochs",
        high="easy",
        needs="history",
        source="Pleiss et al. 2020, section 3",
        function=lambda margins, _: trajectory.area_under_margin(margins),
    ),
    Estimator(
        name="confidence",
        formula="mean of p_y over the epochs",
        high="easy",
        needs="history",
        source="Swayamdipta et al. 2020, section 2",
        most=1.0,
        function=lambda margins, p: trajectory.cartography(p, margins).confidence,
    ),
    Estimator(
        name="variability",
        formula="standard deviation of p_y over the epochs: ambiguous",
        high="hard",
        needs="history",
        source="Swayamdipta et al. 2020, section 2",
        function=lambda margins, p: trajectory.cartography(p, margins).variability,
    ),
    Estimator(
        name="correctness",
        formula="share of the epochs in which y was predicted",
        high="easy",
        needs="history",
        source="Swayamdipta et al. 2020, section 2",
        most=1.0,
        function=lambda margins, p: trajectory.cartography(p, margins).correctness,
    ),
    Estimator(
        name="tracin_self",
        formula="Σ η ‖∇ℓ‖² over the epochs",
        high="hard",
        needs="checkpoints",
        per_checkpoint=3,
        source="Pruthi et al. 2020, section 4.1",
    ),
    Estimator(
        name="tracin",
        formula="Σ η ⟨∇ℓ, g⟩ over the epochs, g the validation gradient",
        high="helpful",
        needs="targets",
        per_checkpoint=3,
        source="Pruthi et al. 2020, section 3.2",
    ),
    Estimator(
        name="gradient_similarity",
        formula="cosine of ∇ℓ and g",
        high="helpful",
        needs="targets",
        once=3,
        source="after Barshan et al. 2020",
        most=1.0,
    ),
    Estimator(
        name="trak_self",
        formula="leverage of the projected gradient, times 1 − p_y",
        high="hard",
        needs="checkpoints",
        per_checkpoint=3,
        source="Park et al. 2023, section 3",
    ),
    Estimator(
        name="trak",
        formula="the same with the validation pairs' projected gradient",
        high="helpful",
        needs="targets",
        per_checkpoint=3,
        source="Park et al. 2023, section 3",
    ),
    Estimator(
        name="ekfac_self",
        formula="∇ℓᵀ (H + λI)⁻¹ ∇ℓ, H the Fisher matrix in EK-FAC's form",
        high="hard",
        needs="curvature",
        once=9,
        source="Grosse et al. 2023, section 2.2",
    ),
    Estimator(
        name="ekfac",
        formula="gᵀ (H + λI)⁻¹ ∇ℓ",
        high="helpful",
        needs="curvature",
        once=9,
        source="Grosse et al. 2023, section 2.2",
    ),
    Estimator(
        name="out_of_fold_loss",
        formula="−log p_y of a model that never saw the query",
        high="hard",
        needs="reference",
        function=lambda _, held_out, labels, __: reference.out_of_fold_loss(held_out, labels),
    ),
    Estimator(
        name="reducible_loss",
        formula="the loss less `out_of_fold_loss`",
        high="useful",
        needs="reference",
        source="Mindermann et al. 2022, equation 3",
        function=lambda loss, held_out, labels, _: reference.reducible_loss(
            loss, reference.out_of_fold_loss(held_out, labels)
        ),
    ),
    Estimator(
        name="confident_learning",
        formula="out-of-fold margin, pairs that another class claims by its own threshold first",
        high="hard",
        needs="reference",
        source="Northcutt et al. 2021, section 3",
        function=lambda _, held_out, labels, __: (
            reference.confident_learning(labels, held_out).score
        ),
    ),
    Estimator(
        name="doubtful_groups",
        formula="chance that the query was labelled without a look; 1 of outlying sellers",
        high="hard",
        needs="reference",
        source="after Dawid and Skene 1979",
        function=lambda _, held_out, labels, groups: doubtful.doubtful_groups(
            held_out, labels, groups
        ),
    ),
    Estimator(
        name="knn_shapley",
        formula="exact Shapley value for 10 nearest neighbours among the validation pairs",
        high="useful",
        needs="embeddings",
        once=1,
        source="Jia et al. 2019, theorem 1",
    ),
    Estimator(
        name="query_agreement",
        formula="how near the grades of the query's similar items are to y",
        high="easy",
        needs="embeddings",
        once=1,
        source="after Nadaraya 1964",
        most=1.0,
    ),
)

ESTIMATORS = {one.name: one for one in _LIST}
"""All estimators; the docstring of each one's function has the formula in full, and the source."""


def computed(needs: str) -> dict[str, Callable[..., Any]]:
    """The functions of the estimators with this need, by name."""
    found = {one.name: one.function for one in ESTIMATORS.values() if one.needs == needs}
    return {name: function for name, function in found.items() if function is not None}


OUTPUT_SCORES: dict[str, Callable[..., Array]] = computed("outputs")
"""The scores of one forward pass: functions of (logits, labels)."""

SCORES = ("grad_norm", *OUTPUT_SCORES)
"""The scores that every run has: those of one pass, and of one batch alone."""

Scores = TypeVar("Scores", Array, np.ndarray)


def hardness(name: str, scores: Scores) -> Scores:
    """A score turned so that high means hard, or harmful, and nothing is below 0.

    Policies take this, and errors are looked for by it. A hard score stays as it is. Any other is
    subtracted from the greatest value that it can have (1 − margin), or else from the greatest one
    among `scores`, which must then be those of the whole training set. NumPy and JAX arrays alike.
    """
    estimator = ESTIMATORS[name]
    if estimator.high == "hard":
        return scores
    return (scores.max() if estimator.most is None else estimator.most) - scores


def needing(names: Iterable[str], *needs: str) -> list[str]:
    """Those of the names whose estimators need one of these."""
    return [name for name in names if ESTIMATORS[name].needs in needs]
