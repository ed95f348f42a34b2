"""What polishing returns."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._check import is_concrete
from ._network import AbstractNetwork
from ._results import RESULTS, is_okay, name_of
from ._types import State


class CriticalPoint(eqx.Module):
    r"""A critical point of a flow, and the Hessian there.

    The Hessian is that of $L + \lambda P$ along the flow's constraint set, in the
    flow's metric; its eigenvalues are the rates at which the flow approaches the
    point (positive) or leaves it (negative). Ritz values stand for them, which lie
    between the smallest and the largest eigenvalue. A space that is not the whole may
    miss eigenvalues inside of the spectrum, so `num_negative` and `num_zero` are lower
    bounds.

    Where a unit of a smoothed rectifier network is dead, $L + \lambda P$ is homogeneous
    of degree two in the unit's weights, but no quadratic form. Its Hessian there
    depends on the direction from which the unit died, and the signs of the eigenvalues
    that belong to it prove nothing. So the fall that a negative one promises is looked
    for by steps along its vector.

    **Attributes:**

    - `network`, `state`: the point, as a network and as a state of the flow.
    - `stationarity`: the norm of the gradient relative to the gradients that cancel in
        it, see [`gradflow.Stationarity`][]; `stationarity_before` at the start.
    - `distance`: how far the weights moved, $\max_k \|W_k - W_k'\| / \|W_k'\|$ with
        those at the start $W'$.
    - `eigenvalues`: Ritz values in increasing order, then `inf` up to the size of the
        array.
    - `errors`: for each of them, a distance within which there is an eigenvalue.
    - `zero`: what is counted as 0, the root of the floating-point precision times the
        largest eigenvalue in absolute value.
    - `is_saddle`: whether $L + \lambda P$ falls along the vector of a negative
        eigenvalue; also at a maximum.
    - `result`: whether it is a critical point, one of `gradflow.RESULTS`.
    - `num_steps`, `num_hvps`: steps of Newton's method, and all products of the Hessian
        with a vector.
    """

    network: AbstractNetwork
    state: State
    stationarity: Float[Array, ""]
    stationarity_before: Float[Array, ""]
    distance: Float[Array, ""]
    eigenvalues: Float[Array, " m"]
    errors: Float[Array, " m"]
    zero: Float[Array, ""]
    is_saddle: Bool[Array, ""]
    result: RESULTS
    num_steps: Int[Array, ""]
    num_hvps: Int[Array, ""]

    @property
    def smallest(self) -> Float[Array, "*runs"]:
        """The smallest Ritz value."""
        return self.eigenvalues[..., 0]

    @property
    def largest(self) -> Float[Array, "*runs"]:
        """The largest Ritz value: the sharpness."""
        found = jnp.isfinite(self.eigenvalues)
        return jnp.max(jnp.where(found, self.eigenvalues, -jnp.inf), axis=-1)

    @property
    def num_negative(self) -> Int[Array, "*runs"]:
        """How many Ritz values are negative, below `-zero`."""
        return jnp.sum(self.eigenvalues < -self.zero[..., None], axis=-1)

    @property
    def num_zero(self) -> Int[Array, "*runs"]:
        """How many Ritz values are 0, between `-zero` and `zero`."""
        return jnp.sum(jnp.abs(self.eigenvalues) <= self.zero[..., None], axis=-1)

    @property
    def is_minimum(self) -> Bool[Array, "*runs"]:
        """Whether no eigenvalue is negative or zero: a strict minimum."""
        return self.smallest - self.errors[..., 0] > self.zero

    @property
    def kind(self) -> str:
        """`"saddle"` where `is_saddle`, `"minimum"` where all eigenvalues are positive,
        `"degenerate"` where the smallest is zero, zero within its error, or negative
        without a fall along its vector. `"not critical"` where `result` is a failure.

        What happens along the zero directions of a degenerate point is open. Where they
        are those of a symmetry, such as rotations of linear units, it is a minimum that
        is not isolated.
        """
        arrays = (self.eigenvalues, self.result)
        if not is_concrete(arrays) or self.eigenvalues.ndim != 1:
            raise ValueError(
                "`kind` is for one point outside of transformations; use `is_saddle` "
                "and `is_minimum`."
            )
        if not is_okay(self.result):
            return "not critical"
        if self.is_saddle:
            return "saddle"
        return "minimum" if self.is_minimum else "degenerate"

    def __repr__(self) -> str:
        arrays = (self.eigenvalues, self.result)
        if not is_concrete(arrays) or self.eigenvalues.ndim != 1:
            return eqx.tree_pformat({"eigenvalues": self.eigenvalues})
        found = int(np.sum(np.isfinite(self.eigenvalues)))
        end = self.kind if is_okay(self.result) else f"FAILED: {name_of(self.result)}"
        return "\n".join(
            [
                f"CriticalPoint of {self.network!r}",
                f"  {end}; moved by {self.distance:.6g}",
                f"  stationarity: {self.stationarity_before:.6g} → "
                f"{self.stationarity:.6g}",
                f"  Hessian: {self.smallest:.6g} … {self.largest:.6g}; of {found} "
                f"values {self.num_negative} negative, {self.num_zero} zero "
                f"(± {self.zero:.2g})",
                f"  num_hvps {self.num_hvps}, num_steps {self.num_steps}",
            ]
        )
