"""The stages of a run in order: prepare, pretrain, tune, choose, cross_fit, score, train, evaluate.

Only this file reads the config.

Each stage takes what the one before it left in the workdir and leaves files of its own, whole or
not at all; a stage whose files are there is not run again.
"""

import copy
import dataclasses
import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from sie_jax import audit, importance, predict, processes, remote
from sie_jax.config import Config, as_json, differences, from_json
from sie_jax.data import batches as plans
from sie_jax.data import corpus, preparing, tokenization
from sie_jax.data import folds as crossfit
from sie_jax.data.loading import PlannedBatches, iterate
from sie_jax.data.preparing import Prepared, Selection
from sie_jax.data.schema import (
    ATTRIBUTE,
    RATER,
    RAW_COLUMNS,
    RAW_SCHEMA,
    SPLITS,
    LabelScale,
    Source,
    normalise_query,
)
from sie_jax.data.sources import clicks, esci, synthetic, wands
from sie_jax.data.sources import table as own_table
from sie_jax.devices import memory, peaks
from sie_jax.devices import mesh as meshes
from sie_jax.errors import NumericalError, UserError
from sie_jax.evaluation import (
    Predictions,
    agreement,
    baselines,
    detection,
    from_probabilities,
    intervals,
    ranking,
    summarize,
    trec,
)
from sie_jax.files import read_json, whole, write_json
from sie_jax.importance import choosing
from sie_jax.importance.section import AUTO
from sie_jax.models import PairClassifier
from sie_jax.passes import estimating, explanation, pretraining, sweep
from sie_jax.report import curves, page, results
from sie_jax.tables.spool import filtered, write_parquet
from sie_jax.tasks import masking
from sie_jax.training import learning, steps, stopping, tracking
from sie_jax.training import state as states
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.history import History
from sie_jax.training.logs import Clock, MetricsLog
from sie_jax.training.loop import fit
from sie_jax.training.state import TrainState

# forward passes that a pass over one example amounts to
TRAINING_COST, SCORING_COST = 3, 2
SUSPECTS_IN_REPORT = 50
HELD_OUT_ROWS = 1024


class Line(NamedTuple):
    """What every stage is given: the config, the workdir, the devices, who is told, the data."""

    config: Config
    workdir: Path
    mesh: Mesh
    console: Console
    prepared: Prepared
    graphdef: nnx.GraphDef

    def clock(self, name: str) -> Clock:
        """The clock of one piece of work."""
        return Clock(self.workdir / "clocks" / f"{name}.json")

    @contextmanager
    def log(self) -> Iterator[MetricsLog]:
        """The log that all training runs of the workdir share, and who is told beside it."""
        if not processes.first():
            yield MetricsLog(self.metrics_log)
            return
        with tracking.trackers(
            self.workdir / "tracking",
            wandb_project=self.config.tracking.wandb_project,
            group=self.config.name,
            config=as_json(self.config),
        ) as trackers:
            yield MetricsLog(self.metrics_log, trackers)

    @property
    def metrics_log(self) -> Path:
        """The file of that log."""
        return self.workdir / "metrics.jsonl"


def run(
    config: Config, workdir: str | os.PathLike[str], *, console: Console | None = None
) -> dict[str, Any]:
    """Runs every stage that is not yet done in `workdir` and gives the content of metrics.json.

    `workdir` may be a folder in an object store, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER.

    Raises UserError for what the user can mend, before anything is written where the config or the
    input is at fault, and NumericalError where a loss is no longer finite.
    """
    config.check()
    console = console or Console()
    mesh = config.mesh.make()
    meshes.check_batch(mesh, config.train.batch_size)
    if config.pretrain.steps:
        meshes.check_batch(mesh, config.pretrain.batch_size, "pretrain.batch_size")
    if not processes.first():
        console = Console(quiet=True)
    with _local_folder(workdir, console) as folder:
        processes.alone(_check_workdir, config, folder)
        metrics_file = folder / "metrics.json"
        if not processes.agreed(metrics_file.exists()):
            line = prepare(config, folder, mesh, console)
            pretrain(line)
            line = choose(tune(line))
            held_out = cross_fit(line)
            table = score(line, held_out)
            evaluate(line, table, held_out, train(line, table))
        metrics = read_json(metrics_file)
        console.print(results.table(metrics))
        _say(console, f"Report: {os.path.join(workdir, 'report.html')}")
    return metrics


@contextmanager
def _local_folder(workdir: str | os.PathLike[str], console: Console) -> Iterator[Path]:
    """The folder to work in, held for this run; one in an object store follows it."""
    if not remote.is_remote(workdir):
        with _claimed(Path(workdir)):
            yield Path(workdir)
        return
    mirror = remote.Mirror(os.fspath(workdir), functools.partial(_say, console))
    with _claimed(mirror.folder), stopping.before_leaving(mirror.try_to_send), mirror.kept():
        yield mirror.folder


