"""What the user hands over, made into arrays; values are looked at once, here."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped


def concrete(array: Shaped[ArrayLike, "..."]) -> np.ndarray | None:
    """The values of `array`, or `None` where there are none to see: under a
    transformation, and on the devices of other processes.

    Every check of values asks here first, so that datasets can be built inside `jit`
    and `vmap`; only shapes and dtypes are checked there.
    """
    if isinstance(array, Tracer):
        return None
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return None
    return np.asarray(array)


def as_floating(
    array: Shaped[ArrayLike, "..."], name: str, dtype: np.dtype | None = None
) -> Float[Array, "..."]:
    """`array` as a JAX array of a floating dtype, finite throughout.

    **Arguments:**

    - `array`: floating dtypes are kept (`jax_enable_x64` decides about float64),
        integers and booleans become the default floating dtype.
    - `name`: what messages call it.
    - `dtype`: convert to this dtype instead.

    **Raises:** `ValueError` if `array` is not real, or holds NaN or infinity.
    """
    if not isinstance(array, jax.Array):
        array = np.asarray(array)
    real = jnp.issubdtype(array.dtype, jnp.floating)
    if not (
        real
        or jnp.issubdtype(array.dtype, jnp.integer)
        or jnp.issubdtype(array.dtype, jnp.bool_)
    ):
        raise ValueError(f"`{name}` must hold real numbers; its dtype is {array.dtype}")
    if dtype is None:
        dtype = jax.dtypes.canonicalize_dtype(array.dtype if real else float)
    # A float64 can overflow in float32: convert first, then look for infinities.
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    values = concrete(array)
    if values is not None and not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        raise ValueError(
            f"`{name}` has {len(bad)} entries that are NaN or infinite in {dtype}, "
            f"the first at index {tuple(map(int, bad[0]))}; "
            "remove those samples or repair them"
        )
    return jnp.asarray(array)
