"""Derivatives of the losses of ±1 labels by the output, sample by sample."""

import numpy as np

Array = np.ndarray


def square(output: Array, label: Array) -> Array:
    return 2.0 * (output - label)


def exponential(output: Array, label: Array) -> Array:
    return -label * np.exp(-label * output)


def logistic(output: Array, label: Array) -> Array:
    return -0.5 * label * (1.0 - np.tanh(0.5 * label * output))
