"""The families of encoders that can be read, by the `model_type` of their config.json."""

from transformers import PretrainedConfig

from sie_jax.models import bert
from sie_jax.models.architecture import Architecture

FAMILIES: tuple[Architecture, ...] = (bert.BERT,)


def of(config: PretrainedConfig) -> Architecture:
    """The family of a configuration; ValueError if there is none."""
    for family in FAMILIES:
        if isinstance(config, family.config):
            return family
    raise ValueError(f"{type(config).__name__} belongs to no family in sie_jax.models.families")
