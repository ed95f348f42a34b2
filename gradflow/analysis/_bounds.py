"""Bounds of the test error by the norms of the layers and the margins."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import is_concrete
from .._network import AbstractNetwork, Conv, refuse_other_degrees
from .._problem import Problem
from .._types import RealScalarLike
from ._complexity import product_of_norms, ramp_loss, spectral_complexity


def rademacher_bound(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    r"""An upper bound of the empirical Rademacher complexity, on the problem's inputs,
    of the networks with at most the layer norms $\rho_k$ of this one,

    $$\hat R_N \le \frac{\rho}{N} \left( \sqrt{2 L \log 2} + 1 \right) \sqrt{\sum_n
    \|x_n\|^2}, \qquad \rho = \prod_k \rho_k,$$

    of any width and with one output, or each output of several. By homogeneity it is
    $\rho$ times that of the networks with unit norms (M112 48). It holds for ReLU and
    linear networks; smoothed kinks, whose width depends on the layer below, are
    outside the theorem.

    **Raises:** `ValueError` for convolutions, whose norm as a map is not that of the
    kernel.

    ??? cite "Reference"

        N. Golowich, A. Rakhlin, O. Shamir: Size-independent sample complexity of neural
        networks. COLT, 2018, Theorem 1.
    """
    return product_of_norms(problem, network) * _rademacher_of_unit_norms(
        problem, network
    )


def margin_bound(
    problem: Problem,
    network: AbstractNetwork,
    *,
    margin: RealScalarLike,
    confidence: RealScalarLike = 0.95,
) -> Float[Array, ""]:
    r"""An upper bound of the probability that the network errs on a new sample,

    $$\hat L_\gamma + \frac{c}{\gamma} \hat R_N(F) + 3 \sqrt{\frac{\log(2 / \delta)}{2
    N}},$$

    with the `ramp_loss` $\hat L_\gamma$ of the normalised margins, the bound of
    `rademacher_bound` for the networks $F$ with unit norms, and $c = 2$ for labels
    $\pm 1$, $c = 4 C$ for $C$ classes (M112 47–51).

    It holds with the given confidence over the draw of independent samples, at once for
    all networks of this depth, whatever their norms. It usually is vacuous: values
    above 1 are returned as they are.

    **Arguments:**

    - `problem`: the training samples.
    - `network`: of any scale, as in `rademacher_bound`.
    - `margin`: $\gamma$, in terms of the normalised margins; to be chosen without a
        look at the samples.
    - `confidence`: $1 - \delta$.

    **Raises:** `ValueError` for regression data, convolutions, a `margin` that is not
    positive, and a `confidence` that is not between 0 and 1.

    ??? cite "Reference"

        M. Mohri, A. Rostamizadeh, A. Talwalkar: Foundations of machine learning, second
        edition. MIT Press, 2018, Theorems 5.8 and 9.2; the latter with the empirical
        complexity in the place of its mean, as in the former.
    """
    fit = ramp_loss(problem, network, margin=margin)
    classes = problem.dataset.num_classes
    factor = (2 if classes is None else 4 * classes) / jnp.asarray(margin, fit.dtype)
    complexity = factor * _rademacher_of_unit_norms(problem, network)
    return fit + complexity + _chance(problem, confidence, fit.dtype)


def spectral_margin_bound(
    problem: Problem,
    network: AbstractNetwork,
    *,
    margin: RealScalarLike,
    confidence: RealScalarLike = 0.95,
) -> Float[Array, ""]:
    r"""An upper bound of the probability that the network errs on a new sample, by
    spectral norms in the place of Frobenius norms,

    $$\hat L_\gamma + 2 \hat R + 3 \sqrt{\frac{\log(2 / \delta)}{2 N}}, \qquad
    \hat R \le \frac{4}{N^{3/2}} + \frac{18 c \log N}{\gamma N} \sqrt{\log(2 w^2)
    \sum_n \|x_n\|^2} \; \frac{R}{\rho},$$

    with the `spectral_complexity` $R$, the largest width $w$, and $c = 1$ for labels
    $\pm 1$, $c = 2$ for classes.

    $\hat R$ bounds the Rademacher complexity of the ramp losses of networks with at
    most the spectral norms and the norms $\|V_k^\top\|_{2,1}$ of this one, and the
    whole holds if those are fixed before the sample is drawn. That they may depend on
    it costs further logarithms (Lemma A.9 of the reference), which are left out. The
    bound usually is vacuous: values above 1 are returned as they are.

    **Arguments:** as for [`gradflow.analysis.margin_bound`][].

    **Raises:** `ValueError` as there.

    ??? cite "Reference"

        P. Bartlett, D. Foster, M. Telgarsky: Spectrally-normalized margin bounds for
        neural networks. NeurIPS, 2017: the covering numbers of Theorem 3.3 in Dudley's
        integral from $1/N$ on, Lemma A.5.
    """
    problem.check(network)
    fit = ramp_loss(problem, network, margin=margin)
    inputs = problem.dataset.inputs
    num = inputs.shape[0]
    lipschitz = (1 if problem.dataset.signs else 2) / jnp.asarray(margin, fit.dtype)
    width = max(max(m.shape) for m in network.matrices)
    relative = spectral_complexity(problem, network) / product_of_norms(
        problem, network
    )
    size = jnp.linalg.norm(inputs) * float(np.sqrt(np.log(2 * width**2)))
    complexity = 18 * lipschitz * float(np.log(num)) / num * size * relative
    complexity = 4 / num**1.5 + complexity
    return fit + 2 * complexity + _chance(problem, confidence, fit.dtype)


def _chance(problem: Problem, confidence: RealScalarLike, dtype) -> Float[Array, ""]:
    """What the draw of the samples adds."""
    if is_concrete(confidence) and not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    delta = 1 - jnp.asarray(confidence, dtype)
    return 3 * jnp.sqrt(jnp.log(2 / delta) / (2 * problem.dataset.num_samples))


def _rademacher_of_unit_norms(problem, network) -> Float[Array, ""]:
    problem.check(network)
    refuse_other_degrees("the complexity", network)
    if isinstance(network, Conv):
        raise ValueError(
            "`network`: not defined for convolutions, whose norm as a map is not that "
            "of the kernel."
        )
    inputs = problem.dataset.inputs
    depth = np.sqrt(2 * len(network.weights) * np.log(2)) + 1
    return float(depth) * jnp.linalg.norm(inputs) / inputs.shape[0]
