"""Where independent pieces of work are done: in this process, or by workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from causal_bayes_opt._optional import optional
from causal_bayes_opt.errors import ConfigError, check_name

Task = TypeVar("Task")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
_RETRIES = 5


class Engine(Protocol):
    """Does pieces of work; a piece gives the same result wherever it is done."""

    def map(
        self, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Give every task with its result, in any order, as soon as it is done."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """This process, one piece after the other; a piece uses all cores by itself."""

    def map(
        self, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Give every task with its result, in order."""
        for task in tasks:
            yield task, work(task)


@dataclass(frozen=True)
class RayEngine:
    """A Ray cluster. A piece whose worker dies is done again by another one.

    Attributes:
        address: of a running cluster (``"auto"`` finds the one of this machine); None starts one
            here and ends it afterwards.
        workers: pieces at a time; None: one a core of the cluster.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; it must be at least 1")

    def map(
        self, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Give every task with its result as they come.

        Raises:
            OptionalDependencyError: Ray is not installed.
            ConfigError: no cluster answers at the address.
        """
        ray = optional("ray", "ray")
        started_here = not ray.is_initialized()
        if started_here:
            self._start(ray)
        try:
            yield from self._drain(ray, work, list(tasks))
        finally:
            if started_here:
                ray.shutdown()

    def _start(self, ray: Any) -> None:
        own = {"num_cpus": self.workers} if self.workers else {}
        # Each worker is one core's: parallel BLAS in parallel workers slows all of them.
        environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        try:
            ray.init(
                address=self.address or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": environment},
                **({} if self.address else own),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"no Ray cluster at {self.address!r}: {error}") from error

    def _drain(
        self, ray: Any, work: Callable[[Task], Result], tasks: list[Task]
    ) -> Iterator[tuple[Task, Result]]:
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do)
        shared = ray.put(work)
        room = self.workers or int(ray.cluster_resources().get("CPU", 1))
        running: dict[Any, Task] = {}
        while tasks or running:
            # No more are handed out than can run, so that results do not pile up.
            while tasks and len(running) < room + 1:
                task = tasks.pop(0)
                running[remote.remote(shared, task)] = task
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                yield running.pop(reference), ray.get(reference)


def engine_named(name: str, address: str | None = None, workers: int | None = None) -> Engine:
    """The engine of a name.

    Raises:
        UnknownNameError: no such engine.
        ConfigError: an address or workers for the local engine.
    """
    check_name(name, ENGINES, "engine")
    if name == "ray":
        return RayEngine(address, workers)
    if address is not None or workers is not None:
        raise ConfigError("an address and workers belong to --engine ray; the local one has none")
    return LocalEngine()


def _do(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)
