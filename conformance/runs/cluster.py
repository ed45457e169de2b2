"""Jobs on several machines: an executor over dask.distributed.

As many jobs are on their way as there are threads of dask workers; each is sent to the machine with the most
room, where `station` hands it to a contained process. The scheduler gives the jobs of a machine that is lost to
others. In the end, where all jobs are given out, a machine that has room does again what another is slow with,
and whoever is first counts: a job gives the same result everywhere.
"""

from __future__ import annotations

import itertools
import logging
import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import distributed
import msgspec
from distributed.scheduler import KilledWorker

from conformance.runs import station
from conformance.runs.executor import Executor
from conformance.runs.identity import difference, identity
from conformance.runs.workers import Died, Tell, on_interrupt
from conformance.verdict import HarnessError, UsageError

CONNECTING = 10.0
"""Seconds in which the scheduler must answer, and a machine be there."""
TICK = 0.2
"""Seconds to wait for news before looking whether somebody interrupted."""
TELLING = 100
"""Words a second that all jobs together may say on how far they are, each at most one."""
LOOKING = 1.0
"""Seconds between two looks at which machines there are."""
PATIENCE = 20.0
"""Seconds after which a job is done a second time by a machine that has nothing else to do."""
STOPPING = 10.0
"""Seconds that interrupted jobs have to hand over what they have."""
ANSWERING = 5.0
"""Seconds that a machine has to answer a question, or to deliver a result."""


@contextmanager
def connected(address: str, specs: tuple[str, ...]) -> Iterator[Executor]:
    """The machines that a scheduler knows, once each is known to have the same sources.

    Raises:
        UsageError  there is no scheduler or no machine, or versions or sources differ
    """
    option = f"--cluster={address}"
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters we say ourselves, in one sentence
    try:
        client = distributed.Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        told = str(error) or type(error).__name__
        raise UsageError(f"{option}: no scheduler answers ({told}); expected such as tcp://HOST:8786") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECTING)
        except TimeoutError:
            raise UsageError(f"{option}: the scheduler has no worker; start some with: dask worker {address}") from None
        ours = identity(specs)
        for where, theirs in sorted(client.run(identity, specs, on_error="return").items()):
            if isinstance(theirs, Exception):
                raise UsageError(
                    f"{option}: {where}: {theirs}; install conformance {ours['conformance']} on every machine"
                )
            if wrong := difference(ours, theirs, where):
                raise UsageError(f"{option}: {wrong}")
        yield Cluster(client, address, specs, ours)


