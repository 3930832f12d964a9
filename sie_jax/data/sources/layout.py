"""A data set in its official layout: a folder that holds files of known names."""

from collections.abc import Sequence

from etils import epath

from sie_jax.errors import UserError


def official_files(source: str, path: str, names: Sequence[str]) -> list[epath.Path]:
    """The files of these names in the folder `path`, in the order of the names.

    Raises UserError, which begins with the source's name, where the path is empty, does not exist
    or is no folder, and where a file is missing; then it lists what the folder holds.
    """
    mend = f"give the folder that holds {', '.join(names)}"
    folder = epath.Path(path)
    if not path or not folder.exists():
        raise UserError(f"{source}: {path!r} does not exist; {mend}")
    if not folder.is_dir():
        raise UserError(f"{source}: {path} is no folder; {mend}")
    for name in names:
        if not (folder / name).exists():
            there = sorted(entry.name for entry in folder.iterdir())
            held = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "") or "nothing"
            raise UserError(f"{source}: {name} is missing; {folder} holds {held}: {mend}")
    return [folder / name for name in names]
