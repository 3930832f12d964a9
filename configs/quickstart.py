"""python train.py --config=configs/quickstart.py"""

from sie_jax.config import Config


def get_config() -> Config:
    return Config(name="quickstart")
