"""The workdir of a recipe, held for one run, once all that can be checked has been checked."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from sie_jax import outputs, processes
from sie_jax.config import AnyConfig, ConversationConfig, as_json
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.report import terminal
from sie_jax.training.section import Telling, TrainConfig
from sie_jax.workdir import Made, Workdir
from sie_jax.workdir.claim import claimed
from sie_jax.workdir.job import FOLDERS, LEFT

Config_ = TypeVar("Config_", bound=AnyConfig)
UNTRAINED = TrainConfig()
"""What a recipe that takes no training steps says of logs and checkpoints."""


@contextmanager
def opened(
    config: AnyConfig,
    workdir: str | os.PathLike[str],
    *,
    known: Sequence[str],
    planned: Callable[[], Sequence[str]],
    redo: Sequence[str] = (),
    console: Console | None = None,
    mesh: Mesh | None = None,
    check: Callable[[Mesh], None] = lambda mesh: None,
) -> Iterator[Workdir]:
    """The workdir, held for this run.

    known: the stages that `redo` may name. planned: gives those that will be made, in their order,
    of a config that has been checked. mesh: that of the config where None. check: what else is to
    be checked, given the mesh.

    Raises UserError for what the user can fix, before anything is written.
    """
    config.check()
    for name in redo:
        if name.partition("/")[0] not in known:
            raise UserError(f"--redo={name}: choose of the stages {', '.join(known)}")
    mesh = mesh or config.mesh.make()
    train: Telling = UNTRAINED
    if isinstance(config, ConversationConfig):
        paths = (*config.data.paths.values(), *config.intents.paths.values(), config.chain)
    else:
        train = config.train
        meshes.check_batch(mesh, config.train.batch_size)
        paths = (*config.data.paths.values(), config.model.pretrained)
    check(mesh)
    reads = [path for path in paths if path]
    writes = [os.path.join(workdir, name) for name in (*FOLDERS, *LEFT)]
    outputs.apart(writes, reads, fix="give another --workdir")
    console = (console or Console()) if processes.first() else Console(quiet=True)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    with claimed(workdir, say) as folder:
        place = Workdir(
            folder,
            mesh,
            console,
            as_json(config),
            train,
            config.tracking,
            frozenset(redo),
            tuple(planned()),
            defaults=as_json(type(config)()),
        )
        place.say_changes()
        yield place


def carried_out(
    config: Config_,
    workdir: str | os.PathLike[str],
    *,
    known: Sequence[str],
    planned: Callable[[Config_], Sequence[str]],
    make: Callable[[Config_, Workdir], Made[dict[str, Any]]],
    table: Callable[[dict[str, Any]], Table] | None,
    left: Mapping[str, str],
    redo: Sequence[str],
    console: Console | None,
) -> dict[str, Any]:
    """One run of a recipe, whose last stage leaves metrics.json; gives its content.

    known, redo, console: as of `opened`. planned: the stages of a config, in their order. make: all
    of them. table: what the terminal shows of the metrics beside their verdict. left: what the run
    leaves, by what it is: files of the workdir.
    """
    with opened(
        config,
        workdir,
        known=known,
        planned=lambda: planned(config),
        redo=redo,
        console=console,
    ) as place:
        metrics = make(config, place).value
        close(place)
        if table is not None and "test" in metrics:
            place.console.print(table(metrics))
        place.console.print(terminal.verdict(metrics))
        for name, what in left.items():
            place.say(what.format(os.path.join(workdir, name)))
    return metrics


def close(place: Workdir) -> None:
    """Leaves what no stage leaves, so that nothing else notices where it was changed."""
    processes.alone(place.write_config)
    processes.alone(place.draw_log)
