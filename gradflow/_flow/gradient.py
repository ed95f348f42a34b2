"""The gradient flow, in the weights and in polar coordinates."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_nonnegative
from .._network import AbstractNetwork, Polar
from .._tree import scaled_norm, tree_inner
from .._types import RealScalarLike, Weights
from .base import AbstractPlainFlow
from .polar_state import PolarState
from .spheres import MatrixSpheres


class GradientFlow(AbstractPlainFlow[Weights]):
    r"""The gradient flow of $L + \lambda \sum_k \|W_k\|^2$ in the weights,

    $$\dot W_k = -\sum_n d_n \frac{\partial g_n}{\partial W_k} - 2 \lambda W_k,$$

    with the slopes $d_n = \partial L / \partial g_n$. Without weight decay
    $\|W_k\|^2 - \|W_j\|^2$ is conserved (T3 18, M112 Lemma 3); with it, the difference
    decays as $e^{-4\lambda t}$. State: the tuple of weights.
    """

    weight_decay: RealScalarLike = 0.0

    def __check_init__(self):
        check_nonnegative("weight_decay", self.weight_decay)

    def init(self, network: AbstractNetwork) -> Weights:
        return network.weights

    def weights(self, state: Weights) -> Weights:
        return state

    def penalty(self, state: Weights) -> Float[Array, ""]:
        return tree_inner(state, state)

    def norms(self, state: Weights) -> Float[Array, " layers"]:
        return jnp.stack([scaled_norm(w) for w in state])

    def sharp(self, state: Weights, gradient: Weights) -> Weights:
        del state
        return gradient

    def tangent(self, state: Weights, velocity: Weights) -> Weights:
        del state
        return velocity

    def project(self, state: Weights) -> Weights:
        return state

    def defect(self, state: Weights) -> Float[Array, ""]:
        return jnp.zeros((), jax.tree.leaves(state)[0].dtype)


class PolarGradientFlow(AbstractPlainFlow[PolarState]):
    r"""The same flow as `GradientFlow`, with norms and directions as its state:

    $$\dot\rho_k = -\frac{\rho}{\rho_k} \sum_n d_n f_n - 2 \lambda \rho_k, \qquad
    \dot V_k = -\frac{\rho}{\rho_k^2} S_k \sum_n d_n \frac{\partial f_n}{\partial
    V_k},$$

    $S_k = I - V_k V_k^\top$ (T3 54; M112 44, corrected): the metric is
    $d\rho_k^2 + \rho_k^2 \|dV_k\|^2$. The coordinates are singular where a norm
    vanishes. State: a `PolarState` with all norms.
    """

    weight_decay: RealScalarLike = 0.0

    def __check_init__(self):
        check_nonnegative("weight_decay", self.weight_decay)

    def init(self, network: AbstractNetwork) -> PolarState:
        polar = Polar.from_network(network)
        return PolarState(polar.rho, polar.directions.weights)

    def weights(self, state: PolarState) -> Weights:
        return state.weights()

    def penalty(self, state: PolarState) -> Float[Array, ""]:
        return jnp.sum(jnp.square(state.rho))

    def norms(self, state: PolarState) -> Float[Array, " layers"]:
        return state.rho

    def sharp(self, state: PolarState, gradient: PolarState) -> PolarState:
        return PolarState(
            gradient.rho,
            tuple(
                c / jnp.square(r)
                for c, r in zip(gradient.directions, state.rho, strict=True)
            ),
        )

    def tangent(self, state: PolarState, velocity: PolarState) -> PolarState:
        return PolarState(
            velocity.rho,
            MatrixSpheres().tangent(state.directions, velocity.directions),
        )

    def project(self, state: PolarState) -> PolarState:
        return PolarState(state.rho, MatrixSpheres().project(state.directions))

    def defect(self, state: PolarState) -> Float[Array, ""]:
        return MatrixSpheres().defect(state.directions)


for _flow in (GradientFlow, PolarGradientFlow):
    _flow.__init__.__doc__ = r"""**Arguments:**

- `weight_decay`: $\lambda \ge 0$, which multiplies $\sum_k \|W_k\|^2$.
"""
