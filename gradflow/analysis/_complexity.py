"""Measures of a network's size and fit that bounds of its test error are made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_positive
from .._network import AbstractNetwork, Conv, Identity, refuse_other_degrees
from .._problem import Problem
from .._tree import scaled
from .._types import RealScalarLike


def product_of_norms(
    problem: Problem, network: AbstractNetwork, *, p: RealScalarLike = 2.0
) -> Float[Array, ""]:
    r"""$\prod_k \|W_k\|_p$ with the norms of the entries, $\rho$ for $p = 2$: what
    homogeneity lets one divide the outputs by (GP §3). With batch normalisation it
    still is of all layers, the "$\rho$ from all layers" of SQ and M112.

    **Raises:** `ValueError` for a `p` that is not positive.
    """
    del problem
    network.check_single()
    check_positive("p", p)

    def norm(w):
        w, size = scaled(w)
        return size * jnp.sum(jnp.abs(w) ** p) ** (1 / jnp.asarray(p, w.dtype))

    return jnp.prod(jnp.stack([norm(w) for w in network.weights]))


def normalised_loss(
    problem: Problem,
    network: AbstractNetwork,
    *,
    p: RealScalarLike = 2.0,
    example: Float[Array, "..."] | None = None,
) -> Float[Array, ""]:
    r"""The mean loss per sample of the network whose outputs are divided by
    `product_of_norms`, whatever the reduction of the loss.

    On training and on test data it was found to lie on a line (GP §3, where the
    exponents of the soft-max in (9) and (10) have the wrong sign).

    **Arguments:**

    - `problem`: data and loss.
    - `network`: the network; on test data, with batch normalisation, one with the
        statistics of the training data.
    - `p`: of the norms.
    - `example`: $x_0$ for $\|g(x_0)\|$ in place of the product of the norms: what
        residual networks, whose norms do not say how large their outputs are, are
        normalised by (GP App. H). The same for all networks that are compared.

    **Raises:** `ValueError` for a `p` that is not positive.
    """
    if example is None:
        size = product_of_norms(problem, network, p=p)
    else:
        size = jnp.linalg.norm(problem.with_statistics(network)(example))
    outputs = problem.outputs(network) / size
    return jnp.mean(jax.vmap(problem.loss.value)(outputs, problem.dataset.labels))


def path_norm(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    r"""The root of the sum, over all paths from an input to an output, of the squared
    products of the weights on them. Invariant under the rescalings of units that leave
    a ReLU network's function as it is.

    **Raises:** `ValueError` for batch normalisation, and for residual networks.

    ??? cite "Reference"

        B. Neyshabur, R. Salakhutdinov, N. Srebro: Path-SGD: path-normalized
        optimization in deep neural networks. NeurIPS, 2015.
    """
    problem.check(network)
    refuse_other_degrees("the sum over paths", network)
    # A linear network of the squares adds up its paths.
    weights, sizes = zip(*map(scaled, network.weights), strict=True)
    squares = network.with_weights(tuple(w**2 for w in weights))
    ones = jnp.ones(network.in_shape, network.weights[0].dtype)
    paths = jnp.sum(squares.with_activation(Identity())(ones))
    return jnp.prod(jnp.stack(sizes)) * jnp.sqrt(paths)


def spectral_complexity(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    r"""$\prod_k \|W_k\|_2 \, \big( \sum_k (\|W_k^\top\|_{2,1} / \|W_k\|_2)^{2/3}
    \big)^{3/2}$, with the sum $\|W^\top\|_{2,1}$ of the norms of the rows.

    Divided by the margin and by the root of the number of samples, it bounds the excess
    of the test error up to logarithms.

    **Raises:** `ValueError` for convolutions, whose norm as a map is not that of the
    kernel, for batch normalisation, and for residual networks.

    ??? cite "Reference"

        P. Bartlett, D. Foster, M. Telgarsky: Spectrally-normalized margin bounds for
        neural networks. NeurIPS, 2017, with reference matrices of zero.
    """
    del problem
    network.check_single()
    refuse_other_degrees("the complexity", network)
    if isinstance(network, Conv):
        raise ValueError("`network`: not defined for convolutions.")
    spectral = jnp.stack([jnp.linalg.norm(m, ord=2) for m in network.matrices])
    rows = jnp.stack([jnp.sum(jnp.linalg.norm(m, axis=1)) for m in network.matrices])
    return jnp.prod(spectral) * jnp.sum((rows / spectral) ** (2 / 3)) ** 1.5


def ramp_loss(
    problem: Problem, network: AbstractNetwork, *, margin: RealScalarLike
) -> Float[Array, ""]:
    r"""The mean of $\min(1, \max(0, 1 - y_n f_n / \gamma))$ with the normalised margins
    $y_n f_n$ (M112 App. F, T3 §5): at least the fraction of errors.

    **Arguments:**

    - `problem`: with labels $\pm 1$ or classes.
    - `network`: of any scale.
    - `margin`: $\gamma$.

    **Raises:** `ValueError` for regression data, and a `margin` that is not positive.
    """
    check_positive("margin", margin)
    return jnp.mean(jnp.clip(1 - problem.margins(network) / margin, 0, 1))
