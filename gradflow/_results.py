"""How a run can end, and what to do about it."""

import diffrax


class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a run ended. `successful`, `event_occurred` (a condition of `until` was met)
    and `at_rest` (of flows with a clock) are good ends; everything else is a failure
    and says which."""

    nonfinite_state = "The loss, its gradient or the weights became infinite or NaN."
    left_spheres = "The directions of the layers left their unit spheres."
    chattering = "The solution chatters: it returns to a kink again and again."
    too_stiff = "The flow has become so stiff that `max_steps` will not do."
    at_rest = "The flow has come to rest, where its clock stands still."
    positive_loss = "The flow has come to rest where the loss is positive."
    dead_network = "No weight has an influence on the loss."
    not_critical = "There is no critical point next to the network."
    unfinished = "The run has not come to its end yet."


NAMES = (
    "successful",
    "event_occurred",
    "max_steps_reached",
    "dt_min_reached",
    "nonfinite_state",
    "left_spheres",
    "chattering",
    "too_stiff",
    "at_rest",
    "positive_loss",
    "dead_network",
    "not_critical",
    "unfinished",
    "max_steps_rejected",
    "nonlinear_max_steps_reached",
    "nonlinear_divergence",
    "nonfinite",
    "singular",
    "internal_error",
)

_ADVICE = {
    "max_steps_reached": "Likely causes: units of an exact ReLU network that slide "
    "along their kinks, in a run with `smoothing=0`, or a stiff problem (a large "
    "sharpness) with another solver than `RKC`. Leave both to their defaults, loosen "
    "`rtol`, shorten the time, or raise `max_steps`.",
    "dt_min_reached": "The step size collapsed. Likely causes: a ReLU unit that slides "
    "along its kink, where the field is discontinuous (smooth the network with "
    "`ReLU(smoothing=1e-3)`, or leave `smoothing` to its default); an `rtol` finer "
    "than the floating-point type resolves (use float64); a loss that overflows for "
    "large outputs (start from smaller norms).",
    "nonfinite_state": "Likely causes: a step size or learning rate beyond stability; "
    "initial norms so large that the loss overflows; float32 where float64 is needed.",
    "left_spheres": "The raw Lagrange form repels from the spheres while ρ is above "
    "its equilibrium. Use `LagrangeFlow(raw=False)`, or raise `max_defect`.",
    "chattering": "Likely causes: units that slide along their kinks, where the field "
    "is discontinuous, in a run with `smoothing=0`; or a `solver` whose steps jump "
    "over the width of the kinks. What an explicit method makes of that is wrong by an "
    "amount that nothing controls. Leave `smoothing` and `solver` to their defaults. "
    "For gradient descent of small steps as it is, use `gradflow.descend`.",
    "too_stiff": "Even with the most stages in each step, the way that is left would "
    "take more than 100 * `max_steps` gradients, and the last 300 steps brought no "
    "relief. Likely causes: `LossTime` with several layers, whose norms grow "
    "exponentially in that time or to infinity (use `LogTime` or `LogRho`); samples "
    "that stay on the wrong side while `LogTime` or `ArcLength` ask for more; a time "
    "far beyond what there is to see. Look at what was reached, choose an earlier "
    "`t1`, or raise `max_steps`.",
    "positive_loss": "Not all samples are classified correctly, and the loss has a "
    "positive lower bound or a critical point there. Likely causes: data that the "
    "network cannot separate (a label error, equal inputs with different labels, too "
    "small a network), or another start is needed.",
    "dead_network": "Likely cause: no hidden unit is active for any sample. Start from "
    "other weights.",
    "not_critical": "Likely causes: the flow has not come to rest "
    "(integrate longer); units of an exact ReLU network sliding along their kinks, "
    "where the gradient jumps (smooth the network with `ReLU(smoothing=1e-2)`); a loss "
    "that has no critical point (an exponential-type loss needs `weight_decay`); an "
    "`rtol` below the rounding error of the gradient; too small a `subspace` or "
    "`max_steps`.",
    "unfinished": "It goes on in another process, or was interrupted: "
    "`gradflow.resume(path)` takes it up again.",
}


class SolveError(RuntimeError):
    """A run failed. What it had computed until then is in `trajectory`: for a member of
    an ensemble the whole [`gradflow.Ensemble`][]."""

    def __init__(self, message: str, trajectory):
        super().__init__(message)
        self.trajectory = trajectory


class PolishError(RuntimeError):
    """No critical point was found. Where the search ended is in `point`."""

    def __init__(self, message: str, point):
        super().__init__(message)
        self.point = point


class RunInterrupted(KeyboardInterrupt):
    """The user has interrupted a run that is written to disk. What there was until
    then is in `trajectory`; `gradflow.resume` goes on."""

    def __init__(self, message: str, trajectory):
        super().__init__(message)
        self.trajectory = trajectory


def is_okay(result: RESULTS):
    """Whether the end was a good one."""
    return (
        (result == RESULTS.successful)
        | (result == RESULTS.event_occurred)
        | (result == RESULTS.at_rest)
    )


def name_of(result: RESULTS) -> str:
    """The name of a result that is not being traced."""
    for name in NAMES:
        if result == getattr(RESULTS, name):
            return name
    return "internal_error"


def explain(result: RESULTS) -> str:
    """What happened, likely causes and the way out."""
    message = " ".join(RESULTS[result].split())
    advice = _ADVICE.get(name_of(result), "")
    return f"{name_of(result)}: {message} {advice}".strip()
