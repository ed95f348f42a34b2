"""The flow of a network that is linearised at its start."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._check import check_nonnegative
from .._loss import SquareLoss
from .._network import AbstractNetwork, refuse_fixed_statistics
from .._problem import Problem
from .._types import RealScalarLike
from ._tangent_kernel import tangent_kernel


def linearised_outputs(
    problem: Problem,
    network: AbstractNetwork,
    ts: Float[ArrayLike, " T"],
    *,
    weight_decay: RealScalarLike = 0.0,
    inputs: Float[ArrayLike, "M ..."] | None = None,
) -> Float[Array, "T M outputs"]:
    r"""The outputs of the linearised twin of a network along its gradient flow: what
    the network itself would do if its tangent kernel stood still (lazy training).

    With $\bar g(w) = g(w_0) + J (w - w_0)$ for $g$, the flow of the square loss and
    $\lambda \|w\|^2$ closes in the outputs. By homogeneity $J w_0 = L g_0$ for $L$
    layers, so that

    $$\dot{\bar g} = -2 K (\bar g - y) - 2 \lambda (\bar g - (1 - L) g_0),$$

    with the tangent kernel $K = J J^\top$. It is solved exactly, by eigenvalues.

    **Arguments:**

    - `problem`: with the square loss; $N$ samples with $C$ outputs take an
        eigendecomposition of an $NC \times NC$ matrix.
    - `network`: the start of the flow.
    - `ts`: the times since then.
    - `weight_decay`: $\lambda$ of `GradientFlow`.
    - `inputs`: where the outputs are wanted; at the samples if not given.

    **Raises:** `ValueError` for other losses, a negative `weight_decay`, and batch
    normalisation with fixed statistics.

    ??? cite "Reference"

        J. Lee et al.: Wide neural networks of any depth evolve as linear models under
        gradient descent. NeurIPS, 2019.
    """
    if not isinstance(problem.loss, SquareLoss):
        raise ValueError(
            "`problem`: the linearised flow is solved in closed form for the square "
            f"loss only, got {problem.loss}."
        )
    check_nonnegative("weight_decay", weight_decay)
    refuse_fixed_statistics("the gradient flow", network)
    g = problem.outputs(network)
    ts, decay = jnp.asarray(ts, g.dtype), 2 * jnp.asarray(weight_decay, g.dtype)
    kernel = tangent_kernel(problem, network).reshape(g.size, g.size)
    eigenvalues, vectors = jnp.linalg.eigh(kernel)
    if inputs is None:
        g_there, across = g, kernel
    else:
        inputs = jnp.asarray(inputs, g.dtype)
        across = tangent_kernel(problem, network, inputs=inputs)
        g_there, across = jax.vmap(network)(inputs), across.reshape(-1, g.size)
    # The slopes of the square loss are 2 (g - y), weighted.
    slope_at_zero = problem.slopes(jnp.zeros_like(g))
    two = (problem.slopes(jnp.ones_like(g)) - slope_at_zero).ravel()[0]
    targets = -slope_at_zero / two
    depth = sum(network.degrees)

    def in_basis(values: Float[Array, "N outputs"]) -> Float[Array, " NC"]:
        return vectors.T @ values.ravel()

    # The misfit e = g - y obeys e' = -rates e + pull, eigenvalue by eigenvalue.
    learning = two * jnp.maximum(eigenvalues, 0)
    rates = learning + decay
    misfit = in_basis(g - targets)
    pull = -decay * in_basis(targets + (depth - 1) * g)

    def at(t: Float[Array, ""]) -> Float[Array, "M outputs"]:
        fading = jnp.exp(-decay * t)
        # The integral of e, fading from then until now.
        learnt = fading * _saturation(learning, t)
        left = _saturation(decay, t) - learnt
        integral = misfit * learnt + pull * left / jnp.where(rates > 0, rates, 1)
        change = two * (across @ (vectors @ integral)).reshape(g_there.shape)
        return (1 + depth * jnp.expm1(-decay * t)) * g_there - change

    return jax.vmap(at)(ts)


def _saturation(rates: Float[Array, "..."], t: Float[Array, ""]):
    r"""$\int_0^t e^{-rs} ds$."""
    is_zero = rates == 0
    return jnp.where(is_zero, t, -jnp.expm1(-rates * t) / jnp.where(is_zero, 1, rates))
