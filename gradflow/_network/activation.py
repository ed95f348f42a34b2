"""Activations that are positively homogeneous of degree one."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_nonnegative


class AbstractActivation(eqx.Module):
    """A positively homogeneous activation: `σ(αz; αs) = α σ(z; s)` for `α ≥ 0`."""

    gain: ClassVar[float]
    """Ratio of the variance of the pre-activation to the second moment of the
    activation, for a centred Gaussian pre-activation: what He initialisation uses."""

    @abc.abstractmethod
    def __call__(
        self, pre_activation: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Applies the activation.

        **Arguments:**

        - `pre_activation`: `z`, of any shape.
        - `scale`: of the same shape; the norm of the unit's weights times the norm of
            its input, an upper bound of `|z|`.

        **Returns:**

        The activations, of the same shape.
        """


class ReLU(AbstractActivation):
    r"""The rectifier, exact or smoothed without loss of homogeneity.

    With $s = \epsilon \|w\| \|h\|$, where $w$ are the unit's weights and $h$ its input,

    $$\sigma_\epsilon(z; s) = \begin{cases} 0 & z \le -s \\
    (z + s)^2 / 4s & |z| < s \\ z & z \ge s. \end{cases}$$

    Since the width $s$ scales with the unit, $\sigma_\epsilon$ is positively
    homogeneous of degree one in the weights and in the input, as the rectifier itself
    is. So $g = \rho f$, the structural lemma, the conserved differences of layer norms
    and $\rho_{eq}$ hold exactly for the smoothed network too.
    """

    smoothing: float = eqx.field(static=True, converter=float, default=0.0)
    gain = 2.0

    def __check_init__(self):
        check_nonnegative("smoothing", self.smoothing)

    def __repr__(self) -> str:
        return f"ReLU(smoothing={self.smoothing:g})" if self.smoothing else "ReLU()"

    def __call__(
        self, pre_activation: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        if self.smoothing == 0:
            return jax.nn.relu(pre_activation)
        return _smoothed_relu(pre_activation, self.smoothing * scale)


ReLU.__init__.__doc__ = """**Arguments:**

- `smoothing`: the relative width `ε ≥ 0` of the smoothed kink; 0 is the exact
    rectifier, with derivative 0 at 0.
"""


class AdjustableReLU(AbstractActivation):
    """A smoothed `ReLU` whose width can change without a new compilation."""

    smoothing: Float[Array, ""]
    gain = 2.0

    def __call__(
        self, pre_activation: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        return _smoothed_relu(pre_activation, self.smoothing * scale)


class Identity(AbstractActivation):
    """No activation: a `Dense` network becomes a deep linear network."""

    gain = 1.0

    def __call__(
        self, pre_activation: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        del scale
        return pre_activation


@jax.custom_jvp
def _smoothed_relu(
    z: Float[Array, "..."], width: Float[Array, "..."]
) -> Float[Array, "..."]:
    inside, u = _position(z, width)
    return jnp.where(inside, width * jnp.square(1 + u) / 4, jax.nn.relu(z))


@_smoothed_relu.defjvp
def _smoothed_relu_jvp(primals, tangents):
    # Left to itself, the derivative of the parabola by its width squares the width,
    # which underflows to NaN for units that have decayed: weight decay takes the rows
    # of units without use to 1e-150 and below.
    z, width = primals
    by_z = jnp.where(z > 0, 1.0, 0.0).astype(z.dtype)
    inside, u = _position(z, width)
    by_z = jnp.where(inside, (1 + u) / 2, by_z)
    by_width = jnp.where(inside, (1 - jnp.square(u)) / 4, 0)
    return _smoothed_relu(z, width), by_z * tangents[0] + by_width * tangents[1]


def _position(z: Float[Array, "..."], width: Float[Array, "..."]):
    """Whether `z` lies within the width, and where: `z / width`."""
    inside = jnp.abs(z) < width
    # The replacement keeps NaN out of the branch not taken, and out of its derivative.
    return inside, jnp.where(inside, z, 0) / jnp.where(inside, width, 1)
