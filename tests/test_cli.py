"""The command line: what it prints, where, and with which status it leaves."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt import console
from causal_bayes_opt.acquisition.policies import POLICIES
from causal_bayes_opt.api import infer_parents, suggest
from causal_bayes_opt.benchmarks.problems import named_problem
from causal_bayes_opt.cli import METHODS, main
from causal_bayes_opt.cli_values import parse_edges, parse_ranges
from causal_bayes_opt.core.compiled import cache_folder
from causal_bayes_opt.errors import CausalBayesOptError, ProblemError
from causal_bayes_opt.surrogate.router import SURROGATES

SACHS = Path(os.environ.get("SACHS_CSV", "sachs.csv"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "health.csv"
    named_problem("health").data(100, 3, seed=0).to_csv(path)
    return str(path)


def printed_json(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one object that is all of standard output."""
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_parents_in_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parents", file, "--target", "psa", "--method", "exact", "--json"]) == 0
    answer = printed_json(capsys)
    assert list(answer) == ["target", "method", "marginals", "sets", "entropy", "warnings"]
    assert (answer["target"], answer["method"], answer["warnings"]) == ("psa", "exact", [])
    assert list(answer["marginals"]) == ["age", "bmi", "aspirin", "statin", "cancer"]
    assert all(set(one) == {"parents", "probability"} for one in answer["sets"])
    assert sum(one["probability"] for one in answer["sets"]) == pytest.approx(1.0)
    posterior = infer_parents(file, "psa", method="exact")
    assert answer["marginals"] == dict(posterior.marginals)
    assert answer["entropy"] == posterior.uncertainty
    best, probability = posterior.top_sets(1)[0]
    assert answer["sets"][0]["probability"] == probability
    assert set(answer["sets"][0]["parents"]) == best


def test_parents_as_a_table(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parents", file, "--target", "psa", "--ignore", "cancer"]) == 0
    assert capsys.readouterr().out == f"{infer_parents(file, 'psa', ignore=['cancer'])}\n"


SUGGEST = ["--target", "psa", "--minimize", "--settable", "aspirin", "statin"]


def test_suggest_in_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*SUGGEST, "--range", "aspirin=0:1", "--range", "statin=0:1", "--seed", "4"]
    assert main(["suggest", file, *options, "--json"]) == 0
    answer = printed_json(capsys)
    ranges = {"aspirin": (0.0, 1.0), "statin": (0.0, 1.0)}
    expected = suggest(file, "psa", ranges=ranges, settable=["aspirin", "statin"], seed=4)
    assert answer == {
        "intervention": dict(expected.intervention),
        "predicted_mean": expected.predicted_mean,
        "predicted_std": expected.predicted_std,
        "best_observed": answer["best_observed"],
        "cost": expected.cost,
        "reason": expected.reason,
        "warnings": list(expected.warnings),
    }
    rows = Path(file).read_text().splitlines()
    column = rows[0].split(",").index("psa")
    assert answer["best_observed"] == min(float(row.split(",")[column]) for row in rows[1:])


