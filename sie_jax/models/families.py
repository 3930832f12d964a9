"""The families of encoders that can be read, by the `model_type` of their config.json."""

from transformers import PretrainedConfig

from sie_jax.models import bert
from sie_jax.models.architecture import Architecture

# A further family is a file of its own and an entry here.
FAMILIES: tuple[Architecture, ...] = (bert.BERT,)


def of(config: PretrainedConfig) -> Architecture:
    """The family of a configuration; ValueError if there is none."""
    for family in FAMILIES:
        if family.model_type == config.model_type:
            return family
    raise ValueError(f"{config.model_type!r} is not the model_type of a family in FAMILIES")
