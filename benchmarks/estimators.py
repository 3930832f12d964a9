"""What each estimator's passes cost beside a plain training step, and its work on the host.

    python benchmarks/estimators.py                   # a quarter of an hour on two busy cores
    python benchmarks/estimators.py --pretrained=BERT # BERT: a MiniLM-L6 folder

Two models: of configs/shop.py with 32 pairs of 32 tokens, and of MiniLM-L6's shape (or that of
--pretrained) with 16 pairs of 64 tokens; random weights and tokens, every pair of full length,
float32, dropout on in the training step where the model has it. A pass is what the pipeline
compiles for one estimator alone, called on one batch that lies on the device already: reading
batches, adding up what a pass sums over them and writing its columns are not in it.

The training step and all passes run in turn in one process, round after round, in another order
each round. A ratio is the median over rounds of the ratio to the training step of the same round,
with quartiles, so that other work on the machine, and a speed that drifts, do not matter much: both
have the same batch, so that it is the ratio of the times per pair too. An estimator's ratio is that
of its passes added up: once over the training pairs, and once over the validation pairs where it
looks at those. The figures of the host are of functions of `sie_jax.importance` on random arrays,
and of the fastest round: these are compared with nothing, and other work can only slow them down.
"""

import argparse
import functools
import os
import random
import runpy
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import interleaved
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table
from transformers import BertConfig

from sie_jax.config import Config
from sie_jax.devices import mesh as meshes
from sie_jax.files import write_json
from sie_jax.importance import ESTIMATORS, ekfac, gradients, reference, trajectory
from sie_jax.importance import influence as influences
from sie_jax.models import PairClassifier
from sie_jax.passes.curvature import covariance_pass, eigenvalue_pass
from sie_jax.passes.embeddings import embedding_pass
from sie_jax.passes.gradients import example_pass, preconditioned_pass, target_pass
from sie_jax.passes.score import score_pass
from sie_jax.tasks.graded import Graded
from sie_jax.training import state, steps

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "estimators.json"
STEP = "training step"
GAINS = (0.0, 0.1, 0.5, 1.0)
# what the shop gives its WordPiece tokenizer
VOCABULARY = 1040
PROJECTION = 512  # the default of passes.influence.Options
DAMPING = 0.1
EPOCHS, HISTORY_ROWS = 4, 1_000_000
HOST_ROUNDS = 7
# below some 10,000 pairs, dispatch outweighs what grows with N
HOST_ROWS = (20_000, 80_000)
HOST_TARGETS, HOST_WIDTH, PER_QUERY = 500, 384, 20


class Cost(NamedTuple):
    """What an estimator needs for itself alone.

    training, targets: the passes over the training and the validation pairs. checkpoints: "every"
    where it takes them at each checkpoint of the warm-up run, "last" where at its end, "none" where
    the training steps themselves show what is needed. trainings: of further models, not timed here;
    each of the folds' models is trained on all other folds.
    """

    training: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    checkpoints: str = "last"
    trainings: str = "0"


CURVATURE = ("covariances", "eigenvalues")
COSTS = {
    **dict.fromkeys(
        ("grad_norm", "loss", "el2n", "margin", "entropy", "last_layer_norm"), Cost(("scores",))
    ),
    "preconditioned_norm": Cost(("preconditioned norms",)),
    "grand": Cost(("norms",), checkpoints="every"),
    "gradient_variance": Cost(("projections",), checkpoints="every"),
    **dict.fromkeys(
        ("forgetting_events", "area_under_margin", "confidence", "variability", "correctness"),
        Cost(checkpoints="none"),
    ),
    "tracin_self": Cost(("norms",), checkpoints="every"),
    "tracin": Cost(("dots",), ("target gradient",), "every"),
    "gradient_similarity": Cost(("norms and dots",), ("target gradient",)),
    "trak_self": Cost(("projections",), checkpoints="every"),
    "trak": Cost(("projections",), ("target projection",), "every"),
    "ekfac_self": Cost((*CURVATURE, "EK-FAC of itself")),
    # its pass is that of dots, with the preconditioned gradient of the targets
    "ekfac": Cost((*CURVATURE, "dots"), ("target gradient",)),
    **dict.fromkeys(
        ("out_of_fold_loss", "reducible_loss", "confident_learning"),
        Cost(("scores",), trainings="folds − 1"),
    ),
    **dict.fromkeys(("knn_shapley", "query_agreement"), Cost(("embeddings",), ("embeddings",))),
}
"""Of `passes.estimating.columns`, by estimator."""


