"""A store survives crashes, says what is damaged, and never overwrites what is not its own."""

import errno
import json
import os

import numpy as np
import pytest

from causal_bayes_opt.errors import StoreError
from causal_bayes_opt.training import storage
from causal_bayes_opt.training.storage import DatasetStore

CONFIGURATION = {"seed": 0, "sizes": (3, 4)}


def arrays(seed, n=4):
    rng = np.random.default_rng(seed)
    return {
        "values": rng.normal(size=(n, 5, 3)),
        "mask": rng.random((n, 5, 3)) < 0.5,
        "empty": np.zeros((n, 0)),
        "count": rng.integers(0, 9, n),
    }


@pytest.fixture
def store(tmp_path):
    made = DatasetStore.create(tmp_path / "data", CONFIGURATION)
    for seed in (1, 0):
        made.write(f"d003-{seed}", arrays(seed), {"n_runs": 4})
    return made


def test_arrays_come_back_bit_by_bit(store):
    found = DatasetStore.open(store.folder).read("d003-1")
    for name, array in arrays(1).items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert list(store.read("d003-1", ["count"])) == ["count"]


def test_store_is_a_zarr_group_that_others_can_open(store):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(store.folder, mode="r")
    np.testing.assert_array_equal(group["d003-0"]["values"][...], arrays(0)["values"])


def test_digest_is_that_of_the_content_and_not_of_its_history(store, tmp_path):
    other = DatasetStore.create(tmp_path / "other", CONFIGURATION)
    for seed in (0, 1):
        other.write(f"d003-{seed}", arrays(seed + 7), {"n_runs": 4})
        other.write(f"d003-{seed}", arrays(seed), {"n_runs": 4})
    assert other.digest() == store.digest()
    other.write("d003-1", arrays(2), {"n_runs": 4})
    assert other.digest() != store.digest()
    with pytest.raises(StoreError, match="1 chunks are missing, 'd003-9' the first"):
        store.digest(["d003-0", "d003-9"])


@pytest.mark.parametrize("fault", ["flipped", "cut", "gone"])
def test_damage_is_named(store, fault):
    files = [
        file
        for file in (store.folder / "d003-1" / "values").rglob("*")
        if file.is_file() and file.name != "zarr.json"
    ]
    if fault == "flipped":
        content = bytearray(files[0].read_bytes())
        content[-1] ^= 1
        files[0].write_bytes(content)
    elif fault == "cut":
        files[0].write_bytes(files[0].read_bytes()[:-5])
    else:
        files[0].unlink()
    again = DatasetStore.open(store.folder)
    assert again.damaged() == ["d003-1"]
    with pytest.raises(StoreError, match="damaged chunks: d003-1"):
        again.digest()
    again.forget("d003-1")
    again.write("d003-1", arrays(1), {"n_runs": 4})
    assert DatasetStore.open(store.folder).damaged() == []


def test_what_a_crash_left_is_swept_away(store):
    partial = store.folder / "d003-2.partial"
    partial.mkdir()
    (partial / "half").write_text("x")
    (store.folder / "header.json.partial").write_text("{")
    digest = store.digest()
    again = DatasetStore.create(store.folder, CONFIGURATION)
    assert not partial.exists()
    assert again.digest() == digest


def test_a_chunk_that_was_moved_but_not_entered_is_made_again(store):
    """Killed between the two: the folder is there, the header does not know it."""
    header = store.folder / storage.HEADER
    content = json.loads(header.read_text())
    del content["chunks"]["d003-1"]
    header.write_text(json.dumps(content))
    again = DatasetStore.open(store.folder)
    assert list(again.chunks) == ["d003-0"]
    again.write("d003-1", arrays(1), {"n_runs": 4})
    assert again.digest() == store.digest()


def test_another_configuration_or_another_folder_is_refused(store, tmp_path):
    before = store.digest()
    with pytest.raises(StoreError, match="seed: 0 there, 1 asked"):
        DatasetStore.create(store.folder, {**CONFIGURATION, "seed": 1})
    assert DatasetStore.open(store.folder).digest() == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is no dataset"):
        DatasetStore.create(mine, CONFIGURATION)
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(StoreError, match="has no header"):
        DatasetStore.open(mine)
    with pytest.raises(StoreError, match="is no dataset"):
        DatasetStore.create(mine / "thesis.txt", CONFIGURATION)


def test_damaged_header_is_told(store):
    (store.folder / storage.HEADER).write_text("{")
    with pytest.raises(StoreError, match=r"header .* is damaged"):
        DatasetStore.open(store.folder)


def test_full_disk_is_told_and_keeps_what_is_done(store, monkeypatch):
    before = store.digest()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "_write_group", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write("d003-2", arrays(2), {"n_runs": 4})
    assert DatasetStore.open(store.folder).digest() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_read_only_folder_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        DatasetStore.create(tmp_path / "data", CONFIGURATION)


def test_folder_that_cannot_be_made_is_told():
    with pytest.raises(StoreError, match="cannot be written"):
        DatasetStore.create("/proc/nothing/data", CONFIGURATION)
