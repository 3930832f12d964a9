"""What commands leave for their users: nothing that is read, or that others made, is touched.

Beside an output lies the record `.NAME.made.json`, with the digests of the files that a command
left under these names. A file that has another digest was made or changed by somebody else, and is
never replaced. The record names a new file before it takes its place, so a command that was killed
at any moment knows its own files when it is started again.
"""

import contextlib
import dataclasses
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath

from sie_jax.errors import UserError
from sie_jax.files import below, digest, read_json, temporary_of, write_json

FIX = "give another --output"
SUFFIXES = (".csv", ".jsonl", ".parquet")  # of tables that commands write
AnyPath = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The files that one call of a command leaves in one folder.

    main: the one that the user named. beside: those that are called after it. scratch: files and
    folders that are there while the command works.
    """

    main: Path
    beside: tuple[Path, ...] = ()
    scratch: tuple[Path, ...] = ()

    def check(self, reads: Iterable[AnyPath]) -> None:
        """Whether these can be written; call it before any work, with all that the command reads.

        Raises UserError where one of them is read or lies in a folder that is read, was not made by
        a command, is no plain file, or is at a place where none can be written.
        """
        written = (*self._files, self._record)
        apart([*written, *map(temporary_of, written), *self.scratch], reads, fix=FIX)
        self._check_own()
        for path in written:
            _check_place(path)

    @contextlib.contextmanager
    def whole(self) -> Iterator[tuple[Path, ...]]:
        """Gives temporary paths, `main`'s first, which take their places when the block ends.

        Where the block leaves one out, no such file is there afterwards. Where it raises, all stay
        as they were.

        Raises UserError where somebody else made one of them in the meantime.
        """
        temporaries = tuple(map(temporary_of, self._files))
        self.main.parent.mkdir(parents=True, exist_ok=True)
        for path in temporaries:
            path.unlink(missing_ok=True)  # left by a process that was killed
        try:
            yield temporaries
            self._check_own()
            pairs = list(zip(self._files, temporaries, strict=True))
            made = {
                path.name: [digest(one) for one in (path, temporary) if one.exists()]
                for path, temporary in pairs
            }
            write_json(self._record, made)
            for path, temporary in reversed(pairs):  # `main` comes last: then all are there
                if temporary.exists():
                    os.replace(temporary, path)
                else:
                    path.unlink(missing_ok=True)
        finally:
            for path in temporaries:
                path.unlink(missing_ok=True)

    @property
    def _files(self) -> tuple[Path, ...]:
        return (self.main, *self.beside)

    @property
    def _record(self) -> Path:
        return self.main.with_name(f".{self.main.name}.made.json")

    def _check_own(self) -> None:
        try:
            made = read_json(self._record) if os.path.isfile(self._record) else {}
        except (OSError, ValueError):
            made = {}
        for path in self._files:
            if not os.path.lexists(path):
                continue
            if path.is_symlink() or not path.is_file():
                kinds = {"a link": path.is_symlink(), "a folder": path.is_dir(), "no file": True}
                kind = next(kind for kind, found in kinds.items() if found)
                raise UserError(f"{path} is {kind}: {FIX}")
            known = made.get(path.name) if isinstance(made, dict) else None
            if digest(path) not in (known if isinstance(known, list) else []):
                raise UserError(
                    f"{path} is there and is not what this command left, so it is not replaced: "
                    f"{FIX}, or remove the file if nobody needs it"
                )


def of_table(main: Path) -> Outputs:
    """A table, the rows that are not in it, <main>.rejected, and the folder of its parts.

    Raises UserError where the name ends in none of SUFFIXES.
    """
    if main.suffix not in SUFFIXES:
        raise UserError(f"{main}: give an --output that ends in {', '.join(SUFFIXES)}")
    rejected = main.with_suffix(f".rejected{main.suffix}")
    return Outputs(main, (rejected,), scratch=(main.with_name(f"{main.name}.parts"),))


def apart(writes: Iterable[AnyPath], reads: Iterable[AnyPath], *, fix: str) -> None:
    """Checks that nothing is both read and written; paths may be of files, folders and stores.

    Links of either kind, and other spellings of a path, are seen through.

    Raises UserError where a path is both, or lies in one of the others, and as `files.below`; `fix`
    says what to do.
    """
    places = [(write, _place(write)) for write in writes]
    for read in reads:
        files = [] if "://" in os.fspath(read) else below(Path(read))
        for one in (read, *files):
            here = _place(one)
            for write, there in places:
                nested = here.is_relative_to(there) or there.is_relative_to(here)
                if nested or _same_file(one, write):
                    raise UserError(f"{write} cannot be written, because {read} is read: {fix}")


def _place(path: AnyPath) -> PurePath:
    text = os.fspath(path)
    return PurePosixPath(text) if "://" in text else Path(os.path.realpath(text))


def _same_file(one: AnyPath, other: AnyPath) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return False


def is_text(path: AnyPath) -> bool:
    """Whether a path is UTF-8, without which Arrow opens no file."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_place(path: Path) -> None:
    """Writes and removes an empty file under the longest name that writing this one takes."""
    folders = list(
        itertools.takewhile(lambda one: not os.path.lexists(one), path.absolute().parents)
    )
    trial = temporary_of(temporary_of(path))
    if not is_text(path):
        raise UserError(f"{path} is not UTF-8, as Arrow needs it: {FIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        below_a_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file stands where its folder would be" if below_a_file else error.strerror
        raise UserError(f"{path} cannot be written ({reason}): {FIX}") from None
    finally:
        for folder in folders:
            with contextlib.suppress(OSError):  # it is not empty, or was not made
                folder.rmdir()
