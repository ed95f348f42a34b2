"""Networks as plain JSON, without their weights."""

from typing import Any

from .._types import Weights
from .activation import AbstractActivation, Identity, ReLU
from .base import AbstractNetwork
from .conv import Conv
from .dense import Dense
from .diagonal import Diagonal

_NETWORKS = {cls.__name__: cls for cls in (Dense, Conv, Diagonal)}
_ACTIVATIONS = {cls.__name__: cls for cls in (ReLU, Identity)}


def to_json(network: AbstractNetwork) -> dict[str, Any]:
    """The network's class and configuration."""
    config: dict[str, Any] = {
        name: _activation_to_json(value)
        if isinstance(value, AbstractActivation)
        else value
        for name, value in network.config().items()
    }
    return {"class": type(network).__name__, "config": config}


def from_json(description: dict[str, Any], weights: Weights) -> AbstractNetwork:
    """The network of that description, with these weights.

    **Raises:** `KeyError` for a class that gradflow does not have.
    """
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description["config"].items()
    }
    activation = dict(config.pop("activation"))
    config["activation"] = _ACTIVATIONS[activation.pop("class")](**activation)
    return _NETWORKS[description["class"]].from_weights(weights, **config)


def _activation_to_json(activation: AbstractActivation) -> dict[str, Any]:
    fields = {name: float(value) for name, value in vars(activation).items()}
    return {"class": type(activation).__name__, **fields}
