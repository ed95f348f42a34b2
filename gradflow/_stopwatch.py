"""Compile time apart from run time."""

import functools
import time

import jax

_COMPILING = (
    "jaxpr_trace_duration",
    "jaxpr_to_mlir_module_duration",
    "backend_compile_duration",
)


class Stopwatch:
    """Measures a block: `compile_seconds` is what JAX reports for tracing, lowering and
    compiling, `run_seconds` all the rest."""

    compile_seconds: float
    run_seconds: float

    def __enter__(self) -> "Stopwatch":
        self._compiled_before = _compile_clock().seconds
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        elapsed = time.perf_counter() - self._start
        self.compile_seconds = _compile_clock().seconds - self._compiled_before
        self.run_seconds = elapsed - self.compile_seconds


class _CompileClock:
    def __init__(self):
        self.seconds = 0.0

    def listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        if event.rsplit("/", 1)[-1] in _COMPILING:
            self.seconds += duration_secs


@functools.cache
def _compile_clock() -> _CompileClock:
    clock = _CompileClock()
    jax.monitoring.register_event_duration_secs_listener(clock.listen)
    return clock
