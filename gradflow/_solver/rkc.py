"""The stabilised explicit solver."""

import math
from typing import ClassVar, Literal

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import State
from .chebyshev import Chebyshev, largest_stiffness, num_stages
from .spectral_radius import SpectralRadius, refine, unknown_spectral_radius

_SAFETY = 1.1
"""Power iteration comes from below."""

_EVALUATIONS_PER_REFRESH = 40
"""The spectral radius is looked at again after so many evaluations, at the price of two
more, and whenever a step is shorter than the one before: then it was perhaps rejected,
for too small a radius."""


class RKCState(eqx.Module):
    """What RKC takes from one step to the next."""

    # From the end of one step to the start of the next.
    derivative: State
    has_derivative: Bool[Array, ""]
    radius: SpectralRadius
    evaluations_since_refresh: Int[Array, ""]
    last_step: Float[Array, ""]
    # For the record.
    num_evaluations: Int[Array, ""]


class RKC(diffrax.AbstractSolver[RKCState]):
    r"""The second-order Runge–Kutta–Chebyshev method, for stiff problems whose Jacobian
    has eigenvalues near the negative real axis: gradient flows.

    A step of $s$ stages is stable up to $h \varrho = 0.65\, (s^2 - 1)$, where $\varrho$
    is the spectral radius: its length grows with the square of its cost. The error
    alone decides how long a step is, and the stages follow. $\varrho$ comes from power
    iteration with Jacobian-vector products, each of which costs about two evaluations
    of the field.

    First same as last, embedded error estimate of third order, dense output by cubic
    Hermite interpolation.

    ??? cite "Reference"

        B. P. Sommeijer, L. F. Shampine, J. G. Verwer: RKC, an explicit solver for
        parabolic PDEs. Journal of Computational and Applied Mathematics 88 (1998)
        315-326.
    """

    max_stages: int = eqx.field(static=True, default=10_000)
    scan_kind: Literal["lax", "checkpointed", "bounded"] | None = eqx.field(
        static=True, default=None
    )

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation

    def __check_init__(self):
        if self.max_stages < 2:
            raise ValueError(f"`max_stages` must be at least 2, got {self.max_stages}.")

    def order(self, terms) -> int:
        del terms
        return 2

    def error_order(self, terms) -> int:
        del terms
        return 3

    def init(self, terms, t0, t1, y0, args) -> RKCState:
        del terms, args
        zero = jnp.asarray(0, jnp.int32)
        return RKCState(
            derivative=jax.tree.map(jnp.zeros_like, y0),
            has_derivative=jnp.asarray(False),
            radius=unknown_spectral_radius(y0),
            evaluations_since_refresh=zero,
            last_step=jnp.abs(t1 - t0),
            num_evaluations=zero,
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        is_fresh = ~solver_state.has_derivative | made_jump
        h = jnp.asarray(terms.contr(t0, t1), solver_state.radius.value.dtype)
        size = jnp.abs(t1 - t0)

        since_refresh = solver_state.evaluations_since_refresh
        is_stale = (since_refresh >= _EVALUATIONS_PER_REFRESH) | (
            size < 0.99 * solver_state.last_step
        )
        radius = refine(
            lambda y: terms.vf(t0, y, args),
            y0,
            solver_state.radius,
            when=is_fresh | is_stale,
        )
        since_refresh = jnp.where(is_fresh | is_stale, 0, since_refresh)

        wanted = num_stages(jnp.abs(h) * _SAFETY * radius.value)
        is_too_long = wanted > self.stage_limit(h.dtype)
        # A step that is too long is rejected whatever it gives: as few as possible.
        stages = jnp.where(is_too_long, 2, wanted).astype(jnp.int32)
        y1, f0, f1 = self._run_stages(
            _in_time(terms, t0, t1, args),
            y0,
            h,
            stages,
            solver_state.derivative,
            is_fresh,
        )

        def local_error(a, b, fa, fb):
            error = 0.8 * (a - b) + 0.4 * h * (fa + fb)
            return jnp.where(is_too_long, jnp.inf, error)

        error = jax.tree.map(local_error, y0, y1, f0, f1)
        k0, k1 = (jax.tree.map(lambda f: h * f, f) for f in (f0, f1))
        evaluations = stages + is_fresh.astype(jnp.int32)
        new_state = RKCState(
            derivative=f1,
            has_derivative=jnp.asarray(True),
            radius=radius,
            evaluations_since_refresh=since_refresh + evaluations,
            last_step=size,
            num_evaluations=solver_state.num_evaluations + evaluations,
        )
        dense_info = {"y0": y0, "y1": y1, "k0": k0, "k1": k1}
        return y1, error, dense_info, new_state, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def stage_limit(self, dtype) -> float:
        """The number of stages beyond which rounding errors, that grow with its square,
        would show."""
        rounding = math.sqrt(1e-3 / (10 * float(jnp.finfo(dtype).eps)))
        return float(min(self.max_stages, rounding))

    def largest_step(self, state: RKCState) -> Float[Array, ""]:
        """The largest step that this solver can take next."""
        limit = largest_stiffness(self.stage_limit(state.radius.value.dtype))
        return 0.95 * limit / (_SAFETY * state.radius.value)

    def _run_stages(self, field, y0, h, stages, derivative, is_fresh):
        """The state at the end of the step, and the field at its two ends."""

        # There is one evaluation of the field in the program, for the stages and for
        # both ends: it is what takes time to compile.
        def evaluate_and_advance(carry):
            j, coefficients, before, now, f0, _ = carry
            f = field(coefficients.node(j), now)
            f0 = jax.tree.map(lambda new, old: jnp.where(j == 0, new, old), f, f0)
            coefficients, after = _advance(coefficients, j, h, y0, before, now, f0, f)
            is_last = j == stages
            before, now = jax.tree.map(
                lambda new, old: jnp.where(is_last, old, new),
                (now, after),
                (before, now),
            )
            return j + 1, coefficients, before, now, f0, f

        zeroth = Chebyshev.of_degree_zero(stages, h.dtype)
        j = jnp.asarray(0, jnp.int32)
        first, y = _advance(zeroth, j, h, y0, y0, y0, derivative, derivative)
        fresh_start = (j, zeroth, y0, y0, derivative, derivative)
        start = (j + 1, first, y0, y, derivative, derivative)
        start = jax.tree.map(lambda a, b: jnp.where(is_fresh, a, b), fresh_start, start)
        carry = eqxi.while_loop(
            lambda carry: carry[0] <= stages,
            evaluate_and_advance,
            start,
            max_steps=self.max_stages + 1,
            kind=self.scan_kind or "checkpointed",
        )
        _, _, _, y1, f0, f1 = carry
        return y1, f0, f1


def _advance(coefficients, j, h, y0, before, now, f0, f):
    """From stage `j` to the next."""
    coefficients, stage = coefficients.next(j)

    def combine(y0, before, now, f0, f):
        return (
            (1 - stage.mu - stage.nu) * y0
            + stage.mu * now
            + stage.nu * before
            + (h * stage.mu_tilde) * f
            + (h * stage.gamma_tilde) * f0
        )

    return coefficients, jax.tree.map(combine, y0, before, now, f0, f)


def _in_time(terms, t0, t1, args):
    """The field at a fraction of the step."""

    def field(fraction, y):
        return terms.vf(t0 + (t1 - t0) * fraction.astype(jnp.result_type(t0)), y, args)

    return field


RKC.__init__.__doc__ = """**Arguments:**

- `max_stages`: the most stages of a step; a step that would need more is rejected. In
    float32 rounding errors, which grow with the square of the stages, set the limit at
    28 if that is less.
- `scan_kind`: the loop over the stages, as for diffrax's own solvers: `"checkpointed"`
    (the default) for reverse-mode, `"lax"` for forward-mode differentiation,
    `"bounded"` for both. `gradflow.solve` chooses it by itself.

**Raises:** `ValueError` for fewer than two stages.
"""
