"""Which task, and which care in fine-tuning, gives the best ranker? One seed, one split.

    python benchmarks/training_tasks.py --set=shop  # benchmarks/results/training_tasks_shop.json
    python benchmarks/training_tasks.py --set=few  # benchmarks/results/training_tasks_few.json
    python benchmarks/training_tasks.py --set=icecat --pretrained=BERT \\
        --out=benchmarks/results/training_tasks_icecat.json
    python benchmarks/training_tasks.py --set=esci --pretrained=BERT --on contrastive \\
        --tasks graded listwise contrastive  # benchmarks/results/training_tasks_esci.json
    python benchmarks/training_tasks.py --set=esci_text --pretrained=BERT \\
        --tasks graded contrastive --care  # benchmarks/results/training_tasks_esci_text.json
    python benchmarks/training_tasks.py --set=shop --tasks listwise regression --care features \\
        "features, all three" --on listwise regression \\
        --out=benchmarks/results/training_tasks_shop_features.json
    python benchmarks/training_tasks.py --set=few --tasks listwise regression --care features \\
        "features, all three" --on listwise regression \\
        --out=benchmarks/results/training_tasks_few_features.json
    python benchmarks/training_tasks.py --set=esci --pretrained=BERT --tasks listwise regression \\
        --care features "features, all three" --on listwise regression \\
        --out=benchmarks/results/training_tasks_esci_features.json

shop is a generated market like the quickstart's, with a fifth of the labels wrong in training and
validation and 3,000 test queries, whose labels are right. few is the same with an eighth of the
training queries, read eight times as often: a model memorises them. icecat is the pairs in the
folder that $SIE_JAX_DATA names, with the test split of configs/icecat.py. esci is the judgments of
the ESCI sample's official training split alone, a third of whose queries are the test here: the
official test queries are not looked at. esci_text is the same, and encoders read an item's
description too. Every setting trains one encoder from the same start and changes the first one,
`graded`, by what its name says; --care names what is tried on the tasks that --on names. Where the
care is `features`, the head takes the features of the pair too, whose weights start as those of
`linear`. An encoder is tested alone and as a further feature of the stack (features, `linear`,
`translation`), which is fitted on the validation queries. Differences are over test queries, each
run fixed (Student's t): with one seed they say nothing of the chance of training, so this is a
screening and no proof. The same command resumes what was stopped. Leaves
benchmarks/results/training_tasks_SET.json.
"""

import argparse
import dataclasses
import itertools
import os
import runpy
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from interleaved import machine
from rich.console import Console
from rich.table import Table
from same_results import commit_of

from sie_jax.config import Config
from sie_jax.data import folds
from sie_jax.data.sources import esci
from sie_jax.evaluation import Predictions, claims, from_columns, intervals
from sie_jax.evaluation.verdict import by_query
from sie_jax.files import whole, write_json
from sie_jax.recipes import relevance
from sie_jax.stages.contest import stacked, stacked_names
from sie_jax.stages.features import Features, features
from sie_jax.stages.linear import fitted, folds_of, linear, lists_of
from sie_jax.stages.pair_runs import Start, judged
from sie_jax.stages.train import train
from sie_jax.stages.translation import translated, translation
from sie_jax.stages.untrained import untrained
from sie_jax.tasks import TASKS
from sie_jax.training.run import Run
from sie_jax.workdir import Made, Workdir
from sie_jax.workdir.ledger import total

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REFERENCE = "graded"
FEATURES = "features"
CARE: dict[str, dict[str, Any]] = {
    "epochs": {"select": ("epochs",)},
    "averages": {"select": ("averages",)},
    "interpolations": {"select": ("interpolations",)},
    "all three": {"select": ("epochs", "averages", "interpolations")},
    "layer_decay 0.8": {"layer_decay": 0.8},
    "one layer frozen": {"frozen_layers": 1},
    FEATURES: {FEATURES: True},
}
CARE[f"{FEATURES}, all three"] = CARE[FEATURES] | CARE["all three"]

USUAL = [name for name in CARE if FEATURES not in CARE[name]]


def market(training: int) -> Config:
    """The quickstart's market of another seed, with more test queries."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]()
    validation, test = 500, 3000
    config.data.market.queries = training + validation + test
    config.data.market.seed = 1
    config.data.validation = validation / config.data.market.queries
    config.data.test = test / config.data.market.queries
    return config


def shop(folder: Path) -> Config:
    """The market with the quickstart's training queries."""
    return market(2000)


def few(folder: Path) -> Config:
    """The shop with few training queries, and as many steps."""
    share = 8
    config = market(2000 // share)
    config.train.epochs *= share
    return config


def icecat(folder: Path) -> Config:
    """The electronics shop as its config has it, in two epochs at a rate of fine-tuning."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "icecat.py"))["get_config"]()
    config.data.path = str(Path(os.environ["SIE_JAX_DATA"]) / "icecat" / "pairs.csv")
    config.train.learning_rate, config.train.epochs, config.train.folds = 5e-5, 2, 0
    return config


def training_of_esci(folder: Path) -> Config:
    """The official training split in files of its own, a third of its queries with split `test`."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "esci.py"))["get_config"]()
    given = Path(os.environ["SIE_JAX_DATA"]) / "esci"
    examples = pq.read_table(given / esci.EXAMPLES)
    examples = examples.filter(pc.equal(examples["split"], "train"))
    fold = folds.assign(examples["query"].to_pylist(), folds=3, seed=0)
    split = pa.array(np.where(fold == 0, "test", "train"))
    examples = examples.set_column(examples.schema.get_field_index("split"), "split", split)
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / esci.EXAMPLES) as temporary:
        pq.write_table(examples, temporary)
    shutil.copyfile(given / esci.PRODUCTS, folder / esci.PRODUCTS)
    config.data.path, config.data.validation = str(folder), 0.2
    config.train.learning_rate, config.train.epochs = 5e-5, 2
    return config


