"""The normalised flow with Lagrange multipliers."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_nonnegative
from .._network import AbstractNetwork
from .._types import RealScalarLike, Weights
from .base import AbstractPlainFlow
from .polar_state import PolarState, free_norms
from .spheres import AbstractSpheres, MatrixSpheres


class LagrangeFlow(AbstractPlainFlow[PolarState]):
    r"""Gradient flow of $L + \lambda \rho^2$ with the directions kept on unit spheres:

    $$\dot\rho = -\sum_n d_n f_n - 2 \lambda \rho, \qquad
    \dot V_k = -\rho S_k \sum_n d_n \frac{\partial f_n}{\partial V_k}$$

    (SQ 3-4, M112 5-6, with 32 corrected), where $\rho$ is the norm of the last layer,
    the others' are 1, and $S_k$ projects on the tangent space of the sphere. Starting
    from any network, $\rho$ is the product of its norms: the function is unchanged.

    With `all_norms=True` every layer keeps a norm (T3 12-14):
    $\dot\rho_k = -(\rho / \rho_k) \sum_n d_n f_n - 2 \lambda \rho_k$.

    `raw=True` is the form that the papers print, with the multiplier
    $2\nu = -\rho \sum_n d_n f_n$ in $\dot V_k = -\rho \sum_n d_n \partial f_n /
    \partial V_k - 2 \nu V_k$, and no projection. On the spheres the two are equal. Off
    them the raw form obeys $d\|V_k\|^2/dt = 2 \rho (\sum_n d_n f_n)(\|V_k\|^2 - 1)$:
    for $\rho$ above its equilibrium it leaves the spheres on rounding errors alone. It
    is here to be studied; integrate the default.

    State: a `PolarState`.
    """

    weight_decay: RealScalarLike = 0.0
    all_norms: bool = eqx.field(static=True, default=False, kw_only=True)
    spheres: AbstractSpheres = eqx.field(default=MatrixSpheres(), kw_only=True)
    raw: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self):
        check_nonnegative("weight_decay", self.weight_decay)

    def init(self, network: AbstractNetwork) -> PolarState:
        norms, directions = self.spheres.split(network)
        return PolarState(free_norms(norms, network, self.all_norms), directions)

    def weights(self, state: PolarState) -> Weights:
        return state.weights()

    def penalty(self, state: PolarState) -> Float[Array, ""]:
        return jnp.sum(jnp.square(state.rho))

    def norms(self, state: PolarState) -> Float[Array, " K"]:
        return jnp.atleast_1d(state.rho)

    def sharp(self, state: PolarState, gradient: PolarState) -> PolarState:
        del state
        return gradient

    def tangent(self, state: PolarState, velocity: PolarState) -> PolarState:
        restrict = self.spheres.with_multiplier if self.raw else self.spheres.tangent
        return PolarState(velocity.rho, restrict(state.directions, velocity.directions))

    def project(self, state: PolarState) -> PolarState:
        if self.raw:
            return state
        return PolarState(state.rho, self.spheres.project(state.directions))

    def defect(self, state: PolarState) -> Float[Array, ""]:
        return self.spheres.defect(state.directions)


LagrangeFlow.__init__.__doc__ = r"""**Arguments:**

- `weight_decay`: $\lambda \ge 0$, which multiplies $\rho^2$ ($\sum_k \rho_k^2$ with
    `all_norms`).
- `all_norms`: whether every layer has a norm of its own, or only the last.
- `spheres`: `MatrixSpheres()`, one for each layer, or `RowSpheres()`, one for each
    hidden unit.
- `raw`: the papers' form, which keeps the norms only up to the growth of rounding and
    integration errors.
"""
