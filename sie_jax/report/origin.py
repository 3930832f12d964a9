"""From which commit of this package a page was made."""

import re
from pathlib import Path

import sie_jax

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def commit(tree: Path | None = None) -> str | None:
    """The commit that a source tree has checked out, from git's files alone.

    tree: the folder that holds `.git`, that of this package where None. Gives None where it is no
    checkout, or its files are not as git writes them. Changes since the commit are not seen.
    """
    tree = tree or Path(sie_jax.__file__).parents[1]
    try:
        git = tree / ".git"
        if git.is_file():  # a further worktree: the file names its folder
            git = tree / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref:"):
            head = _of_reference(git, head.removeprefix("ref:").strip())
    except (OSError, UnicodeDecodeError):
        return None
    return head if _COMMIT.fullmatch(head) else None


def _of_reference(git: Path, name: str) -> str:
    """The commit of a branch: in a file of its own, or in the file of all of them."""
    common = git / "commondir"
    shared = git / common.read_text(encoding="utf-8").strip() if common.exists() else git
    if (shared / name).exists():
        return (shared / name).read_text(encoding="utf-8").strip()
    packed = (shared / "packed-refs").read_text(encoding="utf-8")
    found = re.search(rf"^(\S+) {re.escape(name)}$", packed, re.MULTILINE)
    return found[1] if found else ""
