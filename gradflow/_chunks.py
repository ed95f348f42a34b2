"""Functions of samples, of some of them at a time."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

Result = TypeVar("Result")
Shared = TypeVar("Shared")

Rows = Shaped[Array, "rows ..."]


def sum_over(
    summand: Callable[[Shared, Any, Callable[[Rows], Rows]], Result],
    shared: Shared,
    samples: Any,
    size: int | None,
    sharding: NamedSharding | None = None,
) -> Result:
    """The sum of a function over all samples, of which one chunk is in memory at a
    time: also on the way back, which goes through each chunk again.

    **Arguments:**

    - `summand`: takes `shared` and the samples of a chunk to its pytree of sums. Its
        last argument has to be applied to what is summed, one row for each sample: it
        is zero where a chunk holds a sample that another one has.
    - `shared`: a pytree that is the same for all samples. What has been made of samples
        on several devices must come in here: as a variable from outside it would keep
        that it was for all of them.
    - `samples`: a pytree of arrays whose first axis is that of the samples.
    - `size`: of how many samples a chunk is at most; all at once for `None`.
    - `sharding`: by which the devices share the first axis; each goes through its own
        samples in chunks, and what they have summed goes between them once.
    """
    if sharding is None:
        return _sum(summand, shared, samples, size)

    def of_device(shared: Shared, samples: Any) -> Result:
        total, unravel = ravel_pytree(_sum(summand, shared, samples, size))
        return unravel(jax.lax.psum(total, tuple(sharding.spec)))

    return _on_devices(of_device, sharding, PartitionSpec())(shared, samples)


def each_chunk(
    summand: Callable[[Shared, Any, Callable[[Rows], Rows]], Result],
    shared: Shared,
    samples: Any,
    size: int | None,
    sharding: NamedSharding | None = None,
) -> Result:
    """What `sum_over` would sum over the chunks of all devices, along a first axis."""
    of_device = _by_device(lambda s, x: _each(summand, s, x, size), sharding)
    return of_device(shared, samples)


def map_over(
    function: Callable[[Shared, Any], Rows],
    shared: Shared,
    samples: Any,
    size: int | None,
    sharding: NamedSharding | None = None,
) -> Rows:
    """A function's rows, one for each sample, with the memory of `sum_over`."""
    of_device = _by_device(lambda s, x: _map(function, s, x, size), sharding)
    return of_device(shared, samples)


def _by_device(function: Callable, sharding: NamedSharding | None) -> Callable:
    """What each device makes of its samples, along the first axis."""
    if sharding is None:
        return function
    return _on_devices(function, sharding, sharding.spec)


def _on_devices(
    function: Callable, sharding: NamedSharding, out_specs: PartitionSpec
) -> Callable:
    # With JAX's check of what is the same on all devices, each array of weights would
    # be summed over them on its own in a pullback. Other axes of the mesh are JAX's.
    def on_devices(shared: Any, samples: Any) -> Any:
        arrays, others = eqx.partition(shared, eqx.is_array)
        return jax.shard_map(
            lambda arrays, samples: function(eqx.combine(arrays, others), samples),
            mesh=sharding.mesh,
            in_specs=(PartitionSpec(), sharding.spec),
            out_specs=out_specs,
            axis_names=set(sharding.spec),
            check_vma=False,
        )(arrays, samples)

    return on_devices


def _sum(summand: Callable, shared: Any, samples: Any, size: int | None) -> Any:
    chunks = _Chunks(samples, size)
    if chunks.number == 1:
        return summand(shared, samples, lambda rows: rows)

    of_chunk = chunks.function(summand, shared)

    def add(total: Any, i: Int[Array, ""]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_chunk(i)), None

    first = jnp.zeros((), int)
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_chunk, first)
    )
    return jax.lax.scan(add, zero, jnp.arange(chunks.number))[0]


def _each(summand: Callable, shared: Any, samples: Any, size: int | None) -> Any:
    chunks = _Chunks(samples, size)
    if chunks.number == 1:
        only = summand(shared, samples, lambda rows: rows)
        return jax.tree.map(lambda x: x[None], only)
    return jax.lax.map(chunks.function(summand, shared), jnp.arange(chunks.number))


def _map(function: Callable, shared: Any, samples: Any, size: int | None) -> Rows:
    chunks = _Chunks(samples, size)
    if chunks.number == 1:
        return function(shared, samples)
    rows = jax.lax.map(
        _forgetting(lambda i: function(shared, chunks[i])), jnp.arange(chunks.number)
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

    def function(self, summand: Callable, shared: Any) -> Callable:
        """The `summand` of `sum_over` as a function of the chunk's number."""

        def of_chunk(i: Int[Array, ""]) -> Any:
            return summand(shared, self[i], lambda rows: self._once(i, rows))

        return _forgetting(of_chunk)

    def _once(self, i: Int[Array, ""], rows: Rows) -> Rows:
        if self.repeated == 0:
            return rows
        place = jnp.arange(self.length)
        is_new = (i < self.number - 1) | (place >= self.repeated)
        is_new = jnp.reshape(is_new, (-1,) + (1,) * (rows.ndim - 1))
        return jnp.where(is_new, rows, 0)
