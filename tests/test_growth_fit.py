"""The fit of the law of growth: to the law itself, and to a flow that follows it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradflow as gf
from cases import unchecked_types as unchecked_types

# All of one length, so that each number of layers is compiled once.
NUM_TIMES = 12
fit_growth = eqx.filter_jit(gf.analysis.fit_growth)


def law(times, start, *, layers, margin, rate):
    """dρ/dt = A K f ρ^(2-2/K) exp(-f ρ), by another integrator."""
    power = 2 - 2 / layers
    solution = solve_ivp(
        lambda t, r: rate * layers * margin * r**power * np.exp(-margin * r),
        (times[0], times[-1]),
        [start],
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
        t_eval=times,
    )
    return jnp.asarray(solution.y[0])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_parameters_of_the_law(layers):
    """From time 0, and from a time when another law has brought ρ to 2."""
    for first, start, margin, rate in ((0.0, 0.3, 0.4, 1.0), (50.0, 2.0, 1.5, 7.0)):
        times = np.array([first, *np.geomspace(first + 0.1, 1e4, NUM_TIMES - 1)])
        rho = law(times, start, layers=layers, margin=margin, rate=rate)
        with np.errstate(divide="ignore"):
            log_ts = jnp.asarray(np.log(times))
        fit = fit_growth(log_ts, rho, layers=layers)
        np.testing.assert_allclose(fit.margin, margin, rtol=1e-8)
        np.testing.assert_allclose(fit.log_rate, np.log(rate), atol=1e-8)
        np.testing.assert_allclose(fit.rho_start, start, rtol=1e-8)
        assert fit.misfit < 1e-9


def test_times_beyond_all_numbers():
    """Two layers: e^u/u (1 + 1/u + …) of u = ρ f is 2 A f t at late times."""
    u = np.linspace(2000, 4000, NUM_TIMES)
    series = 1 + 1 / u + 2 / u**2 + 6 / u**3 + 24 / u**4
    log_ts = u - np.log(u) + np.log(series) - np.log(2 * 0.05 * 20)
    fit = fit_growth(jnp.asarray(log_ts), jnp.asarray(u / 0.05), layers=2)
    np.testing.assert_allclose(fit.margin, 0.05, rtol=1e-9)
    np.testing.assert_allclose(fit.log_rate, np.log(20), rtol=1e-6)
    assert fit.misfit < 1e-10


def test_a_flow():
    """Two equal samples, and two layers of one norm: f = |x|, A = 2."""
    x, unit = np.array([0.6, 0.0, 0.3]), np.array([[0.6], [0.8]])
    weights = [0.5 * unit * x / np.linalg.norm(x), 0.5 * unit.T]
    network = gf.Dense.from_weights([jnp.asarray(w) for w in weights])
    data = gf.Dataset(np.stack([x, x]), np.ones(2))
    log_ts = jnp.linspace(-1.0, 8.0, NUM_TIMES)
    run = gf.solve(
        gf.Problem(data, gf.ExponentialLoss()),
        gf.GradientFlow(),
        network,
        np.exp(8.0),
        ts=jnp.exp(log_ts),
        rtol=1e-8,
        observe={},
    )
    rho = jax.vmap(lambda network: jnp.prod(network.norms))(run.networks)
    fit = fit_growth(log_ts, rho, layers=2)
    np.testing.assert_allclose(fit.margin, np.linalg.norm(x), rtol=1e-4)
    np.testing.assert_allclose(fit.log_rate, np.log(2), atol=1e-3)
    assert fit.misfit < 1e-6


def test_scales_that_are_not_of_the_law():
    """A misfit that shows, and NaN where there is nothing to be fitted."""
    log_ts = jnp.linspace(-2.0, 12.0, NUM_TIMES)
    saturated = fit_growth(log_ts, 1 + jnp.tanh(log_ts + 2), layers=2)
    assert saturated.misfit > 1e-2
    for rho in (jnp.ones(NUM_TIMES).at[-1].set(2.0), jnp.full(NUM_TIMES, jnp.nan)):
        fit = jax.jit(lambda rho: gf.analysis.fit_growth(log_ts, rho, layers=2))(rho)
        assert all(jnp.isnan(x) for x in jax.tree.leaves(fit))


def test_derivative():
    """Of a scale in other units, in which the margin is so much smaller."""
    log_ts = jnp.linspace(-2.0, 12.0, NUM_TIMES)

    def margin(unit):
        rho = unit * jnp.linspace(1.0, 10.0, NUM_TIMES)
        return gf.analysis.fit_growth(log_ts, rho, layers=2).margin

    value, slope = jax.jit(jax.value_and_grad(margin))(1.0)
    np.testing.assert_allclose(slope, -value, rtol=1e-8)


@pytest.mark.parametrize(
    ("log_ts", "rho", "layers", "match"),
    [
        ([0.0, 1, 2, 3], [1.0, 2, 3, 4], 0, "`layers`"),
        ([0.0, 1, 2], [1.0, 2, 3], 1, "four times"),
        ([0.0, 1, 2, 3], [1.0, 2, 3, 4, 5], 1, "shapes"),
        ([0.0, 2, 1, 3], [1.0, 2, 3, 4], 1, "`log_ts` must increase"),
        ([0.0, 1, 2, np.inf], [1.0, 2, 3, 4], 1, "`log_ts` must increase"),
        ([0.0, 1, 2, 3], [-1.0, 2, 3, 4], 1, "`rho` must be positive"),
        ([0.0, 1, 2, 3], [1.0, 2, np.nan, 4], 1, "`rho` must be positive"),
        ([0.0, 1, 2, 3], [4.0, 3, 2, 1], 1, "grow"),
    ],
)
def test_arguments_that_do_not_fit(log_ts, rho, layers, match, unchecked_types):
    with pytest.raises(ValueError, match=match):
        gf.analysis.fit_growth(jnp.array(log_ts), jnp.array(rho), layers=layers)
