"""What the command line needs around its commands: environment, one-line errors, output."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO

from causal_bayes_opt.core.compiled import programs_folder
from causal_bayes_opt.errors import CausalBayesOptError, CommandLineError

PROGRAM = "acbo"
USER_ERROR = 2
NO_VERDICT = 3  # any error, where 1 says "no-go" and 2 "undecided"
INTERRUPTED = 130  # 128 + SIGINT
NOBODY_READS = 141  # 128 + SIGPIPE


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed, in one line."""
        if message.endswith(("expected one argument", "expected at least one argument")):
            message += " (one that begins with '-' is attached by '=': --target=-x)"
        raise CommandLineError(f"{message}; see {self.prog} --help")


def add_command(
    commands: Any, name: str, does: str, examples: list[str]
) -> argparse.ArgumentParser:
    """Add a command with its help and examples to the parser's commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=does[0].upper() + does[1:] + ".",
        epilog="examples:\n  " + "\n  ".join(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def prepare_environment() -> None:
    """Set what NumPy's BLAS and JAX read when they are first imported, where it is not set.

    Parallel BLAS inside parallel JAX makes small solves up to hundreds of times slower on a loaded
    machine; and JAX keeps what it has compiled, so that only the first call pays for it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs_folder()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def guarded(command: Callable[[], None], on_error: int = USER_ERROR) -> int:
    """Run a command; return its exit status. What a user can cause becomes one line.

    Args:
        command: raises `SystemExit` for a status of its own.
        on_error: status of what a user can cause. Where it is not the usual one, 1 has a meaning
            of its own, and an error of the program itself ends with `on_error` too.
    """
    status = 0
    try:
        with _quiet():
            try:
                command()
            finally:
                sys.stdout.flush()
    except SystemExit as stop:  # by argparse after help and version, or a command's own status
        status = int(stop.code or 0)
    except CausalBayesOptError as error:
        status = fail(str(error), on_error)
    except BrokenPipeError:
        # The reader has gone, as `head` does. Python would complain again when it flushes at exit.
        _discard(sys.stdout)
        status = NOBODY_READS
    except OSError as error:
        where = f"{error.filename!r}: " if error.filename else ""
        status = fail(f"{where}{error.strerror or error}", on_error)
    except KeyboardInterrupt:
        fail("interrupted")
        status = INTERRUPTED
    except MemoryError:
        status = fail("out of memory; leave out variables or rows", on_error)
    except Exception:
        if on_error == USER_ERROR:
            raise
        traceback.print_exc()
        status = on_error
    return status


def fail(message: str, status: int = USER_ERROR) -> int:
    """Write one line to standard error; return the status."""
    _say(f"error: {message}")
    return status


def warn(message: str) -> None:
    """Write a warning to standard error."""
    _say(f"warning: {message}")


def print_json(record: dict[str, Any]) -> None:
    """Write one JSON object to standard output; a value that is not finite is a fault."""
    ascii_only = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    print(json.dumps(record, ensure_ascii=ascii_only, allow_nan=False))


def _say(message: str) -> None:
    line = " ".join(message.split())
    print(f"{PROGRAM}: {line}", file=sys.stderr)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let any name be printed in any locale, and keep JAX's notes to developers from the user."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        # A cache of compiled programs that cannot be read or written costs time, nothing else.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
        yield


def _discard(stream: TextIO) -> None:
    try:
        descriptor = stream.fileno()
    except OSError:  # not a file, as in tests
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
