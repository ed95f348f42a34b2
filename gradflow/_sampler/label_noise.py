"""Label noise."""

import dataclasses

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, UInt32

from .._check import check_instance, check_nonnegative, check_scalar
from .._noisy_labels import check_noisy_labels
from .._problem import Problem
from .._types import RealScalarLike
from ..datasets import Dataset
from .base import AbstractSampler
from .full_batch import FullBatch


class _Noisy(eqx.Module):
    """The number of steps so far, a word of random bits for each label, and the state
    of the sampler inside."""

    num_steps: Int[Array, ""]
    words: UInt32[Array, "samples ..."]
    inner: PyTree


_BITS = 32


class LabelNoise(AbstractSampler[_Noisy]):
    r"""Adds noise to the labels that the sampler inside draws, in every step anew:
    $y_n + \delta \xi_n$, where $\xi_n$ is $1$ or $-1$ with equal probabilities (M112
    App. E.1).

    For the square loss, whose slopes $2 (g_n - y_n)$ are linear in the labels: the
    gradient is that without noise on average. The noisy labels are real targets, not
    signs.
    """

    delta: RealScalarLike
    inner: AbstractSampler = FullBatch()
    key: PRNGKeyArray = eqx.field(kw_only=True)

    def __check_init__(self):
        check_scalar("delta", self.delta)
        check_nonnegative("delta", self.delta)
        check_instance("inner", self.inner, AbstractSampler)

    def init(self, problem: Problem) -> _Noisy:
        check_noisy_labels(problem)
        inner = self.inner.init(problem)
        batch, _ = eqx.filter_eval_shape(self.inner.sample, problem, inner)
        words = jnp.zeros(batch.dataset.labels.shape, jnp.uint32)
        return _Noisy(jnp.zeros((), jnp.int32), words, inner)

    def sample(self, problem: Problem, state: _Noisy) -> tuple[Problem, _Noisy]:
        batch, inner = self.inner.sample(problem, state.inner)
        inputs, labels = batch.dataset.inputs, batch.dataset.labels
        round_of_words, place = jnp.divmod(state.num_steps, _BITS)

        def draw(words: UInt32[Array, "samples ..."]) -> UInt32[Array, "samples ..."]:
            key = jax.random.fold_in(self.key, round_of_words)
            new = jax.random.bits(key, words.shape, words.dtype)
            return jnp.where(place == 0, new, words)

        # Each step takes a bit of every word, since to draw in each would take longer
        # than the gradient of a small network. For the condition see `Minibatches`.
        words = jax.lax.cond(
            eqxi.unvmap_any(place == 0), draw, lambda words: words, state.words
        )
        bits = (words >> place.astype(words.dtype)) & jnp.ones((), words.dtype)
        noise = 1 - 2 * bits.astype(labels.dtype)
        noisy = labels + jnp.asarray(self.delta, labels.dtype) * noise
        batch = dataclasses.replace(
            batch, dataset=Dataset(inputs, noisy, regression=True)
        )
        return batch, _Noisy(state.num_steps + 1, words, inner)


LabelNoise.__init__.__doc__ = r"""**Arguments:**

- `delta`: $\delta \ge 0$.
- `inner`: draws the samples whose labels are changed. All of them, if not given.
- `key`: the random key; another than that of `inner`.

**Raises:** `ValueError` for a negative `delta`.
"""
