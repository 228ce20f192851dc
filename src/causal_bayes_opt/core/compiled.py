"""Compiled programs that are kept on disk from one process to the next."""

from __future__ import annotations

import os
from pathlib import Path

_PROGRAM = "acbo"


def cache_folder() -> Path:
    """The user's cache folder for this package (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a path that is not absolute is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
    return root / _PROGRAM


def programs_folder() -> Path:
    """Where the command line and `keep_compiled` keep programs."""
    return cache_folder() / "jax"


def keep_compiled(folder: str | Path | None = None) -> Path:
    """Keep on disk what JAX compiles from now on, in this process and in the next.

    The first answers of a process wait for the compiler, which takes far longer than an answer;
    what an earlier process has kept is read instead. The command line does this by itself. It is a
    setting of JAX as a whole, so programs of others are kept, too.

    Args:
        folder: where to; by default the one that JAX was told already
            (``JAX_COMPILATION_CACHE_DIR``), else ``acbo/jax`` in the user's cache folder. Programs
            are of this machine's processor: machines of different kinds need folders of their own.

    Returns:
        The folder.

    Raises:
        OSError: the folder cannot be made.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    told = getattr(jax.config, "jax_compilation_cache_dir", None)
    chosen = folder or told or programs_folder()
    path = Path(chosen).expanduser().absolute()
    path.mkdir(parents=True, exist_ok=True)
    # JAX decides at its first compilation whether it keeps programs, and where.
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return path
