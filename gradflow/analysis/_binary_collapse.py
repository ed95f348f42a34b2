"""Neural collapse with one output."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._problem import Problem
from .._tree import scaled
from ._classes import classes_of
from ._features import hidden_features


class BinaryCollapse(eqx.Module):
    r"""How far the last features $h_n$ of two classes have collapsed to the last layer.

    The entries are for the classes $-1$ and $+1$, in this order, with means
    $\mu_{\pm}$.

    **Attributes:**

    - `spread`: the root mean square of $\|h_n - \mu_\pm\|$ over that of $\|h_n\|$,
        from 0 to 1.
    - `distance`: $\| \mu_\pm / \|\mu_\pm\| \mp V_L^\top \|$, which is twice the sine of
        half the angle: 0 where the means are along $\pm V_L$, 2 where opposite.
    - `distance_to_part`: the same with the part of $\pm V_L$ whose entries are
        positive, divided by its norm.

    NaN where the features of a class, or that part, are 0.
    """

    spread: Float[Array, "2"]
    distance: Float[Array, "2"]
    distance_to_part: Float[Array, "2"]


def binary_collapse(problem: Problem, network: AbstractNetwork) -> BinaryCollapse:
    r"""Whether $h_{+1} \to V_L^\top f$ and $h_{-1} \to -V_L^\top f$ (M112 §5).

    Deep linear networks can do that: at every regularised minimum their features are
    multiples of $V_L^\top$. Features behind a ReLU are not negative: they cannot be
    along both $V_L$ and $-V_L$, and `distance` stays away from 0 for one class at
    least. What a class can be along is the positive part of its $\pm V_L$, and that is
    where its mean is in a collapse in which no unit is active in both classes.

    **Arguments:**

    - `problem`: with labels $\pm 1$.
    - `network`: with one hidden layer or more. The features of a convolution are those
        of all positions.

    **Raises:** `ValueError` for other labels, a class without a sample, and a network
    without hidden layers.
    """
    layers = hidden_features(problem, network)
    if not problem.dataset.signs:
        raise ValueError(
            "`problem` must have labels ±1, and one output; for classes there is "
            "`neural_collapse`."
        )
    classes, _ = classes_of(problem)
    h, _ = scaled(layers[-1])
    last, _ = scaled(network.matrices[-1][0])

    def of_class(k: int):
        member = (classes == k).astype(h.dtype)[:, None]
        mean = jnp.sum(member * h, axis=0) / jnp.sum(member)
        deviations = member * (h - mean[None])
        target = (2 * k - 1) * last
        return (
            jnp.linalg.norm(deviations) / jnp.linalg.norm(member * h),
            _distance(mean, target),
            _distance(mean, jnp.maximum(target, 0)),
        )

    both = zip(of_class(0), of_class(1), strict=True)
    return BinaryCollapse(*map(jnp.stack, both))


def _distance(a: Float[Array, " units"], b: Float[Array, " units"]):
    return jnp.linalg.norm(a / jnp.linalg.norm(a) - b / jnp.linalg.norm(b))