def test_costs_and_the_number_of_variables_count(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--cost", "aspirin=2.5", "statin=4", "--max-targets", "1"]
    assert main(["suggest", file, *SUGGEST, *options, "--json"]) == 0
    answer = printed_json(capsys)
    costs = {"aspirin": 2.5, "statin": 4.0}
    expected = suggest(file, "psa", settable=list(costs), costs=costs, max_targets=1)
    assert answer["intervention"] == dict(expected.intervention)
    (name,) = answer["intervention"]
    assert answer["cost"] == costs[name]


def test_every_method_and_policy_is_named_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(METHODS) == set(SURROGATES)
    assert main(["suggest", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in POLICIES)


def test_suggest_in_words(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--range", "statin=0:1", "aspirin=0.25:1"]
    assert main(["suggest", file, *SUGGEST, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Next experiment, to minimize psa:"
    expected = suggest(
        file,
        "psa",
        direction="minimize",
        settable=["aspirin", "statin"],
        ranges={"statin": (0.0, 1.0), "aspirin": (0.25, 1.0)},
    )
    assert "  set aspirin = 0.25" in lines
    truth = named_problem("health").expected_outcome(dict(expected.intervention), n=5000)
    assert abs(expected.predicted_mean - truth) < expected.predicted_std
    for name, value in expected.intervention.items():
        assert f"  set {name} = {value:.6g}" in lines
    told = f"  expected psa: {expected.predicted_mean:.4g}"
    assert any(line.startswith(told) for line in lines)
    assert any(line.startswith("  why: ") for line in lines)


def test_values_far_from_zero_are_told_inside_of_their_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    unit = rng.random(60)
    frame = pd.DataFrame({"pressure": 101325.1 + 0.8 * unit, "y": 5 * unit + rng.normal(size=60)})
    frame.to_csv(tmp_path / "far.csv", index=False)
    assert main(["suggest", str(tmp_path / "far.csv"), "--target", "y", "--maximize"]) == 0
    (line,) = (row for row in capsys.readouterr().out.splitlines() if "set pressure" in row)
    value = float(line.split("=")[1])
    assert frame["pressure"].min() <= value <= frame["pressure"].max()


def test_the_direction_counts(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    means = {}
    for direction in ("minimize", "maximize"):
        options = ["--target", "psa", f"--{direction}", "--settable", "aspirin", "--json"]
        assert main(["suggest", file, *options]) == 0
        means[direction] = printed_json(capsys)["predicted_mean"]
    assert means["minimize"] < means["maximize"]


def test_warnings_go_to_standard_error_beside_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "few.csv"
    path.write_text("A,B,Y\n1,2,3\n2,1,5\n4,4,4\n")
    assert main(["parents", str(path), "--target", "Y", "--method", "exact", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["warnings"] == [
        "3 observational rows for 3 variables: too few to tell causes apart; "
        "the answer is mostly prior"
    ]
    assert printed.err.startswith("acbo: warning: 3 observational rows for 3 variables")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("X1=-2:3", {"X1": (-2.0, 3.0)}),
        ("X1=-2e-3:+1.5E2", {"X1": (-0.002, 150.0)}),
        ("a = b=0:1", {"a = b": (0.0, 1.0)}),
        ("ratio A:B=-1:-0.5", {"ratio A:B": (-1.0, -0.5)}),
        (" Größe in µm = 1 : 2 ", {"Größe in µm": (1.0, 2.0)}),
        ("-x=0:1", {"-x": (0.0, 1.0)}),
        ("==0:1", {"=": (0.0, 1.0)}),
    ],
)
def test_a_range_is_read(text: str, expected: dict[str, tuple[float, float]]) -> None:
    assert parse_ranges([text]) == expected


def test_ranges_are_collected() -> None:
    assert parse_ranges([]) is None
    assert parse_ranges(["a=0:1", "b=2:3"]) == {"a": (0.0, 1.0), "b": (2.0, 3.0)}
    with pytest.raises(ProblemError, match="--range names 'a' twice"):
        parse_ranges(["a=0:1", "a=2:3"])


def test_names_that_begin_with_a_dash_are_attached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("-x,-y\n1,2\n2,3\n4,4\n0,2\n")
    options = ["--target=-y", "--minimize", "--range=-x=-1:5", "--settable=-x", "--json"]
    assert main(["suggest", str(path), *options]) == 0
    assert printed_json(capsys)["intervention"].keys() == {"-x"}


MISUSE = {
    "parent data.csv": "unknown command 'parent'; did you mean 'parents'?",
    "parents": "the following arguments are required: FILE, --target; see acbo parents --help",
    "parents data.csv --target -y": "argument --target: expected one argument (one that begins "
    "with '-' is attached by '=': --target=-x); see acbo parents --help",
    "parents data.csv --target y --jsom": "unrecognized arguments: --jsom; see acbo --help",
    "suggest data.csv --target y": "one of the arguments --minimize --maximize is required; "
    "see acbo suggest --help",
    "suggest data.csv --target y --minimize --maximize": "argument --maximize: not allowed with "
    "argument --minimize; see acbo suggest --help",
    "suggest data.csv --target y --minimize --seed -3": "argument --seed: '-3' is no whole number "
    "from 0 to 4294967295; see acbo suggest --help",
}


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_is_told_in_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"acbo: error: {MISUSE[line]}\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--systems many", "argument --systems: invalid int value: 'many'"),
        ("--systems 0", "systems is 0; it must be at least 1"),
        ("--model linear-gausian-v1", "did you mean 'linear-gaussian-v1'?"),
        ("--spent tuning:60", "--spent has 'tuning:60'; expected WHAT=SECONDS"),
    ],
)
def test_misuse_of_the_judge_is_no_verdict(
    options: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--out", str(tmp_path), *options.split()]) == 3
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--help"], ["parents", "--help"], ["suggest", "-h"]])
def test_help_shows_examples(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 0
    printed = capsys.readouterr()
    assert "\n  acbo " in printed.out.partition("examples:")[2]
    assert printed.err == ""


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"acbo {version('causal-bayes-opt')}\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    code = (
        "import sys; from causal_bayes_opt.cli import main; status = main(sys.argv[1:]); "
        "print(status, sorted({'jax', 'numpy', 'pandas', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_an_interrupt_leaves_with_130(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("causal_bayes_opt.api.infer_parents", interrupted)
    assert main(["parents", file, "--target", "psa"]) == 130
    assert capsys.readouterr() == ("", "acbo: error: interrupted\n")


def test_a_reader_that_goes_away_is_no_error(file: str) -> None:
    code = (
        "import sys; from causal_bayes_opt.cli import main; "
        "sys.stdin.read(); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "parents", file, "--target", "psa", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the command may begin
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_names_are_printed_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("größe,Y\n1,2\n2,3\n4,4\n0,2\n", encoding="utf-8")
    command = [sys.executable, "-m", "causal_bayes_opt.cli", "parents", str(path), "--target", "Y"]
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["marginals"].keys() == {"größe"}


def test_demo_is_told_where_and_with_which_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("causal_bayes_opt.demo.run_demo", lambda *given: calls.append(given))
    assert main(["demo"]) == 0
    assert main(["demo", "--quick", "--out", str(tmp_path), "--seed", "5"]) == 0
    (out, config), (quick_out, quick) = calls
    assert (out, config.seed) == (Path("runs/demo"), 0)
    assert (quick_out, quick.seed) == (tmp_path, 5)
    assert quick.steps < config.steps


class TestEnvironment:
    """What must be set before NumPy and JAX are imported."""

    NAMES = ("OPENBLAS_NUM_THREADS", "JAX_COMPILATION_CACHE_DIR")

    @pytest.fixture(autouse=True)
    def unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (*self.NAMES, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
            monkeypatch.setenv(name, "")  # so that the change is undone
            monkeypatch.delenv(name)

    def test_it_is_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        console.prepare_environment()
        assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "acbo" / "jax")

    def test_what_the_user_has_set_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.NAMES:
            monkeypatch.setenv(name, "mine")
        console.prepare_environment()
        assert {os.environ[name] for name in self.NAMES} == {"mine"}

    @pytest.mark.parametrize("base", ["", "relative/folder"])
    def test_a_cache_folder_that_is_not_absolute_is_ignored(
        self, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "acbo"


@pytest.mark.skipif(not SACHS.exists(), reason="the file of Sachs et al. (2005) is not here")
def test_real_data_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "erk", "--ignore", "condition", "--json"]
    assert main(["parents", str(SACHS), *options]) == 0
    answer = printed_json(capsys)
    assert len(answer["marginals"]) == 10
    # The two causes of erk that Sachs et al. (2005) report.
    assert min(answer["marginals"]["mek"], answer["marginals"]["pka"]) > 0.9


def test_an_error_of_the_program_is_no_verdict(capsys):
    def broken():
        raise RuntimeError("not foreseen")

    assert console.guarded(broken, console.NO_VERDICT) == 3
    assert "not foreseen" in capsys.readouterr().err
    with pytest.raises(RuntimeError):
        console.guarded(broken)


def test_what_is_known_about_edges_counts(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = ["--edge", "age:psa", "--no-edge", "statin:psa", "statin:cancer"]
    assert main(["parents", file, "--target", "psa", *known, "--json"]) == 0
    marginals = printed_json(capsys)["marginals"]
    assert marginals["age"] == pytest.approx(1.0)
    assert marginals["statin"] == pytest.approx(0.0)
    assert main(["suggest", file, *SUGGEST, *known, "--json"]) == 0
    chosen = printed_json(capsys)["intervention"]
    prior = parse_edges(known[1:2], known[3:], ["age", "psa", "statin", "cancer"])
    assert prior is not None
    told = suggest(file, "psa", settable=["aspirin", "statin"], prior=prior)
    assert chosen == dict(told.intervention)


def test_edges_between_names_with_colons() -> None:
    prior = parse_edges(["a:b:c", "a : b:c"], ["c:a:b"], ["a:b", "c", "a", "b:c"])
    assert prior is not None
    assert prior.known == (("a", "b:c"), ("a", "b:c"))
    assert prior.forbidden == (("c", "a:b"),)
    assert parse_edges([], [], ["a", "b"]) is None


@pytest.mark.parametrize(
    ("known", "forbidden", "message"),
    [
        (["a"], [], "--edge 'a' is not of the form CAUSE:EFFECT, such as a:b"),
        ([], ["a:"], "--no-edge 'a:' is not of the form CAUSE:EFFECT, such as a:b"),
        (["aa:b"], [], "unknown cause 'aa'; did you mean 'a'?"),
        ([], ["a:d"], "unknown effect 'd'"),
        (["a:b"], ["a:b"], "the edge 'a' -> 'b' is both known and forbidden"),
        (["a:a"], [], "'a' -> 'a' is no edge: nothing causes itself"),
    ],
)
def test_edges_that_cannot_be(known: list[str], forbidden: list[str], message: str) -> None:
    with pytest.raises(CausalBayesOptError, match=re.escape(message)):
        parse_edges(known, forbidden, ["a", "b"])
