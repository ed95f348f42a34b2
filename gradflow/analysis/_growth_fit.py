"""The law of growth that fits a scale under an exponential loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .._check import is_concrete
from ._growth import rho_of_log_time


class GrowthFit(eqx.Module):
    r"""The parameters with which the law of growth is nearest to a measured scale.

    NaN, all of them, where the fit did not converge.

    **Attributes:**

    - `margin`: the normalised margin $f$.
    - `log_rate`: $\log A$; $A$ is the effective number of support samples.
    - `rho_start`: the law's own scale at the first time.
    - `misfit`: the root mean square of $\rho_{law} / \rho - 1$.
    """

    margin: Float[Array, ""]
    log_rate: Float[Array, ""]
    rho_start: Float[Array, ""]
    misfit: Float[Array, ""]


def fit_growth(
    log_ts: Float[Array, " T"], rho: Float[Array, " T"], *, layers: int
) -> GrowthFit:
    r"""Fits the law of [`gradflow.analysis.log_time_of_rho`][] to a measured scale,

    $$A K f^{2/K} (t - t_0) = \int_{\rho_0 f}^{\rho f} e^v v^{2/K - 2} \, dv,$$

    by least squares of the relative differences of $\rho$. It starts at the first of
    the given times, $t_0$, since earlier growth may have followed another law; $f$,
    the rate $A$ and the start $\rho_0$ are free. $A$ samples with the same margin and
    the same direction of their gradients grow $A$ times as fast as one; with
    `reduction="mean"` $A$ is divided by the number of all samples.

    $f$ and $A$ are told apart where $\rho f$ has grown by much more than 1: only then
    does the growth slow down. Before, a small misfit says little about either.

    **Arguments:**

    - `log_ts`: the logarithms of the times, increasing; minus infinity for time 0.
    - `rho`: the product $\rho$ of the layers' norms at these times.
    - `layers`: $K$.

    **Returns:** a [`gradflow.analysis.GrowthFit`][].

    **Raises:** `ValueError` for less than four times, times that do not increase, a
    `rho` that is not positive and finite or does not grow, and `layers` less than 1.
    """
    _check(log_ts, rho, layers)
    log_ts, rho = (jnp.asarray(x, float) for x in (log_ts, rho))
    # Since the first time, which may be far from 0.
    since = _log_since(log_ts[1:], log_ts[:1])

    def law(parameters):
        margin, rate, start = parameters

        def at(log_t):
            return rho_of_log_time(
                log_t + rate, jnp.exp(start), margin=jnp.exp(margin), layers=layers
            )

        return jnp.concatenate([jnp.exp(start)[None], jax.vmap(at)(since)])

    def differences(parameters, _):
        return law(parameters) / rho - 1

    solution = optx.least_squares(
        differences,
        optx.LevenbergMarquardt(rtol=1e-8, atol=1e-8),
        _initial(log_ts, rho, layers),
        max_steps=256,
        throw=False,
    )
    misfit = jnp.sqrt(jnp.mean(differences(solution.value, None) ** 2))
    good = (solution.result == optx.RESULTS.successful) & jnp.isfinite(misfit)
    margin, rate, start = solution.value
    return jax.tree.map(
        lambda x: jnp.where(good, x, jnp.nan),
        GrowthFit(jnp.exp(margin), rate, jnp.exp(start), misfit),
    )


def _initial(log_ts, rho, layers):
    r"""Of the logarithms of $f$, $A$ and $\rho_0$.

    By linear regression of $\log(\dot\rho \rho^{2/K - 2}) = \log(A K f) - f \rho$."""
    steps, middle = jnp.diff(rho), (rho[1:] + rho[:-1]) / 2
    grows = steps > 0
    log_rates = jnp.log(jnp.where(grows, steps, 1)) - _log_since(
        log_ts[1:], log_ts[:-1]
    )
    y = log_rates - (2 - 2 / layers) * jnp.log(middle)
    weights = grows.astype(rho.dtype)
    weights = weights / jnp.sum(weights)
    mean_x, mean_y = jnp.sum(weights * middle), jnp.sum(weights * y)
    x = middle - mean_x
    slope = jnp.sum(weights * x * (y - mean_y)) / jnp.sum(weights * x**2)
    margin = jnp.maximum(-slope, 1e-2 / rho[-1])
    rate = mean_y + margin * mean_x - jnp.log(layers * margin)
    return jnp.log(margin), rate, jnp.log(rho[0])


def _log_since(log_ts, earlier):
    """The logarithms of the differences of times, of any size."""
    return log_ts + jnp.log1p(-jnp.exp(earlier - log_ts))


def _check(log_ts, rho, layers: int) -> None:
    if layers < 1:
        raise ValueError(f"`layers` must be at least 1, got {layers}.")
    if log_ts.shape != rho.shape or log_ts.shape[0] < 4:
        raise ValueError(
            "`log_ts` and `rho` must hold one number each for four times or more, got "
            f"shapes {log_ts.shape} and {rho.shape}."
        )
    if not is_concrete((log_ts, rho)):
        return
    if not jnp.all(jnp.diff(log_ts) > 0) or not jnp.all(jnp.isfinite(log_ts[1:])):
        raise ValueError("`log_ts` must increase and be finite, but for time 0.")
    if not jnp.all(jnp.isfinite(rho) & (rho > 0)) or not rho[-1] > rho[0]:
        raise ValueError(
            "`rho` must be positive and finite, and grow: the law says nothing else."
        )
