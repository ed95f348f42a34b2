"""Fully connected network."""

from .network import ReferenceNetwork
from .smoothing import units_backward, units_forward


class ReferenceDense(ReferenceNetwork):
    """``g(x) = W_L sigma(W_{L-1} ... sigma(W_1 x))``; ``weights[k]`` is (out, in)."""

    def _forward(self, inputs):
        h = inputs[:, None, :]
        layer_inputs = []
        for matrix in self.weights[:-1]:
            layer_inputs.append(h)
            h = units_forward(matrix, h, self.smoothing, self.identity)
        layer_inputs.append(h)
        outputs = units_forward(self.weights[-1], h, 0.0, True)
        return outputs[:, 0, :], layer_inputs

    def _backward(self, layer_inputs, cotangents):
        gradients = [None] * len(self.weights)
        c = cotangents[:, None, :]
        gradients[-1], c = units_backward(
            self.weights[-1], layer_inputs[-1], 0.0, True, c
        )
        for k in reversed(range(len(self.weights) - 1)):
            gradients[k], c = units_backward(
                self.weights[k], layer_inputs[k], self.smoothing, self.identity, c
            )
        return gradients
