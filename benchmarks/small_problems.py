"""Small problems for every flow and loss, each with its Filippov reference."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import filippov
import jax
import jax.numpy as jnp
import numpy as np
import slopes
from polar_flow import GRADIENT, LAGRANGE, PolarFlow

import gradflow as gf

WIDTHS = (9, 10, 5, 1)
NUM_SAMPLES = 10
NORM = 0.8
"""Of each layer at the start."""
_V_NORM = 1.5

LAGRANGE_ALL = replace(LAGRANGE, all_norms=True)
WEIGHT_NORM = replace(LAGRANGE_ALL, mobility=lambda r: np.full_like(r, _V_NORM**-2))

FLOWS: dict[str, tuple[Callable[[float], gf.AbstractFlow], PolarFlow]] = {
    "gradient": (gf.GradientFlow, GRADIENT),
    "polar": (gf.PolarGradientFlow, GRADIENT),
    "lagrange": (gf.LagrangeFlow, LAGRANGE),
    "lagrange, all norms": (
        lambda decay: gf.LagrangeFlow(decay, all_norms=True),
        LAGRANGE_ALL,
    ),
    "lagrange, rows": (
        lambda decay: gf.LagrangeFlow(decay, spheres=gf.RowSpheres()),
        replace(LAGRANGE, by_rows=True),
    ),
    "weight norm": (
        lambda decay: gf.WeightNormFlow(decay, v_norm=_V_NORM),
        WEIGHT_NORM,
    ),
}
"""gradflow's flow, given the weight decay, and its twin for the reference."""

LOSSES = {
    "square": (gf.SquareLoss(), slopes.square),
    "exponential": (gf.ExponentialLoss(), slopes.exponential),
    "logistic": (gf.LogisticLoss(), slopes.logistic),
}


@dataclass(frozen=True)
class Case:
    """A flow of a loss, from random weights on random data: 0.05 of weight decay for
    odd seeds, none for even ones."""

    flow_name: str
    loss_name: str
    seed: int

    @property
    def weight_decay(self) -> float:
        return 0.05 * (self.seed % 2)

    @property
    def flow(self) -> gf.AbstractFlow:
        return FLOWS[self.flow_name][0](self.weight_decay)

    @property
    def problem(self) -> gf.Problem:
        """Directions in space with labels ±1, without any pattern."""
        rng = np.random.default_rng(self.seed)
        inputs = rng.normal(size=(NUM_SAMPLES, WIDTHS[0]))
        inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
        labels = rng.choice([-1.0, 1.0], size=NUM_SAMPLES)
        data = gf.Dataset(jnp.asarray(inputs), jnp.asarray(labels))
        return gf.Problem(data, LOSSES[self.loss_name][0])

    @property
    def network(self) -> gf.Dense:
        return gf.Dense(WIDTHS, key=jax.random.key(self.seed), norm=NORM)

    def reference(self, t1: float, rtol: float) -> tuple[list[np.ndarray], list[int]]:
        """The weights of Filippov's solution, and how many pairs slide by layers."""
        twin = FLOWS[self.flow_name][1]
        data = self.problem.dataset
        result = filippov.integrate(
            [np.asarray(w) for w in self.network.weights],
            np.asarray(data.inputs),
            np.asarray(data.labels),
            self.weight_decay,
            [t1],
            flow=twin,
            slope=LOSSES[self.loss_name][1],
            rtol=rtol,
        )
        return twin.weights(*result.states[0]), result.sliding[0]
