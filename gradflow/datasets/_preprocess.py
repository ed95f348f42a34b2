"""Inputs as the theory wants them: of unit norm, with a component for the bias."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from ._arrays import as_floating, concrete


def unit_norm(
    inputs: Shaped[ArrayLike, "..."], bias: float | int = 1.0
) -> Float[Array, "samples ..."]:
    r"""Scales each sample to unit norm and appends a constant that plays the bias.

    $x \mapsto (x / \|x\|, b) / \sqrt{1 + b^2}$. A homogeneous network has no
    biases, and the last component, the same for all samples, stands for that of the
    first layer.

    **Arguments:**

    - `inputs`: vectors `(N, d)` or images `(N, C, H, W)`; integers are converted.
    - `bias`: $b \ge 0$, the norm of the appended component against that of the sample:
        for vectors one more entry, for images one more constant channel. With 0
        nothing is appended.

    **Returns:** `(N, d + 1)` or `(N, C + 1, H, W)`, each sample of Euclidean norm 1.

    **Raises:** `ValueError` if a sample is zero, and so has no direction (inside `jit`
    and `vmap` it becomes NaN), or if `inputs` has another rank.

    ??? cite

        Unit-norm inputs are the set-up of T. Poggio, Q. Liao and M. Xu, *Generalization
        in deep network classifiers trained with the square loss*, CBMM Memo 112 (2022).
    """
    if np.ndim(inputs) not in (2, 4):
        raise ValueError(
            "`inputs` must be vectors (N, d) or images (N, C, H, W), not of shape "
            f"{np.shape(inputs)}; give grey images as `inputs[:, None]`"
        )
    if not 0 <= bias < math.inf:
        raise ValueError(f"`bias` must be finite and not negative, not {bias}")
    inputs = as_floating(inputs, "inputs")
    _no_zero_sample(inputs)
    return _scaled(inputs, float(bias))


# One compilation per shape instead of one per operation, and no copies in between.
@functools.partial(jax.jit, static_argnums=1)
def _scaled(inputs, bias):
    # With its largest entry between 1/2 and 1, no sample over- or underflows when it is
    # squared. By a power of 2: XLA divides by way of reciprocals, which underflow too.
    axes = tuple(range(1, inputs.ndim))
    _, exponent = jnp.frexp(jnp.max(jnp.abs(inputs), axis=axes, keepdims=True))
    inputs = jnp.ldexp(inputs, -exponent)
    norm = jnp.sqrt(jnp.sum(inputs**2, axis=axes, keepdims=True))
    inputs = inputs / (norm * math.hypot(1.0, bias))
    if bias == 0:
        return inputs
    shape = (inputs.shape[0], 1, *inputs.shape[2:])
    entry = bias / math.hypot(1.0, bias) / math.sqrt(math.prod(shape[2:]))
    return jnp.concatenate([inputs, jnp.full(shape, entry, inputs.dtype)], axis=1)


def _no_zero_sample(inputs):
    values = concrete(inputs)
    if values is None:
        return
    # Subnormal numbers count as zero, as they do for XLA.
    nonzero = np.abs(values) >= jnp.finfo(values.dtype).tiny
    zero = np.flatnonzero(~nonzero.reshape(len(values), -1).any(axis=1))
    if zero.size:
        raise ValueError(
            f"`inputs` has samples that are zero and cannot be scaled to unit norm: "
            f"{', '.join(map(str, zero[:5]))}{' …' if zero.size > 5 else ''} "
            f"({zero.size} of {len(values)}); leave them out"
        )
