"""What the rules have in common: they change the update of an optimiser."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


class _Counted(NamedTuple):
    """The state of the optimiser inside, and the number of updates so far."""

    inner: PyTree
    num_updates: Int[Array, ""]


def wrap(
    optimiser: optax.GradientTransformation,
    change: Callable[[Any, Any, Int[Array, ""]], Any],
) -> optax.GradientTransformationExtraArgs:
    """An optimiser whose every update is replaced by `change(update, params, count)`.

    The keyword `bare` of `update` leaves the change out. It goes on to the
    optimiser inside, as all extra arguments do, so that what is left is the step of the
    innermost one: `descend` reads the time of a step off it.
    """
    if not isinstance(optimiser, optax.GradientTransformation):
        raise ValueError(
            f"`optimiser` must be an optax optimiser, got {optimiser!r}. For plain "
            "gradient descent that is `optax.sgd(learning_rate)`."
        )
    inside = optax.with_extra_args_support(optimiser)

    def init(params: Any) -> _Counted:
        return _Counted(inside.init(params), jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, _Counted]:
        check_params(params)
        updates, inner = inside.update(updates, state.inner, params, **extra_args)
        if not is_bare(extra_args):
            updates = change(updates, params, state.num_updates)
        count = jnp.asarray(optax.safe_increment(state.num_updates))
        return updates, _Counted(inner, count)

    return optax.GradientTransformationExtraArgs(init, update)


def is_bare(extra_args: dict[str, Any]) -> bool:
    """Whether only the step of the optimiser is asked for, not what a rule makes of
    it."""
    return extra_args.get("bare", False)


def check_params(params: Any) -> None:
    if params is None:
        raise ValueError(
            "`params` must be given: this rule depends on the parameters, "
            "`update(gradient, state, params)`."
        )
