"""Ranks labels to check: `python -m sie_jax.audit --pairs=FILE --labels=bad,good --output=FILE`."""

from sie_jax.commands import audit, process

if __name__ == "__main__":
    process.main(audit.entry)
