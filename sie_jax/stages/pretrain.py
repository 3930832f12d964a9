"""Pretrain: the encoder reads the catalogue's and the training queries' own text first."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
from flax import nnx
from jax.sharding import Mesh

from sie_jax import processes, sections
from sie_jax.data import batches as plans
from sie_jax.data import corpus, tokenization
from sie_jax.data.loading import PlannedBatches
from sie_jax.data.preparing import Prepared
from sie_jax.data.section import DataConfig
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.files import write_json
from sie_jax.passes import held_out as measuring
from sie_jax.stages import running
from sie_jax.stages.pair_runs import Start
from sie_jax.tasks.masked import Masked
from sie_jax.tasks.masking import Vocabulary, places
from sie_jax.training import state as states
from sie_jax.training import steps
from sie_jax.training.run import Run
from sie_jax.training.section import Schedule
from sie_jax.workdir import Job, Made, stage

FOLDER, HELD_OUT = "pretraining", "held_out.json"
HELD_OUT_ROWS = 1024


@dataclasses.dataclass(slots=True, kw_only=True)
class PretrainConfig:
    """The section `pretrain`: training on plain text before anything else."""

    steps: int = 0  # steps of pretraining; 0: none
    batch_size: int = 32  # texts in a step
    learning_rate: float = 1e-4  # the highest of the schedule
    held_out: float = 0.05  # share of the item titles held out, with all texts they are in
    evaluate_every: int = 100  # steps between two measurements on the held-out texts

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.at_least("pretrain.steps", self.steps, 0)
        sections.at_least("pretrain.batch_size", self.batch_size, 1)
        sections.at_least("pretrain.evaluate_every", self.evaluate_every, 1)
        sections.positive("pretrain.learning_rate", self.learning_rate)
        sections.positive("pretrain.held_out", self.held_out)
        if self.held_out >= 1.0:
            raise UserError(f"pretrain.held_out is {self.held_out:g}: give a share below 1")
        if self.steps % self.evaluate_every:
            raise UserError(
                f"pretrain.steps {self.steps} is not a multiple of pretrain.evaluate_every "
                f"{self.evaluate_every}: change one of them"
            )

    def schedule(self, train: Schedule) -> Schedule:
        """How the one run of this stage is optimised; what is not said here is as in training."""
        return dataclasses.replace(
            train,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            layer_decay=1.0,
            frozen_layers=0,
            select=(),
            patience=0,
            task="masked",
            list_size=0,
            temperature=0.0,
            epochs=self.steps // self.evaluate_every,
        )


def read(made: Made[str]) -> str:
    """The folder of the pretrained model."""
    return str(made.folder / FOLDER / "model")


@stage(
    leaves=(f"{FOLDER}/corpus", f"{FOLDER}/model", f"{FOLDER}/{HELD_OUT}"),
    read=read,
    runs=("pretrain-0",),
)
def pretrain(
    job: Job,
    start: Start,
    *,
    pretrain: PretrainConfig,
    data: DataConfig,
    queries: bool,
) -> None:
    """Leaves the model that every run starts from, and the perplexity of held-out texts.

    start: with the schedule of this run (`PretrainConfig.schedule`). queries: whether training
    queries are read too, which the models of folds must not have seen.
    """
    model, seed = start.model, start.seed
    pairs, folder = start.prepared.value, job.folder / FOLDER
    if not processes.agreed((folder / "corpus").exists()):
        processes.alone(
            corpus.store,
            pairs.pairs,
            pq.read_table(pairs.folder / "catalogue.parquet"),
            pairs.tokenizer,
            folder / "corpus",
            queries=queries,
            max_length=data.max_length,
            held_out=pretrain.held_out,
            seed=data.split_seed,
        )
    run = Run("pretrain-0", seed, start.train)
    texts = _Texts(corpus.load(folder / "corpus"), pairs, data.buckets, pretrain, job.mesh)
    held_out = texts.held_out(seed)
    unpretrained, _ = model.pretraining_model(
        pairs.scale.names,
        vocabulary_size=len(pairs.tokenizer),
        max_length=data.max_length,
        seed=seed,
    )
    graphdef, params = nnx.split(unpretrained)
    task = Masked(graphdef, Vocabulary.of(pairs.tokenizer))
    measure = measuring.held_out(task, job.mesh, seed=seed)

    def measured(params: Any) -> dict[str, float]:
        return measure(params, (held_out[i] for i in range(len(held_out))))

    optimizer = run.train.optimizer(total_steps=pretrain.steps)
    before = measured(meshes.place(job.mesh, params))
    state = running.fit(
        job,
        run,
        states.create(params, optimizer, job.mesh, seed=seed),
        steps.batch_step(task, optimizer, job.mesh),
        texts.training(seed),
        example_ids=texts.corpus.names["train"],
        watch=running.Watch(
            dtype=model.dtype,
            flops=lambda rows, length: unpretrained.step_flops(rows, length, places(length)),
            validate=lambda state: {
                f"held_out_{name}": value for name, value in measured(state.params).items()
            },
        ),
    )
    trained = nnx.merge(graphdef, meshes.fetch(job.mesh, state.params))
    spent = job.ledger.entries()[run.name]
    values = {
        "rows": {
            **{split: len(lengths) for split, lengths in texts.corpus.lengths.items()},
            "measured": sum(held_out.examples(i) for i in range(len(held_out))),
        },
        "steps": pretrain.steps,
        "examples": spent.examples,
        "before": before,
        "after": measured(state.params),
    }

    def leave() -> None:
        trained.save_pretrained(folder / "model")
        tokenization.save(pairs.tokenizer, folder / "model", max_length=data.max_length)
        write_json(folder / HELD_OUT, values)

    processes.alone(leave)


@dataclasses.dataclass(frozen=True)
class _Texts:
    """The batches of a corpus."""

    corpus: corpus.Corpus
    pairs: Prepared
    buckets: int
    config: PretrainConfig
    mesh: Mesh

    def training(self, seed: int) -> PlannedBatches:
        """The batches of all steps; an epoch ends where the model is measured."""
        batches = itertools.chain.from_iterable(
            self._epoch("train", seed, epoch) for epoch in itertools.count()
        )
        every = self.config.evaluate_every
        plan = [list(itertools.islice(batches, every)) for _ in range(self.config.steps // every)]
        return self._planned("train", plan)

    def held_out(self, seed: int) -> PlannedBatches:
        """What is measured; of a large catalogue a sample is enough, and it is measured often."""
        number = -(-HELD_OUT_ROWS // self.config.batch_size)
        return self._planned("held_out", [self._epoch("held_out", seed, 0)[:number]])

    def _epoch(self, split: str, seed: int, epoch: int) -> list[plans.Batch]:
        return self.corpus.epoch(
            split, self.config.batch_size, self.buckets, seed=seed, epoch=epoch
        )

    def _planned(self, split: str, plan: Sequence[Sequence[plans.Batch]]) -> PlannedBatches:
        return PlannedBatches(
            self.corpus.tokens(split),
            plan,
            batch_size=self.config.batch_size,
            pad_token_id=self.pairs.tokenizer.pad_token_id,
            share=meshes.local_rows(self.mesh, self.config.batch_size),
        )
