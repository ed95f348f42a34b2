"""The weight-normalised flow."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_nonnegative, check_positive
from .._network import AbstractNetwork
from .._types import RealScalarLike, Weights
from .base import AbstractPlainFlow
from .polar_state import PolarState, free_norms
from .spheres import MatrixSpheres


class WeightNormFlow(AbstractPlainFlow[PolarState]):
    r"""Gradient flow of $L + \lambda \sum_k g_k^2$ in the coordinates of weight
    normalisation, $W_k = g_k v_k / \|v_k\|$ (T3 89-95, M112 12-13):

    $$\dot g_k = -\frac{\langle v_k, \partial L / \partial W_k \rangle}{\|v_k\|}
    - 2 \lambda g_k, \qquad
    \dot v_k = -\frac{g_k}{\|v_k\|} S_k \frac{\partial L}{\partial W_k},$$

    with $S_k = I - v_k v_k^\top / \|v_k\|^2$. The flow conserves
    $\|v_k\|$, and is brought back to it after each step. With $\|v_k\| = 1$ and
    `all_norms=False` it is the Lagrange flow.

    State: a `PolarState`, whose `rho` is $g$ and whose `directions` are the $v_k$.
    """

    weight_decay: RealScalarLike = 0.0
    all_norms: bool = eqx.field(static=True, default=True, kw_only=True)
    v_norm: RealScalarLike = eqx.field(default=1.0, kw_only=True)

    def __check_init__(self):
        check_nonnegative("weight_decay", self.weight_decay)
        check_positive("v_norm", self.v_norm)

    def init(self, network: AbstractNetwork) -> PolarState:
        norms, directions = MatrixSpheres().split(network)
        return PolarState(
            free_norms(norms, network, self.all_norms),
            self._scale(directions, self.v_norm),
        )

    def weights(self, state: PolarState) -> Weights:
        return self.project_directions(state, 1.0).weights()

    def penalty(self, state: PolarState) -> Float[Array, ""]:
        return jnp.sum(jnp.square(state.rho))

    def norms(self, state: PolarState) -> Float[Array, " K"]:
        return jnp.atleast_1d(state.rho)

    def sharp(self, state: PolarState, gradient: PolarState) -> PolarState:
        del state
        return gradient

    def tangent(self, state: PolarState, velocity: PolarState) -> PolarState:
        # Tangent by itself, since the weights do not depend on the norm of `v`.
        del state
        return velocity

    def project(self, state: PolarState) -> PolarState:
        return self.project_directions(state, self.v_norm)

    def defect(self, state: PolarState) -> Float[Array, ""]:
        v_norm = jnp.asarray(self.v_norm, state.rho.dtype)
        return MatrixSpheres().defect(self._scale(state.directions, 1 / v_norm))

    def project_directions(
        self, state: PolarState, v_norm: RealScalarLike
    ) -> PolarState:
        """The state with every `v_k` scaled to the norm `v_norm`."""
        units = MatrixSpheres().project(state.directions)
        return PolarState(state.rho, self._scale(units, v_norm))

    @staticmethod
    def _scale(directions: Weights, factor: RealScalarLike) -> Weights:
        return tuple(jnp.asarray(factor, v.dtype) * v for v in directions)


WeightNormFlow.__init__.__doc__ = r"""**Arguments:**

- `weight_decay`: $\lambda \ge 0$, which multiplies $\sum_k g_k^2$.
- `all_norms`: whether every $g_k$ evolves, or only the last, which then starts as the
    product of the norms.
- `v_norm`: the norm of the $v_k$. It sets the speed of the directions, which is
    proportional to $1/\|v\|^2$ in terms of $v/\|v\|$.
"""
