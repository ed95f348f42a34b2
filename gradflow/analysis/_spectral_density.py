"""The spectrum of the Hessian of a network that is too large for a dense one."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._check import check_nonnegative, check_positive
from .._flow import AbstractFlow, GradientFlow
from .._lanczos import lanczos
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike
from ._hessian import Hessian, default_threshold


class SpectralDensity(eqx.Module):
    r"""A spectrum as weighted points, one set of them for each random vector.

    For a vector $z$ the points $\theta_j$ and weights $w_j$ are the Gauss quadrature of
    $\sum_i \langle z, u_i \rangle^2 f(\lambda_i)$ over eigenvalues and eigenvectors,
    exact for polynomials up to the degree $2m - 1$. On average over the vectors that is
    $\sum_i f(\lambda_i)$.

    **Attributes:**

    - `points`: in increasing order for each vector, then `inf` where a Krylov space was
        smaller than asked for.
    - `weights`: numbers of eigenvalues; 0 where the points are `inf`. All together they
        are about the dimension of the tangent space.
    """

    points: Float[Array, "vectors m"]
    weights: Float[Array, "vectors m"]

    def density(
        self, x: Float[Array, " points"], width: RealScalarLike
    ) -> Float[Array, " points"]:
        """The number of eigenvalues per unit at each of `x`, every point spread to a
        normal distribution with the standard deviation `width`.

        **Raises:** `ValueError` for a `width` that is not positive.
        """
        check_positive("width", width)
        per_vector = self.weights / self.weights.shape[0]
        scaled = (x[:, None, None] - self.points[None]) / width
        bumps = jnp.exp(-jnp.square(scaled) / 2) / (width * jnp.sqrt(2 * jnp.pi))
        return jnp.sum(per_vector[None] * bumps, axis=(1, 2))

    def count(
        self, low: RealScalarLike, high: RealScalarLike
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """An estimate of the number of eigenvalues from `low` to `high`, and its
        standard error over the random vectors (NaN for a single one).

        A point stands for the eigenvalues around it: where the bounds are in a gap of
        the spectrum, the estimate is better than in its midst.
        """
        inside = (self.points >= low) & (self.points <= high)
        counts = jnp.sum(jnp.where(inside, self.weights, 0), axis=1)
        number = counts.shape[0]
        variance = jnp.sum(jnp.square(counts - jnp.mean(counts))) / (number - 1)
        return jnp.mean(counts), jnp.sqrt(variance / number)

    def num_near_zero(
        self, *, rtol: RealScalarLike | None = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """An estimate of what [`gradflow.analysis.num_near_zero`][] counts, and its
        standard error."""
        rtol = default_threshold(self.points.dtype) if rtol is None else rtol
        check_nonnegative("rtol", rtol)
        sizes = jnp.where(jnp.isfinite(self.points), jnp.abs(self.points), 0)
        bound = rtol * jnp.max(sizes)
        return self.count(-bound, bound)


def spectral_density(
    problem: Problem,
    network: AbstractNetwork,
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
    num_vectors: int = 8,
    subspace: int = 64,
    key: PRNGKeyArray | None = None,
) -> SpectralDensity:
    r"""The density of the eigenvalues of the Hessian of $L + \lambda P$ along a flow's
    constraint set, by stochastic Lanczos quadrature.

    **Arguments:** as for [`gradflow.analysis.hessian_product`][], and

    - `num_vectors`: the number of random vectors, one after the other.
    - `subspace`: $m$, the dimension of the Krylov space of each: products with the
        Hessian, and the memory of as many gradients.
    - `key`: for the random vectors; `jax.random.key(0)` if not given.

    **Returns:** a [`gradflow.analysis.SpectralDensity`][].

    **Raises:** `ValueError` for numbers below 1.

    ??? cite "Reference"

        B. Ghorbani, S. Krishnan, Y. Xiao: An investigation into neural net optimization
        via Hessian eigenvalue density. ICML, 2019.
    """
    problem.check(network)
    for name, number in (("num_vectors", num_vectors), ("subspace", subspace)):
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    hessian = Hessian.at(problem, network, flow)
    num = min(subspace, hessian.x.size)

    def of_vector(key: PRNGKeyArray):
        krylov = lanczos(
            hessian.form,
            hessian.sharp,
            hessian.restrict,
            hessian.random_covector(key),
            num,
        )
        points, _, vectors = krylov.ritz()
        weights = jnp.square(krylov.start_norm * vectors[0])
        return points, jnp.where(jnp.isfinite(points), weights, 0)

    keys = jax.random.split(jax.random.key(0) if key is None else key, num_vectors)
    return SpectralDensity(*jax.lax.map(of_vector, keys))
