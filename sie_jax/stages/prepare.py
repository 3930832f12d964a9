"""Prepare: read, clean, split and tokenise the source."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sie_jax import processes, remote
from sie_jax.data import lists, preparing, tokenization
from sie_jax.data.preparing import Encoding, Prepared
from sie_jax.data.schema import CURRENT, NUMERIC, LabelScale
from sie_jax.data.section import DataConfig
from sie_jax.data.sources.click_log import BOT_RULES
from sie_jax.devices import memory
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.files import digests, read_json, write_json
from sie_jax.importance.section import AUTO, ImportanceConfig
from sie_jax.models.section import ModelConfig
from sie_jax.sections import TELLS
from sie_jax.stages import choose, cross_fit
from sie_jax.tables.spool import filtered
from sie_jax.tasks import apart as reads_apart
from sie_jax.tasks import label_names, listed
from sie_jax.training.section import TrainConfig
from sie_jax.workdir import Job, Made, stage

CHECKPOINT, CLEANING = "checkpoint.json", "cleaning.json"
POSITIONS = 512  # that any model may have
SMALL = 1024  # a batch of so many pairs may be larger than the data


@dataclasses.dataclass(frozen=True)
class Ahead:
    """What later stages will ask of the data. It is checked before anything is written.

    It changes nothing of what is prepared. beam: the flags of Apache Beam where that does the work.
    """

    model: ModelConfig = dataclasses.field(metadata=TELLS)
    train: TrainConfig = dataclasses.field(metadata=TELLS)
    importance: ImportanceConfig = dataclasses.field(metadata=TELLS)
    pretrain_steps: int = dataclasses.field(metadata=TELLS)
    beam: Sequence[str] | None = dataclasses.field(default=None, metadata=TELLS)

    def check(self, job: Job, data: DataConfig, scale: LabelScale) -> None:
        """Loads the checkpoint, and says what it lacks; raises UserError if it cannot be used."""
        folder = self.model.folder()
        tokens = len(tokenization.load(folder)) if folder else data.vocabulary_size
        sizes: dict[str, Any] = {"vocabulary_size": tokens, "max_length": data.max_length}
        labels = label_names(self.train.task, scale.names)
        model, notes = self.model.ranker(labels, seed=0, **sizes)
        if self.beam is None:  # there, training has other devices
            memory.require_batch(
                "train.batch_size",
                self.train.batch_size // meshes.shares(job.mesh),
                job.mesh.local_devices,
                width=model.config.hidden_size,
                layers=model.config.num_hidden_layers,
            )
        if self.pretrain_steps:  # pretraining reads other heads
            _, notes = self.model.pretraining_model(scale.names, seed=0, **sizes)
        for note in notes:
            job.say(note)

    def check_queries(self, job: Job, pairs: pa.Table, data: DataConfig) -> None:
        """Raises UserError where the pairs do not do for the folds, the task, or these sizes."""
        _check_length(pairs, data)
        training = filtered(pairs, pc.equal(pairs["split"], "train").combine_chunks())
        if listed(self.train.task) and not reads_apart(self.train.task):
            sizes = training["query_id"].value_counts().field("counts").to_numpy()
            alone = int((sizes < lists.LEAST).sum())
            if alone == len(sizes):
                raise UserError(
                    f"train.task {self.train.task} ranks the items of a query, and no training "
                    "query has two: give more items for a query, or set train.task=regression"
                )
            if alone:
                job.say(
                    f"{alone:,} of {len(sizes):,} training queries have one item: "
                    f"{self.train.task} learns nothing from them"
                )
        if self.train.folds:
            cross_fit.assigned(
                training, self.train.folds, seed=data.split_seed, field="train.folds"
            )
        self._check_steps(training, data)
        if self.importance.policy == AUTO:
            schedule = self.train.schedule()
            choose.planned(training, self.importance, schedule, split_seed=data.split_seed)

    def _check_steps(self, training: pa.Table, data: DataConfig) -> None:
        """Raises UserError where no run can be planned in memory, or has the steps to profile."""
        train, rows = self.train, training.num_rows
        epochs = max(train.epochs, self.importance.warmup_epochs)
        if train.batch_size > max(SMALL, rows):
            raise UserError(
                f"train.batch_size is {train.batch_size}, but there are {rows:,} training pairs: "
                f"give at most {max(SMALL, rows):,}"
            )
        plan = f"train.epochs or importance.warmup_epochs {epochs}"
        memory.check_machine(4 * rows * epochs, plan, fix="lower them")
        in_epoch = rows // train.batch_size + data.buckets + 1
        if listed(train.task):  # a batch may hold a single list
            in_epoch = len(training["query_id"].unique())
        most = max(epochs * in_epoch, self.pretrain_steps)
        if train.profile_steps and train.profile_steps[0] > most:
            raise UserError(
                f"train.profile_steps begins with {train.profile_steps[0]}, but no run has more "
                f"than {most} steps: give steps that are taken"
            )


def _check_length(pairs: pa.Table, data: DataConfig) -> None:
    """Raises UserError for positions of a model that no pair has a token for."""
    if data.max_length <= POSITIONS:
        return
    texts = ("query", "title", *(["text"] if data.item_text else []))
    longest = [pc.max(pc.utf8_length(pairs[name])).as_py() or 0 for name in texts]
    most = max(POSITIONS, sum(longest) + len(texts) + 1)  # special tokens and a space
    if data.max_length > most:
        raise UserError(
            f"data.max_length is {data.max_length}, but no pair has more than {sum(longest)} "
            f"characters: give at most {most}"
        )


def inputs_of(data: DataConfig, pretrained: str) -> dict[str, Any]:
    """What tells the content of every file that is read: of the data, and of the checkpoint.

    Raises UserError for what is no file (`files.below`).
    """
    found = {}
    for name, path in {"data": "", **data.paths, "checkpoint": pretrained}.items():
        known = digests(Path(remote.local(path))) if path else {}
        found[name] = {file: f"content {one[:16]}" for file, one in known.items()}
    return found


def _leaves(given: Mapping[str, Any]) -> tuple[str, ...]:
    # with other weights all that follows is made again, though the pairs may be equal
    return (
        "data",
        "rejected.parquet",
        "cleaning.json",
        *([CHECKPOINT] * bool(given["pretrained"])),
    )


def read(made: Made[Prepared]) -> Prepared:
    """The pairs, their token ids and what was counted."""
    return preparing.load(made.folder)


@stage(leaves=_leaves, read=read)
def prepare(
    job: Job,
    *,
    data: DataConfig,
    pretrained: str,
    inputs: Mapping[str, Any],
    keep_catalogue: bool,
    apart: bool,
    ahead: Ahead,
) -> None:
    """Leaves data/, the rows that are left out and why, and what tells the checkpoint's content.

    pretrained: the folder whose tokenizer is taken, "" to train one. inputs: as `inputs_of` gives
    them. keep_catalogue: whether the texts of all items are kept, which pretraining reads. apart:
    whether query and item are read by themselves.
    """
    encoding = data.encoding(remote.local(pretrained), apart=apart)

    def store() -> None:
        if ahead.beam is not None:
            _on_beam(job, data, encoding, keep_catalogue, ahead)
        else:
            selection = data.select(data.read())
            ahead.check_queries(job, selection.kept, data)
            ahead.check(job, data, selection.source.scale)
            preparing.store(selection, job.folder, encoding, keep_catalogue=keep_catalogue)
        now = inputs_of(data, pretrained)
        for name, path in {**data.paths, "checkpoint": pretrained}.items():
            if now[name] != inputs[name]:
                raise UserError(f"{path} was changed while it was read: rerun")
        if pretrained:
            write_json(job.folder / CHECKPOINT, inputs["checkpoint"])
        _say_counts(job, data)

    processes.alone(store)


def _say_counts(job: Job, data: DataConfig) -> None:
    """What became of a click log, and a line about each column that some kept pairs lack."""
    counts = read_json(job.folder / CLEANING)
    if "impressions_read" in counts["summary"]:
        for line in _of_log(counts["summary"]):
            job.say(line)
    if hit_lists := counts["summary"].get("ubi", {}).get("hit_lists", {}).get("used"):
        job.say(
            f"no event shows an item: {hit_lists:,} lists of hits, with which queries were "
            "answered, count as shown, whether they came into sight or not"
        )
    if repeated := counts["summary"].get("impressions_repeated"):
        job.say(
            f"{repeated:,} of {counts['summary']['impressions_read']:,} rows of the log repeat the "
            "session, query, item and position of another: each counts as shown again; if the log "
            "has a row for each event, give one with a row for each item shown"
        )
    if items := counts["summary"].get("items"):
        if items["ids_without_entry"]:
            job.say(
                f"{items['pairs_without_entry']:,} pairs are of {items['ids_without_entry']:,} "
                f"items that {data.items.path} does not have: they keep the source's own titles, "
                "and are rejected where it has none"
            )
        if items["contradicting"]:
            job.say(
                f"{items['contradicting']:,} entries of {data.items.path} have the id of an "
                "earlier one and another title or text: the first counts"
            )
    for name, pairs in counts.get("missing", {}).items():
        column, effect = name.removeprefix(NUMERIC), "it counts as its mean over the query"
        if name == CURRENT:
            column, effect = data.columns.current, "in `current` such a pair is last in its query"
        if pairs:
            job.say(f"{pairs:,} of {counts['kept']:,} pairs have no {column}: {effect}")


def _of_log(summary: Mapping[str, Any]) -> list[str]:
    """How much of a click log counts, and how often people look at its first positions."""
    removed, sessions = summary["impressions_removed"], summary["sessions"]
    bots = sum(removed[rule] for rule in BOT_RULES)
    of = (
        f"{summary['bot_sessions']:,} of {sessions:,} sessions"
        if sessions
        else "it names no session"
    )
    ungraded = summary["pairs"] - summary["pairs_kept"]
    first = ", ".join(
        f"{one['position']:.0f}: {one['propensity']:.2f}" for one in summary["positions"][:5]
    )
    lines = [
        f"log: {summary['impressions_read']:,} rows read, {summary['impressions_used']:,} of them "
        f"count; {bots:,} are of bots ({of}); {ungraded:,} of {summary['pairs']:,} pairs have too "
        "little evidence for a grade",
    ]
    if summary["positions"]:
        lines.append(
            f"how often each position is looked at, as a share of the first: {first}; {CLEANING} "
            "has the rest"
        )
    return lines


def _on_beam(
    job: Job, data: DataConfig, encoding: Encoding, keep_catalogue: bool, ahead: Ahead
) -> None:
    from sie_jax.data import beam  # an extra

    source, parts = beam.read(data)
    ahead.check(job, data, source.scale)
    beam.store(
        source,
        parts,
        job.folder,
        rules=data.rules,
        encoding=encoding,
        keep_catalogue=keep_catalogue,
        options=ahead.beam or (),
    )
    ahead.check_queries(job, preparing.load(job.folder).pairs, data)
