"""The page of the regret benchmark: rows that were not made again stay as they are."""

import numpy as np

from benchmarks.regret_page import read_sections, write_page

OURS, PEER = "expected improvement", "random"


def studies(method, n, regret, problem="toy", many=1, commit="abc1234"):
    """Results of `n` studies of two trials, as the benchmark keeps them."""
    return [
        {
            "problem": problem,
            "many": many,
            "method": method,
            "n_vars": 3,
            "optimum": -2.0,
            "regret": [regret, regret / 2 + 0.01 * seed],
            "values": [-1.0, -1.5],
            "outcomes": [-1.0, -1.5],
            "noisy": [-0.5, -1.0],
            "seconds": [0.5, 0.1],
            "gap": 0.5,
            "commit": commit,
        }
        for seed in range(n)
    ]


def rows(folder):
    return {
        title: own.rows for title, own in read_sections((folder / "regret.md").read_text()).items()
    }


def test_what_was_not_made_again_stays(tmp_path):
    write_page(studies(OURS, 4, 0.2) + studies(PEER, 4, 0.9), tmp_path)
    before = rows(tmp_path)
    (title,) = before
    assert title == "## toy, 1 outcome a trial, optimum -2"
    made = studies(OURS, 4, 0.1, commit="def5678") + studies(OURS, 4, 0.3, many=1000)
    write_page(made, tmp_path)
    after = rows(tmp_path)
    assert list(after) == [title, "## toy, 1,000 outcomes a trial, optimum -2"]
    assert after[title][PEER] == before[title][PEER]
    assert before[title][OURS][2].startswith("0.200")
    assert after[title][OURS][2].startswith("0.100")
    assert after[title][OURS][-1] == "def5678"
    assert list(after[title]) == [OURS, PEER]
    again = (tmp_path / "regret.md").read_text()
    write_page([], tmp_path)
    assert (tmp_path / "regret.md").read_text() == again


def test_a_method_with_fewer_trials_takes_no_row_from_others(tmp_path):
    write_page(studies(OURS, 4, 0.2, "linear") + studies(PEER, 4, 0.9, "linear"), tmp_path)
    before = rows(tmp_path)
    short = [
        study | {name: study[name][:1] for name in ("regret", "values", "outcomes", "noisy")}
        for study in studies("PARENT_SCALE", 1, 0.4, "linear")
    ]
    write_page(short, tmp_path)
    (title, own), *others = rows(tmp_path).items()
    assert not others
    assert title == "## linear, 1 outcome a trial"
    assert own["PARENT_SCALE"][2].startswith("0.400")
    assert own["PARENT_SCALE"][3] == ""
    assert {name: own[name] for name in (OURS, PEER)} == before[title]


def test_fewer_studies_do_not_take_the_place_of_more(tmp_path):
    write_page(studies(OURS, 4, 0.2), tmp_path)
    before = rows(tmp_path)
    write_page(studies(OURS, 3, 0.1), tmp_path)
    assert rows(tmp_path) == before


def test_time_of_a_decision_stays_until_it_is_measured_again(tmp_path):
    linear = [
        study | {"n_vars": 8}
        for method in (OURS, "PARENT_SCALE")
        for study in studies(method, 2, 0.1, problem="linear")
    ]
    write_page(linear, tmp_path)
    told = "took 100.0 ms, posterior included"
    assert told in (tmp_path / "regret.md").read_text()
    write_page(studies(PEER, 4, 0.9), tmp_path)
    assert told in (tmp_path / "regret.md").read_text()


def test_intervals_hold_the_mean(tmp_path):
    write_page(studies(OURS, 30, 0.2), tmp_path)
    (cells,) = (own[OURS] for own in rows(tmp_path).values())
    median, mean = cells[3].split("; ")[:2]
    expected = np.mean([0.1 + 0.01 * seed for seed in range(30)])
    assert mean.startswith(f"mean {expected:.3f} (")
    low, high = (float(part) for part in mean.split("(")[1].rstrip(")").split(" to "))
    assert low < expected < high
    assert float(median.split()[0]) == round(0.245, 3)


def test_methods_are_compared_over_all_families_alike(tmp_path):
    def ten(problem, method, regret):
        more = {"regret": [regret] * 4, "values": [-1.0] * 4, "outcomes": [-1.0] * 10}
        return [study | more for study in studies(method, 3, regret, problem)]

    families = {"linear": 0.1, "polynomial": 0.2, "sigmoid": 0.3}
    most = [line for name, regret in families.items() for line in ten(name, OURS, regret)]
    write_page(most, tmp_path)
    assert "each counted alike" not in (tmp_path / "regret.md").read_text()
    write_page(most + ten("neural", OURS, 0.6) + ten("neural", PEER, 0.1), tmp_path)
    told = "each counted alike: expected improvement 0.300 ± 0.000."
    assert told in (tmp_path / "regret.md").read_text()
