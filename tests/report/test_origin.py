import subprocess
from pathlib import Path

import pytest

from sie_jax.report import origin

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_commit_is_what_git_says(tmp_path: Path) -> None:
    def git(*words: str, folder: Path = tmp_path) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-b", "trunk")
    git("commit", "--allow-empty", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert origin.commit(tmp_path) == head
    git("pack-refs", "--all")
    assert not (tmp_path / ".git" / "refs" / "heads" / "trunk").exists()
    assert origin.commit(tmp_path) == head
    other = tmp_path / "other"
    git("worktree", "add", "-b", "branch", str(other))
    git("commit", "--allow-empty", "-m", "two", folder=other)
    assert origin.commit(other) == git("rev-parse", "HEAD", folder=other) != head
    git("checkout", "--detach")
    assert origin.commit(tmp_path) == head


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"HEAD": "ref: refs/heads/main"},  # without a commit yet
        {"HEAD": "ref: refs/heads/main", "packed-refs": f"{COMMIT} refs/heads/other\n"},
        {"HEAD": "damaged"},
        {"HEAD": b"\xff\xfe"},
    ],
)
def test_what_is_no_checkout_has_no_commit(files: dict[str, str | bytes], tmp_path: Path) -> None:
    assert origin.commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    for name, text in files.items():
        (tmp_path / ".git" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert origin.commit(tmp_path) is None
