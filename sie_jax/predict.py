"""Scores pairs: `python -m sie_jax.predict --model=W/model --input=FILE --output=FILE`."""

from sie_jax.commands import process


def entry(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    from sie_jax.commands import predict  # takes seconds, in which signals are heard already

    return predict.entry(argv)


if __name__ == "__main__":
    process.main(entry)
