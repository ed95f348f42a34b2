"""What grows to the largest margin, and the network that would attain it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._loss import CrossEntropyLoss, ExponentialLoss, LogisticLoss
from .._network import AbstractNetwork, refuse_other_degrees
from .._problem import Problem
from ._unit_layers import unit_layers


def smoothed_margin(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    r"""The smoothed normalised margin $\ell^{-1}(L) / \rho$, with the loss $L$ summed
    over the samples, whatever its reduction is, and $\rho = \prod_k \rho_k$.

    $\ell(q) = e^{-q}$ for the exponential loss, so that $\ell^{-1}(L) = \log(1/L)$, and
    $\ell(q) = \log(1 + e^{-q})$ for the logistic loss and the cross-entropy, which is
    the logistic loss of $g_y - \log \sum_{j \ne y} e^{g_j}$: then $\ell^{-1}(L) =
    -\log(e^L - 1)$. Both come from the logarithm of the loss, and hold where the loss
    under- or overflows.

    It is a lower bound of the smallest normalised margin $\min_n y_n f_n$, and tends to
    it as $\rho$ grows. Once $L < \ell(0)$ it never decreases along the gradient flow,
    or the flows of norms and directions, without weight decay: each layer's part of
    $-\dot L$ is at least $(\sum_n d_n g_n)^2 / \rho_k^2$, and $-\sum_n d_n g_n \ge
    -\ell'(\ell^{-1}(L)) \, \ell^{-1}(L)$. The smallest margin itself may decrease.

    **Arguments:**

    - `problem`: with an exponential-type loss.
    - `network`: of any scale.

    **Returns:** NaN or infinite where a layer is 0.

    **Raises:** `ValueError` for other losses: the square loss is not a decreasing
    function of the margins, and of a loss of your own the inverse is not known here.

    ??? cite "Reference"

        K. Lyu, J. Li: Gradient descent maximizes the margin of homogeneous neural
        networks. ICLR, 2020, sections 4.2 and, for the product of the layers' norms,
        4.4; the logistic loss and the cross-entropy in the appendix.
    """
    if not isinstance(problem.loss, (ExponentialLoss, LogisticLoss, CrossEntropyLoss)):
        raise ValueError(
            "`problem`: the smoothed margin is known for the exponential loss, the "
            f"logistic loss and the cross-entropy, not for {problem.loss}."
        )
    log_sum = problem.log_value(network) - jnp.log(problem.sample_weight)
    if isinstance(problem.loss, ExponentialLoss):
        inverse = -log_sum
    else:
        inverse = _inverse_logistic(log_sum)
    return inverse / network.scale


def unit_margin(problem: Problem, network: AbstractNetwork) -> AbstractNetwork:
    r"""The network of the same function, but for its scale, with a smallest output
    margin of 1 and equal norms of the layers, $W_k = \gamma^{-1/L} V_k$ for the
    smallest normalised margin $\gamma$ and $L$ layers.

    It is the candidate of the directions $V_k$ for the minimum of $\sum_k \|W_k\|^2$
    under $y_n g_n \ge 1$ for all $n$ (T3 21, §10), and attains $L \gamma^{-2/L}$: the
    larger the margin, the smaller the norms.

    **Arguments:**

    - `problem`: with labels $\pm 1$ or classes.
    - `network`: of any scale.

    **Returns:** a network whose weights are NaN where $\gamma \le 0$ or a layer is 0.

    **Raises:** `ValueError` for regression data, and for batch normalisation.
    """
    refuse_other_degrees("the minimum of norms", network)
    smallest = jnp.min(problem.margins(network))
    smallest = jnp.where(smallest > 0, smallest, jnp.nan)
    scale = smallest ** (-1 / len(network.weights))
    unit = unit_layers(network)
    return unit.with_weights(tuple(scale * v for v in unit.weights))


def _inverse_logistic(log_loss: Float[Array, ""]) -> Float[Array, ""]:
    """`-log(expm1(L))`, by the logarithm of L."""
    # Below the threshold expm1(L) = L to rounding; L itself could underflow.
    small = log_loss < jnp.log(jnp.finfo(log_loss.dtype).eps)
    loss = jnp.exp(jnp.where(small, 0, log_loss))
    return jnp.where(small, -log_loss, -loss - jnp.log(-jnp.expm1(-loss)))
