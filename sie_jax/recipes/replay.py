"""Replay: explains the batch on which a run produced NaN."""

from contextlib import closing
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from rich.console import Console

from sie_jax.config import from_json
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.files import read_json
from sie_jax.recipes import relevance
from sie_jax.report import terminal
from sie_jax.stages import pretrain
from sie_jax.stages.pair_runs import PairRuns, Start
from sie_jax.stages.running import STEPS
from sie_jax.training.checkpoints import RunCheckpoints
from sie_jax.training.run import Run
from sie_jax.workdir import Job
from sie_jax.workdir.job import CONFIG, RUNS


def replay(file: Path, console: Console) -> pa.Table:
    """What each row of a kept batch does at the parameters of the run's newest checkpoint.

    Gives a table of `example_id`, `query`, `title`, `label`, `loss` and `grad_norm` (dropout off),
    with the rows first that are not finite, then the largest norms; it is printed too. Where all is
    finite there, no row is at fault by itself: the steps since then are, and so is the learning
    rate. How the run was made is read from its run.json.

    Raises UserError where the file is not of a run that is still there.
    """
    folder = file.absolute().parent.parent
    if not file.exists() or not (folder / CONFIG).exists():
        raise UserError(f"--replay={file}: give a file that a failed run left in WORKDIR/replay")
    try:
        config = from_json(read_json(folder / CONFIG))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / CONFIG} cannot be read ({error}): the command that made the run writes it"
        ) from None
    try:
        with file.open("rb") as opened, np.load(opened) as stored:
            batch = dict(stored)
        name, broken = str(batch.pop("run")), int(batch.pop("step"))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise UserError(
            f"--replay={file}: the file cannot be read ({error}): give one that a failed run left"
        ) from None
    run = Run.read(folder / RUNS / name)
    if run.train.task == "masked":
        raise UserError(
            f"--replay={file}: --replay does not support pretraining runs, which have no labels"
        )
    with relevance.opened(config, folder, console=console, mesh=meshes.make(1)) as workdir:
        pairs = relevance.prepared(config, workdir)
        start = Start(
            pairs,
            None,
            config.model,
            config.data.max_length,
            run.train,
            run.seed,
            features=relevance.of_head(config, workdir, pairs),
        )
        runs = PairRuns(Job(workdir, "replay"), start)
        model = str(folder / pretrain.FOLDER / "model") if config.pretrain.steps else runs.folder
        state = runs.state(run, total_steps=1, params=runs.params(model, seed=run.seed))
        with closing(RunCheckpoints(folder / RUNS / name / STEPS)) as checkpoints:
            if checkpoints.latest_step is not None:
                state, _, _ = checkpoints.restore(state)
        found = runs.scored_batch(state.params, batch)
        rows = runs.prepared.split("train").take(found["row"])
    table = rows.select(["example_id", "query", "title"])
    names = np.array(runs.prepared.scale.names)
    table = table.append_column("label", pa.array(names[rows["label"].to_numpy()]))
    for score in ("loss", "grad_norm"):
        table = table.append_column(score, pa.array(found[score]))
    finite = np.isfinite(found["loss"]) & np.isfinite(found["grad_norm"])
    table = table.take(np.lexsort((-np.nan_to_num(found["grad_norm"]), finite)))
    console.print(
        f"run {name}, the batch of step {broken}, at the parameters after step {int(state.step)}: "
        f"{int((~finite).sum())} of {len(finite)} rows are not finite",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    console.print(terminal.rows(table.to_pydict()))
    return table
