"""The files of a source: found in a folder, told apart by their names, and opened as lines."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
from etils import epath

from sie_jax.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES, PARQUET = ".jsonl", ".parquet"
_SPELLINGS = {".ndjson": JSON_LINES}
PACKED = {".gz": "gzip", ".zst": "zstd"}  # endings of compressed files, by Arrow's names
# what the files of a table may end in
SUFFIXES = (
    *(kind + packed for packed in ("", *PACKED) for kind in (*DELIMITERS, JSON_LINES, *_SPELLINGS)),
    PARQUET,
)
# what the first bytes of a file say that is not text
_NO_TEXT = {
    b"\x1f\x8b": "packed by gzip",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a Parquet file",
}


def find(path: str, suffixes: Sequence[str] | None = SUFFIXES) -> list[epath.Path]:
    """The file at `path`, or the files of that folder in the order of their names.

    Files and folders whose names begin with "." or "_" are left out.

    Args:
      path: a file or a folder of files of one kind.
      suffixes: the endings that names may have, such as ".csv" and ".csv.gz"; any where None.

    Raises:
      UserError: `path` does not exist, is an empty folder, or has a folder or a file of another
        kind in it.
    """
    place = epath.Path(path)
    if not path or not place.exists():
        raise UserError(f"{path!r} does not exist: give a file, or a folder of files of one kind")
    if not place.is_dir():
        files = [place]
    else:
        parts = (one for one in place.iterdir() if not one.name.startswith((".", "_")))
        files = sorted(parts, key=lambda one: one.name)
        if folders := [one.name for one in files if one.is_dir()]:
            raise UserError(
                f"{path} holds the folder {folders[0]}, whose files would not be read: move them "
                "up, or take the folder out"
            )
    if not files:
        kinds_there = ", ".join(suffixes or ("text",))
        raise UserError(f"{path} is an empty folder: give one with {kinds_there} files")
    kinds = sorted({kind(file) for file in files})
    if len(kinds) > 1:
        raise UserError(f"{path} holds files of several kinds, {', '.join(kinds)}: keep one kind")
    for file in files:
        if suffixes is not None and _suffix(file) not in suffixes:
            raise UserError(
                f"{file} ends in {_suffix(file)!r}: give a file that ends in {', '.join(suffixes)}"
            )
    return files


def official(source: str, path: str, names: Sequence[str]) -> list[epath.Path]:
    """The files of an official layout: of these names in the folder `path`, in this order.

    A text file may be compressed, as `opened` reads it: its name then ends in one of PACKED too.

    Raises UserError, which begins with the source's name, where the path is empty, does not exist
    or is not a folder, and where a file is missing; then it lists what the folder holds.
    """
    fix = f"give the folder that holds {', '.join(names)}"
    folder = epath.Path(path)
    if not path or not folder.exists():
        raise UserError(f"{source}: {path!r} does not exist: {fix}")
    if not folder.is_dir():
        raise UserError(f"{source}: {path} is not a folder: {fix}")
    found = []
    for name in names:
        spellings = [folder / (name + packed) for packed in ("", *PACKED)]
        there_is = [one for one in spellings if one.exists()]
        if not there_is:
            there = sorted(entry.name for entry in folder.iterdir())
            held = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "") or "nothing"
            raise UserError(f"{source}: {name} is missing; {folder} holds {held}: {fix}")
        found.append(there_is[0])
    return found


def kind(file: epath.Path) -> str:
    """How a file is read: a key of DELIMITERS, JSON_LINES or PARQUET, or another suffix."""
    suffix = _suffix(file).removesuffix(_packed(file))
    return _SPELLINGS.get(suffix, suffix)


@contextlib.contextmanager
def opened(file: epath.Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file inside the block, unpacked where its name ends in one of PACKED.

    A compressed file may be of several members or frames, one after the other.

    Raises UserError where the file is not there, is cut off, damaged or not compressed that way.
    """
    try:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(file.open("rb"))
            if packed := _packed(file):
                unpacked = pa.CompressedInputStream(stream, PACKED[packed])
                stream = stack.enter_context(io.BufferedReader(unpacked))
            yield stream
    except OSError as error:  # Arrow's errors about what is packed are among these
        raise UserError(
            f"{file} cannot be read ({first_line(error)}): write it, or copy it, again"
        ) from None


def lines(file: epath.Path) -> Iterator[str]:
    """The lines as texts, with surrogates in place of bytes that are not UTF-8 (PEP 383).

    The file is unpacked as in `opened`. A byte order mark is left out.

    Raises UserError where the file is UTF-16 or no text, ends its lines with CR alone, or cannot be
    read.
    """
    with opened(file) as stream:
        for number, line in enumerate(stream):
            if number == 0:
                _check_text(file, line)
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line.decode("utf-8", "surrogateescape")


def _check_text(file: epath.Path, line: bytes) -> None:
    """Raises UserError where the first line is not that of a text."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file} is UTF-16: convert it to UTF-8")
    for start, what in _NO_TEXT.items():
        if line.startswith(start):
            raise UserError(f"{file} is {what}, which its name does not say: unpack or rename it")
    if b"\r" in line.rstrip(b"\r\n"):
        raise UserError(f"{file} ends lines with CR alone: convert its line ends to LF")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has no message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _suffix(file: epath.Path) -> str:
    """The ending of a name, in small letters; that of a compressed file has both endings."""
    name, packed = file.name.lower(), _packed(file)
    return epath.Path(name.removesuffix(packed)).suffix + packed


def _packed(file: epath.Path) -> str:
    """The ending that says how a file is compressed; "" where it is not."""
    suffix: str = file.suffix.lower()
    return suffix if suffix in PACKED else ""
