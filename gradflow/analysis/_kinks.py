"""Units at their kinks."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from .._check import check_nonnegative
from .._chunks import sum_over
from .._network import AbstractNetwork, over_batch, smoothing_of
from .._network.pre_activations import pre_activations
from .._problem import Problem
from .._types import RealScalarLike


def sliding_units(
    problem: Problem, network: AbstractNetwork, *, width: RealScalarLike | None = None
) -> Int[Array, " hidden"]:
    r"""How many units of each hidden layer are at their kink, counted once for every
    sample: those with $|z_{n,i}| < \epsilon \|w_i\| \|h_n\|$.

    The field of an exact ReLU network jumps where a pre-activation changes its sign.
    Where it points to the kink from both sides, the unit stays there and slides; in a
    smoothed network it stays within the width of the kink. Units that only pass through
    are counted too, but at an equilibrium there are none.

    **Arguments:**

    - `problem`: the data.
    - `network`: the network.
    - `width`: $\epsilon$; the width with which the network is smoothed if not given.

    **Returns:** one number for each hidden layer.

    **Raises:** `ValueError` where no width is given and the network has none.
    """
    problem.check(network)
    if width is None:
        width = smoothing_of(network)
        if isinstance(width, float) and width == 0:
            raise ValueError(
                "`width` has to be given for a network without smoothed kinks: exactly "
                "at a kink is where rounding leaves no unit."
            )
    check_nonnegative("width", width)

    def at_kink(network, x) -> Int[Array, " hidden"]:
        counts = [
            jnp.sum(jnp.abs(z) < width * scale)
            for z, scale in pre_activations(network, x)
        ]
        return jnp.stack(counts) if counts else jnp.zeros(0, int)

    def of_some(network, inputs, once) -> Int[Array, " hidden"]:
        counts = over_batch(lambda x: at_kink(network, x))(inputs)
        return jnp.sum(once(counts), axis=0)

    return sum_over(
        of_some,
        problem.for_some(network),
        problem.dataset.inputs,
        problem.batch_size,
        problem.sharding,
    )
