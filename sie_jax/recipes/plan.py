"""Which stages and training runs the recipe relevance will make, told from a config alone."""

from sie_jax.config import Config
from sie_jax.importance.section import AUTO
from sie_jax.tasks import classifies


def stages(config: Config) -> tuple[str, ...]:
    """The stages in the order in which they are made, each training run by its own name.

    Those of the folds of a cross-validation (`evaluation.folds`) are not among them.
    """
    train, evaluation = config.train, config.evaluation
    weighted = ("weighted", *config.importance.compare)
    runs = [f"{name}-{seed}" for seed in range(train.seeds) for name in ("uniform", *weighted)]
    folds = [f"{name}-fold-{fold}" for name in weighted for fold in range(train.folds)]
    optional = {
        "pretrain": config.pretrain.steps > 0,
        "tune": bool(train.learning_rates),
        "cross_fit": train.folds > 0,
        "choose": config.importance.policy == AUTO,
        "audit": classifies(train.task),
        "robustness": evaluation.changed_queries > 0,
        "explain": evaluation.explained_queries > 0 and classifies(train.task),
    }
    named = (
        *("prepare", "pretrain", "features", "linear", "translation", "tune", "cross_fit"),
        *("choose", "score", "weigh", "audit"),
        *(f"train/{run}" for run in runs),
        *(f"rehearse/{run}" for run in folds),
        *("contest", "export", "robustness", "explain", "evaluate"),
    )
    return tuple(name for name in named if optional.get(name, True))
