"""Ranks labels to check: `python -m sie_jax.audit --pairs=FILE --labels=bad,good --output=FILE`."""

from sie_jax.commands import process


def entry(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    from sie_jax.commands import audit  # takes seconds, in which signals are heard already

    return audit.entry(argv)


if __name__ == "__main__":
    process.main(entry)
