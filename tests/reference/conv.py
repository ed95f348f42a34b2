"""Convolutional network with a dense last layer."""

import numpy as np

from .network import ReferenceNetwork
from .smoothing import units_backward, units_forward


def _output_size(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def extract_patches(images, kernel, stride, padding):
    """Zero-padded receptive fields (N, positions, Cin * kh * kw), row by row."""
    n, channels, height, width = images.shape
    kh, kw = kernel
    rows = _output_size(height, kh, stride, padding)
    cols = _output_size(width, kw, stride, padding)
    padded = np.zeros((n, channels, height + 2 * padding, width + 2 * padding))
    padded[:, :, padding : padding + height, padding : padding + width] = images
    patches = np.empty((n, rows, cols, channels, kh, kw))
    for i in range(rows):
        for j in range(cols):
            top, left = i * stride, j * stride
            patches[:, i, j] = padded[:, :, top : top + kh, left : left + kw]
    return patches.reshape(n, rows * cols, channels * kh * kw), (rows, cols)


def scatter_patches(patches, image_shape, kernel, stride, padding):
    """Transpose of ``extract_patches``."""
    n, channels, height, width = image_shape
    kh, kw = kernel
    rows = _output_size(height, kh, stride, padding)
    cols = _output_size(width, kw, stride, padding)
    patches = patches.reshape(n, rows, cols, channels, kh, kw)
    padded = np.zeros((n, channels, height + 2 * padding, width + 2 * padding))
    for i in range(rows):
        for j in range(cols):
            top, left = i * stride, j * stride
            padded[:, :, top : top + kh, left : left + kw] += patches[:, i, j]
    return padded[:, :, padding : padding + height, padding : padding + width]


class ReferenceConv(ReferenceNetwork):
    """Convolutions (cross-correlations) with ReLUs, then one dense layer.

    ``weights`` are kernels (out, in, kh, kw) and at last a matrix
    (outputs, features); ``strides`` and ``paddings`` hold one integer for each
    convolution.  Inputs are (N, Cin, H, W).  The last feature maps are flattened in
    the order channel, row, column.  A unit's smoothing width is ``smoothing`` times
    the norm of its kernel times the norm of the zero-padded patch it looks at.
    """

    def __init__(self, weights, strides, paddings, smoothing=0.0, identity=False):
        super().__init__(weights, smoothing, identity)
        self.strides = [int(s) for s in strides]
        self.paddings = [int(p) for p in paddings]
        if not len(self.strides) == len(self.paddings) == len(self.weights) - 1:
            raise ValueError("one stride and one padding for each convolution")

    def _settings(self):
        geometry = {"strides": self.strides, "paddings": self.paddings}
        return super()._settings() | geometry

    def _forward(self, inputs):
        images = inputs
        tape = []
        for kernel, stride, padding in zip(
            self.weights[:-1], self.strides, self.paddings, strict=True
        ):
            if kernel.shape[1] != images.shape[1]:
                raise ValueError("channels of a kernel and of its input differ")
            patches, (rows, cols) = extract_patches(
                images, kernel.shape[2:], stride, padding
            )
            tape.append((patches, images.shape))
            out = units_forward(
                kernel.reshape(len(kernel), -1), patches, self.smoothing, self.identity
            )
            images = np.swapaxes(out, 1, 2).reshape(len(out), -1, rows, cols)
        features = images.reshape(len(images), 1, -1)
        tape.append((features, images.shape))
        outputs = units_forward(self.weights[-1], features, 0.0, True)
        return outputs[:, 0, :], tape

    def _backward(self, tape, cotangents):
        gradients = [None] * len(self.weights)
        features, image_shape = tape[-1]
        gradients[-1], c = units_backward(
            self.weights[-1], features, 0.0, True, cotangents[:, None, :]
        )
        c = c.reshape(image_shape)
        for k in reversed(range(len(self.weights) - 1)):
            kernel = self.weights[k]
            patches, image_shape = tape[k]
            n, channels = c.shape[:2]
            gradient, c = units_backward(
                kernel.reshape(len(kernel), -1),
                patches,
                self.smoothing,
                self.identity,
                np.swapaxes(c.reshape(n, channels, -1), 1, 2),
            )
            gradients[k] = gradient.reshape(n, *kernel.shape)
            c = scatter_patches(
                c, image_shape, kernel.shape[2:], self.strides[k], self.paddings[k]
            )
        return gradients
