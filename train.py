"""Trains a ranker: `python train.py --config=configs/quickstart.py`; --help lists the flags."""

from sie_jax.commands import process, train

if __name__ == "__main__":
    process.main(train.entry)
