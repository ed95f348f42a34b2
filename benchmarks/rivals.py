"""Other integrators on the same field: plain diffrax, and SciPy.

All integrate the tangent form of the Lagrange flow, in float64 and compiled, of the
network that they are given: an exact one or a smoothed one. None of them goes through
`gf.solve`.
"""

import math
import time
from dataclasses import dataclass

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.integrate import OdeSolver

import gradflow as gf
from gradflow._solver import num_evaluations

MAX_STEPS = 10_000_000


@dataclass
class Outcome:
    """The state (ρ, V_k) at the end, how far the run came, and at what cost.

    Gradients are evaluations of the field. Those of an implicit diffrax solver are not
    counted by it: what is given then are two for each column of the Jacobian, once in a
    step, which leaves Newton's iterations out.
    """

    vector: np.ndarray
    t: float
    gradients: int
    result: str


class _Arguments(eqx.Module):
    """Arrays, so that other numbers do not mean another compilation."""

    t1: jax.Array
    rtol: jax.Array
    atol: jax.Array
    floor: jax.Array | None
    step: jax.Array | None


@eqx.filter_jit
def _diffrax(
    problem: gf.Problem,
    flow: gf.LagrangeFlow,
    network: gf.Dense,
    solver: diffrax.AbstractSolver,
    arguments: _Arguments,
    projects: bool,
    max_steps: int,
):
    vector, unravel = ravel_pytree(flow.init(network))

    def ravel(state):
        return ravel_pytree(state)[0]

    def field(t, y, args):
        del args
        # Of the projected point, so that the value that a solver keeps from the end of
        # a step is right after the projection too.
        state = flow.project(unravel(y)) if projects else unravel(y)
        return ravel(flow.vector_field(t, state, problem, network))

    if projects:
        solver = gf.Projected(
            solver,
            lambda y: ravel(flow.project(unravel(y))),
            lambda y: flow.defect(unravel(y)),
        )
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(
        rtol=arguments.rtol,
        atol=arguments.atol,
        dtmin=arguments.floor,
        force_dtmin=arguments.floor is not None,
    )
    if arguments.step is not None:
        controller = diffrax.ConstantStepSize()
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        jnp.zeros_like(arguments.t1),
        arguments.t1,
        arguments.step,
        vector,
        stepsize_controller=controller,
        max_steps=max_steps,
        throw=False,
    )
    end = flow.project(unravel(solution.ys[0]))
    return solution.ts[0], ravel(end), solution.stats, solution.result


def with_diffrax(
    problem: gf.Problem,
    flow: gf.LagrangeFlow,
    network: gf.Dense,
    t1: float,
    solver: diffrax.AbstractSolver,
    *,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    floor: float | None = None,
    step: float | None = None,
    projects: bool = True,
    max_steps: int = MAX_STEPS,
) -> Outcome:
    """diffrax with its own PID controller, or constant steps of size `step`.

    With a `floor` steps of that size are accepted whatever their error; `projects`
    returns to the spheres after every step.
    """

    def array(x: float | None):
        return None if x is None else jnp.asarray(x, float)

    arguments = _Arguments(*map(array, (t1, rtol, atol, floor, step)))
    t, vector, stats, result = _diffrax(
        problem, flow, network, solver, arguments, projects, max_steps
    )
    gradients = num_evaluations(solver, stats["num_steps"])
    if gradients is None:
        gradients = 2 * len(vector) * int(stats["num_steps"])
    name = "failure"
    if result == diffrax.RESULTS.successful:
        name = "success"
    elif result == diffrax.RESULTS.max_steps_reached:
        name = "too many steps"
    return Outcome(np.asarray(vector), float(t), int(gradients), name)


def with_scipy(
    problem: gf.Problem,
    flow: gf.LagrangeFlow,
    network: gf.Dense,
    t1: float,
    method: type[OdeSolver],
    *,
    rtol: float,
    atol: float,
    max_gradients: float = math.inf,
    max_seconds: float = math.inf,
) -> Outcome:
    """A method of SciPy's, with Jacobians by finite differences, whose evaluations of
    the field count too."""
    state = flow.init(network)
    start, unravel = ravel_pytree(state)
    velocity = _scipy_field(problem, flow, network)
    count = 0

    def field(t: float, y: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return np.asarray(velocity(y))

    solver = method(field, 0.0, np.asarray(start), t1, rtol=rtol, atol=atol)
    clock, result = time.perf_counter(), "success"
    while solver.status == "running":
        if count > max_gradients:
            result = "too many gradients"
            break
        if time.perf_counter() - clock > max_seconds:
            result = f"over {max_seconds:g} s"
            break
        solver.step()
    if solver.status == "failed":
        result = "failure"
    end, _ = ravel_pytree(flow.project(unravel(jnp.asarray(solver.y))))
    return Outcome(np.asarray(end), float(solver.t), count, result)


def _scipy_field(problem, flow, network):
    _, unravel = ravel_pytree(flow.init(network))

    @jax.jit
    def velocity(y):
        return ravel_pytree(flow.vector_field(0.0, unravel(y), problem, network))[0]

    return velocity