class Model(NamedTuple):
    """A model's parts, one batch of full length, and the config that trains it."""

    task: Graded
    params: Any
    batch: dict[str, np.ndarray]
    config: Config


def quickstart() -> Model:
    config: Config = runpy.run_path(str(ROOT / "configs" / "shop.py"))["get_config"]()
    bert = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=config.model.hidden_size,
        num_hidden_layers=config.model.num_hidden_layers,
        num_attention_heads=config.model.num_attention_heads,
        intermediate_size=config.model.intermediate_size,
        hidden_dropout_prob=config.model.dropout,
        attention_probs_dropout_prob=config.model.dropout,
        initializer_range=config.model.hidden_size**-0.5,
    )
    return model(PairClassifier(bert, num_labels=len(GAINS), rngs=nnx.Rngs(0)), config)


def minilm(pretrained: str) -> Model:
    config: Config = runpy.run_path(str(ROOT / "configs" / "esci.py"))["get_config"]()
    if pretrained:
        return model(PairClassifier.from_pretrained(pretrained, num_labels=len(GAINS))[0], config)
    bert = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    return model(PairClassifier(bert, num_labels=len(GAINS), rngs=nnx.Rngs(0)), config)


def model(classifier: PairClassifier, config: Config) -> Model:
    size, length = config.train.batch_size, config.data.max_length
    draw = np.random.default_rng(0)
    batch = {
        "row": np.arange(size, dtype=np.int32),
        "input_ids": draw.integers(0, classifier.config.vocab_size, (size, length), np.int32),
        "token_type_ids": np.tile(np.arange(length) >= length // 4, (size, 1)).astype(np.int32),
        "attention_mask": np.ones((size, length), bool),
        "label": draw.integers(0, len(GAINS), size, np.int32),
        "mask": np.ones(size, bool),
        "weight": np.ones(size, np.float32),
    }
    graphdef, params = nnx.split(classifier)
    return Model(Graded(graphdef, GAINS), params, batch, config)


def passes(model: Model) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """The training step and every pass, each on the batch; and seconds of what is done once."""
    task, params, host_batch, config = model
    mesh = meshes.make(1)
    everywhere = meshes.replicated(mesh)
    batch, params = meshes.place_batch(mesh, host_batch), jax.device_put(params, everywhere)
    optimizer = state.make_optimizer(
        learning_rate=config.train.learning_rate,
        total_steps=1000,
        warmup_fraction=config.train.warmup_fraction,
        weight_decay=config.train.weight_decay,
        clip_norm=config.train.clip_norm,
    )
    step = steps.weighted_step(task, optimizer, mesh)
    trained = state.create(params, optimizer, mesh, seed=0)

    def train() -> Any:
        nonlocal trained  # the step gives up the state that it takes
        trained, metrics = step(trained, batch)
        return trained, metrics

    keyed: dict[str, int] = {"projection_size": PROJECTION, "seed": 0}
    covariances = covariance_pass(task, mesh, 0).function
    eigenvalues = eigenvalue_pass(task, mesh, 0).function
    target_gradient = target_pass(task, mesh, frozenset({"gradient"}), **keyed).function
    sums = covariances(params, batch)
    decompose = jax.jit(ekfac.eigenbases).lower(sums).compile()
    once: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        once[name] = time.perf_counter() - start
        return result

    bases = timed("eigenbases", decompose, jax.block_until_ready(sums))
    with_bases = {"params": params, "bases": bases}
    values: Any = eigenvalues(with_bases, batch)["eigenvalues"]
    curvature = ekfac.EKFAC(bases, values, DAMPING)
    gradient = target_gradient(params, batch)["gradient"]
    precondition = jax.jit(ekfac.EKFAC.precondition).lower(curvature, gradient).compile()
    timed("preconditioned target gradient", precondition, curvature, gradient)
    given = {"params": params, "gradient": gradient, "curvature": curvature}

    def of_examples(*needs: str) -> tuple[Callable[..., Any], Any]:
        return example_pass(task, mesh, frozenset(needs), **keyed).function, given

    moment = jax.tree.map(jnp.ones_like, params)
    found: dict[str, tuple[Callable[..., Any], Any]] = {
        "scores": (score_pass(task, mesh).function, params),
        "preconditioned norms": (preconditioned_pass(task, mesh).function, (params, moment)),
        "norms": of_examples("norm"),
        "dots": of_examples("dot"),
        "norms and dots": of_examples("norm", "dot"),
        "projections": of_examples("projection"),
        "norms, dots and projections": of_examples("norm", "dot", "projection"),
        "target gradient": (target_gradient, params),
        "target projection": (
            target_pass(task, mesh, frozenset({"projection"}), **keyed).function,
            params,
        ),
        "covariances": (covariances, params),
        "eigenvalues": (eigenvalues, with_bases),
        "EK-FAC of itself": of_examples("ekfac_self"),
        "embeddings": (embedding_pass(task, mesh).function, params),
    }
    bound = {name: functools.partial(function, it, batch) for name, (function, it) in found.items()}
    return {STEP: train, **bound}, once


def host_functions(rows: int, draw: np.random.Generator) -> dict[str, Callable[[], Any]]:
    """What is left to do on the host for `rows` training pairs, after the passes."""
    labels = draw.integers(0, len(GAINS), rows)
    loss = draw.exponential(size=rows)
    held_out = draw.dirichlet(np.ones(len(GAINS)), rows)
    near = draw.normal(size=(rows, HOST_WIDTH)).astype(np.float32)
    far = draw.normal(size=(HOST_TARGETS, HOST_WIDTH)).astype(np.float32)
    far_labels = draw.integers(0, len(GAINS), HOST_TARGETS)
    queries = np.arange(rows) // PER_QUERY
    projections = jnp.asarray(draw.normal(size=(2, rows, PROJECTION)), jnp.float32)
    residual = jnp.asarray(draw.uniform(size=(2, rows)), jnp.float32)
    one, of_one = projections[:1], residual[:1]
    target = one[:, :1]
    return {
        "gradient_variance": lambda: gradients.gradient_variance(projections * residual[..., None]),
        "trak_self": lambda: influences.trak_self(one, of_one, damping=DAMPING),
        "trak": lambda: influences.trak(one, target, of_one, damping=DAMPING),
        "out_of_fold_loss": lambda: reference.out_of_fold_loss(held_out, labels),
        "reducible_loss": lambda: reference.reducible_loss(
            loss, reference.out_of_fold_loss(held_out, labels)
        ),
        "confident_learning": lambda: reference.confident_learning(labels, held_out),
        "knn_shapley": lambda: reference.knn_shapley(near, labels, far, far_labels, neighbours=10),
        "query_agreement": lambda: reference.query_agreement(
            near, labels, queries, num_classes=len(GAINS)
        ),
    }


def history_functions(draw: np.random.Generator) -> dict[str, Callable[[], Any]]:
    margins = draw.normal(size=(EPOCHS, HISTORY_ROWS))
    probabilities = draw.uniform(size=margins.shape)
    cartography = functools.partial(trajectory.cartography, probabilities, margins)
    return {
        "forgetting_events": functools.partial(trajectory.forgetting_events, margins),
        "area_under_margin": functools.partial(trajectory.area_under_margin, margins),
        **dict.fromkeys(("confidence", "variability", "correctness"), cartography),
    }


def in_turn(functions: Mapping[Any, Callable[[], Any]], rounds: int) -> dict[Any, np.ndarray]:
    """Seconds of each function in each round, after one call of each that is not timed."""
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[Any, list[float]] = {name: [] for name in functions}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(functions), len(functions)):
            start = time.perf_counter()
            jax.block_until_ready(functions[name]())
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(each) for name, each in seconds.items()}


