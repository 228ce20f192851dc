"""The command that runs the benchmarks finds them."""

from importlib import import_module

import pytest

from benchmarks.__main__ import NAMES, main


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_gives_rows(name):
    assert callable(import_module(f"benchmarks.{name}").rows)


def test_unknown_benchmark_is_named(capsys):
    assert main(["speling"]) == 2
    assert "speling" in capsys.readouterr().err
