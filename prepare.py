"""Prepares data on Apache Beam: `python prepare.py --config=FILE -- [BEAM FLAGS]`."""

from sie_jax.commands import process
from sie_jax.commands.prepare import entry

if __name__ == "__main__":
    process.main(entry)
