"""What a run would read and train, told after its own preparation in a temporary folder."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from sie_jax import remote
from sie_jax.config import Config
from sie_jax.data.planning import Planner
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import SPLITS
from sie_jax.data.sources import table as own_table
from sie_jax.devices import memory
from sie_jax.devices import mesh as meshes
from sie_jax.recipes import plan, relevance
from sie_jax.stages.pair_runs import PairRuns, Start
from sie_jax.tasks import apart
from sie_jax.telling import telling
from sie_jax.training import steps
from sie_jax.training.progress import duration
from sie_jax.training.run import Run
from sie_jax.workdir import Job, Workdir

MOST_LABELS = 10  # of which each is counted; labels that are numbers may be thousands
MEASURED = 5  # steps whose time is taken, after one that compiles


def dry_run(
    config: Config, workdir: str | os.PathLike[str], *, console: Console | None = None
) -> None:
    """Reads, cleans, splits and tokenises as the run would, and says what it would train.

    That is done in a temporary folder, which is removed; in the workdir nothing is written. The
    training step is compiled for its longest batch and taken a few times, on parameters of the
    run's shape.

    Raises UserError where the run would refuse its config, its workdir or its data.
    """
    console = console or Console()
    with (
        tempfile.TemporaryDirectory(prefix="sie_jax-") as temporary,
        _opened(config, workdir, temporary, console) as place,
    ):
        with telling(place.say, "reading the data"):
            made = relevance.prepared(config, place)
        prepared = made.value
        for line in (*_columns(config), *_rows(prepared)):
            place.say(line)
        console.print(_splits(prepared))
        start = Start(
            made,
            None,
            config.model,
            config.data.max_length,
            config.train.schedule(),
            config.train.seed,
            features=relevance.of_head(config, place, made),
        )
        for line in _runs(config, prepared, place):
            place.say(line)
        with telling(place.say, "compiling and taking a few training steps"):
            lines = _step(config, Job(place, "dry run"), start)
        for line in lines:
            place.say(line)
    place.say(f"dry run: nothing was written to {workdir}")


@contextmanager
def _opened(
    config: Config, workdir: str | os.PathLike[str], temporary: str, console: Console
) -> Iterator[Workdir]:
    """A workdir in the temporary folder, while the real one is held and has been checked."""
    folder = Path(temporary) / "run"
    if remote.is_remote(workdir):  # to hold one in a store writes to it
        with relevance.opened(config, folder, console=console) as place:
            yield dataclasses.replace(place, stages=())
        return
    with relevance.opened(config, workdir, console=console) as place:
        yield dataclasses.replace(place, folder=folder, stages=())


def _columns(config: Config) -> list[str]:
    """Which column of a team's own table is taken for what, and which are not read."""
    data = config.data
    if data.source != "table":
        return [f"source: {data.source} {data.path}".rstrip()]
    request = data.request(remote.local(data.path))
    names = own_table.column_names(request.path)
    # where there is a catalogue, the table need not have titles
    mapped = {field: one for field, one in own_table.columns_of(request).items() if one in names}
    numbers = (*data.features, *data.vectors)
    further = own_table.further_of(data.table.attributes, data.table.raters, numbers)
    left = [name for name in names if name not in {*mapped.values(), *further.values()}]
    lines = [f"source: table {data.path}"]
    lines += [f"catalogue: {data.items.path}"] if data.items.path else []
    lines += [f"  {field}: column {name}" for field, name in mapped.items()]
    lines += [f"  {name.partition(':')[0]}: column {column}" for name, column in further.items()]
    return lines + ([f"  not read: {', '.join(left)}"] if left else [])


def _rows(prepared: Prepared) -> list[str]:
    counts = prepared.counts
    lines = [f"rows: {counts['read']:,} read, {counts['kept']:,} kept"]
    for kind in ("rejected", "repaired"):
        found = [f"{number:,} {rule}" for rule, number in counts[kind].items() if number]
        lines += [f"  {kind}: {', '.join(found)}"] if found else []
    return lines


def _splits(prepared: Prepared) -> Table:
    """Queries, pairs, labels and lengths of lists by split."""
    made = Table(title="Splits")
    made.add_column("split")
    names = prepared.scale.names if len(prepared.scale.names) <= MOST_LABELS else ()
    for name in ("queries", "pairs", *names, "items of a query"):
        made.add_column(name, justify="right")
    for split in SPLITS:
        pairs = prepared.split(split)
        sizes = pairs["query_id"].value_counts().field("counts").to_numpy()
        labels = np.bincount(pairs["label"].to_numpy(), minlength=len(prepared.scale.names))
        lists = f"{sizes.min()} to {sizes.max()}, median {np.median(sizes):g}"
        numbers = (len(sizes), pairs.num_rows, *labels[: len(names)].tolist())
        made.add_row(split, *(f"{number:,}" for number in numbers), lists)
    return made


def _planner(config: Config, prepared: Prepared, place: Workdir) -> Planner:
    train = config.train.schedule()
    sizes = train.batch_size, train.list_size
    return Planner(prepared, place.mesh, *sizes, apart=apart(train.task))


def _runs(config: Config, prepared: Prepared, place: Workdir) -> list[str]:
    """Batches, and the training runs that will be made."""
    train, folds = config.train, config.evaluation.folds
    batches = _planner(config, prepared, place).epochs(1, seed=train.seed)
    tokens = ", ".join(map(str, prepared.boundaries))
    devices = place.mesh.local_devices
    lines = [
        f"batches: {len(batches):,} of up to {train.batch_size:,} pairs in an epoch, padded to "
        f"{tokens} tokens, on {place.mesh.size} × {devices[0].device_kind}",
        *plan.runs(config, len(batches)),
        f"stages: {len(plan.stages(config))}",
    ]
    if folds:
        lines.append(f"all of this is made once more for each of {folds} folds of the queries")
    return lines


def _step(config: Config, job: Job, start: Start) -> list[str]:
    """The memory of the training step, and what the steps of the runs will take."""
    runs = PairRuns(job, start)
    run = Run("uniform-0", start.seed, start.train)
    batches = runs.planner.epochs(1, seed=start.seed)
    if not len(batches):  # the run itself says what is wrong
        return []
    total = len(batches) * config.train.epochs
    step = steps.weighted_step(runs.task, run.train.optimizer(total_steps=total), job.mesh)
    state = runs.state(run, total_steps=total)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    batch = meshes.place_batch(job.mesh, batches[batches.longest])
    need = memory.of_step(step, state, batch)
    lines = [
        f"model: {parameters:,} parameters",
        f"memory of a step: {memory.check(need, job.mesh.local_devices)}",
    ]
    state = jax.block_until_ready(step(state, batch)[0])
    started = time.perf_counter()
    for _ in range(MEASURED):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - started) / MEASURED
    number = plan.total(config, len(batches))
    lines.append(
        f"time: a step on the longest batch takes {seconds:.3g} s here, so the {number:,} steps of "
        f"the runs above take about {duration(number * seconds)}; pretraining, choosing, "
        "scoring, weights that are made while training, compiling and evaluation come on top and "
        "are not measured"
    )
    return lines
