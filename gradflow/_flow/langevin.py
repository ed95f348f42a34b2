"""The Langevin equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from .._check import check_instance, check_nonnegative
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike, State
from .base import AbstractPhysicalFlow
from .gradient import GradientFlow
from .metric import check_euclidean
from .stochastic import AbstractStochasticFlow


class LangevinFlow(AbstractStochasticFlow):
    r"""Another flow at a temperature $T$, in the weights

    $$dW = -\nabla J\,dt + \sqrt{2 T}\,d\beta, \qquad J = L + \lambda P,$$

    whose stationary density is Boltzmann's, proportional to $e^{-J / T}$ (T3 7). It
    prefers minima that are wide: what counts is the volume around them, too.

    On unit spheres the noise is along the tangents, $ds = \dots + \sqrt{2T}\, \pi'(s)
    \circ d\beta$, and the density the same with respect to the area of the spheres, and
    to the length $d\rho$. A norm $\rho$ may pass through zero; $(-\rho, V)$ is the
    layer $-\rho V$.

    For flows with the Euclidean metric. Euler's method for it is
    [`gradflow.rules.langevin`][]. State: that of the flow.
    """

    temperature: RealScalarLike
    flow: AbstractPhysicalFlow = GradientFlow()
    key: PRNGKeyArray = eqx.field(kw_only=True)

    def __check_init__(self):
        check_nonnegative("temperature", self.temperature)
        check_instance("flow", self.flow, AbstractPhysicalFlow)

    def vector_field(
        self, t: RealScalarLike, state: State, problem: Problem, like: AbstractNetwork
    ) -> State:
        check_euclidean("Boltzmann's density", self.flow, state)
        return self.flow.vector_field(t, state, problem, like)

    def noise_like(
        self, state: State, problem: Problem, like: AbstractNetwork
    ) -> State:
        return state

    def diffuse(
        self, state: State, problem: Problem, like: AbstractNetwork, increment: State
    ) -> State:
        along = self.onto_tangents(state, increment)
        return jax.tree.map(
            lambda x: jnp.sqrt(2 * jnp.asarray(self.temperature, x.dtype)) * x, along
        )


LangevinFlow.__init__.__doc__ = r"""**Arguments:**

- `temperature`: $T \ge 0$.
- `flow`: any flow without a clock, in coordinates with the Euclidean metric.
- `key`: the random key. Runs from the same start with the same saved times have the
    same noise, whatever their tolerance.

**Raises:** `ValueError` for a negative `temperature` and a `flow` that does not fit.
"""
