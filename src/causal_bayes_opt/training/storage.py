"""A folder of arrays that survives a crash: Zarr groups written whole, under one header.

A store is a Zarr 3 group. Every chunk of work is a group of its own inside it, written beside its
place, moved there when it is complete, and entered into the header with a checksum of its content.
Whatever is not in the header is made again. The header is replaced, never changed in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from causal_bayes_opt._optional import optional
from causal_bayes_opt.errors import StoreError

FORMAT = "causal_bayes_opt.dataset/1"
HEADER = "header.json"
_PARTIAL = ".partial"
_PACKAGES = ("causal-bayes-opt", "jax", "numpy", "zarr")


class DatasetStore:
    """A folder with one configuration and its chunks.

    Open it by `create` (to write) or `open` (to read).
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self.folder = folder
        self._header = header

    @classmethod
    def create(cls, folder: str | Path, configuration: Mapping[str, Any]) -> DatasetStore:
        """Make a folder, or go on in one with the same configuration.

        Raises:
            StoreError: the folder holds something else, or cannot be written. Nothing is changed.
        """
        folder = Path(folder)
        plain = json.loads(json.dumps(configuration))
        if (folder / HEADER).exists():
            store = cls.open(folder)
            _require_same(store.configuration, plain, folder)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(f"{str(folder)!r} exists and is no dataset; choose another folder")
        else:
            store = cls(folder, {"format": FORMAT, "configuration": plain, "chunks": {}})
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"*{_PARTIAL}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            store._header["versions"] = _versions()
            store._write_header()
            _zarr().open_group(folder, mode="a", zarr_format=3)
        return store

    @classmethod
    def open(cls, folder: str | Path) -> DatasetStore:
        """Open a folder to read.

        Raises:
            StoreError: there is no header, or one of another format.
        """
        folder = Path(folder)
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(f"{str(folder)!r} is no dataset: it has no {HEADER}") from error
        except json.JSONDecodeError as error:
            raise StoreError(f"the header of {str(folder)!r} is damaged: {error}") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise StoreError(f"{str(folder)!r} has another format than {FORMAT!r}")
        return cls(folder, header)

    @property
    def configuration(self) -> dict[str, Any]:
        """What the content follows from."""
        found: dict[str, Any] = self._header["configuration"]
        return found

    @property
    def chunks(self) -> dict[str, dict[str, Any]]:
        """Every finished chunk with its ``checksum`` and what `write` was told of it, by name."""
        found: dict[str, dict[str, Any]] = self._header["chunks"]
        return dict(sorted(found.items()))

    def write(self, name: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Write a chunk whole, then enter it into the header.

        Raises:
            StoreError: the disk is full or cannot be written; what was there before is kept.
        """
        partial = self.folder / f"{name}{_PARTIAL}"
        with _told(self.folder):
            shutil.rmtree(partial, ignore_errors=True)
            _write_group(partial, arrays)
            place = self.folder / name
            if place.exists():
                shutil.rmtree(place)
            os.replace(partial, place)
            self._header["chunks"][name] = {"checksum": checksum(arrays), **about}
            self._write_header()

    def read(self, name: str, fields: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays of a chunk, or some of them; see `damaged` for a check of the content.

        Raises:
            StoreError: no such chunk, or one that cannot be read.
        """
        if name not in self._header["chunks"]:
            raise StoreError(f"{str(self.folder)!r} has no chunk {name!r}")
        try:
            group = _zarr().open_group(self.folder / name, mode="r", zarr_format=3)
            return {field: np.asarray(group[field][...]) for field in fields or sorted(group)}
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise StoreError(f"chunk {name!r} cannot be read ({error}); make it again") from error

    def damaged(self) -> list[str]:
        """Names of the chunks whose content is not what was written."""
        return [name for name, entry in self.chunks.items() if not self._is_whole(name, entry)]

    def forget(self, name: str) -> None:
        """Take a chunk out of the header, so that it is made again."""
        del self._header["chunks"][name]
        with _told(self.folder):
            self._write_header()

    def digest(self, expected: Iterable[str] = ()) -> str:
        """A hash of configuration and content, the same however the chunks came about.

        Raises:
            StoreError: chunks of `expected` are missing, or the content is damaged.
        """
        missing = [name for name in expected if name not in self.chunks]
        if missing:
            raise StoreError(
                f"{len(missing)} chunks are missing, {missing[0]!r} the first; the command that "
                "made the dataset goes on with them"
            )
        damaged = self.damaged()
        if damaged:
            raise StoreError(
                f"damaged chunks: {', '.join(damaged)}; the command that made the dataset makes "
                "them again"
            )
        content = {name: entry["checksum"] for name, entry in self.chunks.items()}
        text = json.dumps([FORMAT, self.configuration, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _is_whole(self, name: str, entry: Mapping[str, Any]) -> bool:
        try:
            return bool(checksum(self.read(name)) == entry["checksum"])
        except StoreError:
            return False

    def _write_header(self) -> None:
        partial = self.folder / f"{HEADER}{_PARTIAL}"
        with partial.open("w", encoding="utf-8") as file:
            json.dump(self._header, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / HEADER)


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what the system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{str(folder)!r} cannot be written: {error.strerror or error}; what is done is kept"
        ) from error


def _write_group(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    zarr = _zarr()
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    for name, array in arrays.items():
        group.create_array(
            name,
            data=np.ascontiguousarray(array),
            chunks=tuple(max(size, 1) for size in array.shape),
            compressors=zarr.codecs.BloscCodec(
                cname="zstd", clevel=3, shuffle="shuffle" if array.itemsize > 1 else "noshuffle"
            ),
        )


def _require_same(recorded: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    changed = [key for key in {**recorded, **asked} if recorded.get(key) != asked.get(key)]
    if changed:
        told = "; ".join(
            f"{key}: {recorded.get(key)!r} there, {asked.get(key)!r} asked" for key in changed
        )
        raise StoreError(
            f"{str(folder)!r} holds a dataset of another configuration ({told}); choose another "
            "folder, or repeat that configuration to go on"
        )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _zarr() -> Any:
    optional("zarr.codecs", "scale")
    return optional("zarr", "scale")
