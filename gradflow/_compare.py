"""A flow beside gradient descent in steps of several sizes."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._check import (
    check_finite,
    check_instance,
    check_positive,
    check_positive_integer,
    check_scalar,
    is_concrete,
)
from ._comparison import Comparison
from ._descend import check_without_noise, descend
from ._flow import AbstractClock, AbstractFlow, GradientFlow, MomentumFlow
from ._network import AbstractActivation, AbstractNetwork
from ._observables import AbstractObservable, Point, Sharpness
from ._problem import Problem
from ._solve import solve
from ._trajectory import Trajectory
from ._types import RealScalarLike
from .analysis import relative_distance


def compare(
    problem: Problem,
    network: AbstractNetwork,
    t1: RealScalarLike,
    learning_rates: Sequence[float | int] | np.ndarray | Float[Array, " rates"],
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
    saves: int = 50,
    tolerance: RealScalarLike = 0.1,
    rtol: RealScalarLike = 1e-5,
) -> Comparison:
    r"""Runs a flow once, and gradient descent from the same start with each of several
    learning rates, and measures how far they are apart.

    Step $n$ of size $h$ lies at time $n h$, and the flow is saved at all of these
    times. They are the fewest where all numbers of steps are multiples of `saves`.

    **Arguments:**

    - `problem`, `network`: as in [`gradflow.solve`][].
    - `t1`: the final time. A descent ends with the last step that is not beyond it.
    - `learning_rates`: the step sizes $h$.
    - `flow`: gives coordinates, weight decay and constraints; any flow without a clock,
        noise or momentum.
    - `saves`: about how many times to compare at, evenly spaced, beside the start.
    - `tolerance`: the relative distance from which on a descent has left the flow.
    - `rtol`: that of the flow's integration. The error that it leaves is estimated.

    An exact ReLU network is smoothed for the integration, as in [`gradflow.solve`][];
    descent and sharpness are those of the network as it is.

    **Returns:** a [`gradflow.Comparison`][]. A descent that diverges is part of it, and
    not an exception.

    **Raises:** `ValueError` for arguments that do not fit; `SolveError` where the flow
    cannot be integrated.
    """
    check_instance("flow", flow, AbstractFlow)
    check_without_noise(flow)
    if isinstance(flow, MomentumFlow):
        raise ValueError(
            "`flow`: gradient descent with momentum takes other steps, and is stable "
            "for others, than what is compared here. Give its optimiser to "
            f"`gradflow.descend`. The flow inside is {flow.flow}."
        )
    if isinstance(flow, AbstractClock):
        raise ValueError(
            "`flow` has a clock, whose time is not that of the steps of gradient "
            f"descent. Give the flow within, got {flow}."
        )
    check_scalar("t1", t1)
    check_positive("t1", t1)
    check_finite("tolerance", tolerance)
    check_positive("tolerance", tolerance)
    check_positive_integer("saves", saves)
    if not is_concrete((network, t1, learning_rates)):
        raise ValueError(
            "`compare` has shapes that depend on values: call it outside of `jit`."
        )
    dtype = network.weights[0].dtype
    rates = _check_rates(learning_rates, float(t1), dtype)
    rows = [_save_steps(h, float(t1), saves) for h in rates]
    # As `descend` computes them.
    times = [
        steps.astype(rates.dtype) * h for steps, h in zip(rows, rates, strict=True)
    ]
    ts, places = _union(times)
    exact = solve(
        problem,
        flow,
        network,
        float(ts[-1]),
        ts=ts,
        rtol=rtol,
        observe={"sharpness": _SharpnessAsGiven(network.activation)},
        error=True,
    )
    descents, distances = [], []
    for h, steps, place in zip(rates, rows, places, strict=True):
        descent = descend(
            problem,
            jnp.asarray(h),
            network,
            int(steps[-1]),
            flow=flow,
            save_steps=steps,
            observe={},
            throw=False,
        )
        descents.append(descent)
        distances.append(_distances(descent, steps, exact, place))
    assert exact.error is not None
    return Comparison(
        learning_rates=jnp.asarray(rates),
        flow=exact,
        descents=tuple(descents),
        times=tuple(jnp.asarray(t) for t in times),
        distances=tuple(distances),
        error=jnp.max(exact.error),
        tolerance=jnp.asarray(tolerance, dtype),
    )


class _SharpnessAsGiven(AbstractObservable):
    """The sharpness of the network that descends. An exact ReLU network is smoothed to
    be integrated, and its kinks then are all that the largest curvature shows."""

    activation: AbstractActivation

    def __call__(self, point: Point) -> Float[Array, ""]:
        network = point.network.with_activation(self.activation)
        return Sharpness()(dataclasses.replace(point, network=network))


def _check_rates(learning_rates, t1: float, dtype) -> np.ndarray:
    rates = np.asarray(learning_rates, dtype)
    if rates.ndim != 1 or len(rates) == 0:
        raise ValueError(
            f"`learning_rates` must be a vector of step sizes, got {learning_rates!r}."
        )
    check_positive("learning_rates", rates.tolist())
    if np.max(rates) > t1:
        raise ValueError(
            f"`learning_rates`: a step of {np.max(rates)} is longer than `t1`, {t1}."
        )
    return rates


def _save_steps(h: np.floating, t1: float, saves: int) -> np.ndarray:
    # Where `t1` is a multiple of `h`, rounding must not cost the last step.
    slack = 4 * np.finfo(h.dtype).eps
    last = int(np.floor(t1 / float(h) * (1 + slack)))
    return np.unique(np.round(np.linspace(0, last, saves + 1)).astype(int))


def _union(times: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All times in increasing order, and where in it each is. Times that differ by
    rounding are one."""
    everything = np.unique(np.concatenate(times))
    gap = 16 * np.finfo(everything.dtype).eps * everything[-1]
    is_new = np.append(True, np.diff(everything) > gap)
    group = np.cumsum(is_new) - 1
    places = [group[np.searchsorted(everything, t)] for t in times]
    return everything[is_new], places


def _distances(
    descent: Trajectory, steps: np.ndarray, exact: Trajectory, place: np.ndarray
) -> Float[Array, " T"]:
    reached = int(np.sum(steps <= int(descent.stats["num_steps"])))
    ours, theirs = descent.require_networks(), exact.require_networks()
    # A descent that diverged has its end as one more row.
    along = _relative_distances(
        ours.with_weights(tuple(w[:reached] for w in ours.weights)),
        theirs.with_weights(tuple(w[place[:reached]] for w in theirs.weights)),
    )
    # What has overflowed on the way is as far.
    along = jnp.where(jnp.isnan(along), jnp.inf, along)
    return jnp.append(along, jnp.full(len(steps) - reached, jnp.inf, along.dtype))


_relative_distances = eqx.filter_jit(jax.vmap(relative_distance))
