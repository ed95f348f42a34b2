"""Networks as plain JSON, without their weights."""

from typing import Any

from .._types import Weights
from .activation import AbstractActivation, Identity, ReLU
from .base import AbstractNetwork
from .batch_norm import BatchNorm
from .conv import Conv
from .dense import Dense
from .diagonal import Diagonal
from .residual import Residual

_NETWORKS = {cls.__name__: cls for cls in (Dense, Conv, Diagonal, Residual, BatchNorm)}
_ACTIVATIONS = {cls.__name__: cls for cls in (ReLU, Identity)}


def to_json(network: AbstractNetwork) -> dict[str, Any]:
    """The network's class and configuration."""
    config = {name: _to_json(value) for name, value in network.config().items()}
    return {"class": type(network).__name__, "config": config}


def from_json(description: dict[str, Any], weights: Weights) -> AbstractNetwork:
    """The network of that description, with these weights.

    **Raises:** `KeyError` for a class that gradflow does not have.
    """
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description["config"].items()
    }
    if "activation" in config:
        activation = dict(config["activation"])
        config["activation"] = _ACTIVATIONS[activation.pop("class")](**activation)
    if "network" in config:
        layers = weights[:: 2 if config["affine"] else 1]
        config["network"] = from_json(config["network"], layers)
    return _NETWORKS[description["class"]].from_weights(weights, **config)


def _to_json(value: Any) -> Any:
    if isinstance(value, AbstractNetwork):
        return to_json(value)
    if isinstance(value, AbstractActivation):
        fields = {name: float(field) for name, field in vars(value).items()}
        return {"class": type(value).__name__, **fields}
    return value
