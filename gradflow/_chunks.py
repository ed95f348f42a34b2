"""Functions of samples, of some of them at a time."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

Result = TypeVar("Result")

Rows = Shaped[Array, "rows ..."]


def sum_over(
    summand: Callable[[Any, Callable[[Rows], Rows]], Result],
    samples: Any,
    size: int | None,
    sharding: NamedSharding | None = None,
) -> Result:
    """The sum of a function over all samples, of which one chunk is in memory at a
    time: also on the way back, which goes through each chunk again.

    **Arguments:**

    - `summand`: takes the samples of a chunk to its pytree of sums. Its second argument
        has to be applied to what is summed, one row for each sample: it is zero where a
        chunk holds a sample that another one has.
    - `samples`: a pytree of arrays whose first axis is that of the samples.
    - `size`: of how many samples a chunk is at most; all at once for `None`.
    - `sharding`: by which the devices share the first axis; each goes through its own
        samples in chunks, and what they have summed goes between them once.
    """
    if sharding is None:
        return _sum(summand, samples, size)

    def of_device(samples: Any) -> Result:
        total, unravel = ravel_pytree(_sum(summand, samples, size))
        return unravel(jax.lax.psum(total, tuple(sharding.spec)))

    return _on_devices(of_device, sharding, PartitionSpec())(samples)


def map_over(
    function: Callable[[Any], Rows],
    samples: Any,
    size: int | None,
    sharding: NamedSharding | None = None,
) -> Rows:
    """A function's rows, one for each sample, with the memory of `sum_over`."""
    if sharding is None:
        return _map(function, samples, size)

    def of_device(samples: Any) -> Rows:
        return _map(function, samples, size)

    return _on_devices(of_device, sharding, sharding.spec)(samples)


def _on_devices(
    function: Callable, sharding: NamedSharding, out_specs: PartitionSpec
) -> Callable:
    # With JAX's check of what is the same on all devices, each array of weights would
    # be summed over them on its own in a pullback. Other axes of the mesh are JAX's.
    return jax.shard_map(
        function,
        mesh=sharding.mesh,
        in_specs=sharding.spec,
        out_specs=out_specs,
        axis_names=set(sharding.spec),
        check_vma=False,
    )


def _sum(summand: Callable, samples: Any, size: int | None) -> Any:
    chunks = _Chunks(samples, size)
    if chunks.number == 1:
        return summand(samples, lambda rows: rows)

    def of_chunk(i: Int[Array, ""]) -> Any:
        return summand(chunks[i], lambda rows: chunks.without_repeated(i, rows))

    def add(total: Any, i: Int[Array, ""]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, _forgetting(of_chunk)(i)), None

    first = jnp.zeros((), int)
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_chunk, first)
    )
    return jax.lax.scan(add, zero, jnp.arange(chunks.number))[0]


def _map(function: Callable, samples: Any, size: int | None) -> Rows:
    chunks = _Chunks(samples, size)
    if chunks.number == 1:
        return function(samples)
    rows = jax.lax.map(
        _forgetting(lambda i: function(chunks[i])), jnp.arange(chunks.number)
    )
    whole = jnp.reshape(rows[:-1], (-1, *rows.shape[2:]))
    return jnp.concatenate([whole, rows[-1, chunks.repeated :]])


def _forgetting(function: Callable) -> Callable:
    """Keeps nothing for the way back but the arguments. In a loop JAX has no reason to
    see two computations as one."""
    return jax.checkpoint(function, prevent_cse=False)


class _Chunks:
    """Samples in chunks of one length, for which the network is compiled once: as few
    as can be, and then as short. So the last one, which ends with the last sample,
    begins with less than one sample for each chunk that the one before has too."""

    def __init__(self, samples: Any, size: int | None):
        self.samples = samples
        self.count = jax.tree.leaves(samples)[0].shape[0]
        self.number = -(-self.count // (size or self.count))
        self.length = -(-self.count // self.number)
        self.repeated = self.number * self.length - self.count

    def __getitem__(self, i: Int[Array, ""]) -> Any:
        # Slices of the whole, since that in chunks, with a remainder, would be a copy.
        start = jnp.minimum(i * self.length, self.count - self.length)
        return jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, self.length), self.samples
        )

    def without_repeated(self, i: Int[Array, ""], rows: Rows) -> Rows:
        if self.repeated == 0:
            return rows
        place = jnp.arange(self.length)
        is_new = (i < self.number - 1) | (place >= self.repeated)
        is_new = jnp.reshape(is_new, (-1,) + (1,) * (rows.ndim - 1))
        return jnp.where(is_new, rows, 0)
