"""Label noise."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._check import check_instance, check_nonnegative, check_scalar
from .._loss import SquareLoss
from .._problem import Problem
from .._types import RealScalarLike
from ..datasets import Dataset
from .base import AbstractSampler
from .full_batch import FullBatch


class _Noisy(eqx.Module):
    """The number of the step, its noise, and the state of the sampler inside."""

    step: Int[Array, ""]
    noise: Float[Array, "samples ..."]
    inner: PyTree


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
        if not isinstance(problem.loss, SquareLoss):
            raise ValueError(
                "`problem`: label noise is for the square loss, under which it leaves "
                f"the mean of the gradient as it is, not for {problem.loss}."
            )
        if problem.dataset.num_classes is not None:
            raise ValueError(
                "`problem`: label noise is for labels ±1 and real targets, and there "
                f"is none to add to classes; got {problem.dataset}."
            )
        inner = self.inner.init(problem)
        batch, _ = eqx.filter_eval_shape(self.inner.sample, problem, inner)
        start = jnp.zeros((), jnp.int32)
        return _Noisy(start, self._draw(start, batch.dataset.labels), inner)

    def sample(self, problem: Problem, state: _Noisy) -> tuple[Problem, _Noisy]:
        batch, inner = self.inner.sample(problem, state.inner)
        inputs, labels = batch.dataset.inputs, batch.dataset.labels
        noisy = labels + jnp.asarray(self.delta, labels.dtype) * state.noise
        batch = dataclasses.replace(
            batch, dataset=Dataset(inputs, noisy, regression=True)
        )
        # Noise drawn in the step that uses it would be fused into the gradient, and
        # drawn again for each of its entries.
        next_step = state.step + 1
        return batch, _Noisy(next_step, self._draw(next_step, labels), inner)

    def _draw(self, step: Int[Array, ""], like: Any) -> Float[Array, "samples ..."]:
        key = jax.random.fold_in(self.key, step)
        return jax.random.rademacher(key, like.shape, like.dtype)


LabelNoise.__init__.__doc__ = r"""**Arguments:**

- `delta`: $\delta \ge 0$.
- `inner`: draws the samples whose labels are changed. All of them, if not given.
- `key`: the random key; another than that of `inner`.

**Raises:** `ValueError` for a negative `delta`.
"""
