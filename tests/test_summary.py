"""Summaries of many numbers, against NumPy on those that are defined."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gradflow as gf
import small


def test_against_numpy():
    values = np.random.default_rng(0).normal(size=(3, 8))
    values[0, 2:5] = np.nan
    values[1] = np.nan
    values[2, 3] = np.inf
    found = eqx.filter_jit(gf.analysis.summary)(jnp.asarray(values))
    np.testing.assert_array_equal(found.num_undefined, [3, 8, 0])
    for k in (0, 2):
        defined = values[k][~np.isnan(values[k])]
        for name in ("min", "mean", "median", "max"):
            expected = getattr(np, name)(defined)
            np.testing.assert_allclose(getattr(found, name)[k], expected, rtol=1e-14)
    for name in ("min", "mean", "median", "max"):
        assert jnp.isnan(getattr(found, name)[1])
    columns = gf.analysis.summary(jnp.asarray(values).T, axis=0)
    each = jax.vmap(gf.analysis.summary)(jnp.asarray(values))
    for other in (columns, each):
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)


def test_as_an_observable():
    """Of an array with one row for each layer."""

    def observe(problem, network):
        return gf.analysis.summary(gf.analysis.sample_residual(problem, network))

    run = gf.descend(
        small.problem(), 0.01, small.network(), 3, observe={"residual": observe}
    )
    found = run.observables["residual"]
    assert found.median.shape == found.num_undefined.shape == (4, 2)
    values = gf.analysis.sample_residual(small.problem(), run.final)
    np.testing.assert_allclose(found.max[-1], np.nanmax(values, axis=1), rtol=1e-12)