@contextmanager
def _claimed(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this run; UserError where another run holds it.

    The lock is on the folder itself, leaves no file, and ends with the process, however it ends.
    """
    held: list[int] = []
    folders = (workdir.absolute(), *workdir.absolute().parents)
    made = list(itertools.takewhile(lambda folder: not folder.exists(), folders))

    def claim() -> None:
        there = next(folder for folder in folders if folder.exists())
        if not there.is_dir():
            raise UserError(f"{there} is a file: give a folder with --workdir")
        if not os.access(there, os.W_OK):
            raise UserError(f"{there} cannot be written to: give another folder with --workdir")
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workdir, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{workdir} is in use by another run: wait until it is done, or give another "
                "folder with --workdir"
            ) from None
        held.append(descriptor)

    processes.alone(claim)
    try:
        yield
    finally:
        for descriptor in held:
            for folder in made:
                if any(folder.iterdir()):  # something was begun
                    break
                folder.rmdir()
            os.close(descriptor)


# ------------------------------------------------------------------------------------- prepare


def prepare(config: Config, workdir: Path, mesh: Mesh, console: Console) -> Line:
    """Reads, cleans, splits and tokenises the source, and stores what the other stages read."""
    if not processes.agreed((workdir / "data").exists() and (workdir / "config.json").exists()):
        processes.alone(_store, config, workdir, console)
    prepared = preparing.load(workdir)

    def model() -> PairClassifier:
        return config.model.classifier(
            prepared.scale.names,
            vocabulary_size=len(prepared.tokenizer),
            max_length=config.data.max_length,
            seed=0,
        )[0]

    graphdef = nnx.graphdef(model() if config.model.pretrained else nnx.eval_shape(model))
    return Line(config, workdir, mesh, console, prepared, graphdef)


def _store(config: Config, workdir: Path, console: Console) -> None:
    """Leaves data/, the rows that were left out and why, and config.json."""
    data, selection = config.data, _select(config)
    _check_plans(config, selection.kept)
    # looked at now, so that a wrong checkpoint ends the run before anything is written
    for note in _check_checkpoint(config, selection.source.scale):
        _say(console, note)
    shutil.rmtree(workdir / "data", ignore_errors=True)  # killed before config.json was there
    preparing.store(
        selection,
        workdir,
        tokenizer_folder=remote.local(config.model.pretrained),
        vocabulary_size=data.vocabulary_size,
        item_text=data.item_text,
        max_length=data.max_length,
        buckets=data.buckets,
        keep_catalogue=config.pretrain.steps > 0,
    )
    # last: what makes `store` refuse the rows leaves the workdir as it was
    write_json(workdir / "config.json", as_json(config))


def prepare_on_beam(
    config: Config,
    workdir: str | os.PathLike[str],
    options: Sequence[str],
    *,
    console: Console | None = None,
) -> None:
    """Leaves `workdir` as the stage prepare leaves it, with the rows' work done on Apache Beam.

    This process reads the source and writes its rows to the workdir, which Beam's workers have to
    see; they clean, split, tokenise and write. A table in Parquet files whose labels are named and
    which has no raters they read too. `options` are Beam's own flags.

    Raises UserError for what the user can mend.
    """
    config.check()
    try:
        from sie_jax.data import beam
    except ImportError:
        raise UserError("Apache Beam is not installed: pip install -e '.[beam]'") from None
    if not config.model.pretrained:
        raise UserError(
            "model.pretrained is empty: on Beam the tokenizer is that of a checkpoint, give "
            "--config.model.pretrained=FOLDER, or prepare with train.py, which trains one"
        )
    if remote.is_remote(workdir):
        raise UserError(
            f"--workdir={workdir}: Beam's workers write to a folder that all of them see: "
            "give such a one, a mounted bucket for instance"
        )
    data, console, workdir = config.data, console or Console(), Path(workdir)
    with _claimed(workdir):
        _check_workdir(config, workdir)
        if not ((workdir / "data").exists() and (workdir / "config.json").exists()):
            groups = _own_row_groups(config)
            source = _read(config) if groups is None else _unread(config)
            for note in _check_checkpoint(config, source.scale):
                _say(console, note)
            shutil.rmtree(workdir / "data", ignore_errors=True)  # killed before config.json
            rows = workdir / ".rows.parquet"
            if groups is None:
                write_parquet(rows, source.table)
                parts = beam.parts([rows])
            else:
                parts = beam.table_parts(
                    groups,
                    columns=_columns(config),
                    attributes=data.table.attributes,
                )
            try:
                beam.store(
                    parts,
                    workdir,
                    scale=source.scale,
                    location=source.location,
                    unreadable=source.unreadable,
                    catalogue=source.catalogue if config.pretrain.steps else None,
                    summary=source.summary,
                    max_query_characters=data.max_query_characters,
                    max_title_characters=data.max_title_characters,
                    validation=data.validation,
                    test=data.test,
                    seed=data.split_seed,
                    tokenizer_folder=remote.local(config.model.pretrained),
                    item_text=data.item_text,
                    max_length=data.max_length,
                    buckets=data.buckets,
                    options=options,
                )
            except UserError as error:
                raise UserError(f"{source.location}: {error}") from None
            finally:
                rows.unlink(missing_ok=True)
            _check_plans(config, preparing.load(workdir).pairs)
            write_json(workdir / "config.json", as_json(config))
        _say(console, f"Prepared: {workdir}; the same --config and --workdir train on it")


def _own_row_groups(config: Config) -> list[own_table.RowGroup] | None:
    """The row groups of a table that can be read in parts; None where the whole must be seen."""
    labels, raters = config.data.table.labels, config.data.table.raters
    if config.data.source != "table" or not labels or raters or remote.is_remote(config.data.path):
        return None
    wanted = [*filter(None, _columns(config).values()), *config.data.table.attributes]
    return own_table.row_groups(config.data.path, wanted)


def _unread(config: Config) -> Source:
    """All of a table with named labels but its rows."""
    path, labels = config.data.path, config.data.table.labels
    scale = own_table.scale_of(labels, None, Counter(), path)
    return _with_gains(config, Source(RAW_SCHEMA.empty_table(), scale, path))


def _columns(config: Config) -> dict[str, str]:
    """The columns of a table by the fields of a row."""
    named = dataclasses.asdict(config.data.columns)
    return {field: name for field, name in named.items() if field in RAW_COLUMNS}


def _check_plans(config: Config, pairs: pa.Table) -> None:
    """Raises UserError, before anything trains, where the queries are too few for the folds."""
    training = filtered(pairs, pc.equal(pairs["split"], "train").combine_chunks())
    if config.train.folds:
        _folds(config, training, "train.folds", config.train.folds)
    if config.importance.policy == AUTO:
        _choosing_plan(config, training)


def _say(console: Console, text: str) -> None:
    """Prints one line as it is: a path may hold what Rich would take for markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _select(config: Config) -> Selection:
    source, data = _read(config), config.data
    try:
        return preparing.select(
            source,
            max_query_characters=data.max_query_characters,
            max_title_characters=data.max_title_characters,
            validation=data.validation,
            test=data.test,
            seed=data.split_seed,
        )
    except UserError as error:
        raise UserError(f"{source.location}: {error}") from None


def _check_checkpoint(config: Config, scale: LabelScale) -> list[str]:
    """Notes on how the checkpoint is loaded; raises UserError if it cannot be used."""
    folder = config.model.folder()
    tokens = len(tokenization.load(folder)) if folder else config.data.vocabulary_size
    length = config.data.max_length
    _, notes = config.model.classifier(
        scale.names, vocabulary_size=tokens, max_length=length, seed=0
    )
    if config.pretrain.steps:  # pretraining reads other heads
        _, notes = config.model.pretraining_model(
            scale.names, vocabulary_size=tokens, max_length=length, seed=0
        )
    return notes


def _read(config: Config) -> Source:
    data = dataclasses.replace(config.data, path=remote.local(config.data.path))
    if data.source == "esci":
        try:
            source = esci.read(data.path, locale=data.esci.locale, version=data.esci.version)
        except pa.ArrowException as error:  # from columns of other types than the official ones
            raise UserError(f"{data.path}: a column has a type of its own: {error}") from None
    elif data.source == "wands":
        source = wands.read(data.path)
    elif data.source == "table":
        source = own_table.read(
            data.path,
            columns=_columns(config),
            attributes=data.table.attributes,
            raters=data.table.raters,
            labels=data.table.labels,
        )
    elif data.source == "clicks":
        options = dataclasses.asdict(data.clicks)
        for option, fields, named in (
            ("columns", clicks.FIELDS, dataclasses.asdict(data.columns)),
            ("item_columns", clicks.ITEM_FIELDS, options["item_columns"]),
        ):
            options[option] = {
                field: named[field] for field in fields if named[field] not in ("", field)
            }
        log = clicks.read(data.path, **options)
        source = dataclasses.replace(log.source, summary=log.summary._asdict())
    else:
        shop = data.synthetic
        source = synthetic.read(
            queries=shop.queries,
            items_per_query=shop.items_per_query,
            noise=shop.noise,
            noise_kind=shop.noise_kind,
            dirt=shop.dirt,
            validation=data.validation,
            test=data.test,
            seed=shop.seed,
        )
    return _with_gains(config, source)


def _with_gains(config: Config, source: Source) -> Source:
    """The source with the gains that the config names, if it does."""
    return dataclasses.replace(source, scale=config.data.with_gains(source.scale))


def _check_workdir(config: Config, workdir: Path) -> None:
    """Raises UserError where the workdir is that of a run of another config."""
    stored = workdir / "config.json"
    if not stored.exists():
        # a run leaves data/ with prepared.json in it; any other folder of that name is the user's
        if (workdir / "data").exists() and not (workdir / "data" / "prepared.json").exists():
            raise UserError(f"{workdir} has a folder data that no run made: give another --workdir")
        return
    try:
        found = differences(as_json(config), read_json(stored))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{stored} cannot be read ({error}): give another --workdir") from None
    if found:
        raise UserError(
            f"{workdir} was made by a different config ({'; '.join(found)}): "
            "give another --workdir, or the config it was made by"
        )


# ------------------------------------------------------------------------------------ pretrain


def pretrain(line: Line) -> None:
    """Pretrains on the texts of items and training queries, and leaves pretraining/model.

    That folder is then where every run starts from. pretraining/held_out.json has the perplexity of
    the held-out texts, before and after. Nothing is done where `pretrain.steps` is 0.
    """
    config, folder = line.config.pretrain, line.workdir / "pretraining"
    if not config.steps or processes.agreed((folder / "held_out.json").exists()):
        return
    data, prepared, mesh = line.config.data, line.prepared, line.mesh
    if not processes.agreed((folder / "corpus").exists()):
        processes.alone(
            corpus.store,
            prepared.pairs,
            pq.read_table(prepared.folder / "catalogue.parquet"),
            prepared.tokenizer,
            folder / "corpus",
            # or no fold's model would be one that never saw its queries
            queries=not line.config.train.folds,
            max_length=data.max_length,
            held_out=config.held_out,
            seed=data.split_seed,
        )
    texts, seed = corpus.load(folder / "corpus"), line.config.train.seed
    every = config.evaluate_every
    batches = itertools.chain.from_iterable(
        texts.epoch("train", config.batch_size, data.buckets, seed=seed, epoch=epoch)
        for epoch in itertools.count()
    )
    plan = [list(itertools.islice(batches, every)) for _ in range(config.steps // every)]
    # of a great catalogue a sample is enough to see by, and to sweep again and again
    held = texts.epoch("held_out", config.batch_size, data.buckets, seed=seed, epoch=0)
    in_order = held[: -(-HELD_OUT_ROWS // config.batch_size)]

    def planned(split: str, plan: Sequence[Sequence[plans.Batch]]) -> PlannedBatches:
        return PlannedBatches(
            texts.tokens(split),
            plan,
            batch_size=config.batch_size,
            pad_token_id=prepared.tokenizer.pad_token_id,
            share=meshes.local_rows(mesh, config.batch_size),
        )

    held_out = planned("held_out", [in_order])
    model, _ = line.config.model.pretraining_model(
        prepared.scale.names,
        vocabulary_size=len(prepared.tokenizer),
        max_length=data.max_length,
        seed=seed,
    )
    graphdef, params = nnx.split(model)
    vocabulary = masking.Vocabulary.of(prepared.tokenizer)
    measure = pretraining.held_out(graphdef, mesh, vocabulary, seed=seed)

    def measured(params: Any) -> dict[str, float]:
        return measure(params, (held_out[i] for i in range(len(held_out))))

    optimizer = states.make_optimizer(
        learning_rate=config.learning_rate,
        total_steps=config.steps,
        warmup_fraction=line.config.train.warmup_fraction,
        weight_decay=line.config.train.weight_decay,
        clip_norm=line.config.train.clip_norm,
    )
    before = measured(meshes.place(mesh, params))
    state, record = _fit(
        line,
        "pretrain-0",
        states.create(params, optimizer, mesh, seed=seed),
        pretraining.pretraining_step(graphdef, optimizer, mesh, vocabulary),
        planned("train", plan),
        names=texts.names["train"],
        flops=lambda rows, length: model.step_flops(rows, length, masking.places(length)),
        rate_field="pretrain.learning_rate",
        validate=lambda state: {
            f"held_out_{name}": value for name, value in measured(state.params).items()
        },
    )
    trained = nnx.merge(graphdef, meshes.fetch(mesh, state.params))
    processes.alone(trained.save_pretrained, folder / "model")
    processes.alone(prepared.tokenizer.save_pretrained, folder / "model")
    processes.alone(
        write_json,
        folder / "held_out.json",
        {
            "rows": {
                **{split: len(lengths) for split, lengths in texts.lengths.items()},
                "measured": sum(len(batch.rows) for batch in in_order),
            },
            "steps": config.steps,
            "examples": record["examples"],
            "seconds": line.clock("pretrain-0").recorded,
            "before": before,
            "after": measured(state.params),
        },
    )


# ---------------------------------------------------------------------------------------- tune


def tune(line: Line) -> Line:
    """Gives the line with the best of `train.learning_rates`, and leaves tuning.json.

    Each is tried by uniform training with the first seed and measured on the validation queries.
    The best has the highest nDCG@10, or accuracy where no query has a gain. A rate at which the
    loss is no longer finite is out. Where no rates are named the line stays as it is.
    """
    rates, file = line.config.train.learning_rates, line.workdir / "tuning.json"
    if not rates:
        return line
    if not processes.agreed(file.exists()):
        config, gains = line.config.train, line.prepared.scale.gains
        tried: dict[str, list[Predictions]] = {}
        diverged = []
        for rate in rates:
            # no hyphen in the name: what follows one is the number of a seed
            name = f"rate_{rate}".replace("-", "m")
            try:
                at_rate = _at_rate(line, rate)
                state, _ = fit_run(at_rate, name, seed=config.seed, epochs=config.epochs)
            except NumericalError as error:
                _say(line.console, f"learning rate {rate} is out: {error}")
                diverged.append(rate)
                continue
            probabilities = predicted(line, state.params, "validation")["probabilities"]
            tried[str(rate)] = [from_probabilities(probabilities, gains)]
        if not tried:
            raise NumericalError("no learning rate kept the loss finite: give lower ones")
        measured = summarized(line, "validation", tried, reference=next(iter(tried)))

        def merit(rate: str) -> tuple[float, float]:
            found = measured["test"][rate]
            return found["ndcg@10"]["value"] or 0.0, found["accuracy"]["value"]

        result = {
            "chosen": float(max(tried, key=merit)),
            "validation": measured["test"],
            "queries": measured["queries"],
            "diverged": diverged,
        }
        processes.alone(write_json, file, result)
    return _at_rate(line, read_json(file)["chosen"])


def _at_rate(line: Line, rate: float) -> Line:
    config = copy.deepcopy(line.config)
    config.train.learning_rate = rate
    return line._replace(config=config)


# -------------------------------------------------------------------------------------- choose


def choose(
    line: Line,
    candidates: Sequence[choosing.Candidate] = choosing.CANDIDATES,
    further: Mapping[str, np.ndarray] | None = None,
) -> Line:
    """Gives the line with the score and policy that `auto` stands for, and leaves choosing.json.

    They are chosen by cross-validation over the training queries (importance.choosing): by the
    accuracy of pairs held out, with their labels as they are, query by query. As many of the
    candidates are tried, from the first on, as the budget can train for long enough. A fold's
    training rows get a warm-up and one scoring pass; every candidate's run goes on from the
    warm-up's parameters. Where another policy is named the line stays as it is.

    further: hardness `[N]` of the training pairs by names that candidates may have for a score.
    """
    file = line.workdir / "choosing.json"
    if line.config.importance.policy != AUTO:
        return line
    if not processes.agreed(file.exists()):
        training = line.prepared.split("train")
        fold, candidates, plan = _choosing_plan(line.config, training, candidates)
        evaluation = line.config.evaluation
        choice = choosing.choose(
            candidates,
            functools.partial(_tried, line, fold, plan, further or {}),
            plan,
            interval=functools.partial(
                intervals.of_mean, resamples=evaluation.resamples, seed=evaluation.seed
            ),
        )
        processes.alone(write_json, file, choice.as_json())
        for folder in (line.workdir / "checkpoints").glob("choosing_*"):
            _remove(folder)
    chosen = read_json(file)["chosen"]
    return _with_policy(line, choosing.Candidate(*(chosen[x] for x in choosing.Candidate._fields)))


def _choosing_plan(
    config: Config,
    training: pa.Table,
    candidates: Sequence[choosing.Candidate] = choosing.CANDIDATES,
) -> tuple[np.ndarray, Sequence[choosing.Candidate], choosing.Plan]:
    """The fold of each training pair, the candidates and the rounds that the budget allows."""
    number = config.importance.choosing_folds
    fold = _folds(config, training, "importance.choosing_folds", number)
    warmup = TRAINING_COST * config.importance.warmup_epochs
    try:
        affordable, plan = choosing.affordable(
            candidates,
            rows=np.bincount(fold, minlength=number).tolist(),
            costs=choosing.Costs(TRAINING_COST * config.train.epochs, warmup + SCORING_COST),
            budget=config.importance.choosing_budget,
        )
    except ValueError as error:
        raise UserError(f"importance.choosing_budget: {error}") from None
    return fold, affordable, plan


def _with_policy(line: Line, candidate: choosing.Candidate) -> Line:
    """The line with a candidate's score, policy and strength for those of its config.

    A score that is no estimator's, as `choose` may be given, leaves the config's own.
    """
    config = copy.deepcopy(line.config)
    config.importance.policy = candidate.policy
    if candidate.score in importance.ESTIMATORS:
        config.importance.score = candidate.score
    fields = {"keep": "keep_fraction", "keep_hardest": "keep_fraction", "tempered": "power"}
    if candidate.strength is not None:
        field = fields.get(candidate.policy, "drop_hardest")
        setattr(config.importance, field, candidate.strength)
    return line._replace(config=config)


def _tried(
    line: Line,
    fold: np.ndarray,
    plan: choosing.Plan,
    further: Mapping[str, np.ndarray],
    candidate: choosing.Candidate,
    held_out: int,
    share: float,
) -> np.ndarray:
    """Accuracy of a fold's queries after training on a share of the others, by query; NaN where it
    diverged."""
    slug = "".join(one if one.isalnum() or one == "." else "_" for one in candidate.name)
    name = f"choosing_{slug}_{share:.4f}-{held_out}"
    file = line.workdir / "choosing" / f"{name}.parquet"
    if not processes.agreed(file.exists()):
        rows = np.flatnonzero(np.isin(fold, plan.trained_on(held_out)))
        rows = _some_queries(line, rows, share)
        params, scores = _warmed_up(line, rows, f"{share:.4f}-{held_out}")
        if candidate.score in further:
            hardness = further[candidate.score][rows]
        else:
            hardness = importance.hardness(candidate.score, scores[candidate.score])
        policy = _policy(_with_policy(line, candidate), candidate.policy)
        weights = np.ones(len(fold), np.float32)
        weights[rows] = np.asarray(policy(jnp.asarray(hardness, jnp.float32))) * len(rows)
        measured = np.flatnonzero(fold == held_out)
        try:
            state, _ = fit_run(
                line,
                name,
                seed=line.config.train.seed,
                epochs=line.config.train.epochs,
                rows=rows,
                weights=weights,
                params=params,
                validated=False,
            )
            values = _accuracy(line, state.params, measured)
        except NumericalError as error:
            _say(line.console, f"{candidate.name} is out: {error}")
            if candidate == choosing.UNIFORM:
                raise
            queries = line.prepared.split("train")["query_id"].to_numpy()[measured]
            values = np.full(len(np.unique(queries)), np.nan)
        processes.alone(write_parquet, file, pa.table({"accuracy": values}))
    return pq.read_table(file)["accuracy"].to_numpy()


def _some_queries(line: Line, rows: np.ndarray, share: float) -> np.ndarray:
    """The rows of queries drawn until they come to `share` of the rows; at least one query's.

    A share of the data and not of the epochs: what a policy is to guard against, wrong labels that
    are learned by heart, shows in the last epochs.
    """
    queries = line.prepared.split("train")["query_id"].to_numpy()[rows]
    _, of_row, counts = np.unique(queries, return_inverse=True, return_counts=True)
    order = np.random.default_rng(line.config.data.split_seed).permutation(len(counts))
    number = np.searchsorted(np.cumsum(counts[order]), share * len(rows), side="right")
    return rows[np.isin(of_row, order[: max(1, number)])]


def _warmed_up(line: Line, rows: np.ndarray, run: str) -> tuple[Any, sweep.Columns]:
    """The parameters after a warm-up on some training rows, and the scores of these rows."""
    name = f"choosing_warmup_{run}"
    state, _ = fit_run(
        line,
        name,
        seed=line.config.train.seed,
        epochs=line.config.importance.warmup_epochs,
        rows=rows,
        validated=False,
    )
    columns = sweep.in_parts(
        sweep.score_pass(line.graphdef, line.mesh),
        state.params,
        _in_order(line, "train", rows),
        line.mesh,
        line.workdir / "choosing" / f"scores_{run}",
        rows=rows,
        clock=line.clock(f"choosing_scores_{run}"),
        console=line.console,
    )
    return state.params, columns


def _accuracy(line: Line, params: Any, rows: np.ndarray) -> np.ndarray:
    """The share of each query's training rows whose label is predicted, in the order of the ids.

    Not nDCG: where labels are wrong at random, it hardly sees which of two models is the better,
    and accuracy does (docs/importance.md).
    """
    probabilities = predicted(line, params, "train", rows)["probabilities"]
    pairs = line.prepared.split("train").take(rows)
    hit = probabilities.argmax(1) == pairs["label"].to_numpy()
    queries, query_index = np.unique(pairs["query_id"].to_pylist(), return_inverse=True)
    return np.bincount(query_index, hit, len(queries)) / np.bincount(query_index)


# --------------------------------------------------------------------------------------- score


def score(line: Line, held_out: pa.Table | None) -> pa.Table:
    """Scores every training pair after a uniform warm-up, and leaves importance.parquet."""
    path = line.workdir / "importance.parquet"
    if not processes.agreed(path.exists()):
        config, parts = line.config.importance, line.workdir / "scores"
        further, evidence = line.config.importance.further_scores, _evidence(line, held_out)
        columns = estimating.columns(
            further,
            line.graphdef,
            line.mesh,
            evidence,
            _in_order(line, "train"),
            _in_order(line, "validation"),
            pairs=_labelled(line, "train"),
            target_pairs=_labelled(line, "validation"),
            folder=parts,
            seed=line.config.train.seed,
            clock=line.clock("score"),
            further_clock=line.clock("estimators"),
            console=line.console,
        )
        scores = {name: columns[name] for name in (*importance.SCORES, *further)}
        training = line.prepared.split("train")
        _check_finite(scores, training)
        weights = _weights(line, scores[config.score], config.policy)
        if not line.config.train.folds:
            _write_audit(line, training, columns)
        origin = _origin(line, training, evidence.checkpoints[-1][0])
        kinds = {"layer_norms": columns["layer_norms"], "margins": evidence.visits.margins.T}
        if "embedding" in columns:
            kinds["embedding"] = columns["embedding"]
        processes.alone(
            importance.vectors.write,
            line.workdir / "vectors",
            [(training["example_id"].combine_chunks(), kinds)],
            process_index=0,
            provenance={kind: origin(kind) for kind in kinds},
        )
        table = importance.table.build(
            training,
            scores,
            weights,
            provenance={name: origin(name) for name in scores} | {"weight": origin(config.policy)},
        )
        processes.alone(write_parquet, path, table)
    _remove(line.workdir / "scores")
    version = importance.table.data_version(line.prepared.split("train"))
    return importance.table.read(path, data_version=version)


def _origin(
    line: Line, training: pa.Table, params: Any
) -> Callable[[str], importance.table.Provenance]:
    """What the importance table says of where a score came from."""
    digest = hashlib.sha256()
    for leaf in meshes.fetch(line.mesh, jax.tree.leaves(params)):
        digest.update(leaf.tobytes())
    config = json.dumps(as_json(line.config), sort_keys=True).encode()
    common: dict[str, Any] = {
        "checkpoint": digest.hexdigest(),
        "seed": line.config.train.seed,
        "data_version": importance.table.data_version(training),
        "config": hashlib.sha256(config).hexdigest(),
    }
    return lambda name: importance.table.Provenance(score=name, **common)


def _evidence(line: Line, held_out: pa.Table | None) -> estimating.Evidence:
    """The warm-up run, and what it leaves to score by."""
    epochs, seed = line.config.importance.warmup_epochs, line.config.train.seed
    rows = len(line.prepared.lengths["train"])
    per_epoch = -(-rows // line.config.train.batch_size)
    ends = [per_epoch * (epoch + 1) for epoch in range(epochs)]
    history = History(line.workdir / "history" / "warmup")
    state, _ = fit_run(line, "warmup", seed=seed, epochs=epochs, history=history, keep=ends)
    rates = states.make_schedule(
        line.config.train.learning_rate, ends[-1], line.config.train.warmup_fraction
    )
    of_epoch = np.asarray(jax.vmap(rates)(jnp.arange(ends[-1]))).reshape(epochs, per_epoch)
    checkpoints = [
        (_checkpoint(line, "warmup", state, step).params, float(rate))
        for step, rate in zip(ends, of_epoch.mean(1), strict=True)
    ]
    probabilities = None
    if held_out is not None:
        held_out = held_out.filter(pc.greater_equal(held_out["fold"], 0))
        columns = {name: held_out[name].to_numpy() for name in held_out.column_names[5:]}
        probabilities = _probabilities(line, columns)
    moments = optax.tree.bias_correction(
        optax.tree.get(state.opt_state, "nu"), states.SECOND_MOMENT_DECAY, ends[-1]
    )
    return estimating.Evidence(
        checkpoints, moments, history.read(rows, steps_per_epoch=per_epoch), probabilities
    )


def _checkpoint(line: Line, name: str, like: TrainState, step: int) -> TrainState:
    """The state of a run at a step that was kept."""
    with closing(RunCheckpoints(line.workdir / "checkpoints" / name)) as checkpoints:
        return checkpoints.restore(like, step=step)[0]


def _labelled(line: Line, split: str) -> estimating.Pairs:
    pairs = line.prepared.split(split)
    return estimating.Pairs(pairs["label"].to_numpy(), pairs["query_id"].to_numpy())


def _weights(line: Line, scores: np.ndarray, policy: str) -> np.ndarray:
    """The offline weights `[N]`, sum 1, that a policy gives the float32 scores of the table."""
    config, training = line.config.importance, line.prepared.split("train")
    hardness = importance.hardness(config.score, jnp.asarray(scores, jnp.float32))
    groups = None
    if config.balance:
        column = training["label" if config.balance == "class" else "query_id"]
        _, groups = np.unique(column.to_numpy(), return_inverse=True)
    return np.asarray(_policy(line, policy, groups)(hardness))


def _policy(line: Line, name: str, groups: np.ndarray | None = None) -> importance.weighting.Policy:
    """The policy of that name as the config wants it, balanced over `groups` where given."""
    config = line.config.importance
    options: dict[str, dict[str, float]] = {
        "tempered": {"power": config.power},
        "keep": {"fraction": config.keep_fraction},
        "keep_hardest": {"fraction": config.keep_fraction},
        "banded": {"drop_hardest": config.drop_hardest, "drop_easiest": config.drop_easiest},
    }
    bare = functools.partial(importance.POLICIES[name], **options.get(name, {}))

    def policy(scores: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
        weights = bare(scores, where=where)
        if groups is not None:
            weights = importance.modifiers.balanced(
                weights,
                jnp.asarray(groups),
                num_groups=int(groups.max()) + 1,
                scores=scores,
                where=where,
            )
        return importance.modifiers.mixed(
            weights, uniform=config.mix_uniform, scores=scores, where=where
        )

    return policy


def _probabilities(line: Line, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The class probabilities `[N, K]` among the columns of a score pass."""
    classes = range(len(line.prepared.scale.names))
    return np.stack([columns[f"probability_{i}"] for i in classes], 1)


def _check_finite(scores: dict[str, np.ndarray], training: pa.Table) -> None:
    for name, values in scores.items():
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            ids = training["example_id"].take(pa.array(broken[:20])).to_pylist()
            raise NumericalError(
                f"score {name} is not finite for {len(broken)} examples, among them "
                f"{', '.join(ids)}: lower train.learning_rate or look at these rows"
            )


def _write_audit(line: Line, pairs: pa.Table, columns: Mapping[str, np.ndarray]) -> None:
    """Leaves audit.csv and audit.jsonl by the class probabilities of a score pass."""
    rows = audit.ranked(pairs, line.prepared.scale.names, _probabilities(line, columns))
    processes.alone(audit.write, line.workdir / "audit.csv", line.workdir / "audit.jsonl", rows)


# ----------------------------------------------------------------------------------- cross_fit


def cross_fit(line: Line) -> pa.Table | None:
    """Scores every pair by models that never saw its query, and leaves out_of_fold.parquet.

    The training queries are dealt into `train.folds` folds; each fold's pairs are scored by a model
    trained on the other folds, without weights. Validation and test pairs are in no fold (−1) and
    train no model: theirs are the means over all of these models. None where there are no folds.
    """
    folds, path = line.config.train.folds, line.workdir / "out_of_fold.parquet"
    if not folds:
        return None
    if not processes.agreed(path.exists()):
        training, parts = line.prepared.split("train"), line.workdir / "fold_scores"
        fold = _folds(line.config, training, "train.folds", folds)
        held: dict[str, list[sweep.Columns]] = {name: [] for name in SPLITS}
        for number in range(folds):
            others = np.flatnonzero(fold != number)
            config = line.config.train
            state, _ = fit_run(
                line, f"fold-{number}", seed=config.seed, epochs=config.epochs, rows=others
            )
            for split in SPLITS:
                rows = np.flatnonzero(fold == number) if split == "train" else None
                columns = sweep.in_parts(
                    sweep.score_pass(line.graphdef, line.mesh),
                    state.params,
                    _in_order(line, split, rows),
                    line.mesh,
                    parts / f"{number}-{split}",
                    rows=_all_rows(line, split) if rows is None else rows,
                    clock=line.clock(f"fold-{number}"),
                    console=line.console,
                )
                held[split].append(columns)
        place = np.argsort(np.concatenate([np.flatnonzero(fold == i) for i in range(folds)]))
        tables = []
        for split in SPLITS:
            pairs, several = line.prepared.split(split), held[split]
            columns = {
                name: np.concatenate([one[name] for one in several])[place]
                if split == "train"
                else np.mean([one[name] for one in several], axis=0)
                for name in several[0]
                if name != "layer_norms"
            }
            if split == "train":
                _check_finite({name: columns[name] for name in importance.SCORES}, pairs)
            folds_of = fold if split == "train" else np.full(pairs.num_rows, -1, np.int32)
            table = pairs.select([*importance.table.IDENTITY, "split"])
            for name, values in {"fold": folds_of, **columns}.items():
                table = table.append_column(name, pa.array(values))
            tables.append(table)
        joined = pa.concat_tables(tables)
        everything = pa.concat_tables([line.prepared.split(split) for split in SPLITS])
        columns = {name: joined[name].to_numpy() for name in joined.column_names[6:]}
        _write_audit(line, everything, columns)
        processes.alone(write_parquet, path, joined)
    _remove(line.workdir / "fold_scores")
    return pq.read_table(path)


def _folds(config: Config, training: pa.Table, field: str, folds: int) -> np.ndarray:
    """The fold of each training pair; `field` is blamed where there are too few queries."""
    queries = [normalise_query(query) for query in training["query"].to_pylist()]
    try:
        return crossfit.assign(queries, folds=folds, seed=config.data.split_seed)
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None


def _cross_validation(line: Line, held_out: pa.Table) -> dict[str, Any]:
    """Metrics of training pairs' out-of-fold predictions, and whether scores go with raters."""
    config, scale = line.config.evaluation, line.prepared.scale
    pairs = line.prepared.split("train")
    held_out = held_out.filter(pc.greater_equal(held_out["fold"], 0))
    columns = {name: held_out[name].to_numpy() for name in held_out.column_names[5:]}
    predicted = from_probabilities(_probabilities(line, columns), scale.gains)
    query_ids = pairs["query_id"].to_pylist()
    measured = summarized(line, "train", {"uniform": [predicted]})
    result: dict[str, Any] = {"cross_validation": measured["test"]["uniform"]}
    raters = [name for name in pairs.column_names if name.startswith(RATER)]
    if len(raters) > 1:
        ratings = np.stack([pairs[name].to_numpy() for name in raters], 1)
        result["rater_disagreement"] = agreement.correlations(
            {name: importance.hardness(name, columns[name]) for name in importance.SCORES},
            agreement.disagreement(ratings),
            query_ids,
            resamples=config.resamples,
            seed=config.seed,
        )
    return result


# --------------------------------------------------------------------------------------- train


def train(line: Line, table: pa.Table) -> dict[str, list[Path]]:
    """Trains `uniform`, `weighted` and the policies compared, for every seed.

    All runs of one seed start from the same parameters and take the same number of steps, schedule
    and batches; with sampling, all but `uniform` draw batches of their own, as many. Gives each
    run's files of test predictions, one per seed.
    """
    config = line.config
    policies = {"uniform": "uniform", "weighted": config.importance.policy}
    policies |= {name: name for name in config.importance.compare}
    files: dict[str, list[Path]] = {run: [] for run in policies}
    for repeat in range(config.train.seeds):
        for run, policy in policies.items():
            name = f"{run}-{repeat}"
            file = line.workdir / "predictions" / f"{name}.parquet"
            files[run].append(file)
            if processes.agreed(file.exists()):
                continue
            state, record = fit_run(
                line,
                name,
                seed=config.train.seed + repeat,
                epochs=config.train.epochs,
                **({} if run == "uniform" else _weighting(line, table, policy)),
            )
            if name == "weighted-0":
                processes.alone(_save_model, line, meshes.fetch(line.mesh, state.params))
            _write_predictions(line, state, record, file)
    return files


def _weighting(line: Line, table: pa.Table, policy: str) -> dict[str, Any]:
    """How a run weighs or draws its examples: by a policy in every batch, or by a fixed array."""
    config = line.config.importance
    if config.mode == "online":
        return {"online_policy": policy}
    if config.mode == "learned":
        return {"learned": True}
    weights = _weights(line, table[config.score].to_numpy(), policy)
    if config.use == "sampling":
        return {"probabilities": importance.sampling.probabilities(weights)}
    return {"weights": (weights * len(weights)).astype(np.float32)}


def _write_predictions(line: Line, state: TrainState, record: dict[str, Any], file: Path) -> None:
    probabilities = predicted(line, state.params, "test")["probabilities"]
    table = pa.table({f"probability_{i}": column for i, column in enumerate(probabilities.T)})
    kept = {"examples": record["examples"], "train": _measured(line, state, "train")}
    table = table.replace_schema_metadata({"record": json.dumps(kept)})
    processes.alone(write_parquet, file, table)


def _save_model(line: Line, params: Any) -> None:
    folder, temporary = line.workdir / "model", line.workdir / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    nnx.merge(line.graphdef, params).save_pretrained(temporary)
    line.prepared.tokenizer.save_pretrained(temporary)
    data = line.config.data
    predict.Settings(
        gains=line.prepared.scale.gains,
        max_length=data.max_length,
        item_text=data.item_text,
        max_query_characters=data.max_query_characters,
        max_title_characters=data.max_title_characters,
    ).write(temporary)
    os.replace(temporary, folder)


# ------------------------------------------------------------------------------------ evaluate


def evaluate(
    line: Line, table: pa.Table, held_out: pa.Table | None, files: dict[str, list[Path]]
) -> None:
    """Measures every run on the test split; leaves trec/, report.html and, last, metrics.json."""
    prepared, scale = line.prepared, line.prepared.scale
    test, training = prepared.split("test"), prepared.split("train")
    runs, cost = _baselines(line, training, test), {}
    trained: dict[str, dict[str, float]] = {}
    for run, run_files in files.items():
        tables = [pq.read_table(file) for file in run_files]
        runs[run] = [
            from_probabilities(np.stack([c.to_numpy() for c in one.columns], 1), scale.gains)
            for one in tables
        ]
        records = [json.loads(one.schema.metadata[b"record"]) for one in tables]
        cost[run] = _cost(line, run, [record["examples"] for record in records])
        trained[run] = {
            metric: float(np.mean([record["train"][metric] for record in records]))
            for metric in records[0]["train"]
            if all(metric in record["train"] for record in records)
        }
    hardness = {
        name: importance.hardness(name, table[name].to_numpy())
        for name in (*importance.SCORES, *line.config.importance.further_scores)
    }
    counts = prepared.counts
    metrics = {
        "rows": {
            "read": counts["read"],
            "kept": counts["kept"],
            "rejected": sum(counts["rejected"].values()),
        },
        **summarized(line, "test", runs),
        "train": trained,
        "cost": cost,
        "planted_errors": detection.planted_errors(
            training["label"].to_numpy(), training["truth"].to_numpy(), hardness
        ),
        "device": f"{line.mesh.size} × {jax.devices()[0].device_kind}",
        **({} if held_out is None else _cross_validation(line, held_out)),
        **_optional(line, "pretraining", "pretraining/held_out.json"),
        **_optional(line, "tuning", "tuning.json"),
        **_optional(line, "choosing", "choosing.json"),
        "weights": _amounts(line, table, files),
    }
    explained = _explanations(line, runs["weighted"][0])

    def leave() -> None:
        _write_trec(line, test, {run: runs[run] for run in files})
        _write_report(line, table, metrics, _groups(line, table), explained)
        write_json(line.workdir / "metrics.json", metrics)

    processes.alone(leave)


def _optional(line: Line, name: str, file: str) -> dict[str, Any]:
    """What a stage left that not every run has, under its name among the metrics."""
    path = line.workdir / file
    return {name: read_json(path)} if path.exists() else {}


def _baselines(line: Line, training: pa.Table, test: pa.Table) -> dict[str, list[Predictions]]:
    labels, classes = training["label"].to_numpy(), len(line.prepared.scale.names)
    random = baselines.random(
        test["example_id"].to_pylist(),
        training_labels=labels,
        num_classes=classes,
        seed=line.config.train.seed,
    )
    token_overlap = baselines.token_overlap(
        test["query"].to_pylist(),
        test["title"].to_pylist(),
        training_queries=training["query"].to_pylist(),
        training_titles=training["title"].to_pylist(),
        training_labels=labels,
        num_classes=classes,
    )
    return {"random": [random], "token_overlap": [token_overlap]}


def _cost(line: Line, run: str, trained: list[int]) -> dict[str, Any]:
    """What one model of a run costs: the mean over seeds; offline, the scores in full on top."""
    seconds = [line.clock(f"{run}-{repeat}").recorded for repeat in range(len(trained))]
    examples = trained[0]
    cost = {
        "seconds": sum(seconds) / len(seconds),
        "examples": examples,
        "forward_equivalents": TRAINING_COST * examples,
    }
    config = line.config.importance
    rows = len(line.prepared.lengths["train"])
    if run == "weighted" and (line.workdir / "choosing.json").exists():
        examples = read_json(line.workdir / "choosing.json")["cost"]["spent"] * rows
        examples = round(examples * line.config.train.epochs)
        files = (line.workdir / "clocks").glob("choosing_*.json")
        cost["seconds"] += sum(Clock(path).recorded for path in files)
        cost["examples"] += examples
        cost["forward_equivalents"] += TRAINING_COST * examples
    if run != "uniform" and config.mode == "learned":
        # every step looks at the next batch of validation pairs
        batch_size, held = line.config.train.batch_size, len(line.prepared.lengths["validation"])
        taken = line.config.train.epochs * -(-rows // batch_size)
        full, rest = divmod(taken, -(-held // batch_size))
        cost["examples"] += full * held + rest * batch_size
        cost["forward_equivalents"] += TRAINING_COST * (full * held + rest * batch_size)
    if run != "uniform" and config.mode == "offline":
        warmed = rows * config.warmup_epochs
        cost["seconds"] += line.clock("warmup").recorded + line.clock("score").recorded
        cost["examples"] += warmed + rows
        cost["forward_equivalents"] += TRAINING_COST * warmed + SCORING_COST * rows
        further = estimating.forward_equivalents(
            [config.score],  # what was estimated to look at alone is free
            checkpoints=config.warmup_epochs,
            examples=rows,
            targets=len(line.prepared.lengths["validation"]),
        )
        if further:
            cost["seconds"] += line.clock("estimators").recorded
            cost["forward_equivalents"] += further
        if importance.needing([config.score], "reference"):
            folds, epochs = line.config.train.folds, line.config.train.epochs
            clocks = [line.clock(f"fold-{number}").recorded for number in range(folds)]
            cost["seconds"] += sum(clocks)
            cost["examples"] += (folds - 1) * epochs * rows
            cost["forward_equivalents"] += TRAINING_COST * (folds - 1) * epochs * rows
            cost["forward_equivalents"] += SCORING_COST * rows
    return cost


def _write_trec(line: Line, test: pa.Table, runs: dict[str, list[Predictions]]) -> None:
    """Leaves the test split's judgments and every trained model's ranking as trec_eval's files."""
    folder, gains = line.workdir / "trec", line.prepared.scale.gains
    ids = test["query_id"].to_pylist(), test["example_id"].to_pylist()
    judgments = {"qrels_highest_grade": [0] * (len(gains) - 1) + [1]}
    try:
        judgments["qrels"] = trec.relevance_levels(gains)
    except ValueError as error:  # no reason to end a run that has been trained
        _say(line.console, f"{folder / 'qrels.txt'} is left out: {error}")
    for name, levels in judgments.items():
        trec.write_qrels(folder / f"{name}.txt", *ids, test["label"].to_numpy(), levels)
    for run, predictions in runs.items():
        for repeat, one in enumerate(predictions):
            name = f"{run}-{repeat}"
            trec.write_run(folder / f"{name}.run", *ids, one.scores, tag=name)


def _amounts(line: Line, table: pa.Table, runs: Iterable[str]) -> dict[str, dict[str, float]]:
    """Of each run's weights over the training set: how many rows they amount to, and as sampling.

    `effective_sample_size` is a share of the rows. `gradient_variance_ratio` is what drawing rows
    by these weights, corrected, would make of the variance of uniform draws' gradients, for
    policies that leave no row out: by the norms after the warm-up, ‖ḡ‖² left out of both. None of
    it for weights that are made in each batch.
    """
    config, amounts = line.config.importance, {}
    if config.mode != "offline":
        return {}
    norms, rows = table["grad_norm"].to_numpy().astype(np.float64), table.num_rows
    uniform = np.full(rows, 1 / rows)
    policies = {"uniform": "uniform", "weighted": config.policy}
    for run in runs:
        policy = policies.get(run, run)
        weights = _weights(line, table[config.score].to_numpy(), policy).astype(np.float64)
        size = importance.sampling.effective_sample_size(weights)
        amounts[run] = {"effective_sample_size": size / rows}
        if weights.all():
            variance, least = (
                importance.sampling.gradient_variance(norms**2, p, squared_norm_of_mean=0.0)
                for p in (weights / weights.sum(), uniform)
            )
            amounts[run]["gradient_variance_ratio"] = variance / least
    return amounts


def _explanations(line: Line, predictions: Predictions) -> list[dict[str, Any]]:
    """The worst test queries of `weighted`, the first seed's, each with a prediction explained.

    Of a query the pair is taken whose rank score is farthest from the gain of its label, and the
    training pairs that pushed it are left in explanations.parquet.
    """
    most = line.config.evaluation.explained_queries
    if not most:
        return []
    test, training = line.prepared.split("test"), line.prepared.split("train")
    names, gains = line.prepared.scale.names, np.array(line.prepared.scale.gains)
    labels = test["label"].to_numpy()
    queries, query_index = np.unique(test["query_id"].to_pylist(), return_inverse=True)
    value = ranking.per_query(
        predictions.scores,
        labels,
        gains,
        query_index,
        num_queries=len(queries),
        example_ids=test["example_id"].to_pylist(),
    )["ndcg@10"]
    worst = [i for i in np.argsort(value, kind="stable")[:most] if not np.isnan(value[i])]
    error = np.abs(predictions.scores - gains[labels])
    chosen = [int(np.argmax(np.where(query_index == i, error, -1.0))) for i in worst]
    if not chosen:
        return []
    rows, ids = np.sort(chosen), test["example_id"].to_numpy()
    path = line.workdir / "explanations.parquet"
    if not processes.agreed(path.exists()):
        params = _params(line, str(line.workdir / "model"), line.config.train.seed)
        found = explanation.explain(
            line.graphdef,
            meshes.place(line.mesh, params),
            line.mesh,
            _in_order(line, "train"),
            _in_order(line, "test", rows),
            training_rows=_all_rows(line, "train"),
            target_rows=rows,
            target_ids=ids[rows],
            folder=line.workdir / "projections",
            clock=line.clock("explanations"),
            console=line.console,
            seed=line.config.train.seed,
        )
        processes.alone(write_parquet, path, found)
    _remove(line.workdir / "projections")
    pushes: dict[str, list[dict[str, Any]]] = {}
    for push in pq.read_table(path).to_pylist():
        pushes.setdefault(push["example_id"], []).append(push)

    def shown(push: dict[str, Any]) -> dict[str, Any]:
        pair = training.slice(push["row"], 1).to_pylist()[0]
        return {
            "query": pair["query"],
            "title": pair["title"],
            "label": names[pair["label"]],
            "influence": push["influence"],
        }

    explained = []
    for query, row in zip(worst, chosen, strict=True):
        pair, about = test.slice(row, 1).to_pylist()[0], pushes.get(ids[row], [])
        explained.append(
            {
                "query": pair["query"],
                "value": float(value[query]),
                "title": pair["title"],
                "label": names[labels[row]],
                "predicted": names[predictions.classes[row]],
                **{
                    direction: [shown(push) for push in about if push["direction"] == direction]
                    for direction in ("for", "against")
                },
            }
        )
    return explained


def _groups(line: Line, table: pa.Table) -> dict[str, pa.Table]:
    """Importance by query, item and attribute, each left as a file in groups/."""
    training, score = line.prepared.split("train"), line.config.importance.score
    items = pc.binary_join_element_wise(training["item_id"], training["title"], " ")
    columns = {"query": training["query"], "item": items}
    columns |= {
        name.removeprefix(ATTRIBUTE): training[name]
        for name in training.column_names
        if name.startswith(ATTRIBUTE)
    }
    weights, scores = table["weight"].to_numpy(), table[score].to_numpy()
    tables = {
        name: importance.groups.by_group(column, weights, scores)
        for name, column in columns.items()
    }
    for name, one in tables.items():
        file = f"{quote(name, safe=' ')}.parquet"  # a column may be called anything
        write_parquet(line.workdir / "groups" / file, one)
    return tables


def _write_report(
    line: Line,
    table: pa.Table,
    metrics: dict[str, Any],
    groups: dict[str, pa.Table],
    explanations: list[dict[str, Any]],
) -> None:
    labels, names = table["label"].to_numpy(), line.prepared.scale.names
    suspicious = [
        {**row, "opinion": row["prediction"], "score": float(row["score"])}
        for row in audit.read(line.workdir / "audit.csv", most=SUSPECTS_IN_REPORT)
    ]
    log = MetricsLog(line.metrics_log).read()
    with whole(line.workdir / "report.html") as temporary:
        page.write(
            temporary,
            title=f"sie_jax: {line.config.name}",
            metrics=metrics,
            cleaning=line.prepared.counts,
            curves=curves.by_run(log, metrics["cost"]),
            pretraining_curves=curves.by_run(log, ["pretrain"], curves.PRETRAINING_TITLES),
            scores_by_label={
                score: {name: table[score].to_numpy()[labels == i] for i, name in enumerate(names)}
                for score in importance.SCORES
            },
            suspicious=suspicious,
            groups={name: one.to_pylist() for name, one in groups.items()},
            settings=as_json(line.config),
            choosing=metrics.get("choosing"),
            explanations=explanations,
        )


# ------------------------------------------------------------------- shared by several stages


def _params(line: Line, folder: str, seed: int) -> Any:
    """The parameters of the classifier in a folder, or, where that is empty, those of a seed."""

    def params() -> Any:
        model, _ = line.config.model.classifier(
            line.prepared.scale.names,
            vocabulary_size=len(line.prepared.tokenizer),
            max_length=line.config.data.max_length,
            seed=seed,
            folder=folder,
        )
        return nnx.state(model)

    return params() if folder else meshes.initialised(line.mesh, params)


def fit_run(
    line: Line,
    name: str,
    *,
    seed: int,
    epochs: int,
    rows: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    online_policy: str | None = None,
    learned: bool = False,
    history: History | None = None,
    keep: Sequence[int] = (),
    params: Any = None,
    validated: bool = True,
) -> tuple[TrainState, dict[str, Any]]:
    """Trains one run from the initial parameters of its seed, or from its newest checkpoint.

    rows: the training rows to take, all where None. history: is given what each step shows of its
    examples. keep: the steps whose checkpoints are to stay. learned: weights by the agreement with
    validation pairs. params: to start from in place of the seed's. validated: whether the
    validation pairs are looked at.
    probabilities: draws from all training rows by these, corrected, in place of rows and weights.
    """
    config, prepared = line.config.train, line.prepared
    plan_of: Callable[..., list[plans.Batch]]
    if probabilities is None:
        plan_of = functools.partial(
            plans.epoch, rows=_all_rows(line, "train") if rows is None else rows
        )
    else:
        plan_of = functools.partial(plans.drawn, probabilities=probabilities)
        weights = importance.sampling.correction(probabilities)
    plan = [
        plan_of(
            prepared.lengths["train"],
            seed=seed,
            epoch=epoch,
            batch_size=config.batch_size,
            boundaries=prepared.boundaries,
        )
        for epoch in range(epochs)
    ]
    batches: PlannedBatches = _planned(line, "train", plan, weights=weights)
    optimizer = config.optimizer(total_steps=len(batches))
    score = line.config.importance.score
    if learned:
        step = learning.learned_step(line.graphdef, optimizer, line.mesh, scores=(score,))
        batches = learning.WithValidation(batches, _in_one_length(line, "validation"))
    elif online_policy is None:
        step = steps.weighted_step(line.graphdef, optimizer, line.mesh)
    else:
        step = steps.online_step(
            line.graphdef,
            optimizer,
            line.mesh,
            score=score,
            policy=_policy(line, online_policy),
        )
    training = prepared.split("train")
    state = _beginning(line, optimizer, seed=seed, learned=learned, params=params)
    return _fit(
        line,
        name,
        state,
        step,
        batches,
        names=training["example_id"].to_numpy(zero_copy_only=False),
        flops=nnx.merge(line.graphdef, jax.eval_shape(lambda: state.params)).step_flops,
        validate=(lambda now: _validation(line, now)) if validated else None,
        history=history,
        keep=keep,
    )


def _beginning(
    line: Line,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learned: bool = False,
    params: Any = None,
) -> TrainState:
    """The state of a run before its first step, of `params` or else of the seed's own."""
    if params is None:
        pretrained = remote.local(line.config.model.pretrained)
        if line.config.pretrain.steps:
            pretrained = str(line.workdir / "pretraining" / "model")
        params = _params(line, pretrained, seed)
    if learned:
        scores = (line.config.importance.score,)
        return learning.create(params, optimizer, line.mesh, seed=seed, scores=scores)
    return states.create(params, optimizer, line.mesh, seed=seed)


def _fit(
    line: Line,
    name: str,
    state: TrainState,
    step: steps.Step,
    batches: PlannedBatches,
    *,
    names: np.ndarray,
    flops: Callable[[int, int], int | None],
    validate: Callable[[TrainState], dict[str, float]] | None,
    rate_field: str = "train.learning_rate",
    history: History | None = None,
    keep: Sequence[int] = (),
) -> tuple[TrainState, dict[str, Any]]:
    """`fit` with the workdir's log and the checkpoints and clock of that name."""
    peak = peaks.peak_flops(line.mesh.devices.flat[0].device_kind, line.config.model.dtype)
    longest = meshes.place_batch(line.mesh, batches[batches.longest])
    need = memory.of_step(step, state, longest)
    _say(line.console, f"{name}: {memory.check(need, line.mesh.local_devices)}")
    profile = line.config.train.profile_steps or None
    if profile is not None and profile[1] > len(batches):
        raise UserError(
            f"train.profile_steps ends with {profile[1]}, but run {name} has {len(batches)} steps: "
            "give steps that it takes"
        )
    with (
        closing(
            RunCheckpoints(
                line.workdir / "checkpoints" / name,
                keep=keep,
                tell=functools.partial(_say, line.console),
            )
        ) as checkpoints,
        line.log() as log,
        stopping.deferred(),
    ):
        return fit(
            name,
            state,
            step,
            batches,
            checkpoints=checkpoints,
            log=log,
            clock=line.clock(name),
            console=line.console,
            mesh=line.mesh,
            example_ids=names,
            config=as_json(line.config),
            checkpoint_every=line.config.train.checkpoint_every,
            log_every=line.config.train.log_every,
            validate=validate,
            rate_field=rate_field,
            history=history,
            stop=stopping.asked,
            flops=flops,
            peak=None if peak is None else peak * line.mesh.size,
            profile=profile,
            profile_folder=line.workdir / "tracking" / name,
            replay=functools.partial(_keep_batch, line, name),
        )


def _keep_batch(line: Line, name: str, step: int, batch: sweep.Columns) -> None:
    """Leaves the batch of a broken step for `replay`, each process its own rows."""
    path = line.workdir / "replay" / f"{name}-{step}-{jax.process_index()}.npz"
    arrays: dict[str, Any] = {"run": name, "step": step, **batch}
    with whole(path) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **arrays)
    _say(line.console, f"the batch is kept: python train.py --replay={path}")


def replay(file: Path, console: Console) -> pa.Table:
    """What each row of a kept batch does at the parameters of the run's newest checkpoint.

    A table of `example_id`, `query`, `title`, `label`, `loss` and `grad_norm` (dropout off), the
    largest norm first and what is not finite before it; printed too. Where all is finite there, no
    row is at fault by itself: the steps since, and so the learning rate, are.

    Raises UserError where the file is none of a run that is still there.
    """
    workdir = file.absolute().parent.parent
    if not file.exists() or not (workdir / "config.json").exists():
        raise UserError(f"--replay={file}: give a file that a broken run left in WORKDIR/replay")
    config = from_json(read_json(workdir / "config.json"))
    line = prepare(config, workdir, meshes.make(1), console)
    with np.load(file) as stored:
        batch = dict(stored)
    name, broken = str(batch.pop("run")), int(batch.pop("step"))
    if name.startswith("pretrain"):
        raise UserError(f"--replay={file}: pretraining has no labels to be told of; see its texts")
    state = _beginning(
        line,
        config.train.optimizer(total_steps=1),
        seed=config.train.seed,
        learned=config.importance.mode == "learned" and not name.startswith(("warmup", "uniform")),
    )
    with closing(RunCheckpoints(workdir / "checkpoints" / name)) as checkpoints:
        if checkpoints.latest_step is not None:
            state, _, _ = checkpoints.restore(state)
    function = sweep.score_pass(line.graphdef, line.mesh)
    (found,) = sweep.sweep(function, state.params, [batch], line.mesh)
    rows = line.prepared.split("train").take(found["row"])
    table = rows.select(["example_id", "query", "title"])
    names = np.array(line.prepared.scale.names)
    table = table.append_column("label", pa.array(names[rows["label"].to_numpy()]))
    for score in ("loss", "grad_norm"):
        table = table.append_column(score, pa.array(found[score]))
    finite = np.isfinite(found["loss"]) & np.isfinite(found["grad_norm"])
    order = np.lexsort((-np.nan_to_num(found["grad_norm"]), finite))
    table = table.take(order)
    _say(
        console,
        f"run {name}, the batch of step {broken}, at the parameters after step {int(state.step)}: "
        f"{int((~finite).sum())} of {len(finite)} rows are not finite",
    )
    console.print(results.rows(table.to_pydict()))
    return table


def _validation(line: Line, state: TrainState) -> dict[str, float]:
    """What settings are chosen by: how the model does on the validation split."""
    measured = _measured(line, state, "validation")
    return {f"validation_{name}": value for name, value in measured.items()}


def _measured(line: Line, state: TrainState, split: str) -> dict[str, float]:
    """Loss, accuracy and, where a query has an item of positive gain, nDCG@10 on a split."""
    columns = predicted(line, state.params, split)
    pairs, gains = line.prepared.split(split), line.prepared.scale.gains
    labels = pairs["label"].to_numpy()
    queries, query_index = np.unique(pairs["query_id"].to_pylist(), return_inverse=True)
    predictions = from_probabilities(columns["probabilities"], gains)
    rankings = ranking.per_query(
        predictions.scores,
        labels,
        gains,
        query_index,
        num_queries=len(queries),
        example_ids=pairs["example_id"].to_pylist(),
    )
    values = {
        "loss": float(columns["loss"].mean()),
        "accuracy": float((predictions.classes == labels).mean()),
    }
    if not np.isnan(rankings["ndcg@10"]).all():
        values["ndcg@10"] = float(np.nanmean(rankings["ndcg@10"]))
    return values


def summarized(
    line: Line, split: str, runs: Mapping[str, Sequence[Predictions]], *, reference: str = "uniform"
) -> dict[str, Any]:
    """`evaluation.summarize` of runs' predictions of a split's pairs."""
    pairs, scale, config = line.prepared.split(split), line.prepared.scale, line.config.evaluation
    return summarize(
        pairs["label"].to_numpy(),
        pairs["query_id"].to_pylist(),
        pairs["example_id"].to_pylist(),
        scale.names,
        scale.gains,
        runs,
        resamples=config.resamples,
        seed=config.seed,
        reference=reference,
    )


def predicted(line: Line, params: Any, split: str, rows: np.ndarray | None = None) -> sweep.Columns:
    """The class probabilities `[N, K]` and losses `[N]` of a split's pairs, in their order.

    rows: those to predict, ascending, all where None.
    """
    function = sweep.predict_pass(line.graphdef, line.mesh)
    batches = _in_order(line, split, rows)
    parts = sweep.sweep(function, params, iterate(batches), line.mesh)
    return sweep.gather(parts, _all_rows(line, split) if rows is None else rows)


def _all_rows(line: Line, split: str) -> np.ndarray:
    return np.arange(len(line.prepared.lengths[split]))


def _in_one_length(line: Line, split: str) -> PlannedBatches:
    """A split's pairs in their order, all padded to the greatest length."""
    lengths = line.prepared.lengths[split]
    plan = plans.in_order(
        lengths,
        batch_size=line.config.train.batch_size,
        boundaries=line.prepared.boundaries[-1:],
        rows=_all_rows(line, split),
    )
    return _planned(line, split, [plan])


def _in_order(line: Line, split: str, rows: np.ndarray | None = None) -> PlannedBatches:
    plan = plans.in_order(
        line.prepared.lengths[split],
        batch_size=line.config.train.batch_size,
        boundaries=line.prepared.boundaries,
        rows=_all_rows(line, split) if rows is None else rows,
    )
    return _planned(line, split, [plan])


def _planned(
    line: Line,
    split: str,
    plan: Sequence[Sequence[plans.Batch]],
    *,
    weights: np.ndarray | None = None,
) -> PlannedBatches:
    return PlannedBatches(
        line.prepared.tokens(split),
        plan,
        batch_size=line.config.train.batch_size,
        pad_token_id=line.prepared.tokenizer.pad_token_id,
        weights=weights,
        share=meshes.local_rows(line.mesh, line.config.train.batch_size),
    )


def _remove(folder: Path) -> None:
    """Removes a folder of what is not needed any more, if it is there."""
    processes.alone(shutil.rmtree, folder, ignore_errors=True)
