"""Trains a ranker: `python train.py --config=configs/quickstart.py`; --help lists the flags."""

from sie_jax.commands import process
from sie_jax.commands.train import entry

if __name__ == "__main__":
    process.main(entry)
