"""The stages of a run in order: prepare, score, train, evaluate. Only this file reads the config.

Each stage takes what the one before it left in the workdir and leaves files of its own, whole or
not at all; a stage whose files are there is not run again.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from transformers import BertConfig, PreTrainedTokenizerFast

from sie_jax import audit, importance
from sie_jax.config import Config, as_json, differences
from sie_jax.data import batches as plans
from sie_jax.data import builders, cleaning, splitting, tokenization
from sie_jax.data.loading import Arrays, PlannedBatches
from sie_jax.data.schema import SPLITS, LabelScale, Source, as_rejected
from sie_jax.data.sources import esci, synthetic
from sie_jax.errors import NumericalError, UserError
from sie_jax.evaluation import baselines, detection, intervals, predictions
from sie_jax.evaluation.predictions import Predictions
from sie_jax.models import PairClassifier
from sie_jax.report import page, results
from sie_jax.training import mesh as meshes
from sie_jax.training import state as states
from sie_jax.training import steps, sweep
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.logs import Bar, Clock, MetricsLog, bar, write_json
from sie_jax.training.loop import fit
from sie_jax.training.state import TrainState

# forward passes that a pass over one example amounts to
TRAINING_COST, SCORING_COST = 3, 2
# batches between two parts of an interrupted scoring pass
PART_BATCHES = 50
SUSPECTS_IN_REPORT = 50


class Prepared(NamedTuple):
    """What the stage `prepare` left: the pairs with their texts, the token ids, the scale."""

    pairs: pa.Table
    scale: LabelScale
    tokenizer: PreTrainedTokenizerFast
    boundaries: tuple[int, ...]
    lengths: dict[str, np.ndarray]
    cleaning: dict[str, Any]
    folder: Path
    graphdef: nnx.GraphDef

    def split(self, name: str) -> pa.Table:
        """The pairs of one split, in the order of their token ids."""
        return self.pairs.filter(pa.compute.equal(self.pairs["split"], name))


class Workplace(NamedTuple):
    """What every stage is given: the config, where files go, what is computed on, who is told."""

    config: Config
    workdir: Path
    mesh: Mesh
    console: Console

    def clock(self, name: str) -> Clock:
        """The clock of one piece of work."""
        return Clock(self.workdir / "clocks" / f"{name}.json")


def run(config: Config, workdir: Path, *, console: Console | None = None) -> dict[str, Any]:
    """Runs every stage that is not yet done in `workdir` and gives the content of metrics.json.

    Raises UserError for what the user can mend, before anything is written where the config or the
    input is at fault, and NumericalError where a loss is no longer finite.
    """
    config.validate()
    console = console or Console()
    mesh = meshes.make(config.mesh.data)
    meshes.check_batch(mesh, config.train.batch_size)
    _check_workdir(config, workdir)
    place = Workplace(config, workdir, mesh, console)
    metrics_file = workdir / "metrics.json"
    if not metrics_file.exists():
        prepared = prepare(place)
        table = score(place, prepared)
        evaluate(place, prepared, table, train(place, prepared, table))
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    console.print(results.table(metrics))
    console.print(f"Report: {workdir / 'report.html'}")
    return metrics


# ------------------------------------------------------------------------------------- prepare


def prepare(place: Workplace) -> Prepared:
    """Reads, cleans, splits and tokenises the source, and stores what the other stages read."""
    config, folder = place.config, place.workdir / "data"
    if not folder.exists():
        clock = place.clock("prepare")
        source = _read(config)
        cleaned = cleaning.clean(
            source.table,
            source.scale,
            max_query_characters=config.data.max_query_characters,
            max_title_characters=config.data.max_title_characters,
        )
        kept, leaked = splitting.split(
            cleaned.kept,
            validation=config.data.validation,
            test=config.data.test,
            seed=config.data.split_seed,
        )
        splitting.assert_disjoint(kept)
        # looked at now, so that a wrong checkpoint ends the run before anything is written
        _, notes = _initial_model(place, source.scale, vocabulary_size=100, seed=0)
        for note in notes:
            place.console.print(note, soft_wrap=True)
        place.workdir.mkdir(parents=True, exist_ok=True)
        write_json(place.workdir / "config.json", as_json(config))
        _store(place, source, cleaned, kept, leaked)
        clock.tick(force=True)
    summary = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    pairs = pq.read_table(folder / "pairs.parquet")
    scale = LabelScale(tuple(summary["labels"]), tuple(summary["gains"]))
    tokenizer = tokenization.load(folder / "tokenizer")
    model, _ = _initial_model(place, scale, vocabulary_size=len(tokenizer), seed=0)
    lengths = pairs["length"].to_numpy()
    split = pairs["split"].to_numpy(zero_copy_only=False)
    return Prepared(
        pairs,
        scale,
        tokenizer,
        tuple(summary["boundaries"]),
        {name: lengths[split == name] for name in SPLITS},
        json.loads((place.workdir / "cleaning.json").read_text(encoding="utf-8")),
        folder,
        nnx.graphdef(model),
    )


def _read(config: Config) -> Source:
    data = config.data
    if data.source == "esci":
        source = esci.read(data.path, locale=data.esci.locale, version=data.esci.version)
    else:
        shop = data.synthetic
        source = synthetic.read(
            queries=shop.queries,
            items_per_query=shop.items_per_query,
            noise=shop.noise,
            dirt=shop.dirt,
            seed=shop.seed,
        )
    gains = config.gains()
    if gains is None:
        return source
    return Source(source.table, LabelScale(source.scale.names, gains), source.location)


def _store(
    place: Workplace, source: Source, cleaned: cleaning.Cleaned, kept: pa.Table, leaked: pa.Table
) -> None:
    """Tokenises and writes everything below a temporary folder that is renamed when complete."""
    config, workdir = place.config, place.workdir
    items = kept["title"].to_pylist()
    if config.data.item_text:
        texts = kept["text"].to_pylist()
        items = [f"{title} {text}".strip() for title, text in zip(items, texts, strict=True)]
    queries = kept["query"].to_pylist()
    if config.model.pretrained:
        tokenizer = tokenization.load(config.model.pretrained)
    else:
        train_rows = [i for i, name in enumerate(kept["split"].to_pylist()) if name == "train"]
        seen = (text for i in train_rows for text in (queries[i], items[i]))
        tokenizer = tokenization.train(seen, vocabulary_size=config.data.vocabulary_size)
    encoded = tokenization.encode_pairs(
        tokenizer, queries, items, max_length=config.data.max_length
    )
    reason = pa.array(["query_fills_max_length"] * kept.num_rows)
    too_long = kept.append_column("reason", reason).filter(pa.array(~encoded.fits))
    kept = kept.filter(pa.array(encoded.fits))
    input_ids = [ids for ids in encoded.input_ids if len(ids)]
    query_lengths = encoded.query_lengths[encoded.fits]
    lengths = np.array([len(ids) for ids in input_ids], np.int32)
    splitting.assert_disjoint(kept)
    split = kept["split"].to_numpy(zero_copy_only=False)
    missing = [name for name in SPLITS if not (split == name).any()]
    if missing:
        raise UserError(
            f"{source.location}: no row left in split {', '.join(missing)}: "
            "raise data.max_length or give more data"
        )

    rejected = pa.concat_tables(
        [
            cleaned.rejected,
            as_rejected(leaked, source.scale),
            as_rejected(too_long, source.scale),
        ]
    )
    rows = {
        "read": source.table.num_rows,
        "kept": kept.num_rows,
        "rejected": rejected.num_rows,
    }
    if rows["read"] != rows["kept"] + rows["rejected"]:
        raise AssertionError(f"rows were lost: {rows}")
    reasons = dict.fromkeys(cleaned.counts, 0)
    for reason in rejected["reason"].to_pylist():
        reasons[reason] = reasons.get(reason, 0) + 1

    importance.table.write(workdir / "rejected.parquet", rejected)
    write_json(
        workdir / "cleaning.json",
        {
            "source": source.location,
            "read": rows["read"],
            "kept": rows["kept"],
            "rejected": reasons,
            "repaired": cleaned.repaired,
            "splits": {name: int((split == name).sum()) for name in SPLITS},
            "queries": {
                name: len(set(kept.filter(pa.array(split == name))["query_id"].to_pylist()))
                for name in SPLITS
            },
        },
    )
    folder = workdir / "data"
    temporary = workdir / ".data.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    labels = kept["label"].to_numpy()
    builders.write(
        temporary / "tokens",
        {
            name: {
                "input_ids": [input_ids[i] for i in np.flatnonzero(split == name)],
                "query_length": query_lengths[split == name],
                "label": labels[split == name],
            }
            for name in SPLITS
        },
    )
    importance.table.write(
        temporary / "pairs.parquet", kept.append_column("length", pa.array(lengths))
    )
    tokenizer.save_pretrained(temporary / "tokenizer")
    write_json(
        temporary / "prepared.json",
        {
            "labels": source.scale.names,
            "gains": source.scale.gains,
            "boundaries": plans.bucket_lengths(
                lengths, buckets=config.data.buckets, max_length=config.data.max_length
            ),
        },
    )
    os.replace(temporary, folder)


# --------------------------------------------------------------------------------------- score


def score(place: Workplace, prepared: Prepared) -> pa.Table:
    """Scores every training pair after a uniform warm-up, and leaves importance.parquet."""
    path = place.workdir / "importance.parquet"
    if not path.exists():
        config = place.config.importance
        params = _fit(
            place,
            prepared,
            "warmup",
            seed=place.config.train.seed,
            epochs=config.warmup_epochs,
        )[0].params
        columns = _score_in_parts(place, prepared, params)
        prediction = columns["prediction"]
        columns = {name: columns[name] for name in importance.SCORES}
        _check_finite(columns, prepared)
        weights = _weights(columns[config.score], config.score, config.policy)
        _write_audit(place, prepared, columns[config.score], prediction)
        importance.table.write(
            path, importance.table.build(prepared.split("train"), columns, weights)
        )
        shutil.rmtree(place.workdir / "scores")
    return importance.table.read(path)


def _score_in_parts(place: Workplace, prepared: Prepared, params: Any) -> sweep.Columns:
    clock = place.clock("score")
    rows = len(prepared.lengths["train"])
    plan = plans.in_order(
        prepared.lengths["train"],
        batch_size=place.config.train.batch_size,
        boundaries=prepared.boundaries,
    )
    source = builders.read(prepared.folder / "tokens", "train")
    function = sweep.score_pass(prepared.graphdef, place.mesh)
    parts: list[Path] = []
    with bar("score", len(plan), place.console) as progress:
        for start in range(0, len(plan), PART_BATCHES):
            part = place.workdir / "scores" / f"part-{start // PART_BATCHES:05d}.parquet"
            parts.append(part)
            chunk = plan[start : start + PART_BATCHES]
            if not part.exists():
                batches = _watched(_planned(place, prepared, source, [chunk]), progress, clock)
                done = list(sweep.sweep(function, params, batches, place.mesh))
                columns = {name: np.concatenate([one[name] for one in done]) for name in done[0]}
                importance.table.write(part, pa.table(columns))
    clock.tick(force=True)
    tables = [pq.read_table(part) for part in parts]
    return sweep.gather(
        [{name: table[name].to_numpy() for name in table.column_names} for table in tables], rows
    )


def _watched(batches: PlannedBatches, progress: Bar, clock: Clock) -> Iterator[Arrays]:
    for i in range(len(batches)):
        yield batches[i]
        progress.advance(batches[i])
        clock.tick()


def _weights(scores: np.ndarray, name: str, policy: str) -> np.ndarray:
    """The offline weights `[N]`, sum 1, that a policy gives the float32 scores of the table."""
    hardness = importance.hardness(name, jnp.asarray(scores, jnp.float32))
    return np.asarray(importance.POLICIES[policy](hardness))


def _check_finite(columns: sweep.Columns, prepared: Prepared) -> None:
    for name, values in columns.items():
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            ids = prepared.split("train")["example_id"].take(pa.array(broken[:20])).to_pylist()
            raise NumericalError(
                f"score {name} is not finite for {len(broken)} examples, among them "
                f"{', '.join(ids)}: lower train.learning_rate or look at these rows"
            )


def _write_audit(
    place: Workplace, prepared: Prepared, scores: np.ndarray, prediction: np.ndarray
) -> None:
    name = place.config.importance.score
    order = np.argsort(-importance.hardness(name, scores), kind="stable")
    audit.write(
        place.workdir / "audit.csv",
        _suspects(prepared, order, scores, prediction),
    )


def _suspects(
    prepared: Prepared, order: np.ndarray, scores: np.ndarray, prediction: np.ndarray
) -> Iterator[dict[str, Any]]:
    pairs, names = prepared.split("train"), prepared.scale.names
    columns = {
        name: pairs[name].to_pylist()
        for name in ("example_id", "query_id", "item_id", "query", "title", "label")
    }
    for rank, i in enumerate(order.tolist(), start=1):
        row = {name: values[i] for name, values in columns.items()}
        yield {
            **row,
            "rank": rank,
            "label": names[row["label"]],
            "prediction": names[prediction[i]],
            "score": float(scores[i]),
        }


# --------------------------------------------------------------------------------------- train


def train(place: Workplace, prepared: Prepared, table: pa.Table) -> dict[str, list[Path]]:
    """Trains `uniform`, `weighted` and the policies compared, for every seed.

    All runs of one seed start from the same parameters and take the same batches, number of steps
    and schedule. Gives each run's files of test predictions, one per seed.
    """
    config = place.config
    policies = {"uniform": "uniform", "weighted": config.importance.policy}
    policies |= {name: name for name in config.compared_policies()}
    files: dict[str, list[Path]] = {run: [] for run in policies}
    for repeat in range(config.train.seeds):
        for run, policy in policies.items():
            name = f"{run}-{repeat}"
            file = place.workdir / "predictions" / f"{name}.parquet"
            if not file.exists():
                state, record = _fit(
                    place,
                    prepared,
                    name,
                    seed=config.train.seed + repeat,
                    epochs=config.train.epochs,
                    **_weighting(place, table, run, policy),
                )
                if name == "weighted-0":
                    _save_model(place, prepared, state.params)
                _predict_test(place, prepared, state, record, file)
            files[run].append(file)
    return files


def _weighting(place: Workplace, table: pa.Table, run: str, policy: str) -> dict[str, Any]:
    """How a run weighs its examples: nothing, an array of weights, or an online policy."""
    config = place.config.importance
    if run == "uniform":
        return {}
    if config.mode == "online":
        return {"online_policy": policy}
    weights = _weights(table[config.score].to_numpy(), config.score, policy)
    return {"weights": (weights * len(weights)).astype(np.float32)}


def _predict_test(
    place: Workplace, prepared: Prepared, state: TrainState, record: dict[str, Any], file: Path
) -> None:
    probabilities = _predict(place, prepared, state.params, "test")["probabilities"]
    names = [f"probability_{i}" for i in range(probabilities.shape[1])]
    table = pa.table(dict(zip(names, probabilities.T, strict=True)))
    importance.table.write(
        file, table.replace_schema_metadata({"examples": str(record["examples"])})
    )


def _save_model(place: Workplace, prepared: Prepared, params: Any) -> None:
    folder, temporary = place.workdir / "model", place.workdir / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    model = nnx.merge(prepared.graphdef, params)
    model.save_pretrained(temporary)
    prepared.tokenizer.save_pretrained(temporary)
    os.replace(temporary, folder)


# ------------------------------------------------------------------------------------ evaluate


def evaluate(
    place: Workplace, prepared: Prepared, table: pa.Table, files: dict[str, list[Path]]
) -> None:
    """Measures every run on the test split, and leaves report.html and metrics.json."""
    config, scale = place.config, prepared.scale
    test, training = prepared.split("test"), prepared.split("train")
    training_labels = training["label"].to_numpy()
    runs: dict[str, list[Predictions]] = {
        "random": [
            baselines.random(
                test["example_id"].to_pylist(),
                training_labels=training_labels,
                num_classes=len(scale.names),
                seed=config.train.seed,
            )
        ],
        "token_overlap": [
            baselines.token_overlap(
                test["query"].to_pylist(),
                test["title"].to_pylist(),
                training_queries=training["query"].to_pylist(),
                training_titles=training["title"].to_pylist(),
                training_labels=training_labels,
                num_classes=len(scale.names),
            )
        ],
    }
    cost = {}
    for run, run_files in files.items():
        tables = [pq.read_table(file) for file in run_files]
        runs[run] = [
            predictions.from_probabilities(
                np.stack([column.to_numpy() for column in one.columns], axis=1), scale.gains
            )
            for one in tables
        ]
        trained = [int(one.schema.metadata[b"examples"]) for one in tables]
        cost[run] = _cost(place, prepared, run, trained)
    metrics = {
        "rows": {
            "read": prepared.cleaning["read"],
            "kept": prepared.cleaning["kept"],
            "rejected": sum(prepared.cleaning["rejected"].values()),
        },
        **intervals.summarize(
            test["label"].to_numpy(),
            test["query_id"].to_pylist(),
            test["example_id"].to_pylist(),
            scale.names,
            scale.gains,
            runs,
            resamples=config.evaluation.resamples,
            seed=config.evaluation.seed,
        ),
        "cost": cost,
        "planted_errors": _planted_errors(training, table),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
    }
    _write_report(place, prepared, table, metrics)
    write_json(place.workdir / "metrics.json", metrics)


def _write_report(
    place: Workplace, prepared: Prepared, table: pa.Table, metrics: dict[str, Any]
) -> None:
    labels, names = table["label"].to_numpy(), prepared.scale.names
    suspicious = [
        {**row, "opinion": row["prediction"], "score": float(row["score"])}
        for row in audit.read(place.workdir / "audit.csv", most=SUSPECTS_IN_REPORT)
    ]
    temporary = place.workdir / ".report.html.tmp"
    page.write(
        temporary,
        title=f"sie_jax: {place.config.name}",
        metrics=metrics,
        cleaning=prepared.cleaning,
        curves=_curves(MetricsLog(place.workdir / "metrics.jsonl").read(), list(metrics["cost"])),
        scores_by_label={
            score: {name: table[score].to_numpy()[labels == i] for i, name in enumerate(names)}
            for score in importance.SCORES
        },
        suspicious=suspicious,
        settings=as_json(place.config),
    )
    os.replace(temporary, place.workdir / "report.html")


def _curves(
    lines: list[dict[str, Any]], runs: list[str]
) -> dict[str, dict[str, list[tuple[list[int], list[float]]]]]:
    """metrics.jsonl as curves: by quantity, by run, one (steps, values) for each seed."""
    titles = {
        "loss": "training loss",
        "validation_loss": "validation loss",
        "validation_accuracy": "validation accuracy",
    }
    curves: dict[str, dict[str, list[tuple[list[int], list[float]]]]] = {}
    for key, title in titles.items():
        points: dict[str, tuple[list[int], list[float]]] = {}
        for line in lines:
            if key in line:
                steps_, values = points.setdefault(line["run"], ([], []))
                steps_.append(line["step"])
                values.append(line[key])
        curves[title] = {
            run: [curve for name, curve in points.items() if name.rpartition("-")[0] == run]
            for run in runs
        }
    return curves


def _cost(place: Workplace, prepared: Prepared, run: str, trained: list[int]) -> dict[str, Any]:
    """What one model of a run costs: the mean over seeds; offline, the scores in full on top."""
    seconds = [place.clock(f"{run}-{repeat}").recorded for repeat in range(len(trained))]
    cost = {
        "seconds": sum(seconds) / len(seconds),
        "examples": trained[0],
        "forward_equivalents": TRAINING_COST * trained[0],
    }
    config = place.config.importance
    if run != "uniform" and config.mode == "offline":
        rows = len(prepared.lengths["train"])
        warmed = rows * config.warmup_epochs
        cost["seconds"] += sum(place.clock(name).recorded for name in ("warmup", "score"))
        cost["examples"] += warmed + rows
        cost["forward_equivalents"] += TRAINING_COST * warmed + SCORING_COST * rows
    return cost


def _planted_errors(training: pa.Table, table: pa.Table) -> dict[str, Any] | None:
    """Where the truth is known: the share of wrong labels, and each score's AUROC for them."""
    truth = training["truth"].to_numpy()
    known = truth >= 0
    wrong = (truth != training["label"].to_numpy())[known]
    if not wrong.any():
        return None
    auroc = {
        name: detection.auroc(importance.hardness(name, table[name].to_numpy())[known], wrong)
        for name in importance.SCORES
    }
    return {"rate": float(wrong.mean()), "count": int(wrong.sum()), "auroc": auroc}


