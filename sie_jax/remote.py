"""Paths of object stores (gs://, s3://): copied to this machine, worked on there, and sent back.

A run renames files, locks them and maps them to memory, which an object store cannot do. So inputs
are copied into a cache before they are read, and a local folder stands for the workdir while the
run is under way. The file systems are those of `etils.epath`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
from etils.epath import backend

from sie_jax import processes
from sie_jax.errors import UserError
from sie_jax.files import digest, read_json, write_json

EXTRAS = {"gs": "gcs", "s3": "s3"}  # the extra of this package that each scheme needs
MANIFEST = "mirror.json"
# the pause between two sends: at least so many seconds, and so many times what the last one took
PAUSE_SECONDS, PAUSE_FACTOR = 5.0, 10.0
WORTH_TELLING = 8 * 2**20  # bytes: fewer are copied in silence
# packages whose errors get one line
_STORES = ("aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "s3fs")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in an object store; raises UserError for any other URL."""
    scheme, separator, _ = os.fspath(path).partition("://")
    if separator and scheme not in EXTRAS:
        raise UserError(f"{path}: give a local path, or one that begins with gs:// or s3://")
    return bool(separator)


def local(path: str) -> str:
    """Returns a local path as it is; copies a path of an object store and returns the copy's.

    `path` is one object, or a folder, whose copy then holds the same objects and nothing else. Only
    what changed since the last copy is fetched. Several processes of a machine may do so at once.

    Raises UserError if nothing is at the path, or the store cannot be read.
    """
    if not is_remote(path):
        return path
    scheme, _, place = path.rstrip("/").partition("://")
    root, bucket = _cache() / "inputs" / scheme, place.partition("/")[0]
    root.mkdir(parents=True, exist_ok=True)
    record = root / f"{bucket}.json"
    with (root / f"{bucket}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _list(path)
        if not found:
            raise UserError(_nothing_there(path))
        stamps = read_json(record) if record.exists() else {}
        stale = [
            name
            for name, info in found.items()
            if stamps.get(name) != _stamp(info) or not (root / name).is_file()
        ]
        _tell_of(print, f"{path}: fetching", sum(found[name]["size"] for name in stale))
        # if the process dies after this line, the files being replaced count as out of date
        write_json(record, {name: stamps[name] for name in stamps if name not in stale})
        parts = [f"{root / name}.part" for name in stale]
        _get(path, stale, parts)
        for name, part in zip(stale, parts, strict=True):
            os.replace(part, root / name)
        for name in _names(root / place):
            if f"{place}/{name}" not in found:
                (root / place / name).unlink()
        write_json(record, stamps | {name: _stamp(info) for name, info in found.items()})
    return str(root / place)


class Mirror:
    """A workdir in an object store, and the local folder that stands for it.

    The store's `mirror.json` names the files that make up the workdir, each with its digest. It is
    written after the files that it names, and before the files that it no longer names are removed.
    So a kill at any moment leaves the store in a state that a kill could leave a local workdir in;
    only a file that grows, such as a log, may be newer than the rest.

    Attributes:
      path: the folder in the store.
      folder: the local folder.

    Raises UserError if there are several processes: each would have a local folder of its own.
    """

    def __init__(self, path: str, tell: Callable[[str], None]) -> None:
        self.path = path.rstrip("/")
        if jax.process_count() > 1:
            raise UserError(
                f"--workdir={self.path}: with several processes give a folder that all of them "
                "see, such as a mounted bucket (docs/many_devices.md)"
            )
        self.folder = _cache() / "workdirs" / quote(self.path, safe="")
        # identifies the manifest that the folder began from
        self._base = self.folder.with_name(f"{self.folder.name}.base")
        self._staging = self.folder.with_name(f"{self.folder.name}.sending")
        self._tell = tell
        self._told = ""
        self._sent: dict[str, str] = {}
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        # SIGTERM may arrive while the main thread is sending; its handler sends again
        self._lock = threading.RLock()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Fetches the folder; inside the block, a thread sends changes; at the end, sends the rest.

        Raises UserError if the store cannot be read or written. If another error ends the block,
        that one is raised, and a failure to send is only reported.
        """
        self.bring()
        ended = threading.Event()
        thread = threading.Thread(target=self._follow, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:
            ended.set()
            thread.join()
            self.try_to_send()
            if isinstance(error, UserError):  # the message should name the path that the user gave
                message = str(error).replace(str(self.folder), self.path)
                raise UserError(message) from error
            raise
        ended.set()
        thread.join()
        self.send(tell=self._tell)

    def bring(self) -> None:
        """Makes the local folder equal to the store, unless it is already equal or newer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = _read_manifest(self.path)
        if manifest is None:
            place = self.path.partition("://")[2]
            files = {name.removeprefix(f"{place}/"): "" for name in _list(self.path)}
            if files and "config.json" not in files:
                raise UserError(f"{self.path} has files that no run made: give another --workdir")
            gone: list[str] = []
        else:
            files, gone = json.loads(manifest)["files"], json.loads(manifest)["gone"]
            if self._base.exists() and self._base.read_text() == _identity(manifest):
                self._sent = dict.fromkeys(gone, "") | files
                return
        # if the process dies after this line, every file is compared again
        self._base.unlink(missing_ok=True)
        have = {name: digest(self.folder / name) for name in _names(self.folder)}
        for name in have.keys() - files.keys():
            (self.folder / name).unlink()
        for root, _, _ in os.walk(self.folder, topdown=False):
            if not os.listdir(root) and root != str(self.folder):
                os.rmdir(root)
        missing = [name for name in files if have.get(name) != files[name]]
        if missing:
            self._tell(f"{self.path}: fetching {len(missing)} files to {self.folder}")
        _get(
            self.path,
            [f"{self.path}/{name}" for name in missing],
            [str(self.folder / name) for name in missing],
        )
        if manifest is None:  # also shows, before any work, whether the store can be written
            self._sent = {name: digest(self.folder / name) for name in files}
            self._commit(self._sent, gone)
        else:
            self._sent = dict.fromkeys(gone, "") | files
            self._base.write_text(_identity(manifest))

    def send(self, *, tell: Callable[[str], None] | None = None) -> None:
        """Makes the store equal to the local folder as it is at one moment.

        Raises UserError if the store cannot be written, or another run wrote to it.
        """
        with self._lock:
            files = self._snapshot()
            if files == self._sent:
                return
            manifest = _read_manifest(self.path)
            if manifest is None or self._base.read_text() != _identity(manifest):
                raise UserError(
                    f"{self.path} was written by another run: the files of this run are in "
                    f"{self.folder}; give another --workdir, or end one of the two runs"
                )
            changed = [name for name in files if files[name] != self._sent.get(name)]
            staged = [self._staging / name for name in changed]
            if tell is not None:
                size = sum(path.stat().st_size for path in staged)
                _tell_of(tell, f"{self.path}: sending", size)
            _put(
                self.path,
                [str(path) for path in staged],
                [f"{self.path}/{name}" for name in changed],
            )
            gone = sorted(self._sent.keys() - files.keys())
            self._commit(files, gone)
            if gone:
                _remove(self.path, [f"{self.path}/{name}" for name in gone])
            self._sent = files
            shutil.rmtree(self._staging, ignore_errors=True)

    def try_to_send(self) -> None:
        """As `send`, but only reports a failure, and only once; a later call sends the rest."""
        try:
            self.send()
            self._told = ""
        except UserError as error:
            if str(error) != self._told:
                self._tell(f"not sent: {error}")
            self._told = str(error)

    def _follow(self, ended: threading.Event) -> None:
        pause = PAUSE_SECONDS
        while not ended.wait(pause):
            started = time.perf_counter()
            self.try_to_send()
            pause = max(PAUSE_SECONDS, PAUSE_FACTOR * (time.perf_counter() - started))

    def _commit(self, files: dict[str, str], gone: Sequence[str]) -> None:
        """Writes the manifest; `gone` names what this send or the next one removes."""
        manifest = json.dumps({"files": files, "gone": list(gone)}, indent=1).encode()
        _write_manifest(self.path, manifest)
        self._base.write_text(_identity(manifest))

    def _snapshot(self) -> dict[str, str]:
        """The digests of all files at one moment; links those not yet sent into `_staging`.

        The run keeps writing meanwhile. If the same files exist before and after, all of them
        existed at some moment in between, and a run can resume from its state at any moment.
        """
        while True:
            names = _names(self.folder)
            shutil.rmtree(self._staging, ignore_errors=True)
            try:
                files = {name: self._staged(name) for name in names}
            except FileNotFoundError:
                continue
            if _names(self.folder) == names:
                return files

    def _staged(self, name: str) -> str:
        """The digest of a file; links the file into `_staging` unless the store has it."""
        path, link = self.folder / name, self._staging / name
        stat = path.stat()
        state = stat.st_ino, stat.st_size, stat.st_mtime_ns
        known = self._digests.get(name)
        if known is not None and known[0] == state and known[1] == self._sent.get(name):
            return known[1]
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
        if known is None or known[0] != state:
            known = state, digest(link)
            self._digests[name] = known
        return known[1]


def _cache() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "sie_jax"


def _store(path: str) -> Any:
    """The fsspec file system by which epath reads and writes a path."""
    return backend.fsspec_backend.fs(path)


def _list(path: str) -> dict[str, dict[str, Any]]:
    """The store's record of each object at or below a path, by its name: BUCKET/KEY."""
    with _blamed(path):
        store = _store(path)
        store.invalidate_cache()
        try:
            found = store.find(path, detail=True)
        except FileNotFoundError:
            return {}
    return {name: found[name] for name in sorted(found) if not name.endswith("/")}


def _stamp(info: dict[str, Any]) -> str:
    """A text that changes whenever the object does."""
    return f"{info['size']} {info.get('ETag') or info.get('etag') or info.get('md5Hash')}"


def _get(path: str, names: list[str], files: list[str]) -> None:
    with _blamed(path):
        if names:
            _store(path).get(names, files)


def _put(path: str, files: list[str], names: list[str]) -> None:
    with _blamed(path):
        if names:
            _store(path).put(files, names)


def _remove(path: str, names: list[str]) -> None:
    with _blamed(path):
        for name in names:
            try:
                _store(path).rm_file(name)
            except FileNotFoundError:  # an earlier send removed it and was killed
                continue


def _read_manifest(path: str) -> bytes | None:
    with _blamed(path):
        try:
            return bytes(_store(path).cat_file(f"{path}/{MANIFEST}"))
        except FileNotFoundError:
            return None


def _write_manifest(path: str, manifest: bytes) -> None:
    with _blamed(path):
        _store(path).pipe_file(f"{path}/{MANIFEST}", manifest)


def _names(folder: Path) -> list[str]:
    """The finished files in a folder, by their paths in it."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_temporary(name)]
        place = Path(root).relative_to(folder)
        found += [str(place / name) for name in files if not _is_temporary(name)]
    return sorted(found)


def _is_temporary(name: str) -> bool:
    """Whether sie_jax.files or Orbax is still writing a file or folder."""
    return (name.startswith(".") and name.endswith(".tmp")) or ".orbax-checkpoint-tmp" in name


def _identity(manifest: bytes) -> str:
    return hashlib.blake2b(manifest, digest_size=16).hexdigest()


def _tell_of(tell: Callable[[str], None], doing: str, size: int) -> None:
    if size >= WORTH_TELLING and processes.first():
        tell(f"{doing} {size / 2**20:,.0f} MB")


@contextmanager
def _blamed(path: str) -> Iterator[None]:
    """Turns the errors of a store or its client into one line that says how to fix them."""
    scheme = path.partition("://")[0]
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"{path} needs a package that is not installed: "
            f"pip install 'sie_jax[{EXTRAS[scheme]}]' ({error})"
        ) from None
    except FileNotFoundError as error:
        if error.filename is not None:  # a file of this machine
            raise
        raise UserError(_nothing_there(path)) from None
    except PermissionError as error:
        raise UserError(
            f"{path}: access is denied: give this machine's account the right to read, list, write "
            f"and delete there {_reason(error)}"
        ) from None
    except Exception as error:
        if "credential" in f"{type(error).__name__} {error}".lower():
            fix = {
                "gs": "run gcloud auth application-default login, or set "
                "GOOGLE_APPLICATION_CREDENTIALS",
                "s3": "run aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            }[scheme]
            raise UserError(f"{path}: no credentials were found: {fix}") from None
        if type(error).__module__.partition(".")[0] in _STORES:
            raise UserError(
                f"{path}: the store cannot be reached, or refused: once it answers, rerun "
                f"the same command to resume {_reason(error)}"
            ) from None
        raise


def _nothing_there(path: str) -> str:
    return (
        f"{path}: there is no such bucket, folder or object: check the name, or create the bucket "
        "first"
    )


def _reason(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"({text[:200]})"
