"""Which stages and training runs the recipe relevance will make, told from a config alone."""

from sie_jax.config import Config
from sie_jax.importance.section import AUTO
from sie_jax.tasks import classifies


def stages(config: Config) -> tuple[str, ...]:
    """The stages in the order in which they are made, each training run by its own name.

    Those of the folds of a cross-validation (`evaluation.folds`) are not among them.
    """
    train, evaluation = config.train, config.evaluation
    compared = _compared(config)
    trained = [f"{name}-{seed}" for seed in range(train.seeds) for name in compared]
    folds = [f"{name}-fold-{fold}" for name in compared[1:] for fold in range(train.folds)]
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
        *("prepare", "pretrain", "features", "linear", "trees", "translation", "tune"),
        *("cross_fit", "choose", "score", "weigh", "audit"),
        *(f"train/{run}" for run in trained),
        *(f"rehearse/{run}" for run in folds),
        *("contest", "export", "robustness", "explain", "evaluate"),
    )
    return tuple(name for name in named if optional.get(name, True))


def runs(config: Config, steps: int) -> list[str]:
    """The training runs, a line each. steps: of an epoch over all training pairs."""
    train, importance, folds = config.train, config.importance, config.train.folds
    whole = f"{steps * train.epochs:,} steps"
    lines = [f"training runs: {train.seeds} × {', '.join(_compared(config))}, {whole} each"]
    lines.append(f"  warm-up for the scores: {steps * importance.warmup_epochs:,} steps")
    if config.pretrain.steps:
        lines.append(f"  pretraining: {config.pretrain.steps:,} steps")
    if train.learning_rates:
        lines.append(f"  tune: {len(train.learning_rates)} learning rates, {whole} each")
    if folds:
        number, each = folds * len(_compared(config)), _of_fold(config, steps)
        lines.append(
            f"  on folds of the training queries: {number} runs, about {each:,} steps each"
        )
    if importance.policy == AUTO:
        budget = f"importance.choosing_budget {importance.choosing_budget:g}"
        lines.append(f"  choose: as many candidates as {budget} full trainings allow")
    if train.patience:
        lines.append(f"  train.patience {train.patience} may end a run sooner")
    return lines


def total(config: Config, steps: int) -> int:
    """The steps of all that `runs` names but pretraining and choosing, whose steps are others."""
    train, compared = config.train, len(_compared(config))
    whole = train.seeds * compared + len(train.learning_rates)
    return (
        whole * steps * train.epochs
        + steps * config.importance.warmup_epochs
        + train.folds * compared * _of_fold(config, steps)
    )


def _of_fold(config: Config, steps: int) -> int:
    """The steps of a run that leaves one fold of the training queries out."""
    folds = config.train.folds
    return steps * config.train.epochs * (folds - 1) // folds if folds else 0


def _compared(config: Config) -> tuple[str, ...]:
    """The names of the runs that are compared, the first of them without weights."""
    return ("uniform", "weighted", *config.importance.compare)
