"""The growth of the scale under an exponential loss, against closed forms and flows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import expi

import gradflow as gf

# Over 100 decades and more, and from small and large starts.
LOG_TIMES = np.array([-20.0, -3.0, 0.0, 1.0, 5.0, 50.0, 230.0, 600.0])
STARTS = (1e-6, 0.3, 5.0)


def rho(log_times, *arguments, **options):
    def at(log_t):
        return gf.analysis.rho_of_log_time(log_t, *arguments, **options)

    return jax.jit(jax.vmap(at))(jnp.asarray(log_times))


@pytest.mark.parametrize("start", STARTS)
def test_one_layer(start):
    f = 0.4
    # log(exp(ρ_0 f) + f² t) / f, without the rounding.
    expected = start + np.log1p(f**2 * np.exp(LOG_TIMES - start * f)) / f
    np.testing.assert_allclose(rho(LOG_TIMES, start, margin=f), expected, rtol=1e-12)


@pytest.mark.parametrize("start", STARTS)
def test_two_layers(start):
    """li(e^u) = Ei(u), which SciPy knows."""
    f = 0.4
    scales = start * np.array([1.01, 2.0, 10.0, 100.0])
    times = (expi(scales * f) - expi(start * f)) / (2 * f)
    for scale, time in zip(scales, times, strict=True):
        log_t = gf.analysis.log_time_of_rho(scale, start, margin=f, layers=2)
        np.testing.assert_allclose(log_t, np.log(time), rtol=1e-11, atol=1e-11)
    found = rho(np.log(times), start, margin=f, layers=2)
    np.testing.assert_allclose(found, scales, rtol=1e-10)


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_against_the_equation(layers):
    """dρ_k/dt = f ρ_k^(K-1) exp(-f ρ_k^K), by another integrator."""
    f, start, times = 0.7, 0.2, np.array([0.1, 1.0, 10.0, 100.0])
    solution = solve_ivp(
        lambda t, r: f * r ** (layers - 1) * np.exp(-f * r**layers),
        (0.0, times[-1]),
        [start ** (1 / layers)],
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
        t_eval=times,
    )
    found = rho(np.log(times), start, margin=f, layers=layers)
    np.testing.assert_allclose(found, solution.y[0] ** layers, rtol=1e-9)


def test_against_a_flow():
    """Three diagonal layers of one entry, and one sample."""
    weights = [jnp.full((1,), 0.6)] * 3
    network = gf.Diagonal.from_weights(weights, gf.Identity())
    data = gf.Dataset(np.full((1, 1), 0.5), np.ones(1))
    ts = jnp.asarray([0.5, 5.0, 500.0])
    run = gf.solve(
        gf.Problem(data, gf.ExponentialLoss()),
        gf.GradientFlow(),
        network,
        500.0,
        ts=ts,
        rtol=1e-8,
    )
    expected = rho(jnp.log(ts), 0.6**3, margin=0.5, layers=3)
    np.testing.assert_allclose(run.observables["rho"], expected, rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_times_beyond_all_numbers(layers):
    """At u = 1e6 the integral is e^u u^-p (1 + p/u + p(p+1)/u² …)."""
    u, p = 1e6, 2 - 2 / layers
    log_t = gf.analysis.log_time_of_rho(u, 1.0, layers=layers)
    series = 1 + p / u + p * (p + 1) / u**2
    expected = u - p * np.log(u) + np.log(series / layers)
    np.testing.assert_allclose(log_t, expected, rtol=1e-14)
    again = gf.analysis.rho_of_log_time(log_t, 1.0, layers=layers)
    np.testing.assert_allclose(again, u, rtol=1e-13)


def test_a_start_beyond_all_numbers():
    """e^u / u - e^u_0 / u_0 to first order."""
    log_t = gf.analysis.log_time_of_rho(4001.0, 4000.0, layers=2)
    expected = 4001 + np.log((1 / 4001 - np.exp(-1) / 4000) / 2)
    np.testing.assert_allclose(log_t - expected, 0, atol=1e-3)


def test_time_zero():
    """The first of a run's times."""
    times = np.array([-np.inf, -50.0])
    np.testing.assert_allclose(rho(times, 0.5, layers=3), 0.5, rtol=1e-12)


def test_derivatives():
    """For one layer dρ / d log t = t f exp(-ρ f), and the second is that times the
    rest of 1 less f times the first; where u_0 = ρ_0 f is larger than 1."""
    f, log_t, start = 0.5, 4.0, 5.0

    @jax.jit
    def derivatives(log_t, start):
        def rho_at(log_t, start):
            return gf.analysis.rho_of_log_time(log_t, start, margin=f)

        first, by_start = jax.grad(rho_at, (0, 1))(log_t, start)
        second = jax.grad(jax.grad(rho_at))(log_t, start)
        return rho_at(log_t, start), first, second, by_start

    rho, first, second, by_start = derivatives(log_t, start)
    expected = np.exp(log_t) * f * np.exp(-rho * f)
    np.testing.assert_allclose(first, expected, rtol=1e-10)
    np.testing.assert_allclose(second, expected * (1 - f * expected), rtol=1e-9)
    np.testing.assert_allclose(by_start, np.exp(f * (start - rho)), rtol=1e-10)


def test_derivative_before_anything_has_grown():
    at_start = jax.value_and_grad(gf.analysis.rho_of_log_time, (0, 1))
    assert at_start(-60.0, 5.0) == (5.0, (0.0, 1.0))
    assert jnp.isnan(gf.analysis.rho_of_log_time(jnp.nan, 5.0))


@pytest.mark.parametrize(
    ("options", "match"),
    [({"margin": -1.0}, "`margin`"), ({"layers": 0}, "`layers`")],
)
def test_arguments_that_do_not_fit(options, match):
    with pytest.raises(ValueError, match=match):
        gf.analysis.log_time_of_rho(2.0, 1.0, **options)
    with pytest.raises(ValueError, match="`rho_0`"):
        gf.analysis.log_time_of_rho(2.0, 0.0)
