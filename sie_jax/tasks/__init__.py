"""What one example is: its features, outputs, loss and score."""

from collections.abc import Callable
from functools import partial

from sie_jax.importance import ESTIMATORS
from sie_jax.tasks.contrastive import Contrastive
from sie_jax.tasks.coupled import CoupledTask
from sie_jax.tasks.graded import Graded
from sie_jax.tasks.listed import LOSSES, Listed
from sie_jax.tasks.regression import Regression
from sie_jax.tasks.task import ClassificationTask

PairTask = Graded | Regression | Listed | Contrastive
"""A task of query–item pairs."""

TASKS: dict[str, Callable[..., PairTask]] = {
    "graded": Graded,
    "regression": Regression,
    **{name: partial(Listed, name=name) for name in LOSSES},
    "contrastive": Contrastive,
}
"""What makes each task of pairs, of the structure of the model and the gains, and `contrastive` of
a temperature too.
"""


def kind_of(name: str) -> type[PairTask]:
    """The class of a task."""
    kinds: dict[str, type[PairTask]] = {
        "graded": Graded,
        "regression": Regression,
        "contrastive": Contrastive,
    }
    return kinds.get(name, Listed)


def listed(name: str) -> bool:
    """Whether the loss of a pair reads the other pairs of its query."""
    return issubclass(kind_of(name), CoupledTask)


def apart(name: str) -> bool:
    """Whether query and item are read apart, by two towers."""
    return kind_of(name) is Contrastive


def classifies(name: str) -> bool:
    """Whether a task's models have a probability for every label."""
    return issubclass(kind_of(name), ClassificationTask)


def label_names(name: str, grades: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the labels of a task's models: the grades, or one relevance; none of towers."""
    if apart(name):
        return ()
    return grades if classifies(name) else ("relevance",)


def scores(name: str) -> tuple[str, ...]:
    """The scores that every run of a task has, of `importance.SCORES`."""
    return ("grad_norm", *kind_of(name).output_scores)


def can_estimate(name: str, estimator: str) -> bool:
    """Whether an estimator of `importance.ESTIMATORS` is defined, and computed, for a task."""
    kind, needs = kind_of(name), ESTIMATORS[estimator].needs
    return needs in kind.meets and (needs != "outputs" or estimator in kind.output_scores)
