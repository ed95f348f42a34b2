"""What the comparison of a flow with its descents returns."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._trajectory import Trajectory
from ._types import AnyArray, RealScalarLike


class Comparison(eqx.Module):
    r"""A flow, and gradient descent in steps of several sizes $h$ from the same start.

    **Attributes:**

    - `learning_rates`: the step sizes $h$, of shape `(rates,)`.
    - `flow`: the trajectory of the flow, saved at all of `times`, with the observable
        `sharpness`.
    - `descents`: the trajectory of each descent. One that diverged has the result
        `nonfinite_state` and ends there.
    - `times`: for each descent, the times $n h$ at which it is compared.
    - `distances`: for each, the relative distance in the weights from the flow at these
        times, as `gradflow.analysis.relative_distance`; `inf` after a descent diverged.
    - `error`: an estimate of the flow's own error, the largest along it.
    - `tolerance`: the distance from which on a descent counts as away from the flow.
    """

    learning_rates: Float[Array, " rates"]
    flow: Trajectory
    descents: tuple[Trajectory, ...]
    times: tuple[Float[Array, " _"], ...]
    distances: tuple[Float[Array, " _"], ...]
    error: Float[Array, ""]
    tolerance: RealScalarLike

    @property
    def final_distances(self) -> Float[Array, " rates"]:
        """The distance of each descent from the flow at its last step."""
        return jnp.stack([distances[-1] for distances in self.distances])

    @property
    def leaves_at(self) -> Float[Array, " rates"]:
        """The first time at which each descent is saved further than `tolerance` from
        the flow; `inf` for one that never is."""
        return jnp.stack(
            [
                _first_time(times, distances > self.tolerance)
                for times, distances in zip(self.times, self.distances, strict=True)
            ]
        )

    @property
    def leaves_at_step(self) -> Float[Array, " rates"]:
        """The same as a number of steps."""
        return jnp.round(self.leaves_at / self.learning_rates)

    @property
    def sharpness(self) -> Float[AnyArray, " T"]:
        """The sharpness along the flow, at `flow.ts`."""
        return self.flow.observables["sharpness"]

    @property
    def unstable_at(self) -> Float[Array, " rates"]:
        r"""The first saved time at which $h$ times the flow's sharpness is above 2: the
        edge of stability. From there on steps of this size amplify deviations in the
        sharpest direction. `inf` where that is never so."""
        return jnp.stack(
            [
                _first_time(self.flow.ts, self.sharpness * h > 2)
                for h in self.learning_rates
            ]
        )

    @property
    def is_fitted(self) -> Bool[Array, " rates"]:
        """Which descents `order` is fitted to: those that never left the flow, and end
        at least ten times as far from it as its own `error`."""
        stays = ~jnp.isfinite(self.leaves_at)
        return stays & (self.final_distances > 10 * self.error)

    @property
    def order(self) -> Float[Array, ""]:
        """The slope of the final distances over the step sizes, both as logarithms, by
        least squares: near 1 where steps are small. NaN for fewer than two descents."""
        h = np.asarray(self.learning_rates)[self.is_fitted]
        distances = np.asarray(self.final_distances)[self.is_fitted]
        if len(h) < 2:
            return jnp.full((), jnp.nan, self.learning_rates.dtype)
        return jnp.asarray(np.polyfit(np.log(h), np.log(distances), 1)[0])

    def __repr__(self) -> str:
        lines = [
            f"Comparison of gradient descent with the flow of {self.flow.final!r} to "
            f"t = {self.flow.ts[-1]:.6g}",
            f"{'learning rate':>15}{'steps':>9}{'distance':>12}{'leaves at':>12}"
            f"{'unstable at':>13}",
        ]
        for h, descent, distance, leaves, unstable in zip(
            self.learning_rates,
            self.descents,
            self.final_distances,
            self.leaves_at,
            self.unstable_at,
            strict=True,
        ):
            lines.append(
                f"{h:15.6g}{int(descent.stats['num_steps']):9}{distance:12.3e}"
                f"{_time(leaves):>12}{_time(unstable):>13}"
                + ("  diverged" if not np.isfinite(distance) else "")
            )
        sharpness = np.asarray(self.sharpness)
        used = int(np.sum(self.is_fitted))
        fitted = f"{self.order:.3f}, from" if used > 1 else "not known, with"
        lines.append(f"  order {fitted} {used} of {len(self.learning_rates)}")
        lines.append(
            f"  sharpness: {sharpness[0]:.6g} → {sharpness[-1]:.6g}, at most "
            f"{np.max(sharpness):.6g}"
        )
        lines.append(f"  error of the flow: about {self.error:.2g}")
        return "\n".join(lines)


def _first_time(
    times: Float[AnyArray, " T"], happens: Bool[AnyArray, " T"]
) -> Float[Array, ""]:
    return jnp.min(jnp.where(happens, times, jnp.inf))


def _time(t: Float[Array, ""]) -> str:
    return f"{t:.6g}" if np.isfinite(t) else "-"
