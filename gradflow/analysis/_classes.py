"""The classes of a dataset, whichever way it is labelled."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from .._check import is_concrete
from .._problem import Problem


def classes_of(problem: Problem) -> tuple[Int[Array, " N"], int]:
    """Each sample's class, and their number."""
    dataset = problem.dataset
    if dataset.regression:
        raise ValueError(
            "`problem`: regression data have no classes that could collapse."
        )
    if dataset.num_classes is None:
        classes, num_classes = (dataset.labels > 0).astype(jnp.int32), 2
    else:
        classes, num_classes = dataset.labels, dataset.num_classes
    if num_classes < 2:
        raise ValueError("`problem`: a single class does not collapse to a simplex.")
    if is_concrete(classes):
        empty = set(range(num_classes)) - set(classes.tolist())
        if empty:
            raise ValueError(f"`problem`: no sample of the classes {sorted(empty)}.")
    return classes, num_classes
