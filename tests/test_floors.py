"""The house stands on its floors: a module imports from its own folder and from floors below."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from causal_bayes_opt._optional import optional
from causal_bayes_opt.errors import OptionalDependencyError

PACKAGE = "causal_bayes_opt"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

# From the ground up. Rooms on one floor stand side by side and know nothing of each other.
# The package's own __init__.py is the roof: it hands on names, and nobody imports from it.
ROOF = "__init__"
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"_optional", "pages"}),
    frozenset({"core"}),
    frozenset({"surrogate"}),
    frozenset({"acquisition"}),
    frozenset({"expert"}),
    frozenset({"training"}),
    frozenset({"study", "service", "interop", "benchmarks"}),
    frozenset({"api", "report", "console"}),
    frozenset(
        {"demo", "cli_datasets", "cli_training", "cli_validation", "cli_values", "optimization"}
    ),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

# The networks run on JAX alone; torch belongs to the peers that the benchmarks compare with.
WITHOUT_TORCH = ("core", "surrogate", "acquisition", "expert", "training")
# What `import causal_bayes_opt` may not bring along: the extras, and what only some commands need.
NOT_AT_IMPORT = (
    "alembic",
    "causallearn",
    "dowhy",
    "fastapi",
    "lingam",
    "matplotlib",
    "mlflow",
    "optuna",
    "pgmpy",
    "prometheus_client",
    "ray",
    "sqlalchemy",
    "torch",
    "uvicorn",
    "zarr",
)


def room_of(parts: tuple[str, ...]) -> str:
    """Return the folder, or the single module, below the package in which a dotted name lives."""
    return parts[1] if len(parts) > 1 else ROOF


def module_parts(path: Path, source: Path = SOURCE) -> tuple[str, ...]:
    """Return the dotted name of a source file, with ``__init__`` kept as its last part."""
    return (PACKAGE, *path.relative_to(source).with_suffix("").parts)


def imported_modules(tree: ast.Module, parts: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of everything that a module imports, wherever in it.

    ``from a import b`` yields ``a.b``: `b` may be a module, and if it is not, the room is the same.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [*parts[: len(parts) - node.level], *base]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def breaches(code: str, parts: tuple[str, ...]) -> list[str]:
    """Return a sentence for every import in `code` that goes up or sideways."""
    own = room_of(parts)
    found = []
    for line, name in imported_modules(ast.parse(code), parts):
        where = f"{'/'.join(parts[1:])}.py:{line}"
        imported = tuple(name.split("."))
        if imported[0] != PACKAGE:
            if imported[0] == "torch" and own in WITHOUT_TORCH:
                found.append(f"{where} imports torch")
            continue
        room = room_of(imported)
        if own in (ROOF, room):
            continue
        if room not in HEIGHT:
            found.append(f"{where} imports the package's root by {name}: name the module itself")
        elif HEIGHT[room] >= HEIGHT[own]:
            found.append(f"{where} imports {name}, which is not below {own}")
    return found


SOURCES = sorted(SOURCE.rglob("*.py"))


def test_every_module_has_a_floor() -> None:
    homeless = {room_of(module_parts(path)) for path in SOURCES} - HEIGHT.keys() - {ROOF}
    assert not homeless, f"give {sorted(homeless)} a floor in the table above"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_imports_only_from_below(path: Path) -> None:
    assert breaches(path.read_text(encoding="utf-8"), module_parts(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import causal_bayes_opt.cli",
        "from causal_bayes_opt import surrogate",
        "from causal_bayes_opt.surrogate.posterior import ParentSetPosterior",
        "from ..surrogate import posterior",
        "from .. import training",
        "from causal_bayes_opt import Study",
        "import causal_bayes_opt",
        "def late():\n    from causal_bayes_opt.training import loop",
        "import torch",
        "from torch import nn",
    ],
)
def test_an_import_from_above_is_found(code: str) -> None:
    assert len(breaches(code, (PACKAGE, "core", "sample"))) == 1


def test_an_import_from_beside_is_found() -> None:
    assert breaches("from causal_bayes_opt.study import storage", (PACKAGE, "service", "app"))


@pytest.mark.parametrize(
    "code",
    [
        "from . import scm, graphs",
        "from .scm import SCM",
        "from ..errors import DataError",
        "from causal_bayes_opt.core.scm import SCM",
        "from causal_bayes_opt import errors",
        "import numpy.random",
        "import torchless",
    ],
)
def test_an_import_from_below_is_allowed(code: str) -> None:
    assert breaches(code, (PACKAGE, "core", "sample")) == []


def caught_imports(code: str) -> list[int]:
    """Return the lines in `code` on which a failed import is caught."""
    handlers = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ExceptHandler)]
    return [
        handler.lineno
        for handler in handlers
        if handler.type is not None
        for name in ast.walk(handler.type)
        if isinstance(name, ast.Name) and name.id in ("ImportError", "ModuleNotFoundError")
    ]


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.stem != "_optional"],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_a_missing_extra_is_met_in_one_place(path: Path) -> None:
    assert caught_imports(path.read_text(encoding="utf-8")) == [], "use _optional.optional"


def test_a_caught_import_is_found() -> None:
    assert caught_imports("try:\n    import ray\nexcept (OSError, ImportError):\n    pass") == [3]


def test_a_missing_extra_says_what_to_install() -> None:
    for name in ("no_such_package", "no_such_package.data"):
        with pytest.raises(OptionalDependencyError, match=r"causal-bayes-opt\[scale\]"):
            optional(name, "scale")
    assert optional("json.decoder", "scale").__name__ == "json.decoder"


def test_an_extra_that_is_broken_keeps_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_extra.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        optional("broken_extra", "scale")


def test_a_folders_own_init_counts_as_the_folder() -> None:
    init = (PACKAGE, "core", ROOF)
    assert breaches("from .scm import SCM", init) == []
    assert len(breaches("from ..surrogate import posterior", init)) == 1


def test_importing_the_package_is_light() -> None:
    code = f"import sys, {PACKAGE}; print(*(sys.modules.keys() & set({NOT_AT_IMPORT!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