def esci_with_text(folder: Path) -> Config:
    """The same, with descriptions."""
    config = training_of_esci(folder)
    config.data.item_text = True
    return config


SETS: dict[str, Callable[[Path], Config]] = {
    "shop": shop,
    "few": few,
    "icecat": icecat,
    "esci": training_of_esci,
    "esci_text": esci_with_text,
}
"""Each set's config, by the folder that it may leave files in."""


def settings(
    tasks: Iterable[str], careful: Iterable[str], care: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """What each setting changes of a run. careful: the tasks that care is tried on."""
    plain = {name: {"task": name} for name in tasks}
    return plain | {
        f"{task}, {name}": {"task": task, **CARE[name]}
        for task, name in itertools.product(careful, care)
    }


def changed(
    start: Start, config: Config, described: Made[Features], changes: Mapping[str, Any]
) -> Start:
    """The start of a setting's run."""
    of_run = {name: value for name, value in changes.items() if name != FEATURES}
    section = dataclasses.replace(config.train, **of_run)
    start = dataclasses.replace(start, train=section.schedule())
    return dataclasses.replace(start, features=described) if FEATURES in changes else start


def measured(
    config: Config, workdir: Workdir, changed_by: Mapping[str, dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Trains and tests every setting; the results so far are left after each."""
    start = relevance.started(config, workdir)
    pairs, seed = start.prepared, config.data.split_seed
    prepared = pairs.value
    described = features(workdir, pairs, checkpoint=config.model.pretrained)
    ranked = linear(workdir, pairs, described, split_seed=seed)
    words = translation(workdir, pairs)
    known = described.value
    splits = ("validation", "test")
    ours = {split: ranked.value.scores(known.names, known.values[split]) for split in splits}
    translations = {split: translated(words.value, prepared, split) for split in splits}

    def stack(encoder: Mapping[str, np.ndarray]) -> Predictions:
        members = {
            split: {"translation": translations[split]}
            | ({"uniform": encoder[split]} if encoder else {})
            for split in splits
        }
        columns = {s: stacked(prepared, s, known, ours[s], members[s]) for s in splits}
        names = stacked_names(known.names, members["test"])
        lists = lists_of(prepared, "validation", columns["validation"])
        fit = fitted(names, lists, folds_of(prepared, "validation", seed=seed))
        return Predictions(None, fit.scores(names, columns["test"]))

    alone: dict[str, Predictions] = dict(untrained(prepared, known, "test", seed=seed))
    alone["linear"] = Predictions(None, ours["test"])
    alone["translation"] = Predictions(None, translations["test"])
    with_others = {"none": stack({})}
    told: dict[str, Any] = {}
    for name, changes in changed_by.items():
        slug = "".join(one if one.isalnum() or one == "." else "_" for one in name)
        beginning = changed(start, config, described, changes)
        run = Run(f"{slug}-0", start.seed, beginning.train)
        made = train(workdir, run, beginning, None, data=config.data, importance=None)
        gains = prepared.scale.gains
        predicted = {
            "test": from_columns(made.value.test, gains),
            "validation": from_columns(made.value.validation, gains),
        }
        alone[name] = predicted["test"]
        with_others[name] = stack({split: one.scores for split, one in predicted.items()})
        told[name] = {
            "seconds": round(total(made.cost).seconds, 1),
            "weights": made.value.selected["weights"],
        }
        result = {
            **machine(),
            "commit": commit_of("HEAD"),
            "queries": {
                split: len(prepared.split(split)["query_id"].unique())
                for split in ("train", "validation", "test")
            },
            "alone": summary(prepared, alone, REFERENCE),
            "stack": summary(prepared, with_others, "none"),
            "settings": told,
        }
        write_json(out, result)
    return result


def summary(prepared: Any, runs: Mapping[str, Predictions], reference: str) -> dict[str, Any]:
    """nDCG@10 of each, and less the reference's and `linear`'s, over the test queries."""
    rows = by_query(judged(prepared, "test"), {name: [one] for name, one in runs.items()})
    return {
        name: {
            "ndcg@10": intervals.of_mean(values[0], resamples=1000, seed=0),
            "difference": None
            if name == reference
            else claims.fixed(values[0] - rows[reference][0]),
            "less linear": None
            if name == "linear" or "linear" not in rows
            else claims.fixed(values[0] - rows["linear"][0]),
        }
        for name, values in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--pretrained", default="")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--on", nargs="*", default=["listwise"], choices=TASKS)
    parser.add_argument("--care", nargs="*", default=USUAL, choices=CARE)
    parser.add_argument("--workdir", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    name = f"training_tasks_{arguments.set}"
    workdir = arguments.workdir or Path("runs") / name
    config = SETS[arguments.set](workdir.with_name(f"{workdir.name}_data"))
    config.model.pretrained = arguments.pretrained
    console = Console()
    with relevance.opened(config, workdir, console=console) as opened:
        out = arguments.out or RESULTS / f"{name}.json"
        tasks = dict.fromkeys((REFERENCE, *arguments.tasks))
        of = settings(tasks, arguments.on, arguments.care)
        found = measured(config, opened, of, out)
    for kind in ("alone", "stack"):
        shown = Table("ranker", "nDCG@10", "difference", title=f"{arguments.set}, {kind}")
        for ranker, one in found[kind].items():
            values = [one["ndcg@10"], one["difference"]]
            shown.add_row(ranker, *("" if v is None else _text(v) for v in values))
        console.print(shown)


def _text(value: Mapping[str, float]) -> str:
    return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"


if __name__ == "__main__":
    main()
