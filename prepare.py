"""Prepares data on Apache Beam: `python prepare.py --config=FILE -- [BEAM FLAGS]`."""

from sie_jax.commands import process


def entry(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    from sie_jax.commands import prepare  # takes seconds, in which signals are heard already

    return prepare.entry(argv)


if __name__ == "__main__":
    process.main(entry)
