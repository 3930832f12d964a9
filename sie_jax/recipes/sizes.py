"""Sizes that cannot work, told from a config alone, before anything is read or compiled."""

from jax.sharding import Mesh

from sie_jax.config import Config
from sie_jax.devices import memory
from sie_jax.devices import mesh as meshes
from sie_jax.errors import UserError
from sie_jax.tasks import listed


def check(config: Config, mesh: Mesh) -> None:
    """Raises UserError for a model or a batch that no device can hold, however short the texts are.

    And where a list could not lie on one device. The sizes of a checkpoint are not known here.
    """
    model, data, devices = config.model, config.data, mesh.local_devices
    resamples = config.evaluation.resamples
    memory.check_machine(8 * resamples, f"evaluation.resamples {resamples}", fix="lower it")
    if listed(config.train.task):
        _check_lists(config, mesh)
    if model.pretrained:
        return
    parameters = model.parameters(vocabulary_size=data.vocabulary_size, max_length=data.max_length)
    split = mesh.shape["fsdp"] * mesh.shape["tensor"]
    memory.require(
        f"a model of {parameters:,} parameters",
        16 * parameters // split,  # float32, with gradients and the two moments of AdamW
        memory.limit(devices),
        fix="lower model.hidden_size, model.intermediate_size, model.num_hidden_layers, "
        "data.vocabulary_size or data.max_length",
    )
    batches = {"train.batch_size": config.train.batch_size}
    if config.pretrain.steps:
        batches["pretrain.batch_size"] = config.pretrain.batch_size
    for field, size in batches.items():
        rows = size // meshes.shares(mesh)
        width, layers = model.hidden_size, model.num_hidden_layers
        memory.require_batch(field, rows, devices, width=width, layers=layers)


def _check_lists(config: Config, mesh: Mesh) -> None:
    """Raises UserError where a list could not lie on one device."""
    places = config.train.batch_size // meshes.shares(mesh)
    if config.train.list_size > places:
        raise UserError(
            f"train.list_size is {config.train.list_size}, but a device takes {places} pairs of a "
            f"batch, and a list has to lie on one: give at most {places}, or a larger "
            "train.batch_size"
        )