# ------------------------------------------------------------------- shared by several stages


def _initial_model(
    place: Workplace, scale: LabelScale, *, vocabulary_size: int, seed: int
) -> tuple[PairClassifier, list[str]]:
    """The model a seed starts from, and what is to be said of how it was loaded."""
    config = place.config.model
    rngs = nnx.Rngs(seed)
    dtype = jnp.dtype(config.dtype)
    if config.pretrained:
        model, load = PairClassifier.from_pretrained(
            config.pretrained,
            num_labels=len(scale.names),
            label_names=scale.names,
            dtype=dtype,
            rngs=rngs,
        )
        if model.config.max_position_embeddings < place.config.data.max_length:
            raise UserError(
                f"data.max_length {place.config.data.max_length} is more than the checkpoint's "
                f"{model.config.max_position_embeddings} positions: lower it"
            )
        notes = [
            f"{config.pretrained}: {what} {', '.join(names)}"
            for what, names in (("initialised", load.initialised), ("ignored", load.ignored))
            if names
        ]
        return model, notes
    bert = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        max_position_embeddings=max(512, place.config.data.max_length),
        id2label=dict(enumerate(scale.names)),
        label2id={name: i for i, name in enumerate(scale.names)},
    )
    return PairClassifier(bert, num_labels=len(scale.names), dtype=dtype, rngs=rngs), []


