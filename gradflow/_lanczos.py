"""Krylov spaces of a symmetric form in the metric of a flow."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Krylov(eqx.Module):
    r"""A basis of covectors $p_1, p_2, \ldots$, orthonormal in the metric, in which a
    symmetric form $H$ is tridiagonal,

    $$H G^{-1} p_j = \beta_{j-1} p_{j-1} + \alpha_j p_j + \beta_j p_{j+1}.$$

    Only the first `size` coefficients are in use; the others are zero.
    """

    basis: Float[Array, "m_plus_1 n"]
    alphas: Float[Array, " m"]
    betas: Float[Array, " m"]
    start_norm: Float[Array, ""]
    size: Int[Array, ""]

    def rectangle(self) -> Float[Array, "m_plus_1 m"]:
        """The matrix of the form from the first $m$ basis elements to all of them."""
        square = jnp.diag(self.alphas) + jnp.diag(self.betas[:-1], 1)
        rows = jnp.pad(square, ((0, 1), (0, 0)))
        return rows + jnp.diag(self.betas, -1)[:, :-1]

    def ritz(
        self,
    ) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, "m m"]]:
        """Ritz values in increasing order, for each of them a distance within which
        there is an eigenvalue, and in columns the coefficients of its covector; `inf`
        beyond `size`."""
        index = jnp.arange(self.alphas.shape[0])
        unused = index >= self.size
        # Those not in use go above all others, by Gershgorin's theorem.
        size = jnp.max(jnp.abs(jnp.append(self.alphas, self.betas)))
        bound = 5 * jnp.where(size > 0, size, 1)
        inner = jnp.where(index < self.size - 1, self.betas, 0)[:-1]
        values, vectors = jnp.linalg.eigh(
            jnp.diag(jnp.where(unused, bound, self.alphas))
            + jnp.diag(inner, 1)
            + jnp.diag(inner, -1)
        )
        last = self.size - 1
        errors = jnp.abs(self.betas[last] * vectors[last])
        values = jnp.where(unused, jnp.inf, values)
        return values, jnp.where(unused, jnp.inf, errors), vectors


def lanczos(
    form: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    sharp: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    restrict: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    start: Float[Array, " n"],
    num: int,
    key: PRNGKeyArray | None = None,
) -> Krylov:
    r"""Lanczos' method with full orthogonalisation.

    **Arguments:**

    - `form`: the symmetric form, from vectors to covectors.
    - `sharp`: the inverse metric, from covectors to vectors of the tangent space;
        symmetric and not negative.
    - `restrict`: takes that out of a covector which does not see the tangent space, and
        which `sharp` takes to zero. It would grow with each division by a norm until
        its rounding errors are all there is.
    - `start`: the covector that becomes $p_1$.
    - `num`: the largest number $m$ of basis elements, each of which takes one
        application of `form`.
    - `key`: for the random covectors that continue an invariant space, so that
        eigenvalues come with their multiplicity. Without it, the space ends there.
    """
    eps = jnp.finfo(start.dtype).eps

    def norm(p) -> Float[Array, ""]:
        return jnp.sqrt(jnp.maximum(jnp.dot(p, sharp(p)), 0))

    def orthogonalised(p, basis, k):
        """The direction of what is new in `p`, its length, whether it is more than
        rounding, and the coefficient of `p` on the `k`-th basis element."""

        def once(p, _):
            p = restrict(p)
            coefficients = basis @ sharp(p)
            p = p - coefficients @ basis
            length = norm(p)
            return p / jnp.where(length > 0, length, 1), (length, coefficients[k])

        # Without this, rounding brings copies of the same eigenvalue. Twice is enough
        # for what is new; rounding errors lie in the space and fall at the third time.
        p, (lengths, coefficients) = jax.lax.scan(once, p, length=3)
        first, second, third = lengths
        is_new = third > 0.5
        return jnp.where(is_new, p, 0), first * second, is_new, coefficients[0]

    def is_open(carry):
        krylov, is_last = carry
        return (krylov.size < num) & ~is_last

    def step(carry):
        krylov, _ = carry
        basis, k = krylov.basis, krylov.size
        image = form(sharp(basis[k]))
        # The product of the two once more would have XLA keep a copy of the basis.
        after, beta, is_new, alpha = orthogonalised(image, basis, k)
        is_invariant = ~is_new | (beta <= 100 * eps * norm(image))
        beta = jnp.where(is_invariant, 0, beta)
        is_last = is_invariant
        if key is not None:
            shape, dtype = image.shape, image.dtype
            fresh = jax.random.normal(jax.random.fold_in(key, k), shape, dtype)
            other, _, is_other, _ = orthogonalised(fresh, basis, k)
            # Otherwise the space is the whole tangent space.
            is_last = is_invariant & ~is_other
            after = jnp.where(is_invariant, other, after)
        krylov = Krylov(
            basis.at[k + 1].set(after),
            krylov.alphas.at[k].set(alpha),
            krylov.betas.at[k].set(beta),
            krylov.start_norm,
            k + 1,
        )
        return krylov, is_last

    start = restrict(start)
    start_norm = norm(start)
    basis = jnp.zeros((num + 1, start.size), start.dtype)
    basis = basis.at[0].set(start / jnp.where(start_norm > 0, start_norm, 1))
    zeros = jnp.zeros((num,), start.dtype)
    krylov = Krylov(basis, zeros, zeros, start_norm, jnp.asarray(0))
    krylov, _ = jax.lax.while_loop(is_open, step, (krylov, start_norm == 0))
    return krylov
