"""What the reference networks have in common."""

import numpy as np


class ReferenceNetwork:
    """A bias-free positively homogeneous network ``g`` with hand-written gradients.

    Subclasses give ``_forward`` and ``_backward``.  All arithmetic is float64.
    """

    def __init__(self, weights, smoothing=0.0, identity=False):
        self.weights = [np.array(w, dtype=np.float64) for w in weights]
        self.smoothing = float(smoothing)
        self.identity = bool(identity)
        if not self.weights:
            raise ValueError("a network needs at least one layer")
        if self.smoothing < 0.0:
            raise ValueError("smoothing must not be negative")

    def _settings(self):
        return {"smoothing": self.smoothing, "identity": self.identity}

    def with_weights(self, weights):
        """The same architecture with other weights."""
        weights = [np.array(w, dtype=np.float64) for w in weights]
        if [w.shape for w in weights] != [w.shape for w in self.weights]:
            raise ValueError("shapes of the weights differ")
        return type(self)(weights, **self._settings())

    def outputs(self, inputs):
        """Outputs g(x_n), (N, C)."""
        return self._forward(np.asarray(inputs, dtype=np.float64))[0]

    def sample_gradients(self, inputs, cotangents):
        """Outputs, and for each layer the (N, *shape) gradients of <c_n, g(x_n)>."""
        outputs, tape = self._forward(np.asarray(inputs, dtype=np.float64))
        cotangents = np.asarray(cotangents, dtype=np.float64)
        if cotangents.shape != outputs.shape:
            raise ValueError(f"cotangents {cotangents.shape}, outputs {outputs.shape}")
        return outputs, self._backward(tape, cotangents)

    def pullback(self, inputs, cotangents):
        """Outputs, and the weight gradients of sum_n <c_n, g(x_n)>."""
        outputs, gradients = self.sample_gradients(inputs, cotangents)
        return outputs, [np.sum(g, axis=0) for g in gradients]

    def jacobian(self, inputs):
        """For each layer d g_c(x_n) / d W_k, (N, C, *shape)."""
        shape = self.outputs(inputs).shape
        columns = []
        for c in range(shape[1]):
            cotangents = np.zeros(shape)
            cotangents[:, c] = 1.0
            columns.append(self.sample_gradients(inputs, cotangents)[1])
        return [np.stack(layer, axis=1) for layer in zip(*columns, strict=True)]