def ratio(seconds: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, float]:
    """Of the passes added up to the training step, round by round: median and quartiles."""
    total = np.sum([seconds[name] for name in names], axis=0)
    low, median, high = np.percentile(total / seconds[STEP], [25, 50, 75])
    return {"ratio": median, "low": low, "high": high}


def measure(model: Model, rounds: int) -> dict[str, Any]:
    size, length = model.batch["input_ids"].shape
    functions, once = passes(model)
    seconds = in_turn(functions, rounds)
    step_seconds = statistics.median(seconds[STEP]) / size
    bert = nnx.merge(model.task.graphdef, model.params).config
    return {
        "batch_size": size,
        "length": length,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        "vocabulary": bert.vocab_size,
        "dropout": bert.hidden_dropout_prob,
        "rounds": rounds,
        "step_milliseconds_per_pair": 1e3 * step_seconds,
        "passes": {
            name: {
                "milliseconds_per_pair": 1e3 * statistics.median(each) / size,
                **ratio(seconds, (name,)),
            }
            for name, each in seconds.items()
        },
        "once": {
            name: {"seconds": taken, "pairs_trained_on_meanwhile": taken / step_seconds}
            for name, taken in once.items()
        },
        "estimators": {
            name: {
                part: ratio(seconds, names)
                for part, names in (("training", cost.training), ("targets", cost.targets))
                if names
            }
            for name, cost in COSTS.items()
        },
    }