class Cluster:
    """Machines of a cluster; see `Executor`."""

    def __init__(self, client: distributed.Client, address: str, specs: tuple[str, ...], ours: dict[str, str]) -> None:
        self.client = client
        self.address = address
        self.specs = specs
        self.identity = ours
        self.interrupted = False
        self.lost: list[int] = []

    @property
    def slots(self) -> int:
        """Threads of all machines together."""
        return sum(self.threads().values())

    def threads(self) -> dict[str, int]:
        """How many jobs each machine can do at once."""
        return dict(self.client.nthreads())

    def run(
        self,
        function: Callable[[Any, Tell], Any],
        jobs: Iterable[Any],
        progress: Callable[..., None],
        *,
        apart: bool = False,
        until: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """As `Executor` says; jobs always run in processes of their own here.

        Raises:
            UsageError, HarnessError  what a job raised, or the cluster is gone
        """
        del apart
        flight = _Flight(self, function, jobs, progress, until)

        def interrupt(*_: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        with on_interrupt(interrupt):
            try:
                yield from flight.results()
            finally:
                flight.end()

    def broadcast(self, function: Callable[[str], None], run: str) -> None:
        """Have every machine do something now; one that does not answer in time is left alone."""

        async def ask() -> None:
            await self.client.run(function, run, on_error="ignore")

        if self.client.status == "running":
            with suppress(TimeoutError, OSError):
                self.client.sync(ask, callback_timeout=ANSWERING)


class _Flight:
    """The jobs of one run that are on their way."""

    def __init__(
        self,
        cluster: Cluster,
        function: Callable[[Any, Tell], Any],
        jobs: Iterable[Any],
        progress: Callable[..., None],
        until: float | None,
    ) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.function = function
        self.jobs = enumerate(jobs)
        self.progress = progress
        self.until = until
        self.run = uuid.uuid4().hex
        self.names = itertools.count()
        self.tasks: dict[int, station.Task] = {}
        """The jobs that have no result yet, by number."""
        self.copies: dict[int, dict[str, distributed.Future[Any]]] = {}
        """By number, then by the machine each was sent to."""
        self.begun: dict[int, float] = {}
        self.all_given = False
        self.news: queue.SimpleQueue[tuple[int, distributed.Future[Any] | tuple[Any, ...]]] = queue.SimpleQueue()
        """What the client's own thread hears: a job has ended, or says how far it is."""
        self.threads: dict[str, int] = {}
        self.looked = -LOOKING
        self.is_stopping = False
        self.client.subscribe_topic(station.TOPIC, self._hear)

    def results(self) -> Iterator[tuple[int, Any]]:
        """As they come."""
        while True:
            self._look()
            self._give()
            if not self.tasks:
                return
            if self.until is not None and time.monotonic() > self.until:
                self.cluster.lost = sorted(self.tasks)
                return
            try:
                number, told = self.news.get(timeout=TICK)
            except queue.Empty:
                continue
            if number not in self.tasks:
                continue
            if isinstance(told, tuple):
                self.progress(number, *told)
                continue
            answer = self._answer(number, told)
            if answer is None:
                continue
            self._settle(number)
            if not (self.cluster.interrupted and isinstance(answer, Died)):
                yield number, answer

    def end(self) -> None:
        """Leave nothing running."""
        self.client.unsubscribe_topic(station.TOPIC)
        for number in list(self.tasks):
            self._settle(number)
        self.cluster.broadcast(station.end, self.run)

    def _look(self) -> None:
        """Every now and then: which machines are there, and is one slow."""
        if self.cluster.interrupted and not self.is_stopping:
            self.is_stopping = True
            self.until = time.monotonic() + STOPPING
            self.cluster.broadcast(station.stop, self.run)
        now = time.monotonic()
        if now - self.looked < LOOKING:
            return
        self.looked = now
        self._check()
        self.threads = self.cluster.threads()
        if self.all_given and self.until is None:
            for number, begun in self.begun.items():
                if now - begun > PATIENCE and len(self.copies[number]) == 1:
                    self._again(number)

    def _give(self) -> None:
        """Send jobs on their way while there is room."""
        while not self.cluster.interrupted and not self.all_given and (place := self._room()) is not None:
            following = next(self.jobs, None)
            if following is None:
                self.all_given = True
                return
            number, job = following
            cluster = self.cluster
            telling = max(1.0, sum(self.threads.values()) / TELLING)
            self.tasks[number] = station.Task(
                self.run, number, self.function, job, cluster.specs, telling, cluster.identity
            )
            self.begun[number] = time.monotonic()
            self.copies[number] = {}
            self._send(number, place)

    def _again(self, number: int) -> None:
        """Have another machine do a job, too."""
        place = self._room(but=tuple(self.copies[number]))
        if place is not None:
            self._send(number, place)

    def _room(self, but: tuple[str, ...] = ()) -> str | None:
        """The machine with the most room; None where none has any."""
        busy = Counter(place for copies in self.copies.values() for place in copies)
        room = {place: n - busy[place] for place, n in self.threads.items() if place not in but}
        best = max(room, key=lambda place: room[place], default=None)
        return best if best is not None and room[best] > 0 else None

    def _send(self, number: int, place: str) -> None:
        future = self.client.submit(
            station.perform,
            self.tasks[number],
            key=f"conformance-{self.run}-{number}-{next(self.names)}",
            workers=[place],
            allow_other_workers=True,
            pure=False,
        )
        self.copies[number][place] = future
        future.add_done_callback(lambda done: self.news.put((number, done)))

    def _answer(self, number: int, future: distributed.Future[Any]) -> Any:
        """What came of a job; None where that is not known yet."""
        if future.status == "finished":
            try:
                return future.result(timeout=ANSWERING)
            except TimeoutError:  # whoever has it is slow to deliver
                self.news.put((number, future))
                return None
        if future.status == "error":
            error = future.exception(timeout=ANSWERING)
            if isinstance(error, KilledWorker):
                return Died(f"{error.allowed_failures + 1} machines were lost one after the other while they did it")
            if isinstance(error, UsageError | HarnessError):
                raise error
            raise HarnessError(f"--cluster={self.cluster.address}: {type(error).__name__}: {error}")
        self._check()
        raise HarnessError(f"--cluster={self.cluster.address}: somebody else has ended a job; it is {future.status}")

    def _check(self) -> None:
        """HarnessError where there is no scheduler any more."""
        if self.client.status != "running":
            raise HarnessError(f"--cluster={self.cluster.address}: the scheduler is gone")

    def _settle(self, number: int) -> None:
        """Nobody waits for a job any more."""
        del self.tasks[number], self.begun[number]
        self.client.cancel(list(self.copies.pop(number).values()))

    def _hear(self, event: tuple[float, Any]) -> None:
        """On the client's thread: how far some job is, perhaps of another run."""
        run, number, steps, clauses, failures, *found = event[1]
        if run == self.run:
            self.news.put((number, (steps, clauses, failures, *map(msgspec.json.decode, found))))
