"""How many evaluations of the field a solver makes."""

import diffrax
from jaxtyping import Array, Int


def num_evaluations(
    solver: diffrax.AbstractSolver, num_steps: Int[Array, ""]
) -> Int[Array, ""] | None:
    """Evaluations of the field in `num_steps` steps, accepted and rejected ones, or
    `None` where it cannot be told (implicit solvers, whose iterations vary).

    The few that choose the first step are not counted, nor is a repetition of the very
    first evaluation where the first steps are rejected.
    """
    if isinstance(solver, diffrax.Euler):
        return num_steps
    if isinstance(solver, diffrax.AbstractERK) and isinstance(
        solver.tableau, diffrax.ButcherTableau
    ):
        stages = solver.tableau.num_stages
        if solver.tableau.fsal:
            return 1 + (stages - 1) * num_steps
        return stages * num_steps
    if isinstance(solver, diffrax.AbstractSRK):
        return len(solver.tableau.b_sol) * num_steps
    return None