def _check_workdir(config: Config, workdir: Path) -> None:
    """Raises UserError where the workdir belongs to a run of another config."""
    stored = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file: give a folder with --workdir")
    if stored.exists():
        theirs = json.loads(stored.read_text(encoding="utf-8"))
        found = differences(as_json(config), theirs)
        if found:
            raise UserError(
                f"{workdir} was made by a different config ({'; '.join(found)}): "
                "give another --workdir, or the config it was made by"
            )


def _fit(
    place: Workplace,
    prepared: Prepared,
    name: str,
    *,
    seed: int,
    epochs: int,
    weights: np.ndarray | None = None,
    online_policy: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Trains one run from the initial parameters of its seed, or from its newest checkpoint."""
    config = place.config.train
    clock = place.clock(name)
    epochs_of_batches = [
        plans.epoch(
            prepared.lengths["train"],
            seed=seed,
            epoch=epoch,
            batch_size=config.batch_size,
            boundaries=prepared.boundaries,
        )
        for epoch in range(epochs)
    ]
    source = builders.read(prepared.folder / "tokens", "train")
    batches = _planned(place, prepared, source, epochs_of_batches, weights=weights)
    optimizer = states.make_optimizer(
        learning_rate=config.learning_rate,
        total_steps=len(batches),
        warmup_fraction=config.warmup_fraction,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    model, _ = _initial_model(
        place, prepared.scale, vocabulary_size=len(prepared.tokenizer), seed=seed
    )
    graphdef, params = nnx.split(model)
    state = states.create(params, optimizer, meshes.replicated(place.mesh), seed=seed)
    if online_policy is None:
        step = steps.weighted_step(graphdef, optimizer, place.mesh)
    else:
        step = steps.online_step(
            graphdef,
            optimizer,
            place.mesh,
            score=place.config.importance.score,
            policy=importance.POLICIES[online_policy],
        )
    checkpoints = RunCheckpoints(place.workdir / "checkpoints" / name)
    try:
        return fit(
            name,
            state,
            step,
            batches,
            checkpoints=checkpoints,
            log=MetricsLog(place.workdir / "metrics.jsonl"),
            clock=clock,
            console=place.console,
            mesh=place.mesh,
            example_ids=prepared.split("train")["example_id"].to_numpy(zero_copy_only=False),
            config=as_json(place.config),
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            validate=lambda now: _validation(place, prepared, now),
        )
    finally:
        checkpoints.close()


def _validation(place: Workplace, prepared: Prepared, state: TrainState) -> dict[str, float]:
    columns = _predict(place, prepared, state.params, "validation")
    labels = prepared.split("validation")["label"].to_numpy()
    return {
        "validation_loss": float(columns["loss"].mean()),
        "validation_accuracy": float((columns["probabilities"].argmax(1) == labels).mean()),
    }


def _predict(place: Workplace, prepared: Prepared, params: Any, split: str) -> sweep.Columns:
    plan = plans.in_order(
        prepared.lengths[split],
        batch_size=place.config.train.batch_size,
        boundaries=prepared.boundaries,
    )
    source = builders.read(prepared.folder / "tokens", split)
    planned = _planned(place, prepared, source, [plan])
    function = sweep.predict_pass(prepared.graphdef, place.mesh)
    parts = sweep.sweep(function, params, (planned[i] for i in range(len(planned))), place.mesh)
    return sweep.gather(parts, len(prepared.lengths[split]))


def _planned(
    place: Workplace,
    prepared: Prepared,
    source: Any,
    epochs: Sequence[Sequence[plans.Batch]],
    *,
    weights: np.ndarray | None = None,
) -> PlannedBatches:
    return PlannedBatches(
        source,
        epochs,
        batch_size=place.config.train.batch_size,
        pad_token_id=prepared.tokenizer.pad_token_id,
        weights=weights,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
