"""Batch normalisation."""

import itertools
from collections.abc import Callable
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from .._check import check_positive_integer
from .._tree import safe_norm
from .._types import Weights
from .absorbed import Absorbed, absorb, of_units
from .base import AbstractNetwork, HandOn
from .batch import Moments, moments, moments_over, over_batch, standardised, unit_of
from .diagonal import Diagonal
from .residual import Residual


class BatchNorm(AbstractNetwork):
    r"""A network with batch normalisation of its hidden layers,

    $$\hat z = \frac{z - \operatorname{mean} z}{\sqrt{\operatorname{var} z}},$$

    with the mean and the variance of each unit over all samples, and over all positions
    of a convolution (M112 App. A.2). Of all samples that go through the network
    together: in `Problem.outputs`, and in all that is made of it, those of the problem,
    and in a minibatch those of the minibatch.

    Rescaling the weights of a normalised unit changes nothing. So the gradient by each
    row of these layers is orthogonal to it, the row norms are conserved by the gradient
    flow without weight decay, and the layers' `degrees` are 0. There is no $\epsilon$
    in the denominator, with which that would hold approximately only; a unit that gives
    the same for all samples, which has no variance, is normalised to 0.

    With `affine`, $\gamma_i \hat z_i + \beta_i$ is handed on. These are layers among
    the others, each with a matrix of the rows $(\gamma_i, \beta_i)$: `weights` are
    $W_1, A_1, W_2, A_2, \dots, W_L$. The scale of all but the last of them does not
    matter either.

    The width of a smoothed ReLU goes by the standard deviation 1 of its input; behind
    an affine layer by the norms of $(\gamma_i, \beta_i)$ and $(\hat z_i, 1)$.
    """

    network: AbstractNetwork
    affine: tuple[Float[Array, "..."], ...] | None
    after_activation: bool = eqx.field(static=True)
    statistics: tuple[Float[Array, "_ 2"], ...]

    def __init__(
        self,
        network: AbstractNetwork,
        *,
        affine: bool = False,
        after_activation: bool = False,
    ):
        """**Arguments:**

        - `network`: whose hidden layers are to be normalised.
        - `affine`: whether a scale and a shift of each unit are learnt, which start as
            1 and 0.
        - `after_activation`: whether what is normalised is what the activation hands
            on, instead of what it is given.

        **Raises:** `ValueError` for a network without hidden layers, with batch
        normalisation already, or with a single weight for each unit, whose scale is all
        that there is; for a residual network with `affine` or `after_activation`, since
        the layers would share a scale then.
        """
        if len(network.weights) < 2 or isinstance(network, (BatchNorm, Diagonal)):
            raise ValueError(
                "`network` must have hidden layers that are not normalised yet and not "
                f"diagonal, got {network}."
            )
        if isinstance(network, Residual) and (affine or after_activation):
            raise ValueError(
                "`affine` and `after_activation` are not for residual networks: what "
                "their blocks add up would have a scale that no single layer carries."
            )
        self.network = network
        self.after_activation = after_activation
        self.statistics = ()
        units = [w.shape[0] for w in network.weights[:-1]]
        start = jnp.array([1.0, 0.0], network.weights[0].dtype)
        self.affine = tuple(jnp.tile(start, (n, 1)) for n in units) if affine else None

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        network: AbstractNetwork,
        *,
        affine: bool = False,
        after_activation: bool = False,
    ) -> "BatchNorm":
        """`BatchNorm(…)` of a network like `network`, with these weights.

        **Raises:** `ValueError` where their number or a shape does not fit.
        """
        skeleton = cls(network, affine=affine, after_activation=after_activation)
        shapes = [w.shape for w in skeleton.weights]
        if [w.shape for w in weights] != shapes:
            raise ValueError(
                f"`weights` must be of the shapes {shapes}, got "
                f"{[w.shape for w in weights]}."
            )
        return skeleton.with_weights(weights)

    # What `equinox.tree_at` finds in these two properties is marks of its own.
    @property
    def weights(self) -> tuple[Any, ...]:  # pyright: ignore
        return self._interleaved(self.network.weights, self.affine)

    @property
    def activation(self) -> Any:  # pyright: ignore
        return self.network.activation

    def forward(
        self, x: Float[Array, "..."], hand_on: HandOn
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, " outputs"]]:
        return self._forward(x, hand_on, self._moments_of)

    def with_statistics(
        self,
        inputs: Float[Array, "N ..."],
        batch_size: int | None = None,
        sharding: NamedSharding | None = None,
    ) -> "BatchNorm":
        """The same network with the statistics of these inputs, whatever goes through
        it: a function of one example.

        **Arguments:**

        - `inputs`: all that there are.
        - `batch_size`, `sharding`: of how many inputs what the layers hand on is in
            memory at a time, and how devices share them; see [`gradflow.Problem`][].
            One layer's statistics are known before those of the next are taken, so the
            inputs go through the network once for each layer.

        **Raises:** `ValueError` for a `batch_size` that is not a positive integer.
        """
        if batch_size is not None:
            check_positive_integer("batch_size", batch_size)
        if sharding is None and (batch_size or len(inputs)) >= len(inputs):

            def all_layers(x):
                seen = []

                def moments_of(layer, z):
                    seen.append(self._moments_of(layer, z))
                    return seen[-1]

                self._forward(x, self.hand_on, moments_of)
                return [_fix(of) for of in seen]

            # The same for each example.
            of_all = jax.tree.map(lambda s: s[0], over_batch(all_layers)(inputs))
            return self._with(tuple(of_all))
        network = self._with(())
        for _ in range(self._num_normalised):
            of = moments_over(
                BatchNorm._next_received, network, inputs, batch_size, sharding
            )
            network = network._with((*network.statistics, _fix(of)))
        return network

    def absorbed(self) -> Absorbed:
        r"""The same function without normalisation: fixed statistics and affine layers
        become part of the weights, and shifts.

        Before the activation, $\hat W = \operatorname{diag}(\gamma / s) W$ and
        $b = \beta - \gamma m / s$ for means $m$ and standard deviations $s$. After it,
        negative $\gamma$ change the signs of what the next layer receives instead. The
        last layer stays as it is but for these signs. The norms of $\hat W$ do not
        depend on those of $W$: they say what the network does with these inputs, which
        the norms of normalised layers do not.

        Exact for exact ReLUs. The width of a smoothed one before which there are shifts
        goes by the norms of $(w, b)$ and $(h, 1)$, which are not those before.

        **Raises:** `ValueError` for a network without fixed statistics.
        """
        if needs_batch(self):
            raise ValueError(
                "`network` normalises by whatever batch goes through it. Fix the "
                "statistics first: `problem.with_statistics(network).absorbed()`."
            )
        factors, shifts = [], []
        for k, (mean, deviation) in enumerate(s.T for s in self.statistics):
            gamma, beta = (
                (jnp.ones_like(mean), jnp.zeros_like(mean))
                if self.affine is None
                else self.affine[k].T
            )
            varies = deviation > 0
            factor = jnp.where(varies, gamma / jnp.where(varies, deviation, 1), 0)
            factors.append(factor)
            shifts.append(beta - factor * mean)
        return absorb(
            self.network, tuple(factors), tuple(shifts), self.after_activation
        )

    def _next_received(self, x: Float[Array, "..."]) -> Float[Array, "units ..."]:
        """What is normalised by the first layer without fixed statistics."""
        next_layer, seen = len(self.statistics), []

        def moments_of(layer, z):
            if layer < next_layer:
                return self._moments_of(layer, z)
            seen.append(z)
            # What comes of it is not looked at.
            return _fixed(jnp.tile(jnp.array([0, 1], z.dtype), (len(z), 1)), z)

        self._forward(x, self.hand_on, moments_of)
        return seen[0]

    def _moments_of(self, layer: int, z: Float[Array, "units ..."]) -> Moments:
        if layer < len(self.statistics):
            return _fixed(self.statistics[layer], z)
        return moments(z)

    def _forward(
        self,
        x: Float[Array, "..."],
        hand_on: HandOn,
        moments_of: Callable[[int, Float[Array, "units ..."]], Moments],
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, " outputs"]]:
        layers = itertools.count()

        def normalise(z):
            layer = next(layers)
            of = moments_of(layer, z)
            z, scale = standardised(z, of), jnp.ones_like(z)
            if self.affine is None:
                return z, scale
            gamma, beta = (of_units(a, z) for a in self.affine[layer].T)
            row = of_units(safe_norm(self.affine[layer], axis=1), z)
            return gamma * z + beta, row * jnp.sqrt(jnp.square(z) + 1)

        def hand_on_normalised(z, scale, skip=None):
            if self.after_activation:
                return normalise(hand_on(z, scale, skip))[0]
            return hand_on(*normalise(z), skip)

        return self.network.forward(x, hand_on_normalised)

    @property
    def _num_normalised(self) -> int:
        return len(self.network.weights) - 1

    def _with(self, statistics: tuple[Float[Array, "_ 2"], ...]) -> "BatchNorm":
        return eqx.tree_at(
            lambda n: n.statistics,
            self,
            statistics,
            is_leaf=lambda node: node is self.statistics,
        )

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.network.in_shape

    @property
    def out_size(self) -> int:
        return self.network.out_size

    @property
    def weight_ndims(self) -> tuple[int, ...]:
        return self._interleaved(self.network.weight_ndims, [2] * self._num_normalised)

    @property
    def degrees(self) -> tuple[int, ...]:
        """0 for what is normalised, before another normalisation or by its own."""
        normalised = [0] * self._num_normalised
        return self._interleaved([*normalised, 1], [*normalised[1:], 1])

    @property
    def matrices(self) -> tuple[Float[Array, "out in"], ...]:
        r"""The network's, and the rows $(\gamma_i, \beta_i)$ of the affine layers."""
        return self._interleaved(self.network.matrices, self.affine)

    def scale_fan_in(
        self, layer: int, weight: Float[Array, "..."], factors: Float[Array, " units"]
    ) -> Float[Array, "..."]:
        if self.affine is not None and layer % 2 == 0:
            return self.network.scale_fan_in(layer // 2, weight, factors)
        return weight

    def config(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "affine": self.affine is not None,
            "after_activation": self.after_activation,
        }

    def _interleaved(self, layers: Any, affine: Any) -> tuple[Any, ...]:
        if self.affine is None:
            return tuple(layers)
        *hidden, last = layers
        return (*itertools.chain(*zip(hidden, affine, strict=True)), last)

    def __repr__(self) -> str:
        words = ["affine"] * (self.affine is not None)
        words += ["after the activation"] * self.after_activation
        words += ["fixed statistics"] * (not needs_batch(self))
        return f"BatchNorm({', '.join([str(self.network), *words])})"


def _fix(of: Moments) -> Float[Array, "units 2"]:
    pair = of.unit * of.mean, of.unit * of.deviation
    return jnp.stack([jnp.ravel(x) for x in pair], axis=1)


def _fixed(pair: Float[Array, "units 2"], z: Float[Array, "units ..."]) -> Moments:
    mean, deviation = (of_units(x, z) for x in pair.T)
    unit = unit_of(jnp.maximum(jnp.abs(mean), deviation))
    return Moments(unit, mean / unit, deviation / unit)


def refuse_other_degrees(what: str, network: AbstractNetwork) -> None:
    """Raises a `ValueError` for networks that are not homogeneous of degree 1 in each
    of their layers."""
    if isinstance(network, Residual):
        raise ValueError(
            f"`network`: {what} is not defined for residual networks, whose blocks add "
            "up what depends on their weights and what does not."
        )
    if isinstance(network, BatchNorm):
        raise ValueError(
            f"`network`: {what} is not defined for layers that are normalised over a "
            "batch, whose scale does not matter."
        )


def refuse_fixed_statistics(what: str, network: AbstractNetwork) -> None:
    """Raises a `ValueError` for networks that are for evaluation only."""
    if isinstance(network, BatchNorm) and network.statistics:
        raise ValueError(
            "`network` has fixed statistics, which are not those of other weights: "
            f"{what} is that of the network that they were fixed for."
        )


def needs_batch(network: AbstractNetwork) -> TypeGuard[BatchNorm]:
    """Whether the outputs for one example depend on the others of a batch."""
    return (
        isinstance(network, BatchNorm)
        and len(network.statistics) < network._num_normalised
    )
