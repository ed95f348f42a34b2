"""What the stabilised explicit solvers have in common."""

import abc
import math
from typing import ClassVar, Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import RealScalarLike, State
from .chebyshev import Scheme
from .spectral_radius import SpectralRadius, refine, unknown_spectral_radius
from .stages import Start, run_stages

_SAFETY = 1.1
"""Power iteration comes from below."""

_EVALUATIONS_PER_REFRESH = 40
"""The spectral radius is looked at again after so many evaluations, at the price of two
more, and whenever a step is shorter than the one before: then it was perhaps rejected,
for too small a radius."""


class StabilisedState(eqx.Module):
    """What a stabilised solver takes from one step to the next."""

    # From the end of one step to the start of the next.
    derivative: State
    has_derivative: Bool[Array, ""]
    radius: SpectralRadius
    evaluations_since_refresh: Int[Array, ""]
    # Where the last step started, and its length. What a step gave is not kept: its
    # end may be moved, by a projection, before the next one starts from there.
    last_start: State
    last_step: Float[Array, ""]
    # For the record.
    num_evaluations: Int[Array, ""]


class AbstractStabilised(diffrax.AbstractSolver[StabilisedState]):
    r"""A Runge–Kutta–Chebyshev method: as many stages as a step needs to be stable, for
    a spectral radius found on the way.

    Methods of two steps are told the ratio of the last step to this one; it is 0 where
    there is no step to build on.
    """

    max_stages: eqx.AbstractVar[int]
    scan_kind: eqx.AbstractVar[Literal["lax", "checkpointed", "bounded"] | None]
    fewest_stages: ClassVar[int]

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation

    def __check_init__(self):
        if self.max_stages < self.fewest_stages:
            raise ValueError(
                f"`max_stages` must be at least {self.fewest_stages}, got "
                f"{self.max_stages}."
            )

    @abc.abstractmethod
    def num_stages(
        self, stiffness: Float[Array, ""], ratio: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The fewest stages at which a step is stable for real eigenvalues down to
        minus `stiffness`, the spectral radius times the step.

        As a floating-point number: there are stiffnesses that no integer holds.
        """

    @abc.abstractmethod
    def largest_stiffness(self, stages: RealScalarLike) -> Float[Array, ""]:
        """The stiffness up to which `stages` stages do, whatever the ratio."""

    @abc.abstractmethod
    def scheme(self, stages: Int[Array, ""], ratio: Float[Array, ""]) -> Scheme:
        """The scalars of a step. There may be as few as two stages for the ratio 0."""

    def init(self, terms, t0, t1, y0, args) -> StabilisedState:
        del terms, args
        zero = jnp.asarray(0, jnp.int32)
        return StabilisedState(
            derivative=jax.tree.map(jnp.zeros_like, y0),
            has_derivative=jnp.asarray(False),
            radius=unknown_spectral_radius(y0),
            evaluations_since_refresh=zero,
            last_start=y0,
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

        # Bounded, since a step that ends a run can be as short as rounding.
        ratio = 1 / jnp.maximum(size / solver_state.last_step, 1e-6)
        ratio = jnp.where(is_fresh, 0, ratio).astype(h.dtype)
        wanted = self.num_stages(jnp.abs(h) * _SAFETY * radius.value, ratio)
        is_too_long = wanted > self.stage_limit(h.dtype)
        # A step that is too long is rejected whatever it gives: as few as possible.
        stages = jnp.where(is_too_long, 2, wanted).astype(jnp.int32)
        scheme = self.scheme(stages, jnp.where(is_too_long, 0, ratio))
        y1, f0, f1 = run_stages(
            _in_time(terms, t0, t1, args),
            scheme,
            h,
            Start(y0, solver_state.last_start, solver_state.derivative, is_fresh),
            max_stages=self.max_stages,
            kind=self.scan_kind or "checkpointed",
        )

        error = scheme.local_error(h, solver_state.last_start, y0, y1, f0, f1)
        error = jax.tree.map(lambda e: jnp.where(is_too_long, jnp.inf, e), error)
        k0, k1 = (jax.tree.map(lambda f: h * f, f) for f in (f0, f1))
        evaluations = stages + is_fresh.astype(jnp.int32)
        new_state = StabilisedState(
            derivative=f1,
            has_derivative=jnp.asarray(True),
            radius=radius,
            evaluations_since_refresh=since_refresh + evaluations,
            last_start=y0,
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

    def largest_step(self, state: StabilisedState) -> Float[Array, ""]:
        """The largest step that this solver can take next."""
        limit = self.largest_stiffness(self.stage_limit(state.radius.value.dtype))
        return 0.95 * limit / (_SAFETY * state.radius.value)


def _in_time(terms, t0, t1, args):
    """The field at a fraction of the step."""

    def field(fraction, y):
        return terms.vf(t0 + (t1 - t0) * fraction.astype(jnp.result_type(t0)), y, args)

    return field
