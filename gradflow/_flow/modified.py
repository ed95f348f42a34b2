"""The flow that gradient descent of a finite step follows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_instance, check_positive
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike, State
from .base import AbstractPhysicalFlow
from .gradient import GradientFlow
from .wrapper import AbstractWrapperFlow


class ModifiedFlow(AbstractWrapperFlow):
    r"""The flow to which gradient descent of step $h$ is a method of second order, and
    not only of first: for the gradient flow, with $L$ including the weight decay,

    $$\dot W = -\nabla \tilde L, \qquad \tilde L = L + \frac{h}{4} \|\nabla L\|^2.$$

    The steps of a descent are finite, so it is drawn to where gradients are small, as
    if by a regulariser in proportion to the step. In other coordinates, with the field
    $F$ of the flow and its projection $\pi$ after each step, it is

    $$\dot s = F - \frac{h}{2} \pi'(s) \left( \partial_t F + F'(s) F \right).$$

    The reason: $\pi(s + h F) = s + h F + \frac{h^2}{2} \pi''(F, F) + O(h^3)$. Along
    the flow $\pi(s) = s$, the second derivative of which is $\pi'' (F, F) + \pi'
    \ddot s = \ddot s$, with $\ddot s = \partial_t F + F' F$. So a step falls short of
    the flow by $\frac{h^2}{2} \pi' \ddot s$. Without projection $\pi' F' F$ is
    $\frac12 \nabla \|\nabla L\|^2$ for $F = -\nabla L$.

    Valid while $h$ times the sharpness is well below 2, and for smooth networks: the
    second derivatives in it do not see kinks, and narrow ones make it stiff. So give
    the network a `ReLU` with a smoothing that is wide compared to a step. They jump at
    the ends of the smoothing, and the field with them: what a unit contributes to the
    derivative of a run on passing there, by the step or the start, is missing in
    `jax.grad`. Critical points, and `stationarity`, are those of the flow. State: that
    of the flow.

    ??? cite "Reference"

        D. Barrett, B. Dherin: Implicit gradient regularization. International
        Conference on Learning Representations, 2021.

        E. Hairer, C. Lubich, G. Wanner: Geometric Numerical Integration. Springer,
        2006, chapter IX.
    """

    step: RealScalarLike
    flow: AbstractPhysicalFlow = GradientFlow()

    def __check_init__(self):
        check_positive("step", self.step)
        check_instance("flow", self.flow, AbstractPhysicalFlow)

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        return self.flow.weight_decay_at(t)

    def vector_field(
        self, t: RealScalarLike, state: State, problem: Problem, like: AbstractNetwork
    ) -> State:
        def project(state: State) -> State:
            return self.flow.project(state)

        def field(t: Float[Array, ""], state: State) -> State:
            return self.flow.vector_field(t, project(state), problem, like)

        dtype = like.weights[0].dtype
        t = jnp.asarray(t, dtype)
        half_step = jnp.asarray(self.step, dtype) / 2
        # The derivative along the flow takes the field as its direction.
        velocity = field(t, state)
        _, acceleration = jax.jvp(field, (t, state), (jnp.ones_like(t), velocity))
        _, along = jax.jvp(project, (project(state),), (acceleration,))
        return jax.tree.map(lambda f, a: f - half_step * a, velocity, along)


ModifiedFlow.__init__.__doc__ = r"""**Arguments:**

- `step`: the step $h > 0$ of the descent, its learning rate.
- `flow`: any flow without a clock: what `gradflow.descend` is given as `flow`.

**Raises:** `ValueError` for a `flow` with a clock, and a `step` that is not positive.
"""