def measure_host(rounds: int) -> dict[str, Any]:
    """Least seconds by estimator, and the exponent of N: the slope of log seconds over log N."""
    draw = np.random.default_rng(0)
    functions = {
        (name, rows): function
        for rows in HOST_ROWS
        for name, function in host_functions(rows, draw).items()
    }
    seconds = in_turn(functions, rounds)
    found = {
        name: {
            "seconds": {rows: min(seconds[name, rows]) for rows in HOST_ROWS},
        }
        for name, rows in functions
        if rows == HOST_ROWS[0]
    }
    for result in found.values():
        least = list(result["seconds"].values())
        result["exponent"] = np.polyfit(np.log(HOST_ROWS), np.log(least), 1)[0]
    history = in_turn(history_functions(draw), rounds)
    return found | {name: {"seconds": {HISTORY_ROWS: min(each)}} for name, each in history.items()}


def show(report: dict[str, Any]) -> None:
    table = Table("estimator", *report["models"], "on the host, s", title="Beside a training step")
    for name in COSTS:
        cells = [
            " + ".join(f"{found['ratio']:.2f}" for found in one["estimators"][name].values())
            for one in report["models"].values()
        ]
        seconds = list(report["host"].get(name, {"seconds": {}})["seconds"].values())
        table.add_row(name, *cells, f"{seconds[0]:.2g}" if seconds else "")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of the larger model; at least 7")
    parser.add_argument("--pretrained", default="", help="a Hugging Face folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if set(COSTS) != set(ESTIMATORS):
        raise SystemExit(f"not the estimators there are: {sorted(set(COSTS) ^ set(ESTIMATORS))}")
    load = os.getloadavg()[0]
    models = {
        # a step of some 30 ms needs more rounds to be told from the machine's other work
        "quickstart": measure(quickstart(), 10 * arguments.rounds),
        "MiniLM-L6": measure(minilm(arguments.pretrained), arguments.rounds),
    }
    jax.clear_caches()
    report = {
        "machine": interleaved.machine(),
        # runnable processes before this one began: it loads all cores by itself
        "load_average_before": load,
        "busy": load > 0.5,
        "to_read": "where the machine was busy, ratios count and seconds are upper bounds",
        "dtype": "float32",
        "needs": {name: cost._asdict() for name, cost in COSTS.items()},
        "models": models,
        "host": measure_host(HOST_ROUNDS),
        "host_settings": {
            "rounds": HOST_ROUNDS,
            "targets": HOST_TARGETS,
            "embedding_width": HOST_WIDTH,
            "pairs_per_query": PER_QUERY,
            "labels": len(GAINS),
            "projection_size": PROJECTION,
            "epochs": EPOCHS,
        },
    }
    write_json(arguments.out, report)
    show(report)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
