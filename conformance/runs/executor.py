"""The one seam between what is to be done and where: processes of this machine, or a cluster's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from conformance.runs.workers import Jobs, Tell
from conformance.verdict import UsageError


class Executor(Protocol):
    """Does jobs somewhere."""

    interrupted: bool
    """Whether somebody pressed Ctrl-C."""
    lost: list[int]
    """Numbers of the jobs that had not ended when the time was up."""

    @property
    def slots(self) -> int:
        """How many jobs can be done side by side now."""

    def run(
        self,
        function: Callable[[Any, Tell], Any],
        jobs: Iterable[Any],
        progress: Callable[..., None],
        *,
        apart: bool = False,
        until: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """(number of the job, its result, or `Died`) as they end.

        Jobs are numbered from 0, and taken from `jobs` one by one when there is a place for them, so that what is
        learned from one may lead the next. `apart`: they must not run in this process. `until`: moment of the
        monotonic clock at which nobody waits any longer; None where all the work is to be done.

        Raises:
            UsageError, HarnessError  what a job raised
        """


class Processes:
    """Processes of this machine."""

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self.interrupted = False
        self.lost: list[int] = []

    def run(
        self,
        function: Callable[[Any, Tell], Any],
        jobs: Iterable[Any],
        progress: Callable[..., None],
        *,
        apart: bool = False,
        until: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """As `Executor` says; jobs that have a deadline keep it by themselves here."""
        del until
        side_by_side = Jobs(function, jobs, self.slots, progress, apart=apart)
        yield from side_by_side.run()
        self.interrupted = side_by_side.interrupted


@contextmanager
def executor(workers: int, cluster: str | None = None, specs: Iterable[str] = ()) -> Iterator[Executor]:
    """Where the user wants the work done; `specs` are the candidates that it is about.

    Raises:
        UsageError  the cluster cannot be had, or its machines are not like this one
    """
    if cluster is None:
        yield Processes(workers)
        return
    try:
        from conformance.runs.cluster import connected
    except ModuleNotFoundError as error:
        if error.name not in ("distributed", "dask"):
            raise
        raise UsageError(
            f"--cluster={cluster}: needs dask.distributed; install it with: pip install 'conformance[cluster]'"
        ) from None
    with connected(cluster, tuple(specs)) as machines:
        yield machines
