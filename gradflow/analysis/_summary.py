"""Many numbers in a few."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Summary(eqx.Module):
    """What a few numbers say of many, those that are NaN aside.

    **Attributes**, with the axes of the values that are not summed up:

    - `min`, `mean`, `median`, `max`: NaN where all values are.
    - `num_undefined`: how many values are NaN.
    """

    min: Float[Array, "..."]
    mean: Float[Array, "..."]
    median: Float[Array, "..."]
    max: Float[Array, "..."]
    num_undefined: Int[Array, "..."]


def summary(values: Float[Array, "..."], axis: int = -1) -> Summary:
    """A [`gradflow.analysis.Summary`][] of values along an axis, such as those of all
    samples. It makes a cheap observable of an expensive array:

    ```python
    observe = {"margins": lambda p, n: gf.analysis.summary(p.margins(n))}
    ```

    **Arguments:**

    - `values`: an array of at least one axis; NaN stands for what is not defined.
        Infinite values count.
    - `axis`: along which to sum up.
    """
    return Summary(
        min=jnp.nanmin(values, axis),
        mean=jnp.nanmean(values, axis),
        median=jnp.nanmedian(values, axis),
        max=jnp.nanmax(values, axis),
        num_undefined=jnp.sum(jnp.isnan(values), axis),
    )
