"""Diagonal network (M112 I.3)."""

import numpy as np

from .network import ReferenceNetwork
from .smoothing import norm_and_unit, smoothed_relu, smoothed_relu_slopes


class ReferenceDiagonal(ReferenceNetwork):
    """``h_k = sigma(w_k * h_{k-1})`` and one output ``sum_i w_L[i] h_{L-1}[i]``.

    The weights are L vectors (d,).  The smoothing width of unit i is
    ``smoothing * |w_k[i]| * |h_{k-1}|``, as in the dense network of the matrices
    diag(w_1), ..., diag(w_{L-1}) and of the row w_L.
    """

    def _forward(self, inputs):
        h = inputs
        layer_inputs = [h]
        for w in self.weights[:-1]:
            z = w * h
            if not self.identity:
                h_norm, _ = norm_and_unit(h)
                z = smoothed_relu(z, self.smoothing * h_norm[:, None] * np.abs(w))
            h = z
            layer_inputs.append(h)
        return (h @ self.weights[-1])[:, None], layer_inputs

    def _backward(self, layer_inputs, cotangents):
        gradients = [cotangents * layer_inputs[-1]]
        c = cotangents * self.weights[-1]
        for k in reversed(range(len(self.weights) - 1)):
            w, h = self.weights[k], layer_inputs[k]
            if self.identity:
                gradients.insert(0, c * h)
                c = c * w
                continue
            h_norm, h_unit = norm_and_unit(h)
            width = self.smoothing * h_norm[:, None] * np.abs(w)
            by_z, by_s = smoothed_relu_slopes(w * h, width)
            along_z, along_s = c * by_z, self.smoothing * c * by_s
            gradients.insert(0, along_z * h + along_s * h_norm[:, None] * np.sign(w))
            to_h_norm = np.sum(along_s * np.abs(w), axis=1, keepdims=True)
            c = along_z * w + to_h_norm * h_unit
        return gradients
