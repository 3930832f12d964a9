"""Relevance: a ranker of query–item pairs, trained with and without weights."""

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from jax.sharding import Mesh
from rich.console import Console

from sie_jax import processes, remote
from sie_jax.config import Config
from sie_jax.data.schema import ATTRIBUTE
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.evaluation.label_errors import SCORES as AUDIT_SCORES
from sie_jax.importance.section import AUTO, ImportanceConfig
from sie_jax.models.trees import library
from sie_jax.recipes import nested, opening, plan, sizes
from sie_jax.report import terminal
from sie_jax.stages.audit import audit
from sie_jax.stages.choose import choose
from sie_jax.stages.contest import Contestants, contest
from sie_jax.stages.cross_fit import OutOfFold, cross_fit
from sie_jax.stages.evaluate import Results, evaluate
from sie_jax.stages.explain import explain
from sie_jax.stages.export import export
from sie_jax.stages.features import Features, features
from sie_jax.stages.linear import linear
from sie_jax.stages.pair_runs import Start
from sie_jax.stages.pool import pool
from sie_jax.stages.prepare import Ahead, inputs_of, prepare
from sie_jax.stages.pretrain import pretrain
from sie_jax.stages.rehearse import Rehearsed, rehearse
from sie_jax.stages.reporting import REPORT
from sie_jax.stages.robustness import robustness
from sie_jax.stages.score import Scores, score
from sie_jax.stages.train import train
from sie_jax.stages.translation import translation
from sie_jax.stages.trees import trees
from sie_jax.stages.tune import tune
from sie_jax.stages.weigh import weigh
from sie_jax.tasks import apart, classifies, listed, scores
from sie_jax.training.run import Run, Weighting
from sie_jax.workdir import Made, Workdir

STAGES = tuple(
    one.__name__
    for one in (
        prepare,
        features,
        linear,
        trees,
        translation,
        pretrain,
        tune,
        cross_fit,
        choose,
        score,
        weigh,
        audit,
        train,
        rehearse,
        contest,
        export,
        explain,
        robustness,
        pool,
        evaluate,
    )
)
"""The stages in their order."""


