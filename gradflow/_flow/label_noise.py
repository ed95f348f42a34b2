"""The flow of gradient descent with noisy labels."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._check import check_instance, check_nonnegative, check_positive
from .._network import AbstractNetwork
from .._noisy_labels import check_noisy_labels
from .._problem import Problem
from .._tree import tree_inner
from .._types import RealScalarLike, State
from .base import AbstractPhysicalFlow
from .gradient import GradientFlow
from .stochastic import AbstractStochasticFlow


class LabelNoiseFlow(AbstractStochasticFlow):
    r"""What gradient descent of a small step $h$ follows whose labels are $y_n \pm
    \delta$, with signs drawn anew in each step (M112 App. E.1), under the square loss:
    in the sense of Itô, and in the weights,

    $$dW = -\nabla J\,dt + 2 \delta \sqrt{h} \sum_n \nabla g_n\,d\beta_n.$$

    In that of Stratonovich, in which it is integrated, the noise is the same and the
    drift is down

    $$J + h \delta^2 \sum_n \|\nabla g_n\|^2.$$

    So at rest, where the network interpolates and the noise has no part along the
    interpolating networks, label noise is a regulariser: where all residuals vanish
    $\sum_n \|\nabla g_n\|^2$ is half the trace of the Hessian, and what decays is the
    sharpness (Blanc et al., 2020; Damian et al., 2021). For a loss that is a mean, $h$
    is divided by $N^2$. In other coordinates gradients and norms are those of the
    flow's metric on its constraint set.

    The mean over the noise is that of [`gradflow.descend`][] with
    [`gradflow.LabelNoise`][] to first order in $h$. For smooth networks: the
    second derivatives in it do not see kinks. State: that of the flow.

    ??? cite "Reference"

        G. Blanc, N. Gupta, G. Valiant, P. Valiant: Implicit regularization for deep
        neural networks driven by an Ornstein-Uhlenbeck like process. Conference on
        Learning Theory, 2020.

        A. Damian, T. Ma, J. D. Lee: Label noise SGD provably prefers flat global
        minimizers. Advances in Neural Information Processing Systems 34, 2021.
    """

    delta: RealScalarLike
    step: RealScalarLike
    flow: AbstractPhysicalFlow = GradientFlow()
    key: PRNGKeyArray = eqx.field(kw_only=True)

    def __check_init__(self):
        check_nonnegative("delta", self.delta)
        check_positive("step", self.step)
        check_instance("flow", self.flow, AbstractPhysicalFlow)

    def vector_field(
        self, t: RealScalarLike, state: State, problem: Problem, like: AbstractNetwork
    ) -> State:
        check_noisy_labels(problem)

        def sensitivity(state: State) -> Float[Array, ""]:
            return self._sensitivity(self.flow.project(state), problem, like)

        size = jnp.square(self._size(problem)) / 4
        gradient = jax.tree.map(
            lambda loss, penalty: loss + size * penalty,
            self.flow.gradient(problem, state, like),
            jax.grad(sensitivity)(state),
        )
        return self.flow.velocity(t, state, gradient)

    def noise_like(
        self, state: State, problem: Problem, like: AbstractNetwork
    ) -> State:
        return problem.outputs(self.flow.to_network(state, like))

    def diffuse(
        self, state: State, problem: Problem, like: AbstractNetwork, increment: State
    ) -> State:
        size = self._size(problem)
        gradient = self.flow.gradient(problem, state, like, size * increment)
        return self._along(state, gradient)

    def _along(self, state: State, gradient: State) -> State:
        return self.onto_tangents(state, self.flow.sharp(state, gradient))

    def _size(self, problem: Problem) -> Float[Array, ""]:
        r"""Of the noise in a slope, $2 \delta \sqrt h$ for a sum over the samples."""
        weight = problem.sample_weight
        delta, step = (jnp.asarray(x, weight.dtype) for x in (self.delta, self.step))
        return 2 * weight * delta * jnp.sqrt(step)

    def _sensitivity(
        self, state: State, problem: Problem, like: AbstractNetwork
    ) -> Float[Array, ""]:
        r"""$\sum_n \|\nabla g_n\|^2$."""

        def squared_norm(slopes: Float[Array, "N C"]) -> Float[Array, ""]:
            gradient = self.flow.gradient(problem, state, like, slopes)
            return tree_inner(gradient, self._along(state, gradient))

        count = problem.dataset.num_samples
        samples = jnp.eye(count, dtype=problem.dataset.inputs.dtype)[..., None]
        return jnp.sum(jax.vmap(squared_norm)(samples))


LabelNoiseFlow.__init__.__doc__ = r"""**Arguments:**

- `delta`: $\delta \ge 0$.
- `step`: the step $h > 0$ of the descent, its learning rate.
- `flow`: any flow without a clock.
- `key`: the random key. Runs from the same start with the same saved times have the
    same noise, whatever their tolerance.

**Raises:** `ValueError` for a `flow` that does not fit, and for other losses and labels
than `LabelNoise` takes.
"""
