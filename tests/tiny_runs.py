"""Whole runs of some thirty queries and a BERT of two layers, and what they leave."""

import dataclasses
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import workdirs
from compiling import quickly
from rich.console import Console

from sie_jax.config import Config
from sie_jax.evaluation import contest
from sie_jax.recipes import relevance
from sie_jax.stages.pair_runs import PairRuns, Start
from sie_jax.workdir import Job, Workdir

METRICS = {"ndcg@10", "ndcg", "mrr", "recall@10", "accuracy", "macro_f1", "micro_f1"}
COLUMNS = {f"{kind}_{label}" for kind in ("precision", "recall") for label in "ICSE"}
# of the folds, of the score pass, of the history, of the embeddings, of the checkpoints
ESTIMATED = ("reducible_loss", "last_layer_norm", "area_under_margin", "knn_shapley", "grand")


def tiny(**importance: Any) -> Config:
    """A config with these fields of its section importance; one padded length, to compile once."""
    config = Config(name="tiny")
    config.data.synthetic.queries = 30
    config.data.synthetic.items_per_query = 6
    config.data.synthetic.dirt = 0.1
    config.data.max_length = 24
    config.data.buckets = 1
    config.data.vocabulary_size = 200
    config.model.hidden_size = 16
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 32
    config.train.batch_size = 16
    config.train.epochs = 1
    config.train.checkpoint_every = 6  # of seven steps
    config.train.log_every = 2
    config.evaluation.resamples = 100
    config.importance = dataclasses.replace(config.importance, **importance)
    return config


def unexplained(**importance: Any) -> Config:
    """As `tiny`, without the passes that explain test queries or change them."""
    config = tiny(**importance)
    config.evaluation.explained_queries = config.evaluation.changed_queries = 0
    return config


def folded() -> Config:
    """Three folds, a score that is made of them, and further estimators."""
    config = unexplained(score="reducible_loss", estimators=ESTIMATED[1:])
    config.train.folds = 3
    return config


def learned() -> Config:
    """Weights of a loss, whose threshold is learned on the validation queries."""
    return unexplained(mode="learned", score="loss")


def run(
    config: Config, workdir: Path, *redo: str, said: io.StringIO | None = None
) -> dict[str, Any]:
    """Runs a config; what it prints goes to `said`."""
    with quickly():
        console = Console(file=said or io.StringIO(), width=10_000)
        return relevance.run(config, workdir, redo=redo, console=console)


def won_by(winner: str, finished: Path, config: Config, workdir: Path) -> dict[str, Any]:
    """A finished run with another winner of the contest, in another workdir; nothing is trained."""
    shutil.copytree(finished, workdir)
    before, real = workdirs.markers(workdir), contest.decide

    def decide(*given: Any, **options: Any) -> contest.Outcome:
        outcome = real(*given, **options)
        encoder = winner if winner in ("uniform", "weighted") else outcome.encoder
        return outcome._replace(ranker=winner, encoder=encoder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "decide", decide)
        metrics = run(config, workdir, "contest")
    assert workdirs.made_since(workdir, before) <= {"contest", "export", "evaluate"}
    return metrics


@contextmanager
def opened(config: Config, workdir: Path) -> Iterator[tuple[Workdir, Start]]:
    """The workdir with the stage prepare done, and what its training runs share."""
    with quickly(), relevance.opened(config, workdir, console=Console(quiet=True)) as folder:
        pairs = relevance.prepared(config, folder)
        yield (
            folder,
            Start(
                pairs,
                None,
                config.model,
                config.data.max_length,
                config.train.schedule(),
                config.train.seed,
            ),
        )


def pair_runs(workdir: Workdir, start: Start, *runs: str) -> PairRuns:
    """Training runs in a job that is no stage of the recipe."""
    return PairRuns(Job(workdir, "test", runs=runs), start)
