"""How fast weights grow under the exponential loss, with one, two, three and five
layers.

For one sample, and directions that are right from the start, the product of the layers'
norms has a closed form (T3 §22). Linear networks of real images come to obey it as
well: the margin in it is the largest one, and the number of samples that the support
vectors count for is known too, so that nothing is fitted. For ReLU networks both are.
However many layers there are, the product over log t has the same limit.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

LAYERS = (1, 2, 3, 5)
RELU_LAYERS = (2, 3)
WIDTH = 16
SAVES = 61


def main(
    out: Path = Path("."),
    per_class: int = 30,
    end: float = 1e5,
    layers: Sequence[int] = LAYERS,
    relu_layers: Sequence[int] = RELU_LAYERS,
) -> dict[str, dict[int, gf.Trajectory]]:
    """Follows the flows, prints a table for each kind of network, and writes a figure
    to `out`.

    `end` is the logarithm of the time to which the flows are followed.
    """
    jax.config.update("jax_enable_x64", True)
    digits = gf.datasets.digits((3, 8), per_class=per_class)
    image = gf.Dataset(digits.inputs[:1], digits.labels[:1])
    # Their mean loss is that of one, and what is compiled for them serves the digits.
    first = np.zeros(digits.num_samples, int)
    copies = gf.Dataset(digits.inputs[first], digits.labels[first])
    flows = {
        "image": {k: follow(copies, aligned(image, k), end, rtol=1e-7) for k in layers},
        "linear": {k: follow(digits, unequal(k, gf.Identity()), end) for k in layers},
        "relu": {k: follow(digits, unequal(k, gf.ReLU()), end) for k in relu_layers},
    }
    of_image, of_digits = (gf.analysis.hard_margin_svm(d) for d in (image, digits))
    _print_image(flows["image"], of_image, end)
    _print_linear(flows["linear"], of_digits)
    _print_relu(flows["relu"], digits.num_samples)
    out.mkdir(parents=True, exist_ok=True)
    figure = _draw(flows, of_image, of_digits)
    figure.savefig(out / "growth.png", dpi=150)
    return flows


def aligned(image: gf.Dataset, layers: int) -> gf.Dense:
    """A linear network of layers of norm one and rank one, which hand the image on."""
    first = image.labels[0] * image.inputs[0]
    unit = jnp.zeros(WIDTH).at[0].set(1)
    hands_on = [first] + [unit] * (layers - 1)
    receives = [unit] * (layers - 1) + [jnp.ones(1)]
    weights = [jnp.outer(r, h) for r, h in zip(receives, hands_on, strict=True)]
    return gf.Dense.from_weights(weights, gf.Identity())


def unequal(layers: int, activation: gf.AbstractActivation) -> gf.Dense:
    """A random network of digits, whose last layer is four times as large as the first
    where there are several. The product of the norms is one."""
    return gf.Dense(
        (65, *(WIDTH,) * (layers - 1), 1),
        key=jax.random.key(0),
        activation=activation,
        norm=jnp.geomspace(0.5, 2.0, layers) if layers > 1 else 1.0,
    )


def norms(problem, network):
    del problem
    return network.norms


def smallest_margin(problem, network):
    return jnp.min(problem.margins(network))


def times(end):
    return np.geomspace(1.0, end, SAVES)


def follow(dataset, network, end, rtol=1e-4):
    return gf.solve(
        gf.Problem(dataset, gf.ExponentialLoss("mean")),
        gf.LogTime(gf.GradientFlow()),
        network,
        end,
        ts=times(end),
        rtol=rtol,
        observe={
            "rho": gf.analysis.product_of_norms,
            "norms": norms,
            "margin": smallest_margin,
        },
    )


@functools.partial(jax.jit, static_argnames="layers")
def closed_form(log_ts, largest: gf.analysis.HardMarginSVM, layers: int):
    """The product of the norms for the largest margin, from layers of norm one.

    The mean loss is that of one sample, times the number that the support vectors count
    for over the number of all.
    """
    log_rate = jnp.log(largest.effective_support / largest.multipliers.size)

    def at(log_t):
        return gf.analysis.rho_of_log_time(
            log_t + log_rate, 1.0, margin=largest.margin, layers=layers
        )

    return jax.vmap(at)(log_ts)


def expansion(log_t, layers):
    """Of the closed form less log t, for late times and a margin of one."""
    return (2 - 2 / layers) * np.log(log_t) + np.log(layers)


def outputs_along(flow, direction):
    """What the networks make of the direction, taken as an image."""
    return eqx.filter_vmap(lambda network: network(direction)[0])(flow.networks)


def slope(log_ts, values):
    """Of the values over log t, both in logarithms, in the last fifth of the saves."""
    last = [-1 - SAVES // 5, -1]
    (x0, x1), (y0, y1) = (np.log(np.asarray(a)[last]) for a in (log_ts, values))
    return (y1 - y0) / (x1 - x0)


def fit(flow, layers):
    """The law that is nearest to the product of the norms in the later half."""
    late = slice(SAVES // 2, None)
    return gf.analysis.fit_growth(
        flow.log_ts[late], flow.observables["rho"][late], layers=layers
    )


def _print_image(flows, largest, end):
    rows = range(SAVES // 5, SAVES, SAVES // 5)
    print("one image, linear networks        ρ / log t at log t =")
    print(
        "layers  gradients  ρ/law - 1"
        + "".join(f"{t:8.3g}" for t in times(end)[rows])
        + "    ρ - log t  expansion      ρ_k"
    )
    for k, flow in flows.items():
        rho, log_ts = flow.observables["rho"], flow.log_ts
        difference = np.max(np.abs(rho / closed_form(log_ts, largest, k) - 1))
        print(
            f"{k:6}{flow.stats['num_gradients']:11,}{difference:11.1e}"
            + "".join(f"{rho[i] / log_ts[i]:8.4f}" for i in rows)
            + f"{rho[-1] - log_ts[-1]:13.4f}{expansion(log_ts[-1], k):11.4f}"
            + f"{flow.observables['norms'][-1, 0]:9.1f}"
        )


def _print_linear(flows, largest):
    print(
        f"\ndigits, linear networks: largest margin {largest.margin:.6f}, "
        f"{largest.num_support} support vectors that count for "
        f"{largest.effective_support:.4f}"
    )
    print(
        "layers  gradients  margin/largest   ρ/law - 1  slope  g(v)/law - 1"
        "  ρ_K/ρ_1  ρ_K² - ρ_1²"
    )
    for k, flow in flows.items():
        law = closed_form(flow.log_ts, largest, k)
        excess = flow.observables["rho"] / law - 1
        along = outputs_along(flow, largest.direction) / law - 1
        norms = flow.observables["norms"][-1]
        print(
            f"{k:6}{flow.stats['num_gradients']:11,}"
            f"{flow.observables['margin'][-1] / largest.margin:16.6f}{excess[-1]:12.1e}"
            f"{slope(flow.log_ts, excess):7.2f}{along[-1]:14.1e}"
            f"{norms[-1] / norms[0]:9.5f}{norms[-1] ** 2 - norms[0] ** 2:13.5f}"
        )


def _print_relu(flows, samples):
    print("\ndigits, ReLU networks")
    print("layers  gradients    margin  fitted margin  fitted number   misfit  ρ_K/ρ_1")
    for k, flow in flows.items():
        law = fit(flow, k)
        number = samples * np.exp(law.log_rate)
        norms = flow.observables["norms"][-1]
        print(
            f"{k:6}{flow.stats['num_gradients']:11,}"
            f"{flow.observables['margin'][-1]:10.6f}{law.margin:15.6f}"
            f"{number:15.2f}"
            f"{law.misfit:9.1e}{norms[-1] / norms[0]:9.5f}"
        )


def _draw(flows, of_image, of_digits):
    figure, (products, norms, ratios) = plt.subplots(
        1, 3, figsize=(13, 4), layout="constrained"
    )
    for n, (k, flow) in enumerate(flows["linear"].items()):
        law = closed_form(flow.log_ts, of_digits, k)
        label = f"{k} layer{'s' if k > 1 else ''}"
        products.loglog(flow.log_ts, flow.observables["rho"], f"C{n}", label=label)
        products.loglog(flow.log_ts, law, "k:", lw=1)
        norms.loglog(flow.log_ts, flow.observables["norms"], f"C{n}")
        norms.loglog(flow.log_ts, law ** (1 / k), "k:", lw=1)
    for n, (k, flow) in enumerate(flows["image"].items()):
        law = closed_form(flow.log_ts, of_image, k)
        ratios.semilogx(flow.log_ts, flow.observables["rho"] / flow.log_ts, f"C{n}")
        ratios.semilogx(flow.log_ts, law / flow.log_ts, "k:", lw=1)
    products.plot([], [], "k:", label="closed form")
    products.set(title="digits, linear networks", ylabel=r"product of the norms $\rho$")
    norms.set(title="digits, linear networks", ylabel=r"norms of the layers $\rho_k$")
    ratios.set(
        title="one image, linear networks", ylabel=r"$\rho \,/ \log t$", ylim=(0.9, 3)
    )
    products.legend()
    for axes in (products, norms, ratios):
        axes.set_xlabel(r"$\log t$")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Growth of the weights.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
