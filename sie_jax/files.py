"""Files that are there whole or not at all, whenever the process dies."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sie_jax.errors import UserError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to, which takes the place of `path` when the block ends.

    The folder is made where it is missing. Where the block raises, `path` stays as it was
    and the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    temporary.unlink(missing_ok=True)  # left by a process that was killed
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole`, for a folder that is not there yet: gives an empty one, renamed at the end."""
    temporary = temporary_of(path)
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_of(path: Path) -> Path:
    """Where a file or folder is written before it takes its place."""
    return path.with_name(f".{path.name}.tmp")


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """What tells the content of a file from any other."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def below(path: Path) -> list[Path]:
    """The file itself, or every file of a folder and its subfolders, sorted; none if none is there.

    Links are followed. Names that begin with "." or "_" are left out, as readers leave them out.

    Raises UserError for a named pipe or a device, which could be waited for without end, and for a
    link that leads nowhere.
    """
    found = [path] if os.path.exists(path) else []
    if os.path.isdir(path):
        found = []
        for root, folders, names in os.walk(path, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith((".", "_"))]
            found += [Path(root, name) for name in names if not name.startswith((".", "_"))]
    for one in found:
        if not os.path.exists(one):
            raise UserError(f"{one} is a link that leads nowhere: remove it, or mend it")
        if not one.is_file():
            raise UserError(f"{one} is a named pipe or a device: give a file with the same content")
    return sorted(found)


def digests(path: Path) -> dict[str, str]:
    """The digest of each file that `below` gives, by its name, or in a folder its path there."""
    folder = path if os.path.isdir(path) else path.parent
    return {str(one.relative_to(folder)): digest(one) for one in below(path)}


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented; raises ValueError for NaN and infinity, which JSON does not have."""
    with whole(path) as temporary:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
        # half a surrogate pair, as of a name that is not UTF-8, is written as JSON's own escape
        temporary.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote; raises ValueError for what is no JSON, or no file."""
    if os.path.exists(path) and not path.is_file():
        raise ValueError("it is a folder, a named pipe or a device")  # a pipe could be waited for
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