def run(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    redo: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Makes every stage that is not yet made in `workdir`, and gives the content of metrics.json.

    workdir: may be a folder in an object store, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER. redo:
    stages that are made again, and with each what follows from it.

    Raises UserError for what the user can fix, before anything is written where the config or the
    input is at fault, and NumericalError where a loss is no longer finite.
    """
    with opened(config, workdir, redo=redo, console=console) as place:
        pooled = None
        if config.evaluation.folds:
            pooled = nested.tested(config, place, recipe=_stages)
        metrics = _stages(config, place, pooled).value
        opening.close(place)
        place.console.print(terminal.table(metrics))
        place.console.print(terminal.verdict(metrics))
        place.say(f"Report: {os.path.join(workdir, REPORT)}")
    return metrics


@contextmanager
def opened(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    redo: Sequence[str] = (),
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Iterator[Workdir]:
    """The workdir, held for this run; all that can be checked beforehand has been checked.

    mesh: that of the config where None.
    """

    def check(mesh: Mesh) -> None:
        if config.pretrain.steps:
            meshes.check_batch(mesh, config.pretrain.batch_size, "pretrain.batch_size")
        sizes.check(config, mesh)
        library()  # or it is missed only once the data have been prepared

    with opening.opened(
        config,
        workdir,
        known=STAGES,
        planned=lambda: plan.stages(config),
        redo=redo,
        console=console,
        mesh=mesh,
        check=check,
    ) as place:
        yield place


def prepare_on_beam(
    config: Config,
    workdir: str | os.PathLike[str],
    options: Sequence[str],
    *,
    console: Console | None = None,
) -> None:
    """Makes the stage prepare with the rows' work done on Apache Beam; `run` goes on from there.

    This process reads the source and writes its rows to the workdir, which Beam's workers have to
    see; they clean, split, tokenise and write. They read a table in Parquet files themselves if its
    labels are named and it has no raters. options: Beam's own flags.

    Raises UserError for what the user can fix.
    """
    config.check()
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError("Apache Beam is not installed: pip install -e '.[beam]'")
    if not config.model.pretrained:
        raise UserError(
            "model.pretrained is empty: on Beam the tokenizer is that of a checkpoint: give "
            "--config.model.pretrained=FOLDER, or prepare with train.py, which trains one"
        )
    if remote.is_remote(workdir):
        raise UserError(
            f"--workdir={workdir}: Beam's workers write to a folder that all of them see: "
            "give such a folder, for instance a mounted bucket"
        )
    with opened(config, workdir, console=console, mesh=meshes.make(1)) as place:
        prepared(config, place, beam=options)
        place.say(f"Prepared: {workdir}; train.py with the same --config and --workdir trains")


def prepared(config: Config, workdir: Workdir, *, beam: Sequence[str] | None = None) -> Made[Any]:
    """The stage prepare, on Apache Beam where its flags are given."""
    return prepare(
        workdir,
        data=config.data,
        pretrained=config.model.pretrained,
        inputs=processes.told(lambda: inputs_of(config.data, config.model.pretrained)),
        keep_catalogue=config.pretrain.steps > 0,
        apart=apart(config.train.task),
        ahead=Ahead(config.model, config.train, config.importance, config.pretrain.steps, beam),
    )


def started(config: Config, workdir: Workdir) -> Start:
    """What all training runs begin with.

    The prepared pairs, the pretrained model if any, and features where the head takes them.
    """
    start = beginning(config, prepared(config, workdir))
    if config.pretrain.steps:
        pretrained = pretrain(
            workdir,
            replace(start, train=config.pretrain.schedule(start.train)),
            pretrain=config.pretrain,
            data=config.data,
            # or the models of folds would have seen the queries that they are kept from
            queries=not config.train.folds,
        )
        start = replace(start, pretrained=pretrained)
    return replace(start, features=of_head(config, workdir, start.prepared))


def beginning(config: Config, pairs: Made[Any]) -> Start:
    """What training runs on these pairs begin with, without pretraining and without features."""
    train = config.train
    return Start(pairs, None, config.model, config.data.max_length, train.schedule(), train.seed)


def of_head(config: Config, workdir: Workdir, pairs: Made[Any]) -> Made[Features] | None:
    """The features that the model's head takes, None where it takes none."""
    if not config.model.features:
        return None
    return features(workdir, pairs, checkpoint=config.model.pretrained)


def _stages(
    config: Config, workdir: Workdir, pooled: Made[dict[str, Any]] | None = None
) -> Made[dict[str, Any]]:
    """The stage evaluate, after all before it. pooled: what the folds gave, if there are any."""
    data, importance, evaluation = config.data, config.importance, config.evaluation
    if listed(config.train.task) and importance.level == "pair":
        workdir.say(
            f"importance.level is pair: weights that differ within a list break what train.task "
            f"{config.train.task} balances there; importance.level=query keeps it"
        )
    start = started(config, workdir)
    pairs = start.prepared
    attributes = [one for one in pairs.value.pairs.column_names if one.startswith(ATTRIBUTE)]
    importance.check_groups([one.removeprefix(ATTRIBUTE) for one in attributes])
    described = features(workdir, pairs, checkpoint=config.model.pretrained)
    ranked = linear(workdir, pairs, described, split_seed=data.split_seed)
    boosted = trees(workdir, pairs, described)
    words = translation(workdir, pairs)
    # what the stages that compare models take of it
    intervals = replace(
        evaluation,
        explained_queries=0,
        changed_queries=0,
        folds=0,
        audit_score=AUDIT_SCORES[0],
    )
    tuned = held_out = chosen = explained = robust = None
    if rates := config.train.learning_rates:
        tuned = tune(workdir, start, learning_rates=rates, evaluation=intervals)
        schedule = replace(start.train, learning_rate=tuned.value)
        start = replace(start, train=schedule, after=(tuned,))
    if config.train.folds:
        held_out = cross_fit(workdir, start, folds=config.train.folds, split_seed=data.split_seed)
    if importance.policy == AUTO:
        chosen = choose(
            workdir,
            start,
            held_out,
            importance=importance,
            split_seed=data.split_seed,
            evaluation=intervals,
        )
        importance = importance.with_candidate(chosen.value)
    choosing = () if chosen is None else (chosen,)
    sections = _sections(config.importance, importance)
    further = [name for one in sections.values() for name in one.further_scores]
    estimators = tuple(dict.fromkeys(further))
    scored = score(
        workdir,
        replace(start, after=(*start.after, *choosing)),
        held_out if any(one.needs_folds for one in sections.values()) else None,
        estimators=estimators,
        warmup_epochs=importance.warmup_epochs,
        groups=importance.groups,
    )
    weighed = weigh(
        workdir,
        pairs,
        scored,
        importance=_only(importance),
        columns=(*scores(config.train.task), *estimators),
        after=choosing,
    )
    audited = None
    if classifies(config.train.task):
        audited = audit(
            workdir,
            pairs,
            scored if held_out is None else None,
            held_out,
            evaluation=replace(evaluation, explained_queries=0, changed_queries=0, folds=0),
        )
    runs = _runs(sections)
    # what chose a run's weights, so that it is made again where they are chosen anew
    weighted = replace(start, after=(*start.after, weighed))
    starts = {name: weighted if name == "weighted" else start for name in runs}
    trained = []
    for repeat in range(config.train.seeds):
        for name, weighting in runs.items():
            run = Run(f"{name}-{repeat}", start.seed + repeat, start.train, weighting)
            made = train(
                workdir,
                run,
                starts[name],
                _fixed(weighting, scored),
                data=data,
                importance=_only(sections[name]) if name in sections else None,
            )
            trained.append(made)
    first = dict(zip(runs, trained, strict=False))
    rehearsed: dict[str, tuple[Made[Rehearsed], ...]] = {}
    seen = set[str]()  # runs that have seen the labels of the queries that they would be judged on
    if held_out is not None:
        rehearsed = _rehearsed(workdir, starts, held_out, scored, sections, config.train.folds)
    else:
        seen = {name for name, weighting in runs.items() if weighting.kind == "learned"}
    judgeable = {name: made for name, made in first.items() if name not in seen}
    contestants = Contestants(described, ranked, boosted, words, judgeable)
    judged = contest(workdir, pairs, contestants, held_out, rehearsed, split_seed=data.split_seed)
    exported = export(
        workdir,
        pairs,
        contestants,
        judged,
        checkpoint=config.model.pretrained,
        current=data.columns.current,
    )
    if asked := evaluation.changed_queries:
        robust = robustness(workdir, pairs, exported, queries=asked, seed=evaluation.seed)
    if evaluation.explained_queries and classifies(config.train.task):
        explained = explain(
            workdir, start, first[exported.value.run], queries=evaluation.explained_queries
        )
    results = Results(
        pairs,
        contestants,
        scored,
        weighed,
        audited,
        tuple(trained),
        judged,
        exported,
        rehearsed,
        held_out=held_out,
        pretrained=start.pretrained,
        tuned=tuned,
        chosen=chosen,
        explained=explained,
        robust=robust,
        nested=pooled,
    )
    return evaluate(
        workdir,
        results,
        evaluation=evaluation,
        importance=sections,
        train=start.train,
        pretrained=bool(config.model.pretrained or config.pretrain.steps),
        seed=start.seed,
    )


def _sections(given: ImportanceConfig, chosen: ImportanceConfig) -> dict[str, ImportanceConfig]:
    """The section of each weighted run, by its name without its seed.

    given: what the config says, which holds for the policies to compare. chosen: the same, or what
    `auto` made of it.
    """
    return {"weighted": chosen, **{name: replace(given, policy=name) for name in given.compare}}


def _runs(sections: Mapping[str, ImportanceConfig]) -> dict[str, Weighting]:
    """How each run treats its examples, by the run's name without its seed."""
    weighted = {name: _weighting(section) for name, section in sections.items()}
    return {"uniform": Weighting(), **weighted}


def _weighting(importance: ImportanceConfig) -> Weighting:
    if importance.mode == "learned":
        return Weighting("learned", importance.score)
    kind = importance.mode if importance.mode == "online" else importance.use
    return Weighting(kind, importance.score, importance.policy)


def _fixed(weighting: Weighting, scores: Made[Scores]) -> Made[Scores] | None:
    """The scores that a run's fixed weights are made of."""
    return scores if weighting.kind in ("weights", "sampling") else None


def _only(importance: ImportanceConfig) -> ImportanceConfig:
    """What of its section a run depends on."""
    return importance.only(importance.policy)


def _rehearsed(
    workdir: Workdir,
    starts: Mapping[str, Start],
    held_out: Made[OutOfFold],
    scores: Made[Scores],
    sections: Mapping[str, ImportanceConfig],
    folds: int,
) -> dict[str, tuple[Made[Rehearsed], ...]]:
    """Every weighted run on the folds; the uniform one's models are those of cross_fit."""
    found = {}
    for name, section in sections.items():
        weighting = _weighting(section)
        found[name] = tuple(
            rehearse(
                workdir,
                Run(f"{name}-fold-{fold}", starts[name].seed, starts[name].train, weighting),
                starts[name],
                held_out,
                _fixed(weighting, scores),
                fold=fold,
                importance=_only(section),
            )
            for fold in range(folds)
        )
    return found
