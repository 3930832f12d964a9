"""What one example is: its features, outputs, loss and score."""

from collections.abc import Callable
from functools import partial

from flax import nnx

from sie_jax.importance import ESTIMATORS
from sie_jax.tasks.graded import Graded
from sie_jax.tasks.listed import LOSSES, Listed
from sie_jax.tasks.regression import Regression
from sie_jax.tasks.task import ClassificationTask

PairTask = Graded | Regression | Listed
"""A task of a cross-encoder."""

TASKS: dict[str, Callable[[nnx.GraphDef, tuple[float, ...]], PairTask]] = {
    "graded": Graded,
    "regression": Regression,
    **{name: partial(Listed, name=name) for name in LOSSES},
}
"""What makes each task of a cross-encoder, of the structure of the model and the gains."""


def kind_of(name: str) -> type[PairTask]:
    """The class of a task."""
    if name in LOSSES:
        return Listed
    return Graded if name == "graded" else Regression


def listed(name: str) -> bool:
    """Whether the loss of a pair reads the other pairs of its query."""
    return kind_of(name) is Listed


def classifies(name: str) -> bool:
    """Whether a task's models have a probability for every label."""
    return issubclass(kind_of(name), ClassificationTask)


def label_names(name: str, grades: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the labels of a task's models: the grades, or one relevance."""
    return grades if classifies(name) else ("relevance",)


def scores(name: str) -> tuple[str, ...]:
    """The scores that every run of a task has, of `importance.SCORES`."""
    return ("grad_norm", *kind_of(name).output_scores)


def can_estimate(name: str, estimator: str) -> bool:
    """Whether an estimator of `importance.ESTIMATORS` is defined, and computed, for a task."""
    kind, needs = kind_of(name), ESTIMATORS[estimator].needs
    return needs in kind.meets and (needs != "outputs" or estimator in kind.output_scores)
