"""Minibatches and label noise, against enumerated draws and linear recursions."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradflow as gf
from small import OBSERVE, dataset, from_vector, loss, network, problem, weights_of

RATE = 0.02
STEPS = 20
KEY = jax.random.key(0)


def draws(sampler, problem, count):
    """The problems of the first `count` steps."""
    sample = eqx.filter_jit(sampler.sample)
    state, batches = sampler.init(problem), []
    for _ in range(count):
        batch, state = sample(problem, state)
        batches.append(batch)
    return batches


def numbered(count):
    """Samples that can be told apart, each by a number of its own."""
    inputs = jnp.arange(count, dtype=float)[:, None]
    labels = jnp.zeros(count)
    return gf.Problem(gf.Dataset(inputs, labels, regression=True), gf.SquareLoss())


def samples_drawn(sampler, problem, count):
    """Which samples were in the first `count` batches, of shape `(count, size)`."""

    def draw(state, _):
        batch, state = sampler.sample(problem, state)
        return state, batch.dataset.inputs[:, 0]

    _, drawn = jax.lax.scan(draw, sampler.init(problem), length=count)
    return np.asarray(drawn).astype(int)


def classes():
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    return gf.Dataset(dataset().inputs, labels, num_classes=3)


def three_outputs():
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=shape)) for shape in ((5, 4), (3, 5))]
    return gf.Dense.from_weights(weights)


@eqx.filter_jit
def measured(problem, net):
    gradient = jnp.concatenate([jnp.ravel(g) for g in problem.gradient(net)])
    return gradient, problem.value(net), problem.log_value(net)


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        (dataset, gf.SquareLoss),
        (dataset, gf.ExponentialLoss),
        (classes, gf.CrossEntropyLoss),
    ],
)
@pytest.mark.parametrize(("size", "reduction"), [(1, "sum"), (2, "mean"), (3, "sum")])
def test_an_epoch_has_the_gradient_of_all_samples(size, reduction, samples, kind):
    net = network() if samples is dataset else three_outputs()
    whole = gf.Problem(samples(), kind(reduction))
    batches = draws(gf.Minibatches(size, key=KEY), whole, 6 // size)
    gradients, values, logs = zip(*[measured(b, net) for b in batches], strict=True)
    gradient, value, _ = measured(whole, net)
    np.testing.assert_allclose(
        np.mean(gradients, axis=0), gradient, rtol=1e-12, atol=1e-14
    )
    assert np.std(gradients, axis=0).max() > 1e-2
    np.testing.assert_allclose(np.mean(values), value, rtol=1e-13)
    np.testing.assert_allclose(logs, np.log(values), rtol=1e-12, atol=1e-13)


def test_a_batch_of_a_batch_estimates_the_same_loss():
    net, whole = network(), problem()
    halves = [whole.batch(jnp.array(i)) for i in ([0, 1, 2], [3, 4, 5])]
    values = [h.batch(jnp.array([k])).value(net) for h in halves for k in range(3)]
    np.testing.assert_allclose(np.mean(values), whole.value(net), rtol=1e-13)


def test_smoothed_margin_of_a_batch_is_that_of_its_samples():
    data, net = dataset(), network()
    alone = gf.Dataset(data.inputs[:2], data.labels[:2])
    for reduction in ("sum", "mean"):
        whole = gf.Problem(data, gf.ExponentialLoss(reduction))
        np.testing.assert_allclose(
            gf.analysis.smoothed_margin(whole.batch(jnp.arange(2)), net),
            gf.analysis.smoothed_margin(gf.Problem(alone, gf.ExponentialLoss()), net),
            rtol=1e-12,
        )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_epochs(size):
    per_epoch, epochs = 6 // size, 600
    drawn = samples_drawn(
        gf.Minibatches(size, key=KEY), numbered(6), epochs * per_epoch
    )
    orders = drawn.reshape(epochs, -1)
    # No sample twice in an epoch: all, where the size divides their number.
    assert orders.shape[1] == per_epoch * size
    assert all(len(set(order)) == len(order) for order in orders)
    # Of an epoch of its own, every sample is as often in each place as any other.
    expected = epochs / 6
    deviation = np.sqrt(epochs * 1 / 6 * 5 / 6)
    for place in orders.T:
        assert np.all(np.abs(np.bincount(place) - expected) < 4.5 * deviation)
    # And one epoch says nothing about the next.
    same = np.sum(orders[1:, 0] == orders[:-1, 0])
    assert abs(same - expected) < 4.5 * deviation


@pytest.mark.parametrize("size", [1, 4, 9])
def test_replacement(size):
    count = 1200
    sampler = gf.Minibatches(size, key=KEY, replacement=True)
    drawn = samples_drawn(sampler, numbered(6), count)
    assert drawn.shape == (count, size)
    deviation = np.sqrt(count * 1 / 6 * 5 / 6)
    for place in drawn.T:
        assert np.all(np.abs(np.bincount(place) - count / 6) < 4.5 * deviation)
    # Two draws agree as often as chance has it, one after the other or in one batch.
    pairs = [(drawn[1:, 0], drawn[:-1, -1])]
    pairs += [(drawn[:, 0], drawn[:, -1])] if size > 1 else []
    for one, other in pairs:
        assert abs(np.sum(one == other) - count / 6) < 4.5 * deviation


def test_all_samples_in_a_batch_is_full_batch_descent():
    options = {"observe": OBSERVE, "flow": gf.GradientFlow(0.1)}
    whole = gf.descend(problem(), RATE, network(), STEPS, **options)
    batches = gf.Minibatches(6, key=KEY)
    same = gf.descend(problem(), RATE, network(), STEPS, sampler=batches, **options)
    np.testing.assert_allclose(
        weights_of(same.networks), weights_of(whole.networks), rtol=1e-13, atol=1e-15
    )
    assert same.stats == {"num_steps": STEPS, "num_gradients": STEPS}


def square_loss(weights, inputs, labels):
    """The mean square loss of two layers, written out."""
    first, last = weights
    outputs = jnp.maximum(inputs @ first.T, 0) @ last.T
    return jnp.mean((outputs[:, 0] - labels) ** 2)


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.sgd(RATE),
        optax.sgd(RATE, momentum=0.9),
        gf.rules.nmgd(RATE, gf.rules.power_decay(1.0)),
        optax.chain(gf.rules.weight_decay(0.3), optax.sgd(RATE)),
    ],
    ids=["sgd", "momentum", "nmgd", "weight decay"],
)
def test_loop_by_hand(optimiser):
    sampler, start = gf.Minibatches(4, key=KEY), network(activation=gf.ReLU())
    run = gf.descend(
        problem(),
        optimiser,
        start,
        STEPS,
        sampler=sampler,
        observe=OBSERVE,
        learning_rate=RATE,
    )
    gradient = jax.jit(jax.grad(square_loss))
    weights, state, path = start.weights, optimiser.init(start.weights), []
    data = dataset()
    for batch in [None, *draws(sampler, problem(), STEPS)]:
        if batch is not None:
            inputs, labels = batch.dataset.inputs, batch.dataset.labels
            by_weights = [6 * g for g in gradient(weights, inputs, labels)]
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(tuple(by_weights), state, weights)
            weights = optax.apply_updates(weights, updates)
        path.append(np.concatenate([np.ravel(w) for w in weights]))
        # Observables are of all samples.
        expected = 6 * square_loss(weights, data.inputs, data.labels)
        at = len(path) - 1
        np.testing.assert_allclose(run.observables["loss"][at], expected, rtol=1e-9)
    np.testing.assert_allclose(
        weights_of(run.networks), np.stack(path), rtol=1e-9, atol=1e-11
    )
    assert run.stats["num_steps"] == STEPS
    np.testing.assert_allclose(run.stats["num_gradients"], STEPS * 4 / 6, rtol=1e-14)


# One weight, `g = w x`: every step is linear in it.

X = np.array([1.0, 0.5, -0.8])
Y = np.array([1.0, -1.0, 1.0])
H = 0.05


def one_weight(x=X, y=Y):
    data = gf.Dataset(jnp.asarray(x)[:, None], jnp.asarray(y))
    return gf.Problem(data, gf.SquareLoss())


def line(w):
    return gf.Dense.from_weights([jnp.full((1, 1), w)], gf.Identity())


def ends(problem, make_sampler, steps, runs, start, rate=H):
    """The weight after each of the runs, whose samplers have keys of their own."""

    @jax.jit
    @jax.vmap
    def end(key):
        return gf.descend(
            problem,
            rate,
            line(start),
            steps,
            sampler=make_sampler(key),
            observe={},
            save_networks=False,
            save_steps=[steps],
        ).final.weights[0][0, 0]

    return np.asarray(end(jax.random.split(KEY, runs)))


def step(w, batch):
    """A step on the batch, of all samples on average."""
    x, y = X[list(batch)], Y[list(batch)]
    return w - H * len(X) / len(batch) * np.sum(2 * x * (w * x - y))


def assert_occur_equally(found, values):
    """That every one of `values` is found, equally often, and nothing else."""
    values, times = np.unique(np.round(values, 12), return_counts=True)
    nearest = np.argmin(np.abs(found[:, None] - values), axis=1)
    np.testing.assert_allclose(found, values[nearest], atol=1e-11)
    chances = times / times.sum()
    deviations = np.sqrt(len(found) * chances * (1 - chances))
    counts = np.bincount(nearest, minlength=len(values))
    assert np.all(np.abs(counts - len(found) * chances) < 4.5 * deviations)


def test_an_epoch_takes_every_order_of_the_samples():
    found = ends(one_weight(), lambda key: gf.Minibatches(1, key=key), 3, 3000, 0.2)
    possible = []
    for order in itertools.permutations(range(3)):
        w = 0.2
        for n in order:
            w = step(w, [n])
        possible.append(w)
    assert len(np.unique(np.round(possible, 12))) == 6
    assert_occur_equally(found, possible)


def test_the_remainder_is_another_in_every_epoch():
    found = ends(one_weight(), lambda key: gf.Minibatches(2, key=key), 2, 3000, 0.2)
    pairs = list(itertools.combinations(range(3), 2))
    possible = [step(step(0.2, one), two) for one in pairs for two in pairs]
    assert_occur_equally(found, possible)


def test_stationary_variance_of_sgd():
    """With replacement a step is `w' = a w + b` with `(a, b)` of a sample, so that the
    first two moments obey linear recursions."""
    steps, runs, start = 60, 8000, 0.2
    a, b = 1 - 2 * H * 3 * X**2, 2 * H * 3 * X * Y
    mean, square = start, start**2
    for _ in range(steps):
        square = np.mean(a**2) * square + 2 * np.mean(a * b) * mean + np.mean(b**2)
        mean = np.mean(a) * mean + np.mean(b)
    # The mean is on its way to the least squares solution, as the flow is.
    np.testing.assert_allclose(
        np.mean(b) / (1 - np.mean(a)), np.sum(X * Y) / np.sum(X**2), rtol=1e-14
    )
    end_square = 2 * np.mean(a * b) * mean + np.mean(b**2)
    end_square = end_square / (1 - np.mean(a**2))
    np.testing.assert_allclose(square, end_square, rtol=1e-3)
    found = ends(
        one_weight(),
        lambda key: gf.Minibatches(1, key=key, replacement=True),
        steps,
        runs,
        start,
    )
    assert_moments(found, mean, square - mean**2)


def assert_moments(found, mean, variance):
    runs = len(found)
    assert abs(np.mean(found) - mean) < 4.5 * np.std(found) / np.sqrt(runs)
    squares = (found - mean) ** 2
    error = 4.5 * np.std(squares) / np.sqrt(runs)
    assert error < 0.1 * variance
    assert abs(np.mean(squares) - variance) < error


# Label noise.


def test_stationary_variance_under_label_noise():
    r"""`w' = w - 2 h (w - y - \delta \xi)` has the variance
    `4 h² δ² / (1 - (1 - 2h)²)`."""
    rate, delta, steps = 0.1, 0.3, 40
    for sampler in (
        lambda key: gf.LabelNoise(delta, key=key),
        lambda key: gf.LabelNoise(
            delta,
            gf.Minibatches(1, key=jax.random.key(9), replacement=True),
            key=key,
        ),
    ):
        found = ends(one_weight([1.0], [1.0]), sampler, steps, 8000, 1.0, rate)
        variance = 4 * rate**2 * delta**2 / (1 - (1 - 2 * rate) ** 2)
        # Of the start, without variance, nothing is left.
        assert (1 - 2 * rate) ** (2 * steps) < 1e-7
        assert_moments(found, 1.0, variance)


@pytest.mark.parametrize("regression", [False, True])
def test_label_noise_leaves_the_mean_of_the_gradient(regression):
    delta, net, inner = 0.4, network(), gf.Minibatches(2, key=jax.random.key(1))
    labels = dataset().labels
    if regression:
        labels = 0.3 * labels + 0.1
    data = gf.Dataset(dataset().inputs, labels, regression=regression)
    whole = gf.Problem(data, gf.SquareLoss())
    noisy = draws(gf.LabelNoise(delta, inner, key=KEY), whole, 3)
    gradients = []
    for batch, clean in zip(noisy, draws(inner, whole, 3), strict=True):
        np.testing.assert_array_equal(batch.dataset.inputs, clean.dataset.inputs)
        noise = batch.dataset.labels - clean.dataset.labels
        np.testing.assert_allclose(np.abs(noise), delta, rtol=1e-14)
        other = gf.Dataset(
            clean.dataset.inputs, clean.dataset.labels - noise, regression=True
        )
        gradients.append(measured(batch, net)[0])
        other = gf.Problem(other, gf.SquareLoss(), population=6)
        gradients.append(measured(other, net)[0])
    np.testing.assert_allclose(
        np.mean(gradients, axis=0),
        measured(whole, net)[0],
        rtol=1e-12,
        atol=1e-14,
    )


def test_noise_is_of_both_signs_and_of_each_step():
    labels, count = dataset().labels, 800
    sampler = gf.LabelNoise(0.5, key=KEY)

    def draw(state, _):
        batch, state = sampler.sample(problem(), state)
        return state, (batch.dataset.labels - labels) / 0.5

    _, noise = jax.lax.scan(draw, sampler.init(problem()), length=count)
    np.testing.assert_allclose(np.abs(noise), 1, rtol=1e-14)
    noise = np.asarray(noise)
    bound = 4.5 / np.sqrt(count)
    assert np.all(np.abs(np.mean(noise, axis=0)) < bound)
    # Neither samples nor steps know of each other.
    correlations = noise.T @ noise / count - np.eye(6)
    assert np.max(np.abs(correlations)) < bound
    assert np.max(np.abs(noise[1:].T @ noise[:-1] / count)) < bound


def test_label_noise_without_noise_is_descent():
    quiet = gf.LabelNoise(0.0, key=KEY)
    options = {"observe": {}, "flow": gf.LagrangeFlow(0.1)}
    runs = [
        gf.descend(problem(), RATE, network(), STEPS, sampler=sampler, **options)
        for sampler in (quiet, gf.FullBatch())
    ]
    np.testing.assert_allclose(
        *(weights_of(run.networks) for run in runs), rtol=1e-13, atol=1e-15
    )
    assert runs[0].stats == {"num_steps": STEPS, "num_gradients": STEPS}


# In a descent.


def noisy_batches(key, size=4):
    one, other = jax.random.split(key)
    return gf.LabelNoise(0.3, gf.Minibatches(size, key=one), key=other)


def noisy_descent(key, **options):
    options = {"observe": OBSERVE, "flow": gf.LagrangeFlow(0.1), **options}
    return gf.descend(
        problem(), RATE, network(), STEPS, sampler=noisy_batches(key), **options
    )


def test_transformations():
    keys = jax.random.split(KEY, 3)
    alone = [weights_of(noisy_descent(key).networks) for key in keys]
    np.testing.assert_array_equal(weights_of(noisy_descent(keys[0]).networks), alone[0])
    assert np.max(np.abs(alone[0][-1] - alone[1][-1])) > 1e-3
    many = jax.vmap(lambda key: noisy_descent(key).networks)(keys)
    np.testing.assert_allclose(weights_of(many), alone, rtol=1e-11, atol=1e-13)
    jitted = jax.jit(lambda key: noisy_descent(key).networks)(keys[1])
    np.testing.assert_allclose(weights_of(jitted), alone[1], rtol=1e-11, atol=1e-13)


def test_runs_that_end_at_different_steps():
    """Batches under `vmap` are those of each run alone, wherever the others are."""
    keys = jax.random.split(KEY, 3)

    def rho_above(problem, network):
        del problem
        return network.weights[1][0, 0] > threshold

    threshold = float(network().weights[1][0, 0]) + 0.01
    alone = [noisy_descent(key, until=rho_above) for key in keys]
    many = jax.vmap(lambda key: noisy_descent(key, until=rho_above).final)(keys)
    np.testing.assert_allclose(
        weights_of(many),
        np.stack([weights_of(run.final) for run in alone]),
        rtol=1e-11,
        atol=1e-13,
    )


def test_until_and_save_steps():
    full = noisy_descent(KEY)
    losses = np.asarray(full.observables["loss"])
    some = noisy_descent(KEY, save_steps=[0, 3, 7])
    np.testing.assert_allclose(
        weights_of(some.networks), weights_of(full.networks)[[0, 3, 7]], rtol=1e-12
    )
    threshold = losses[5:8].min() * (1 + 1e-9)
    first = int(np.argmax(losses <= threshold))
    assert 0 < first < STEPS
    # The loss of all samples without noise is what stops it.
    stopped = noisy_descent(KEY, until=gf.LossBelow(threshold))
    assert stopped.stats["num_steps"] == first
    np.testing.assert_allclose(
        weights_of(stopped.final), weights_of(full.networks)[first], rtol=1e-12
    )
    np.testing.assert_allclose(
        stopped.stats["num_gradients"], first * 4 / 6, rtol=1e-14
    )


def test_derivatives():
    like = network()
    weights = jnp.asarray(weights_of(like))

    def end(weights, delta):
        sampler = gf.LabelNoise(
            delta, gf.Minibatches(4, key=KEY), key=jax.random.key(1)
        )
        final = gf.descend(
            problem(),
            RATE,
            from_vector(weights, like),
            STEPS,
            sampler=sampler,
            observe={},
            save_networks=False,
            save_steps=[STEPS],
        ).final
        return loss(problem(), final)

    delta, h = jnp.asarray(0.3), 1e-6
    by_weights, by_delta = jax.jit(jax.grad(end, argnums=(0, 1)))(weights, delta)
    value = jax.jit(end)
    difference = (value(weights, delta + h) - value(weights, delta - h)) / (2 * h)
    np.testing.assert_allclose(by_delta, difference, rtol=1e-6)
    direction = np.random.default_rng(0).normal(size=weights.size)
    forth, back = weights + h * direction, weights - h * direction
    difference = (value(forth, delta) - value(back, delta)) / (2 * h)
    np.testing.assert_allclose(by_weights @ direction, difference, rtol=1e-6)


def test_nothing_is_compiled_for_new_keys_and_noise():
    traces = []

    def count(problem, network):
        traces.append(1)
        return loss(problem, network)

    def run(seed, delta):
        sampler = gf.LabelNoise(
            delta, gf.Minibatches(4, key=jax.random.key(seed)), key=jax.random.key(7)
        )
        gf.descend(
            problem(), RATE, network(), STEPS, sampler=sampler, observe={"loss": count}
        )

    run(0, 0.3)
    before = len(traces)
    run(1, 0.4)
    assert len(traces) == before > 0


# Arguments that do not fit.


def test_bad_samplers():
    for size in (0, -1):
        with pytest.raises(ValueError, match="`size`"):
            gf.Minibatches(size, key=KEY)
    for delta in (-0.1, np.nan):
        with pytest.raises(ValueError, match="`delta`"):
            gf.LabelNoise(delta, key=KEY)
    for population in (0, -3):
        with pytest.raises(ValueError, match="`population`"):
            gf.Problem(dataset(), gf.SquareLoss(), population)


@pytest.mark.parametrize(
    ("name", "sampler", "samples", "kind"),
    [
        ("size", gf.Minibatches(7, key=KEY), dataset, gf.SquareLoss),
        ("problem", gf.LabelNoise(0.1, key=KEY), dataset, gf.ExponentialLoss),
        ("problem", gf.LabelNoise(0.1, key=KEY), classes, gf.SquareLoss),
    ],
)
def test_problems_that_do_not_fit(name, sampler, samples, kind):
    whole = gf.Problem(samples(), kind())
    net = network() if samples is dataset else three_outputs()
    with pytest.raises(ValueError, match=f"`{name}`"):
        gf.descend(whole, RATE, net, 1, sampler=sampler)


def test_clocks_go_by_all_samples():
    whole = problem(loss=gf.ExponentialLoss())
    flow = gf.LossTime(gf.GradientFlow())
    with pytest.raises(ValueError, match="`sampler`"):
        gf.descend(
            whole, RATE, network(), 1, flow=flow, sampler=gf.Minibatches(2, key=KEY)
        )


def test_sampler_of_your_own():
    """One that takes every sample in turn, and none at random."""

    class InTurn(gf.AbstractSampler):
        def init(self, problem):
            del problem
            return jnp.zeros((), jnp.int32)

        def sample(self, problem, state):
            index = state % problem.dataset.num_samples
            return problem.batch(index[None]), state + 1

    found = gf.descend(one_weight(), H, line(0.2), 7, sampler=InTurn(), observe={})
    w, path = 0.2, [0.2]
    for n in range(7):
        w = step(w, [n % 3])
        path.append(w)
    np.testing.assert_allclose(found.networks.weights[0][:, 0, 0], path, rtol=1e-13)
