"""What holds at the end of a run, beside what theory says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._flow import (
    AbstractFlow,
    GradientFlow,
    LagrangeFlow,
    PolarGradientFlow,
    RowSpheres,
    steepest_descent,
)
from .._flow.wrapper import AbstractWrapperFlow
from .._network import AbstractNetwork, BatchNorm, Dense
from .._observables import Stationarity
from .._problem import Problem
from .._trajectory import Trajectory
from ..analysis import (
    average_separability,
    distance_to_rank_one,
    equal_margin_defect,
    growth_violations,
    layer_balance,
    multiplier,
    representation_residual,
    stable_rank,
    structural_residual,
    support,
)
from .along import can_collapse, of_flow
from .row import Row


def rows_at_end(problem: Problem, flow: AbstractFlow, along: Trajectory) -> list[Row]:
    """The rows of the table but those of the spectrum."""
    measured = jax.tree.map(
        np.asarray, _measure(problem, flow, along[-1], along.ts[-1])
    )
    measured["sample_residual"] = np.asarray(along.observables["sample_residual"])[-1]
    return [
        *_scale(flow, along, measured),
        *_directions(flow, along[-1], measured),
        *_conserved(problem, flow, along),
        *_ranks(along[-1], measured),
        *_margins(problem, along, measured),
        *_collapse(problem, along),
    ]


def _scale(flow: AbstractFlow, along: Trajectory, measured) -> list[Row]:
    rho, rho_eq = (along.observables[name] for name in ("rho", "rho_eq"))
    violations = np.sum(growth_violations(rho, rho_eq, rtol=1e-4))
    network = along[-1]
    decay = np.asarray(flow.weight_decay_at(along.ts[-1]))
    norms = np.asarray(flow.scaling_norms(flow.init(network), network))
    multiplier_at_rest = decay * np.abs(np.prod(norms)) ** (2 / norms.size)
    # The law of signs holds for one norm, or without weight decay.
    is_monotone = norms.size == 1 or decay == 0
    return [
        Row("rho", "ρ", rho[-1], rho_eq[-1], "SQ 5, M112 7"),
        Row(
            "growth_violations",
            "times that ρ left ρ_eq",
            violations,
            0 if is_monotone else None,
            "M112 §3" if is_monotone else "",
        ),
        Row(
            "average_separability",
            "average separability",
            measured["average_separability"],
            "> 0",
            "M112 §2.1",
        ),
        Row(
            "multiplier",
            "multiplier ν",
            measured["multiplier"],
            multiplier_at_rest,
            "M112 §2.3",
        ),
    ]


def _directions(flow: AbstractFlow, final: AbstractNetwork, measured) -> list[Row]:
    flow, _ = steepest_descent(flow)
    while isinstance(flow, AbstractWrapperFlow):
        flow = flow.flow
    # The units of a layer that have spheres of their own have multipliers of their own.
    of_layers = not (
        isinstance(flow, LagrangeFlow) and isinstance(flow.spheres, RowSpheres)
    )
    of_samples = of_layers and final.out_size == 1
    of_samples = of_samples and not isinstance(final, BatchNorm)
    return [
        Row("stationarity", "stationarity", measured["stationarity"], 0),
        Row(
            "structural_residual",
            "structural lemma",
            measured["structural_residual"],
            0,
            "T3 3, M112 1",
        ),
        Row(
            "representation_residual",
            "V = Σ α ∂f/∂V",
            measured["representation_residual"],
            0 if of_layers else None,
            "M112 29" if of_layers else "",
        ),
        Row(
            "sample_residual",
            "∂f/∂V = V f, mean",
            measured["sample_residual"],
            "0 if SGD rests" if of_samples else None,
            "M112 40" if of_samples else "",
        ),
    ]


def _ranks(final: AbstractNetwork, measured) -> list[Row]:
    # The gradients of a sample have rank one by the layers of dense networks only.
    is_dense = isinstance(final, Dense)
    return [
        Row(
            "stable_rank",
            "stable rank",
            measured["stable_rank"],
            "1 if SGD rests" if is_dense else None,
        ),
        Row(
            "distance_to_rank_one",
            "distance to rank one",
            measured["distance_to_rank_one"],
            "0 if SGD rests" if is_dense else None,
            "M112 Lemma 6" if is_dense else "",
        ),
    ]


def _margins(problem: Problem, along: Trajectory, measured) -> list[Row]:
    if problem.dataset.regression:
        return []
    interpolates = problem.loss.attains_infimum
    with np.errstate(divide="ignore"):
        expected = 1 / np.asarray(along.observables["rho"])[-1]
    return [
        Row("train_error", "train error", 1 - measured["accuracy"]),
        Row(
            "margin_min",
            "smallest margin",
            measured["margin_min"],
            expected if interpolates else None,
            "M112 §1.2" if interpolates else "",
        ),
        Row(
            "margin_mean",
            "mean margin",
            measured["margin_mean"],
            expected if interpolates else None,
        ),
        Row("support", "samples near the smallest", measured["support"]),
        Row(
            "equal_margin_defect",
            "spread of the margins",
            measured["equal_margin_defect"],
            0 if interpolates else None,
            "M112 Prop. 1" if interpolates else "",
        ),
    ]


def _collapse(problem: Problem, along: Trajectory) -> list[Row]:
    if not can_collapse(problem, along[-1]):
        return []
    series = along.observables["neural_collapse"]
    collapse = jax.tree.map(lambda x: np.asarray(x)[-1], series)
    rows = [
        Row("nc1", "NC1, each hidden layer", collapse.nc1, 0, "M112 §5"),
        Row("nc4", "NC4", collapse.nc4, 0),
    ]
    if (problem.dataset.num_classes or 2) > 2:
        # The means of two classes are always a simplex.
        rows += [
            Row("nc2_simplex", "NC2, simplex", collapse.nc2_simplex, 0),
            Row("nc3_product", "NC3, last layer", collapse.nc3_product, 0),
        ]
    return rows


def _conserved(problem: Problem, flow: AbstractFlow, along: Trajectory) -> list[Row]:
    """Conserved, or decaying, in the gradient flow."""
    if not isinstance(flow, GradientFlow | PolarGradientFlow) or len(along) < 2:
        return []
    passed = float(along.ts[-1] - along.ts[0])
    fading = np.exp(-2 * np.asarray(flow.weight_decay) * passed)
    if isinstance(along[-1], BatchNorm):
        normalised = np.flatnonzero(np.asarray(along[-1].degrees) == 0)
        before, after = (np.asarray(along[i].norms)[normalised] for i in (0, -1))
        name, words = "normalised_norms", "normalised layers' norms"
        return [Row(name, words, after, before * fading, "M112 App. A.2")]
    before, after = (np.asarray(layer_balance(problem, along[i])) for i in (0, -1))
    if not before.size:
        return []
    expected = before * fading**2
    return [Row("layer_balance", "balance of layers", after, expected, "M112 Lemma 3")]


@eqx.filter_jit
def _measure(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    t: Float[Array, ""],
) -> dict[str, PyTree]:
    measured: dict[str, PyTree] = {
        "average_separability": average_separability(problem, network),
        "multiplier": multiplier(problem, network),
        "stationarity": of_flow(Stationarity(), problem, flow, network, t),
        "structural_residual": jnp.max(structural_residual(problem, network), axis=1),
        "representation_residual": representation_residual(problem, network),
        "stable_rank": stable_rank(problem, network),
        "distance_to_rank_one": distance_to_rank_one(problem, network),
    }
    if not problem.dataset.regression:
        margins = problem.margins(network)
        measured |= {
            "accuracy": problem.accuracy(network),
            "margin_min": jnp.min(margins),
            "margin_mean": jnp.mean(margins),
            "support": jnp.sum(support(problem, network)),
            "equal_margin_defect": equal_margin_defect(problem, network),
        }
    return measured
