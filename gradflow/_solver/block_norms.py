"""Error control by layers."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._tree import safe_norm
from .._types import State

_REACH = 3.0
"""A layer that has moved by a third of its norm is large enough to be measured by the
norm."""


class BlockNorms(diffrax.AbstractAdaptiveStepSizeController):
    r"""Shows another controller one number in the place of each of a state's arrays:
    how large the error is, and how large the layer.

    A relative tolerance then is one of each layer as a whole. Entry by entry, weights
    that happen to be near zero, and all those of a unit that has died, would ask for
    an accuracy that nothing depends on.

    **How large a layer is** depends on how far it has come: $\min(\|y\|, 3 \|y -
    y_{\text{start}}\|)$. What the flow does is the change. Of a unit that starts near a
    kink the first small moves decide on which side it goes, and a network in the lazy
    regime never makes others.

    **How large an error is** depends on how far a step goes: not more than that. The
    estimates of stabilised solvers multiply what is left of the fast modes by the
    stiffness, and would hold back the steps of a flow that has come to rest.
    """

    controller: diffrax.AbstractAdaptiveStepSizeController
    blocks: Callable[[State], PyTree[Float[Array, "..."]]]
    at_first: float

    # For the root finders of implicit solvers, which work entry by entry.
    @property
    def rtol(self):  # pyright: ignore
        return self.controller.rtol

    @property
    def atol(self):  # pyright: ignore
        return jnp.maximum(self.controller.atol, self.controller.rtol / 100)

    @property
    def norm(self):  # pyright: ignore
        return self.controller.norm

    def wrap(self, direction):
        controller = self.controller.wrap(direction)
        return BlockNorms(controller, self.blocks, self.at_first)  # pyright: ignore

    def init(
        self, terms, t0, t1, y0, dt0, args, func, error_order
    ) -> tuple[Any, tuple[Any, State]]:
        t_next, inner = self.controller.init(
            terms, t0, t1, y0, dt0, args, func, error_order
        )
        return t_next, (inner, y0)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        inner, start = controller_state
        accept, t0_next, t1_next, made_jump, inner, result = (
            self.controller.adapt_step_size(
                t0,
                t1,
                self._sizes(y0, start),
                self._sizes(y1_candidate, start),
                args,
                None if y_error is None else self._errors(y0, y1_candidate, y_error),
                error_order,
                inner,
            )
        )
        return accept, t0_next, t1_next, made_jump, (inner, start), result

    def _sizes(self, state: State, start: State) -> PyTree[Float[Array, ""]]:
        def size(norm, moved, first):
            return jnp.minimum(norm, _REACH * moved) + self.at_first * first

        return jax.tree.map(
            size, self._norms(state), self._changes(start, state), self._norms(start)
        )

    def _errors(
        self, before: State, after: State, error: State
    ) -> PyTree[Float[Array, ""]]:
        # An infinite one says that the step was not taken.
        return jax.tree.map(
            lambda e, change: jnp.where(jnp.isinf(e), e, jnp.minimum(e, change)),
            self._norms(error),
            self._changes(before, after),
        )

    def _changes(self, before: State, after: State) -> PyTree[Float[Array, ""]]:
        return self._norms(jax.tree.map(jnp.subtract, after, before))

    def _norms(self, state: State) -> PyTree[Float[Array, ""]]:
        return jax.tree.map(safe_norm, self.blocks(state))


BlockNorms.__init__.__doc__ = """**Arguments:**

- `controller`: the controller to show them to.
- `blocks`: takes a state to the arrays that are measured.
- `at_first`: the fraction of its norm at the start by which a layer is measured before
    it has moved, and where it passes through zero.
"""
