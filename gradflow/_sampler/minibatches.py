"""Minibatches, with and without replacement."""

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from .._check import check_positive_integer
from .._problem import Problem
from .base import AbstractSampler


class _Drawn(eqx.Module):
    """How many batches have been drawn, and the samples of this epoch's."""

    num_batches: Int[Array, ""]
    order: Int[Array, " samples"]


class Minibatches(AbstractSampler[_Drawn]):
    r"""Stochastic gradient descent: every step goes down the loss of $B$ of the $N$
    samples,

    $$L_B = \frac{N}{B} \sum_{n \in B} \ell_n, \qquad
    L_B = \frac{1}{B} \sum_{n \in B} \ell_n$$

    for a loss that is a sum and one that is a mean. Either has the gradient of $L$ on
    average, so that step $h$ takes a time $h$ of the flow whatever $B$ is.

    Without replacement an epoch goes through the samples in a random order, a new one
    in each, $\lfloor N/B \rfloor$ batches at a time. Where $B$ does not divide $N$, the
    remainder of the order, fewer than $B$ samples, is left out of that epoch. A batch
    of all samples is the problem as it is.
    """

    size: int = eqx.field(static=True)
    key: PRNGKeyArray = eqx.field(kw_only=True)
    replacement: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self):
        check_positive_integer("size", self.size)

    def init(self, problem: Problem) -> _Drawn:
        count = problem.dataset.num_samples
        if self.size > count and not self.replacement:
            raise ValueError(
                f"`size` is {self.size}, but there are {count} samples. Take smaller "
                "batches, or draw them with `replacement=True`."
            )
        length = self._batches_per_epoch(count) * self.size
        return _Drawn(jnp.zeros((), jnp.int32), jnp.zeros(length, jnp.int32))

    def sample(self, problem: Problem, state: _Drawn) -> tuple[Problem, _Drawn]:
        count, length = problem.dataset.num_samples, state.order.shape[0]
        if self.size == count and not self.replacement:
            return problem, state
        epoch, place = jnp.divmod(state.num_batches, self._batches_per_epoch(count))

        def draw(order: Int[Array, " samples"]) -> Int[Array, " samples"]:
            key = jax.random.fold_in(self.key, epoch)
            if self.replacement:
                new = jax.random.randint(key, (length,), 0, count, order.dtype)
            else:
                samples = jnp.arange(count, dtype=order.dtype)
                new = jax.random.permutation(key, samples)[:length]
            return jnp.where(place == 0, new, order)

        # Drawing costs as much as a step of a small network, so it is done once an
        # epoch. Several runs at once are at the same place of their epochs: with a
        # condition of each, `vmap` would have them draw in every step.
        order = jax.lax.cond(
            eqxi.unvmap_any(place == 0), draw, lambda order: order, state.order
        )
        indices = jax.lax.dynamic_slice_in_dim(order, place * self.size, self.size)
        return problem.batch(indices), _Drawn(state.num_batches + 1, order)

    def _batches_per_epoch(self, num_samples: int) -> int:
        return max(num_samples // self.size, 1)


Minibatches.__init__.__doc__ = r"""**Arguments:**

- `size`: $B$, from 1 on; at most $N$ without replacement.
- `key`: the random key. The same key gives the same batches.
- `replacement`: whether a sample can be drawn again before all others have been: each
    batch is then drawn on its own, uniformly, and may hold a sample more than once.

**Raises:** `ValueError` for a `size` that is not positive.
"""
