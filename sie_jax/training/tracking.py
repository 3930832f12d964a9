"""Where else a run's curves go while it trains: TensorBoard, Weights & Biases."""

import dataclasses
import importlib.util
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

from sie_jax.errors import UserError


@dataclasses.dataclass(slots=True, kw_only=True)
class TrackingConfig:
    """The section `tracking`: where curves go beside metrics.jsonl and TensorBoard's files."""

    wandb_project: str = ""  # the project of Weights & Biases that gets the curves; empty: none

    def check(self) -> None:
        """Raises UserError where what is asked for is not installed."""
        if self.wandb_project:
            require_wandb()


class Tracker(Protocol):
    """Takes what `MetricsLog` takes."""

    def start(self, run: str, step: int) -> None:
        """A run begins after `step`, 0 where it is new; what came later is to be dropped."""

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """One report of the run that was started."""

    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard:
    """Event files in `folder`/<run>, for `tensorboard --logdir`.

    Steps that a resumed run does again are marked as purged: TensorBoard shows them once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, run: str, step: int) -> None:
        """See `Tracker`."""
        self.close()
        self._writer = SummaryWriter(
            str(self._folder / run),
            purge_step=step + 1,
            flush_secs=10,
            # files are named by the second: one resumed within it must not overwrite the other
            filename_suffix=f".{step}",
        )

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """One Weights & Biases run for each training run, in one group; a resumed one goes on.

    Needs the extra `sie_jax[wandb]`. Its environment variables hold: with WANDB_MODE=offline all
    stays in `folder`/wandb until `wandb sync` sends it.

    Args:
      folder: of the files, and of the runs' ids, by which a resumed run is known.
      project, group: what the runs are filed under.
      config: shown beside every run.

    Raises:
      UserError: wandb is not installed.
    """

    def __init__(self, folder: Path, *, project: str, group: str, config: dict[str, Any]) -> None:
        require_wandb()
        self._folder, self._project, self._group = folder, project, group
        self._config = config
        self._run: Any = None

    def start(self, run: str, step: int) -> None:
        """See `Tracker`; steps done again are ignored by the service, and are equal to the bit."""
        import wandb

        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        known = self._folder / f"{run}.wandb_id"
        if not known.exists():
            known.write_text(uuid.uuid4().hex)
        self._run = wandb.init(
            project=self._project,
            group=self._group,
            name=run,
            id=known.read_text(),
            resume="allow",
            dir=self._folder,
            config=self._config,
            settings=wandb.Settings(console="off"),
        )

    def write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def require_wandb() -> None:
    """Raises UserError where wandb is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError("wandb is not installed: pip install 'sie_jax[wandb]'")


@contextmanager
def trackers(
    folder: Path, *, wandb_project: str, group: str, config: dict[str, Any]
) -> Iterator[tuple[Tracker, ...]]:
    """TensorBoard, and Weights & Biases where a project is named; closed at the end."""
    with ExitStack() as stack:
        made: list[Tracker] = [stack.enter_context(closing(TensorBoard(folder)))]
        if wandb_project:
            board = WeightsAndBiases(folder, project=wandb_project, group=group, config=config)
            made.append(stack.enter_context(closing(board)))
        yield tuple(made)
