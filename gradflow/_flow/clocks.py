"""Clocks to choose from."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._tree import tree_norm
from .base import AbstractFlow, evenly_spaced
from .clock import AbstractClock, Moment


class LossTime(AbstractClock):
    r"""$d\tau = L\,dt$: the flow of $\log L$, whose gradient is an average of the
    samples' with soft-max weights.

    The clock for networks of one layer, whose norms grow in proportion to it. Of two
    layers they grow exponentially, and of more they are infinite at a finite time. A
    run to a time that it cannot reach ends as `too_stiff`.
    """

    flow: AbstractFlow
    stands_still_at_rest: ClassVar = False

    def pace(self, moment: Moment) -> Float[Array, ""]:
        return jnp.exp(moment.log_loss - moment.log_objective)

    def log_start(self, t0: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.full_like(t0, -jnp.inf)

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return _denser_at_the_start(t0, t1)


class ArcLength(AbstractClock):
    r"""$d\tau = \|\dot W\|\,dt$: the length of the path of the weights.

    Paths that come to rest, under weight decay for example, are of finite length. A run
    stops there, as `at_rest`.
    """

    flow: AbstractFlow
    stands_still_at_rest: ClassVar = True

    def pace(self, moment: Moment) -> Float[Array, ""]:
        return tree_norm(moment.velocity)

    def log_start(self, t0: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.full_like(t0, -jnp.inf)

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return _denser_at_the_start(t0, t1)


class LogRho(AbstractClock):
    r"""$d\tau = d \log \rho$ without weight decay, once all samples are classified
    correctly: $\rho = \rho_1 e^{\tau - \tau_1}$. In general

    $$d\tau = \sum_k \rho_k^{-2} \sum_n |\langle d_n, g_n \rangle| \,dt$$

    over the norms that the flow evolves, of the layers whose scale matters. The clock
    for networks of several layers. The larger the scale, the stiffer the flow:
    gradients grow like its square root.
    """

    flow: AbstractFlow
    stands_still_at_rest: ClassVar = False

    def pace(self, moment: Moment) -> Float[Array, ""]:
        return moment.growth * jnp.sum(1 / jnp.square(moment.norms))

    def log_start(self, t0: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.full_like(t0, -jnp.inf)

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return evenly_spaced(t0, t1)


class LogTime(AbstractClock):
    r"""$\tau = \log(1 + t)$: physical time, of any size. The clock to save at given
    times. A run stops where the flow comes to rest, as `at_rest`.

    The physical time at the start of a run is that of `t0`, with this clock alone: the
    others count it from 0. So this one goes on from the end of any run, with
    `t0=jnp.logaddexp(0, run.log_ts[-1])`.
    """

    flow: AbstractFlow
    stands_still_at_rest: ClassVar = True

    def pace(self, moment: Moment) -> Float[Array, ""]:
        t = jnp.asarray(moment.t, moment.log_loss.dtype)
        return jnp.exp(-t - moment.log_objective)

    def log_start(self, t0: Float[Array, ""]) -> Float[Array, ""]:
        # log(e^t - 1), without the exponential, which overflows.
        return t0 + jnp.log(-jnp.expm1(-t0))

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return evenly_spaced(t0, t1)


def _denser_at_the_start(
    t0: Float[Array, ""], t1: Float[Array, ""]
) -> Float[Array, " T"]:
    ts = t0 + jnp.expm1(jnp.linspace(0, jnp.log1p(t1 - t0), 101, dtype=t0.dtype))
    return jnp.clip(ts, t0, t1).at[-1].set(t1)


for _clock in (LossTime, ArcLength, LogRho, LogTime):
    _clock.__init__.__doc__ = """**Arguments:**

- `flow`: any flow without a clock.
"""
