"""Data and loss: what is minimised."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from ._check import check_instance, check_positive_integer
from ._chunks import map_over, sum_over
from ._loss import AbstractLoss
from ._network import AbstractNetwork, BatchNorm, needs_batch, over_batch
from ._types import RealScalarLike, Weights
from .datasets import Dataset

Network = TypeVar("Network", bound=AbstractNetwork)


class Problem(eqx.Module):
    """A dataset and a loss. Outputs, losses, slopes and margins come from here."""

    dataset: Dataset
    loss: AbstractLoss
    population: int | None = eqx.field(static=True, default=None)
    batch_size: int | None = eqx.field(static=True, default=None, kw_only=True)
    sharding: NamedSharding | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        check_instance("dataset", self.dataset, Dataset)
        check_instance("loss", self.loss, AbstractLoss)
        self.loss.check(self.dataset)
        if self.population is not None:
            check_positive_integer("population", self.population)
        if self.batch_size is not None:
            check_positive_integer("batch_size", self.batch_size)
        if self.sharding is not None:
            _check_shares(self.dataset.num_samples, self.sharding)

    def batch(self, indices: Int[Array, " batch"]) -> "Problem":
        """The problem of some of the samples, whose loss estimates this one's.

        **Arguments:**

        - `indices`: which samples, between 0 and $N - 1$; one that is there twice
            counts twice. Where every sample is as likely as any other, the batch's loss
            and gradient are those of all samples on average.
        """
        dataset = eqx.tree_at(
            lambda d: (d.inputs, d.labels),
            self.dataset,
            (self.dataset.inputs[indices], self.dataset.labels[indices]),
        )
        population = self.population or self.dataset.num_samples
        return dataclasses.replace(self, dataset=dataset, population=population)

    def check(self, network: AbstractNetwork) -> None:
        """Raises a `ValueError` where `network` does not fit the data."""
        check_instance("network", network, AbstractNetwork)
        network.check_single()
        if network.in_shape != self.dataset.input_shape:
            raise ValueError(
                f"`network` takes inputs of shape {network.in_shape}, the data's are "
                f"of shape {self.dataset.input_shape}."
            )
        if network.out_size != self.dataset.num_outputs:
            raise ValueError(
                f"`network` has {network.out_size} outputs, the labels ask for "
                f"{self.dataset.num_outputs}: one for labels ±1, one for each class."
            )
        dtypes = {w.dtype for w in network.weights} | {self.dataset.inputs.dtype}
        if len(dtypes) > 1:
            raise ValueError(
                "`network` and the data must have the same floating-point type, got "
                f"{sorted(map(str, dtypes))}. Turn on float64 before making either: "
                '`jax.config.update("jax_enable_x64", True)`.'
            )

    def check_start(self, network: AbstractNetwork) -> None:
        """Raises a `ValueError` where a run cannot start from `network`."""
        self.check(network)
        if isinstance(network, BatchNorm) and network.statistics:
            raise ValueError(
                "`network` has fixed statistics: it is for evaluation. Start from the "
                "network that they were fixed for."
            )

    def with_statistics(self, network: Network) -> Network:
        """The network with the statistics of all samples here in place of those of
        whatever batch goes through it: what batch normalisation is evaluated with on
        other data, `test.accuracy(train.with_statistics(network))`. A network without
        batch normalisation, or with fixed statistics, comes back as it is.

        It cannot be trained: as a function of the weights it is not homogeneous.
        """
        if not needs_batch(network):
            return network
        self.check(network)
        return network.with_statistics(  # pyright: ignore
            self.dataset.inputs, self.batch_size, self.sharding
        )

    def outputs(self, network: AbstractNetwork) -> Float[Array, "N C"]:
        """The outputs $g(x_n)$ for all samples."""
        return map_over(
            self._outputs,
            self.for_some(network),
            self.dataset.inputs,
            self.batch_size,
            self.sharding,
        )

    def value(self, network: AbstractNetwork) -> Float[Array, ""]:
        """The loss, summed or averaged over the samples."""

        def of_some(network, samples, once) -> Float[Array, ""]:
            inputs, labels = samples
            values = jax.vmap(self.loss.value)(self._outputs(network, inputs), labels)
            return jnp.sum(once(values))

        samples = self.dataset.inputs, self.dataset.labels
        return self.sample_weight * sum_over(
            of_some, self.for_some(network), samples, self.batch_size, self.sharding
        )

    def log_value(self, network: AbstractNetwork) -> Float[Array, ""]:
        """The logarithm of `value`, also where the loss itself under- or overflows."""
        return self.log_value_of(self.outputs(network))

    def log_value_of(self, outputs: Float[Array, "N C"]) -> Float[Array, ""]:
        """`log_value` of the network that has these outputs."""
        logs = jax.vmap(self.loss.log_value)(outputs, self.dataset.labels)
        return jax.nn.logsumexp(logs) + jnp.log(self.sample_weight)

    def slopes(
        self, outputs: Float[Array, "N C"], log_unit: RealScalarLike = 0.0
    ) -> Float[Array, "N C"]:
        r"""The slopes $d_n = \partial L / \partial g_n$ of `value`, in units of
        `exp(log_unit)`: with `log_value` for it, those of the logarithm of the loss,
        which do not underflow where the loss does."""

        return self._slopes(outputs, self.dataset.labels, log_unit)

    def gradient(self, network: AbstractNetwork) -> Weights:
        """The gradient of `value` by the network's weights."""
        return self.pullback(network.with_weights, network.weights)

    def pullback(
        self,
        to_network: Callable[[Any], AbstractNetwork],
        point: Any,
        slopes: Float[Array, "N C"] | None = None,
    ) -> Any:
        r"""The gradient of `value` by whatever parametrizes the network.

        **Arguments:**

        - `to_network`: takes a pytree of arrays to a network.
        - `point`: the pytree at which the gradient is taken.
        - `slopes`: the $d_n$ of $\sum_n d_n \nabla g_n$; those of `value` if not given.

        **Returns:**

        A pytree like `point`.
        """
        if self._looks_at_others(to_network(point)):
            # What a chunk adds also depends on the statistics of all.
            def weighted(p):
                network = to_network(p)
                if slopes is None:
                    return self.value(network)
                return jnp.sum(slopes * self.outputs(network))

            return jax.grad(weighted)(point)

        def of_some(point, samples, once) -> Any:
            inputs, labels, slopes = samples
            outputs, pull = jax.vjp(
                lambda p: self._outputs(to_network(p), inputs), point
            )
            if slopes is None:
                slopes = self._slopes(outputs, labels)
            return pull(once(slopes))[0]

        samples = self.dataset.inputs, self.dataset.labels, slopes
        return sum_over(of_some, point, samples, self.batch_size, self.sharding)

    def margins(self, network: AbstractNetwork) -> Float[Array, " N"]:
        r"""The normalised margins $y_n f_n$, where $f = g / \rho$ is the network with
        unit layer norms; for classes $f_{y_n} - \max_{j \ne y_n} f_j$ (M112 §1.2).

        **Raises:** `ValueError` for regression data.
        """
        return self._output_margins(network) / network.scale

    def accuracy(self, network: AbstractNetwork) -> Float[Array, ""]:
        """The fraction of samples with a positive margin: a tie counts as an error.

        **Raises:** `ValueError` for regression data.
        """
        correct: Bool[Array, " N"] = self._output_margins(network) > 0
        return jnp.mean(correct, dtype=self.dataset.inputs.dtype)

    def _outputs(self, network: AbstractNetwork, inputs) -> Float[Array, "some C"]:
        self.check(network)
        return over_batch(network)(inputs)

    def _slopes(
        self, outputs, labels, log_unit: RealScalarLike = 0.0
    ) -> Float[Array, "some C"]:
        def slope(output, label):
            return self.loss.slope(output, label, log_unit)

        return self.sample_weight * jax.vmap(slope)(outputs, labels)

    def _output_margins(self, network: AbstractNetwork) -> Float[Array, " N"]:
        if self.dataset.regression:
            raise ValueError("Regression data have no margins and no accuracy.")
        outputs = self.outputs(network)
        labels = self.dataset.labels
        if self.dataset.signs:
            return labels * outputs[:, 0]
        onehot = jax.nn.one_hot(labels, outputs.shape[1], dtype=outputs.dtype)
        others = jnp.max(jnp.where(onehot > 0, -jnp.inf, outputs), axis=1)
        return jnp.sum(onehot * outputs, axis=1) - others

    def for_some(self, network: Network) -> Network:
        """The network as some of the samples can go through it without the others:
        with fixed statistics, where not all samples are together."""
        if self._looks_at_others(network):
            return self.with_statistics(network)
        return network

    def _looks_at_others(self, network: AbstractNetwork) -> bool:
        n = self.dataset.num_samples
        shares = self.sharding is not None or (self.batch_size or n) < n
        return needs_batch(network) and shares

    @property
    def sample_weight(self) -> Float[Array, ""]:
        r"""The weight of each sample in the loss: $1$ for a sum and $1/N$ for a mean;
        in a batch of size $B$, $N/B$ and $1/B$."""
        n = self.dataset.num_samples
        total = 1 if self.loss.reduction == "mean" else self.population or n
        return jnp.asarray(total / n, self.dataset.inputs.dtype)


def _check_shares(num_samples: int, sharding: NamedSharding) -> None:
    try:
        sharding.shard_shape((num_samples,))
    except ValueError as error:
        raise ValueError(
            f"`dataset`: {num_samples} samples cannot be shared evenly by "
            f"{sharding.mesh.shape[sharding.spec[0]]} devices. Leave some samples out, "
            "as in `Dataset(inputs[:n], labels[:n])`, or take fewer devices."
        ) from error


Problem.__init__.__doc__ = """**Arguments:**

- `dataset`: inputs and labels, a [`gradflow.Dataset`][].
- `loss`: the loss of one example and its reduction over the samples.
- `population`: of how many samples the dataset is a batch, if it is one: a sum over
    the samples is then taken to their number.
- `batch_size`: how many samples go through the network at once; all if not given. The
    values are those of all samples either way, but what the layers hand on, and what
    derivatives need of it, is in memory for these only. Derivatives of derivatives
    and of `value` go through the network once more. With batch normalisation the
    statistics of each layer are taken first, which goes through the layers below once
    more for each.
- `sharding`: how the devices share the samples: see [`gradflow.shard_samples`][].

**Raises:** `ValueError` where the loss is not defined for the dataset's labels, and for
a number of samples that the devices cannot share evenly.
"""
