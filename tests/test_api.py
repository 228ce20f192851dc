"""The two questions asked from Python: every kind of data gives the same answer."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt.api import decide, infer_parents, read_data, suggest
from causal_bayes_opt.benchmarks.problems import named_problem
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import (
    ConfigError,
    DataError,
    ProblemError,
    UnknownNameError,
)
from causal_bayes_opt.surrogate.protocol import EdgePrior

# Y is caused by A and B; C follows from Y.
SYSTEM = SCM.linear(
    ["C", "A", "Y", "B"], {("A", "Y"): 2.0, ("B", "Y"): -1.5, ("Y", "C"): 1.0}, target="Y"
)
RANGES = {"A": (-2.0, 2.0), "B": (-1.0, 3.0), "C": (-4.0, 4.0)}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    observed = sample(SYSTEM, 100, seed=0).assign(do="")
    tried = [sample(SYSTEM, 5, intervention={n: 1.0}, seed=i) for i, n in enumerate("ABC")]
    return pd.concat([observed, *tried], ignore_index=True)


@pytest.fixture(scope="module")
def buffer(frame: pd.DataFrame) -> ExperienceBuffer:
    return ExperienceBuffer.from_dataframe(frame)


def test_the_causes_are_found(frame: pd.DataFrame) -> None:
    posterior = infer_parents(frame, target="Y")
    assert posterior.top_sets(1)[0][0] == {"A", "B"}
    assert posterior.candidates == ("C", "A", "B")
    assert sum(posterior.posterior_probs.values()) == pytest.approx(1.0)


def test_every_kind_of_data_gives_the_same_answer(
    frame: pd.DataFrame, buffer: ExperienceBuffer, tmp_path: Path
) -> None:
    buffer.to_csv(tmp_path / "data.csv")
    values, mask = buffer.rows()
    answers = [
        infer_parents(frame, "Y"),
        infer_parents(buffer, "Y"),
        infer_parents(tmp_path / "data.csv", "Y"),
        infer_parents(str(tmp_path / "data.csv"), "Y"),
        infer_parents(values, "Y", mask, buffer.get_variable_names()),
        infer_parents(values, "Y", mask.astype(float), buffer.get_variable_names()),
    ]
    for answer in answers[1:]:
        assert answer == answers[0]


def test_an_array_without_names_counts_its_variables(buffer: ExperienceBuffer) -> None:
    values, mask = buffer.rows()
    assert infer_parents(values, "X3", mask).candidates == ("X1", "X2", "X4")


def test_a_table_without_do_is_all_observed(frame: pd.DataFrame) -> None:
    observed = frame.loc[frame["do"] == ""]
    with_do = infer_parents(observed, "Y")
    assert infer_parents(observed.drop(columns="do"), "Y") == with_do


def test_the_data_are_left_as_they_were(frame: pd.DataFrame, buffer: ExperienceBuffer) -> None:
    before, length = frame.copy(), len(buffer)
    infer_parents(frame, "Y")
    suggest(buffer, "Y", ranges=RANGES)
    pd.testing.assert_frame_equal(frame, before)
    assert len(buffer) == length


def test_an_ignored_column_is_as_if_it_was_not_there(frame: pd.DataFrame) -> None:
    extra = frame.assign(note="text", lot=range(len(frame)))
    assert infer_parents(extra, "Y", ignore=("note", "lot")) == infer_parents(frame, "Y")
    named = infer_parents(extra.drop(columns="note"), "Y", ignore="lot")
    assert named == infer_parents(frame, "Y")


def test_ignoring_works_on_arrays_and_buffers_too(buffer: ExperienceBuffer) -> None:
    values, mask = buffer.rows()
    names, untouched = buffer.get_variable_names(), ~mask[:, 0]
    kept = ExperienceBuffer.from_arrays(values[untouched], mask[untouched], names)
    expected = infer_parents(kept.to_dataframe(), "Y", ignore=["C"])
    assert expected.candidates == ("A", "B")
    assert infer_parents(kept, "Y", ignore=["C"]) == expected
    array, own = values[untouched], mask[untouched]
    assert infer_parents(array, "Y", own, names, ignore=["C"]) == expected


def test_what_is_known_beforehand_counts(frame: pd.DataFrame) -> None:
    prior = EdgePrior(known=(("C", "Y"),), forbidden=(("A", "Y"),))
    posterior = infer_parents(frame, "Y", prior=prior)
    assert posterior.marginals["C"] == pytest.approx(1.0)
    assert posterior.marginals["A"] == pytest.approx(0.0)


def test_a_treatment_that_nobody_gets_by_himself() -> None:
    held = sample(SYSTEM, 100, intervention={"B": 0.0}, seed=0).assign(do="")
    tried = [
        sample(SYSTEM, 1, intervention={"B": v}, seed=i).assign(do="B")
        for i, v in enumerate(np.linspace(-1.0, 3.0, 6))
    ]
    other = sample(SYSTEM, 3, intervention={"A": 1.0, "B": 0.0}, seed=9).assign(do="A")
    frame = pd.concat([held, *tried, other], ignore_index=True)
    for method in ("auto", "exact", "network"):
        posterior = infer_parents(frame, "Y", method=method)
        assert posterior.top_sets(1)[0][0] == {"A", "B"}
        assert any("'B' varies only where it was set" in text for text in posterior.warnings)
    assert infer_parents(frame, "Y", method="network").metadata["model"] == "mixed-v1"
    linear = infer_parents(frame, "Y", method="linear-gaussian-v1")
    assert any("vary only where they were set" in text for text in linear.warnings)
    chosen = suggest(frame, "Y", ranges=RANGES, settable=["A", "B"])
    assert dict(chosen.intervention) == {"A": -2.0, "B": 3.0}
    assert chosen.predicted_mean == pytest.approx(-8.5, abs=1.0)


def test_the_method_is_named_in_the_answer(frame: pd.DataFrame) -> None:
    assert infer_parents(frame, "Y", method="exact").method == "exact"
    assert infer_parents(frame, "Y", method="network").method == "network"


def test_a_suggestion_goes_the_right_way(frame: pd.DataFrame) -> None:
    down = suggest(frame, "Y", ranges=RANGES, settable=["A", "B"])
    up = suggest(frame, "Y", direction="maximize", ranges=RANGES, settable=["A", "B"])
    assert dict(down.intervention) == {"A": -2.0, "B": 3.0}
    assert dict(up.intervention) == {"A": 2.0, "B": -1.0}
    # By the system itself -8.5 and 5.5.
    assert down.predicted_mean == pytest.approx(-8.5, abs=1.0)
    assert up.predicted_mean == pytest.approx(5.5, abs=1.0)
    assert down.predicted_std > 0


def test_ranges_are_those_observed_unless_given(
    frame: pd.DataFrame, buffer: ExperienceBuffer
) -> None:
    values, _ = buffer.rows()
    variables = buffer.get_variable_names()
    suggestion = suggest(frame, "Y", settable=["A", "B"], ranges={"B": (-1.0, 3.0)})
    assert suggestion.intervention["B"] == 3.0
    assert suggestion.intervention["A"] == values[:, variables.index("A")].min()


def test_a_problem_may_be_given_whole(frame: pd.DataFrame) -> None:
    problem = Problem(("C", "A", "Y", "B"), "Y", "maximize", RANGES, ("A",), {"A": 3.0})
    suggestion = suggest(frame, problem=problem)
    assert suggestion == suggest(
        frame, "Y", direction="maximize", ranges=RANGES, settable="A", costs={"A": 3.0}
    )
    assert dict(suggestion.intervention) == {"A": 2.0}
    assert suggestion.cost == 3.0


def test_what_failed_is_not_suggested(frame: pd.DataFrame) -> None:
    first = suggest(frame, "Y", ranges=RANGES, settable=["A", "B"]).intervention
    options = {"ranges": RANGES, "settable": ["A", "B"]}
    assert suggest(frame, "Y", **options, failed=[first]).intervention != first
    with pytest.raises(UnknownNameError, match="unknown variable 'D'"):
        suggest(frame, "Y", **options, failed=[{"D": 1.0}])


def test_an_optimum_inside_a_range_is_found_among_many_variables() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 22))
    values[:, 21] = (values[:, 0] - 0.3) ** 2 + values[:, 1] + 0.1 * values[:, 21]
    wide = pd.DataFrame(values, columns=[f"X{i}" for i in range(21)] + ["Y"])
    chosen = suggest(wide, "Y").intervention
    assert abs(chosen["X0"] - 0.3) < 0.5
    assert chosen["X1"] < -1.5


def test_the_same_seed_gives_the_same_suggestion(frame: pd.DataFrame) -> None:
    assert suggest(frame, "Y", ranges=RANGES, seed=7) == suggest(frame, "Y", ranges=RANGES, seed=7)


def test_a_change_of_units_changes_the_suggestion_by_that_unit(frame: pd.DataFrame) -> None:
    scaled = frame.assign(A=1000.0 * frame["A"], Y=frame["Y"] + 50.0)
    plain = suggest(frame, "Y", ranges=RANGES, settable=["A", "B"])
    other = suggest(scaled, "Y", ranges={**RANGES, "A": (-2e3, 2e3)}, settable=["A", "B"])
    assert other.intervention["A"] == pytest.approx(1000 * plain.intervention["A"])
    assert other.intervention["B"] == pytest.approx(plain.intervention["B"])
    assert other.predicted_mean == pytest.approx(plain.predicted_mean + 50)


def test_decide_gives_the_state_too(buffer: ExperienceBuffer) -> None:
    problem = Problem(("C", "A", "Y", "B"), "Y", ranges=RANGES)
    suggestion, state = decide(buffer, problem, seed=3)
    assert suggestion == suggest(buffer, problem=problem, seed=3)
    assert state.best_observed == buffer.rows()[0][:, 2].min()


def test_few_rows_are_warned_of(frame: pd.DataFrame) -> None:
    expected = (
        "4 observational rows for 4 variables: too few to tell causes apart; "
        "the answer is mostly prior"
    )
    assert expected in infer_parents(frame.head(4), "Y").warnings
    assert expected in suggest(frame.head(4), "Y").warnings
    assert infer_parents(frame, "Y", method="exact").warnings == ()


def test_copies_of_a_column_are_warned_of(frame: pd.DataFrame) -> None:
    copied = frame.assign(A=frame["A"], Kelvin=frame["A"] * -1.8 + 32)
    posterior = infer_parents(copied.loc[copied["do"] == ""], "Y", method="exact")
    assert posterior.warnings == (
        "the columns 'A' and 'Kelvin' carry the same values up to scale; "
        "nothing can tell which of them is the cause: leave one out",
    )


def test_rows_that_lack_a_value_are_warned_of_and_survive_a_file(
    buffer: ExperienceBuffer, tmp_path: Path
) -> None:
    partial = buffer.copy()
    partial.add_intervention({"A": 1.0}, {"Y": 2.0})
    posterior = infer_parents(partial, "Y", method="exact")
    assert posterior.warnings[0].startswith("1 of 116 rows lack a value: of these, outcomes of")
    path = tmp_path / "study.csv"
    partial.to_csv(path)
    assert infer_parents(path, "Y", method="exact").marginals == posterior.marginals
    # Without the target's outcome a row says nothing of its causes.
    lost = buffer.copy()
    lost.add_intervention({"A": 1.0}, {"B": 2.0})
    without = infer_parents(lost, "Y", method="exact")
    assert without.marginals == infer_parents(buffer, "Y", method="exact").marginals


def test_an_experiment_that_failed_is_read_from_a_file(tmp_path: Path) -> None:
    scm = SCM.linear(["A", "B", "Y"], {("A", "Y"): 1.0, ("B", "Y"): -1.0})
    rows = sample(scm, 80, seed=0)
    first = suggest(rows, "Y", method="exact").intervention
    path = tmp_path / "study.csv"
    told = pd.DataFrame([{**first, "do": ";".join(first)}])
    pd.concat([rows.assign(do=""), told]).to_csv(path, index=False)
    second = suggest(path, "Y", method="exact")
    assert second.intervention != first
    assert second.intervention == suggest(rows, "Y", method="exact", failed=[first]).intervention
    assert "1 of the experiments have no outcome: they count as failed" in second.warnings


def test_columns_that_are_ignored_make_no_failures() -> None:
    buffer = ExperienceBuffer(["A", "B", "Y"])
    buffer.add_observations(np.random.default_rng(0).normal(size=(20, 3)))
    buffer.add_intervention({"A": 1.0}, {"B": 0.3})
    buffer.add_failure({"A": 2.0})
    smaller = read_data(buffer, ignore=["B"])
    assert (len(smaller), smaller.failed) == (20, ({"A": 2.0},))
    buffer.add_failure({"B": 2.0})
    with pytest.raises(DataError, match="'B' was set in an experiment that failed"):
        read_data(buffer, ignore=["B"])


def test_a_treatment_may_vary_where_the_target_alone_was_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(70, 5, 40)
    rows = pd.DataFrame({"dose": 0.0, "weight": weight, "Y": weight + rng.normal(0, 2, 40)})
    tried = [{"dose": x, "Y": 70 - 20 * x + y} for x in (1.0, 2.0) for y in rng.normal(0, 5, 4)]
    path = tmp_path / "data.csv"
    pd.concat([rows.assign(do=""), pd.DataFrame(tried).assign(do="dose")]).to_csv(path, index=False)
    found = suggest(path, "Y", ranges={"dose": (0.0, 2.0)}, settable=["dose"], method="exact")
    assert found.intervention["dose"] > 1.5


@pytest.mark.parametrize("method", ["exact", "network"])
def test_published_systems_are_answered_in_finite_numbers(method: str) -> None:
    for name in ("health", "toy", "complete"):
        problem = named_problem(name)
        data = problem.data(60, 2, seed=0)
        suggestion = suggest(data, problem=problem.problem, method=method)
        assert set(suggestion.intervention) <= set(problem.problem.may_set)
        for one, value in suggestion.intervention.items():
            low, high = problem.range_of(one)
            assert low <= value <= high
        assert np.isfinite([suggestion.predicted_mean, suggestion.predicted_std]).all()


class TestQuestionsWithoutAnAnswer:
    """Misuse of the arguments; faults of the data are in test_bad_input."""

    def test_no_target(self, frame: pd.DataFrame) -> None:
        with pytest.raises(ProblemError) as caught:
            suggest(frame)
        assert str(caught.value) == (
            "nothing says what is to be optimised; give a target or a problem"
        )

    def test_a_problem_and_its_parts(self, frame: pd.DataFrame) -> None:
        problem = Problem(("C", "A", "Y", "B"), "Y")
        with pytest.raises(ProblemError) as caught:
            suggest(frame, problem=problem, direction="maximize")
        assert str(caught.value) == (
            "a problem was given, and its parts again beside it; give either the problem or "
            "target, direction, ranges, settable, costs and max_targets"
        )

    def test_a_problem_on_other_variables(self, frame: pd.DataFrame) -> None:
        with pytest.raises(ProblemError, match="the problem has the variables"):
            suggest(frame, problem=Problem(("A", "Y"), "Y"))

    def test_an_unknown_method(self, frame: pd.DataFrame) -> None:
        with pytest.raises(UnknownNameError) as caught:
            infer_parents(frame, "Y", method="exakt")
        assert str(caught.value) == "unknown method 'exakt'; did you mean 'exact'?"

    def test_a_direction_that_is_none(self, frame: pd.DataFrame) -> None:
        with pytest.raises(ProblemError, match="expected 'minimize' or 'maximize'"):
            suggest(frame, "Y", direction="minimise")  # type: ignore[arg-type]

    def test_nothing_may_be_set(self, frame: pd.DataFrame) -> None:
        with pytest.raises(ProblemError, match="no variable may be set to move 'Y'"):
            suggest(frame, "Y", settable=[])

    def test_a_seed_out_of_range(self, frame: pd.DataFrame) -> None:
        with pytest.raises(ConfigError) as caught:
            suggest(frame, "Y", seed=-1)
        assert str(caught.value) == "seed is -1; it must be a whole number from 0 to 4294967295"

    def test_a_mask_beside_a_table(self, frame: pd.DataFrame) -> None:
        with pytest.raises(DataError, match="interventions and names go with an array"):
            infer_parents(frame, "Y", interventions=np.zeros((115, 4), dtype=bool))

    def test_values_in_place_of_a_mask(self, buffer: ExperienceBuffer) -> None:
        values, _ = buffer.rows()
        with pytest.raises(DataError, match="must be a boolean mask, True where a value was set"):
            infer_parents(values, "X3", values)

    def test_data_of_another_kind(self) -> None:
        with pytest.raises(DataError, match="data of type 'list' cannot be read"):
            read_data([[1.0, 2.0]])  # type: ignore[arg-type]

    def test_an_ignored_column_that_was_set(self, buffer: ExperienceBuffer) -> None:
        with pytest.raises(DataError) as caught:
            infer_parents(buffer, "Y", ignore=["B"])
        assert str(caught.value) == (
            "row 106: 'B' was set there but its column is ignored; leave those rows out, "
            "or keep the column"
        )

    def test_an_ignored_column_that_does_not_exist(self, buffer: ExperienceBuffer) -> None:
        with pytest.raises(UnknownNameError) as caught:
            infer_parents(buffer, "Y", ignore=["a"])
        assert str(caught.value) == "unknown column to ignore: 'a'; did you mean 'A'?"


def test_copies_of_rows_are_told(frame: pd.DataFrame) -> None:
    observed = frame[frame["do"] == ""]
    again = pd.concat([observed] * 3, ignore_index=True)
    told = [text for text in infer_parents(again, "Y").warnings if "are copies of others" in text]
    assert told[0].startswith(f"{2 * len(observed)} of {3 * len(observed)} observational rows")
    assert not any("copies of others" in text for text in infer_parents(frame, "Y").warnings)
    few_values = again.assign(**{name: again[name].round() for name in ("A", "B", "C", "Y")})
    assert not any("of others" in text for text in infer_parents(few_values, "Y").warnings)
