"""Error control by layers."""

from collections.abc import Callable

import diffrax
import jax
from jaxtyping import Array, Float, PyTree

from .._tree import safe_norm
from .._types import State


class BlockNorms(diffrax.AbstractAdaptiveStepSizeController):
    """Shows another controller the norms of a state's arrays in the place of their
    entries.

    A relative tolerance then is one of each layer as a whole. Entry by entry, weights
    that happen to be near zero, and all those of a unit that has died, would ask for
    an accuracy that nothing depends on.
    """

    controller: diffrax.AbstractAdaptiveStepSizeController
    blocks: Callable[[State], PyTree[Float[Array, "..."]]]

    # For the root finders of implicit solvers.
    @property
    def rtol(self):  # pyright: ignore
        return self.controller.rtol

    @property
    def atol(self):  # pyright: ignore
        return self.controller.atol

    @property
    def norm(self):  # pyright: ignore
        return self.controller.norm

    def wrap(self, direction):
        return BlockNorms(self.controller.wrap(direction), self.blocks)  # pyright: ignore

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        return self.controller.adapt_step_size(
            t0,
            t1,
            self._norms(y0),
            self._norms(y1_candidate),
            args,
            None if y_error is None else self._norms(y_error),
            error_order,
            controller_state,
        )

    def _norms(self, state: State) -> PyTree[Float[Array, ""]]:
        return jax.tree.map(safe_norm, self.blocks(state))
