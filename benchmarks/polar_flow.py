r"""Flows of norms $\rho_k$ and unit directions $V_k$, the weights being $\rho_k V_k$.

With the slopes $d_n$ of the loss, the network f of the directions and
$\rho = \prod_k \rho_k$:

$$\dot\rho_k = -\frac{\rho}{\rho_k} \sum_n d_n f_n - 2 \lambda \rho_k, \qquad
\dot V_k = -m_k S_k \rho \sum_n d_n \frac{\partial f_n}{\partial V_k}.$$

The flows differ in the mobilities $m_k$, in which norms are free, all or the last (the
others are then 1), and in the spheres to which $S_k$ is tangent: one for each matrix,
or one for each row of the hidden layers.

NumPy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class PolarFlow:
    """Norms are an array (layers,), or () where only the last is free."""

    all_norms: bool
    mobility: Callable[[Array], Array] = np.ones_like
    by_rows: bool = False

    def start(self, weights: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Norms and directions of a network that is the same function."""
        *hidden, last = [np.array(w, float) for w in weights]
        if self.by_rows:
            for w, after in zip(hidden, [*hidden[1:], last], strict=True):
                after *= np.linalg.norm(w, axis=1)
                w /= np.linalg.norm(w, axis=1, keepdims=True)
            norms = [*np.ones(len(hidden)), np.linalg.norm(last)]
        else:
            norms = [np.linalg.norm(w) for w in (*hidden, last)]
        directions = self.normalised([*hidden, last])
        return np.asarray(norms if self.all_norms else np.prod(norms)), directions

    def layer_norms(self, norms: Array, depth: int) -> Array:
        if self.all_norms:
            return norms
        return np.append(np.ones(depth - 1), norms)

    def weights(self, norms: Array, directions: Sequence[Array]) -> list[Array]:
        scales = self.layer_norms(norms, len(directions))
        return [r * v for r, v in zip(scales, directions, strict=True)]

    def norms_velocity(self, norms: Array, along: float, weight_decay: float) -> Array:
        """`along` is the sum of the $d_n f_n$."""
        return -np.prod(norms) / norms * along - 2.0 * weight_decay * norms

    def mobilities(self, norms: Array, depth: int) -> Array:
        return self.mobility(self.layer_norms(norms, depth))

    def normalised(self, matrices: Sequence[Array]) -> list[Array]:
        """On the spheres, by division."""
        return [
            v / np.linalg.norm(v, axis=axis, keepdims=True)
            for v, axis in zip(matrices, self._axes(len(matrices)), strict=True)
        ]

    def tangent(
        self, directions: Sequence[Array], matrices: Sequence[Array]
    ) -> list[Array]:
        """The parts that are tangent to the spheres, of the first layers' matrices."""
        parts = zip(directions, matrices, self._axes(len(directions)), strict=False)
        return [u - v * np.sum(u * v, axis=axis, keepdims=True) for v, u, axis in parts]

    def hidden_radial(self, products: Array) -> Array:
        """The radial parts of matrices (…, out, in) of a hidden layer, from the scalar
        products (…, out) of their rows with those of the directions."""
        return products if self.by_rows else np.sum(products, axis=-1, keepdims=True)

    def _axes(self, depth: int) -> list[tuple[int, ...]]:
        hidden = (-1,) if self.by_rows else (-2, -1)
        return [*[hidden] * (depth - 1), (-2, -1)]


LAGRANGE = PolarFlow(all_norms=False)
GRADIENT = PolarFlow(all_norms=True, mobility=lambda norms: norms**-2)
