"""How many eigenvalues of the Hessian theory says are zero."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._check import check_nonnegative
from .._network import (
    AbstractNetwork,
    Conv,
    Diagonal,
    Identity,
    refuse_other_degrees,
    smoothing_of,
)
from .._problem import Problem
from .._types import RealScalarLike


class FlatDirections(eqx.Module):
    r"""Lower bounds of the number of zero eigenvalues of the Hessian at a minimum.

    **Attributes:**

    - `interpolation`: $\max(0, P - NC)$ for $P$ weights, $N$ samples and $C$ outputs:
        where the square loss is interpolated without weight decay (T3 46, Theorem 6).
    - `symmetry`: the dimension of the set of networks that are the same function, and
        have the same norms if they decay, by the symmetries of the architecture
        (T3 §19).
    """

    interpolation: Int[Array, ""]
    symmetry: Int[Array, ""]


def flat_directions(
    problem: Problem,
    network: AbstractNetwork,
    weight_decay: RealScalarLike = 0.0,
    *,
    rtol: RealScalarLike = 1e-6,
) -> FlatDirections:
    r"""The number of flat directions that a minimum of $L + \lambda \sum_k \|W_k\|^2$
    must have.

    The symmetries are for hidden layers of width $d_k$:

    - deep linear networks without weight decay: $W_k \to A_k W_k A_{k-1}^{-1}$ with
        invertible $A_k$, an orbit of the dimension $\sum_k d_k^2$ where all products of
        matrices have the rank of a hidden width, and of less elsewhere;
    - with weight decay, where the layers are balanced: orthogonal $A_k$, and
        $\sum_k r_k (2 d_k - r_k - 1) / 2$ for matrices of rank $r_k$;
    - ReLU and diagonal networks without weight decay: the scale of each unit or
        channel; with it, none. Smoothed kinks, whose width depends on the norm of all
        units below, leave only those of the last hidden layer.

    **Arguments:**

    - `problem`: data, of which the number counts.
    - `network`: a minimum.
    - `weight_decay`: $\lambda$.
    - `rtol`: singular values below `rtol` times the largest count as 0.

    **Returns:** a [`gradflow.analysis.FlatDirections`][].

    **Raises:** `ValueError` for negative numbers, for linear convolutions and for
    batch normalisation.
    """
    problem.check(network)
    refuse_other_degrees("the number of symmetries", network)
    check_nonnegative("weight_decay", weight_decay)
    check_nonnegative("rtol", rtol)
    size = sum(w.size for w in network.weights)
    num_values = problem.dataset.num_samples * network.out_size
    decays = jnp.asarray(weight_decay) > 0
    if not isinstance(network.activation, Identity) or isinstance(network, Diagonal):
        free = network.weights[:-1]
        smoothing = smoothing_of(network)
        if not isinstance(smoothing, float) or smoothing > 0:
            free = free[-1:]
        symmetry = jnp.where(decays, 0, sum(w.shape[0] for w in free))
    elif isinstance(network, Conv):
        raise ValueError(
            "`network`: the symmetries of linear convolutions are not known here."
        )
    else:
        symmetry = jnp.where(
            decays, _orthogonal_orbit(network, rtol), _linear_orbit(network, rtol)
        )
    return FlatDirections(jnp.asarray(max(0, size - num_values)), symmetry)


def _rank(matrix, rtol: RealScalarLike) -> Int[Array, ""]:
    values = jnp.linalg.svd(matrix, compute_uv=False)
    return jnp.sum(values > rtol * values[0])


def _orthogonal_orbit(network: AbstractNetwork, rtol) -> Int[Array, ""]:
    orbit = jnp.asarray(0)
    for w in network.weights[:-1]:
        rank = _rank(w, rtol)
        orbit = orbit + rank * (2 * w.shape[0] - rank - 1) // 2
    return orbit


def _linear_orbit(network: AbstractNetwork, rtol) -> Int[Array, ""]:
    r"""$\sum_k d_k^2$ less the dimension of the stabiliser.

    The spaces between the layers and the maps between them are a sum of intervals, each
    a line that is carried on from the $a$-th space to the $b$-th. Their numbers follow
    from the ranks of the products. Between the intervals $[a, b]$ and $[c, d]$ there is
    one endomorphism, on the spaces $a$ to $d$, if $c \le a \le d \le b$. Those that
    leave inputs and outputs alone stabilise the network.
    """
    weights = network.weights
    depth = len(weights)
    widths = [weights[0].shape[1], *(w.shape[0] for w in weights)]
    ranks = {}
    for start in range(depth + 1):
        ranks[start, start] = jnp.asarray(widths[start])
        product = None
        for end in range(start + 1, depth + 1):
            w = weights[end - 1]
            product = w if product is None else w @ product
            ranks[start, end] = _rank(product, rtol)

    def rank(a, b):
        return ranks.get((a, b), 0)

    number = {
        (a, b): rank(a, b) - rank(a - 1, b) - rank(a, b + 1) + rank(a - 1, b + 1)
        for a, b in ranks
    }
    stabiliser = sum(
        number[a, b] * number[c, d]
        for a, b in ranks
        for c, d in ranks
        if c <= a <= d <= b and a >= 1 and d < depth
    )
    return sum(d**2 for d in widths[1:-1]) - jnp.asarray(stabiliser)
