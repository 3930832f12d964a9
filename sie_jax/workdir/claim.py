"""One run at a time in a workdir, and a local folder for a workdir that is in an object store."""

import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_jax import processes, remote
from sie_jax.errors import UserError
from sie_jax.outputs import is_text
from sie_jax.training import stopping


@contextmanager
def claimed(workdir: str | os.PathLike[str], say: Callable[[str], None]) -> Iterator[Path]:
    """Gives the local folder of a workdir, which no other run can use inside the block.

    A workdir in an object store gets a local folder that the store follows (`remote.Mirror`).

    Raises UserError where another run uses the workdir, or it cannot be written to.
    """
    if not remote.is_remote(workdir):
        with _held(Path(workdir)):
            yield Path(workdir)
        return
    mirror = remote.Mirror(os.fspath(workdir), say)
    with _held(mirror.folder), stopping.before_leaving(mirror.try_to_send), mirror.kept():
        yield mirror.folder


@contextmanager
def _held(workdir: Path) -> Iterator[None]:
    """Holds the folder. The lock is on the folder itself, so it ends with the process."""
    held: list[int] = []
    folders = (workdir.absolute(), *workdir.absolute().parents)
    made = list(itertools.takewhile(lambda folder: not os.path.lexists(folder), folders))

    def hold() -> None:
        if not is_text(workdir):
            raise UserError(f"{workdir} is not UTF-8: give another folder with --workdir")
        there = next(folder for folder in folders if os.path.lexists(folder))
        if not there.is_dir():
            raise UserError(f"{there} is {_kind(there)}: give a folder with --workdir")
        if not os.access(there, os.W_OK):
            raise UserError(f"{there} cannot be written to: give another folder with --workdir")
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{workdir} cannot be made ({error.strerror}): give another folder with --workdir"
            ) from None
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

    processes.alone(hold)
    try:
        yield
    finally:
        for descriptor in held:
            for folder in made:
                if any(folder.iterdir()):  # the run left something
                    break
                folder.rmdir()
            os.close(descriptor)


def _kind(path: Path) -> str:
    return "a link that leads nowhere" if path.is_symlink() and not path.exists() else "a file"
