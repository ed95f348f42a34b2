"""The test error of the solution of least norm, against the number of features.

A linear network of polynomial features is fitted to a sine at 76 Chebyshev nodes, with
1 to 301 features (T3 figure 10). Beyond 76 the solutions are many, and the one of least
norm is that of the pseudo-inverse. The flow with a vanishing decay finds it from any
start; the script follows it for some numbers of features.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

SAMPLES = 76
TEST_SAMPLES = 600
BASES = {
    "monomials": gf.datasets.monomials,
    "Chebyshev polynomials": gf.datasets.chebyshev_polynomials,
}
LAST = 300
FOLLOWED = (40, 75, 100, 150, 300)
TIME = 1e6


def main(
    out: Path = Path("."),
    last: int = LAST,
    followed: Sequence[int] = FOLLOWED,
    time: float = TIME,
) -> tuple[dict[str, np.ndarray], dict[int, tuple[float, float]]]:
    """Prints tables, writes a figure to `out`, and returns the errors of the
    pseudo-inverse by basis and degree from 1 on, training and test, and for the
    degrees that were followed the distance of the flow's end from it and its test
    error."""
    jax.config.update("jax_enable_x64", True)
    errors = {
        name: np.array([least_squares(basis, k)[1:] for k in range(1, last + 1)])
        for name, basis in BASES.items()
    }
    chosen = sorted({k for k in (10, 20, 30, 40, 75, 100, 150, 200, last) if k <= last})
    print("test loss    degree " + "".join(f"{k:>9}" for k in chosen))
    for name, along in errors.items():
        print(f"{name:20}" + "".join(f"{along[k - 1, 1]:9.1e}" for k in chosen))
    ends = {k: follow(k, time) for k in followed}
    print("\nflow with a vanishing decay, Chebyshev polynomials")
    print("degree  distance from the pseudo-inverse's  test loss")
    for k, (distance, error) in ends.items():
        print(f"{k:6}{distance:36.1e}{error:11.1e}")
    out.mkdir(parents=True, exist_ok=True)
    draw(errors, ends).savefig(out / "number_of_features.png", dpi=150)
    return errors, ends


@functools.cache
def all_features(basis, samples: int, last: int) -> gf.Dataset:
    return gf.datasets.polynomial(samples, degree=last, basis=basis)


def data(basis, degree: int) -> tuple[gf.Dataset, gf.Dataset]:
    """Training and test set."""
    train, test = (
        all_features(basis, samples, LAST) for samples in (SAMPLES, TEST_SAMPLES)
    )
    # Each dataset of its own would compile anew.
    return tuple(
        gf.Dataset(np.asarray(d.inputs)[:, : degree + 1], d.labels, regression=True)
        for d in (train, test)
    )


def least_squares(basis, degree: int) -> tuple[np.ndarray, float, float]:
    """The solution of least norm, its training and its test error."""
    train, test = data(basis, degree)
    inputs, labels = np.asarray(train.inputs), np.asarray(train.labels)
    w, *_ = np.linalg.lstsq(inputs, labels, rcond=1e-13)
    residuals = (np.asarray(d.inputs) @ w - np.asarray(d.labels) for d in (train, test))
    return w, *(float(np.mean(r**2)) for r in residuals)


def follow(degree: int, time: float) -> tuple[float, float]:
    """From random weights of norm one."""
    basis = gf.datasets.chebyshev_polynomials
    train, test = data(basis, degree)
    loss = gf.SquareLoss("mean")
    run = gf.solve(
        gf.Problem(train, loss),
        gf.HalpernFlow(),
        gf.Dense(
            (degree + 1, 1), key=jax.random.key(0), activation=gf.Identity(), norm=1.0
        ),
        time,
        ts=[time],
        observe={},
    )
    w = np.asarray(run.final.weights[0])[0]
    best, *_ = least_squares(basis, degree)
    distance = np.linalg.norm(w - best) / np.linalg.norm(best)
    return float(distance), float(gf.Problem(test, loss).value(run.final))


def draw(errors: dict[str, np.ndarray], ends: dict[int, tuple[float, float]]):
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, along in errors.items():
        axes.semilogy(np.arange(len(along)) + 2, along[:, 1], label=name)
    found = {k: error for k, (_, error) in ends.items()}
    axes.semilogy(
        [k + 1 for k in found],
        list(found.values()),
        "ko",
        label="flow",
        fillstyle="none",
    )
    axes.axvline(SAMPLES, color="gray", linewidth=1, label="samples")
    axes.set(xlabel="features", ylabel="test loss, mean")
    axes.legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Test error by number of features.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
