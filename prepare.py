"""Prepares data on Apache Beam: `python prepare.py --config=FILE -- [BEAM FLAGS]`."""

from sie_jax.commands import prepare, process

if __name__ == "__main__":
    process.main(prepare.entry)
