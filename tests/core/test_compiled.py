"""Programs are kept from one process to the next, also where a process compiled before it asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROCESS = """
import sys, jax
import jax.numpy as jnp
from causal_bayes_opt import keep_compiled
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
jax.jit(lambda x: x + 1)(jnp.ones(2))
print(keep_compiled(*sys.argv[1:]))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones(3))
print(sum(name == "/jax/compilation_cache/cache_hits" for name in found))
"""


def run(*arguments: str, **environment: str) -> list[str]:
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROCESS, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_next_process_does_not_compile_again(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    first, second = (run(str(folder)) for _ in range(2))
    assert first == [str(folder), "0"]
    assert second[0] == str(folder)
    assert int(second[1]) > 0


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_the_folder_follows_the_environment(tmp_path: Path, name: str) -> None:
    expected = tmp_path / "acbo" / "jax" if name == "XDG_CACHE_HOME" else tmp_path
    assert run(**{name: str(tmp_path)})[0] == str(expected)
    assert any(expected.iterdir())
