import gc
import itertools
import os
from pathlib import Path

# There is a worker for each core, and matrices are small: OpenBLAS's threads would wait
# for those of the other workers. Four of the examples take 51 s in place of 62 to 64.
# It looks at this where NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

# Tracing makes many objects and little garbage, for which Python looks after each 700:
# 7 % of the time. Now and then it has to, since cycles hold compiled programs.
gc.set_threshold(10_000, 10, 10)
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiling is most of what the tests do. It takes half the time with XLA's older
# emitters, and 30 % less again without LLVM's optimisations. `XLA_FLAGS= pytest` goes
# by those that a user gets. XLA aborts on flags that it does not know, so that versions
# not tried yet go without.
if jax.__version_info__ < (0, 11):
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0",
    )
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)  # so that sharding can be tested
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """JAX keeps every program that it compiled, in memory maps of its own. Linux gives
    a process 65,530 of them, which one worker would need for all tests: XLA aborts."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 15_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def getkey():
    seeds = itertools.count(2019)
    return lambda: jax.random.key(next(seeds))
