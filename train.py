"""Trains a ranker: `python train.py --config=configs/quickstart.py`; --help lists the flags."""

from sie_jax.commands import process


def entry(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    from sie_jax.commands import train  # takes seconds, in which signals are heard already

    return train.entry(argv)


if __name__ == "__main__":
    process.main(entry)
