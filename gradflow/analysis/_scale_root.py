"""The largest root of the equation for the scale of a network."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

Number = Float[Array, ""]

# Of the scan in log r, in which the terms of the equation vary on scales of 1 or more.
_SPACING = 1 / 8
_BATCH = 8


def scale_root(
    slope_sum: Callable[[Number], Number],
    weight_decay: Number,
    num_norms: int,
    peak: Number | None = None,
) -> Number:
    r"""The largest $r \ge 0$ with $-s(r) = 2 \lambda r^{2/K - 1}$.

    **Arguments:**

    - `slope_sum`: $s(r) = \sum_n d_n(r f) f_n$ with outputs $f$ whose largest is 1. It
        increases.
    - `weight_decay`, `num_norms`: $\lambda$ and $K$.
    - `peak`: the only maximum of $-s(r) r^{1 - 2/K}$, if it is known; used for $K > 2$.

    **Returns:** 0 where there is no positive root, `inf` without weight decay where $s$
    stays negative, and NaN without weight decay where $s$ is 0 everywhere.
    """
    dtype = weight_decay.dtype
    limit = jnp.asarray(0.98 * math.log(jnp.finfo(dtype).max), dtype)
    decay = 2 * weight_decay

    def drive(u: Number) -> Number:
        """What balances the decay at r = exp(u)."""
        return -slope_sum(jnp.exp(u)) * jnp.exp((1 - 2 / num_norms) * u)

    # Beyond its last maximum the drive decreases; up to two norms it does everywhere.
    lower, upper = -limit, limit
    if num_norms > 2:
        if peak is None:
            lower, upper = _last_crossing(drive, decay, limit)
        else:
            lower = jnp.log(jnp.maximum(peak, jnp.exp(-limit)))
    lower, upper = jax.lax.stop_gradient((lower, upper))
    at_zero, drive_at_limit = slope_sum(jnp.zeros_like(decay)), drive(limit)
    # The slopes of separated data are negative until they underflow.
    is_endless = (decay == 0) & (at_zero < 0) & (drive_at_limit >= 0)
    is_undetermined = (decay == 0) & (at_zero == 0) & (drive_at_limit == 0)
    is_regular = (drive(lower) > decay) & ~is_endless
    u = _bisect(
        lambda u: jnp.where(is_regular, decay - drive(u), u - lower), lower, upper
    )
    root = jnp.where(is_regular, jnp.exp(u), jnp.where(is_endless, jnp.inf, 0))
    return jnp.where(is_undetermined | jnp.isnan(at_zero), jnp.nan, root)


def _last_crossing(
    drive: Callable[[Number], Number], decay: Number, limit: Number
) -> tuple[Number, Number]:
    """Bounds of the last `u` at which the drive falls below the decay. If it is nowhere
    above, the lower bound is where it comes nearest."""
    # Sums of outputs cancel up to rounding, which bounds the scales that matter; what
    # lies beyond the last point of the scan is found from there.
    reach = -2 * math.log(jnp.finfo(limit.dtype).eps)
    grid = jnp.asarray(np.arange(-reach, reach, _SPACING), limit.dtype)
    drives = jax.lax.map(drive, grid, batch_size=_BATCH)
    ends = jnp.append(grid, limit)
    above = drives > decay
    last = grid.size - 1 - jnp.argmax(above[::-1])
    # The scan may miss the part of a hump that is above the decay.
    highest = jnp.argmax(drives)
    before, after = grid[jnp.maximum(highest - 1, 0)], ends[highest + 1]
    peak = _bisect(lambda u: -jax.grad(drive)(u), before, after)
    is_seen = jnp.any(above)
    lower = jnp.where(is_seen, grid[last], peak)
    return lower, jnp.where(is_seen, ends[last + 1], after)


def _bisect(
    increasing: Callable[[Number], Number], lower: Number, upper: Number
) -> Number:
    """The root between the bounds, to rounding."""
    solution = optx.root_find(
        lambda u, _: increasing(u),
        # Until the steps are used up.
        optx.Bisection(rtol=0.0, atol=0.0, flip=False),
        (lower + upper) / 2,
        options={"lower": lower, "upper": upper},
        max_steps=64,
        throw=False,
    )
    return solution.value
