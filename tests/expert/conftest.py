"""The recorded runs of the public implementation, and the rows in them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

RECORDS = sorted((Path(__file__).parent / "data").glob("*.json"))


class Rows(NamedTuple):
    """Observational rows of one record: inputs standardised, the target in its own units."""

    names: list
    target: str
    x: np.ndarray
    y: np.ndarray
    is_parent: np.ndarray
    shares: np.ndarray  # of votes, for each variable


def rows_of(record):
    target = record["variables"][record["target"]]
    names = [name for name in record["variables"] if name != target]
    means, stds = (np.array([record[key][name] for name in names]) for key in ("means", "stds"))
    x = np.stack([record["observational"][name] for name in names], axis=-1)
    return Rows(
        names,
        target,
        (x - means) / stds,
        np.array(record["observational"][target]),
        np.array([name in record["true_parents"] for name in names]),
        sum(p * np.array([name in parents for name in names]) for parents, p in record["prior"]),
    )


@pytest.fixture(scope="session")
def records():
    assert len(RECORDS) == 19
    return [json.loads(path.read_text(encoding="utf-8")) for path in RECORDS]


@pytest.fixture(scope="session")
def recorded_rows(records):
    return [rows_of(record) for record in records]
