"""Work on several machines: a dask scheduler and two workers, over the loopback interface."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="dask.distributed is not installed")

from conformance.commands import run as command
from conformance.commands import strength
from conformance.commands.main import invoke
from conformance.reports.forms import targets
from conformance.runs import cluster as clusters
from conformance.runs.executor import executor
from conformance.runs.request import Request
from conformance.runs.workers import Died
from conformance.verdict import Exit, HarnessError, UsageError
from tests import jobs
from tests.conformance.test_workers import gone, is_alive
from tests.toyland import shipped

ROOT = Path(__file__).parents[2]


@contextmanager
def started(workers: int, where: Path = ROOT) -> Iterator[tuple[str, int]]:
    """A cluster whose workers have the sources at `where`; the scheduler's address and process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", str(workers)],
        cwd=where,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.stdin.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two workers."""
    with started(2) as (address, _):
        yield address


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy subsystem, here and in the processes that do the work."""
    monkeypatch.setattr(command, "unit_job", jobs.unit_of_the_toy)
    monkeypatch.setattr(strength, "kill_job", jobs.kill_of_the_toy)
    with pytest.MonkeyPatch.context() as patch, shipped(patch):
        yield


def done(address: str, function: Callable[..., Any], listed: list[Any], until: float | None = None) -> dict[int, Any]:
    """The result of each job by number."""
    with executor(1, address) as machines:
        return dict(machines.run(function, listed, lambda *_: None, until=until))


def without_times(report: Path) -> str:
    """A report but for how long it took."""
    return re.sub(r'"seconds":[\d.e-]+', '"seconds":_', report.read_text())


# -- the gate


@pytest.mark.parametrize("candidate", ["upstream", "as-posted", "crashing"])
@pytest.mark.usefixtures("toy")
def test_two_machines_write_the_bytes_of_one(cluster: str, candidate: str, tmp_path: Path) -> None:
    """The same units, the same verdict, the same report, apart from the times."""
    request = Request(candidates=(("toy", f"builtin:{candidate}"),))
    said: dict[str, list[str]] = {"here": [], "there": []}

    endings = [
        command.Run(
            request,
            reports=targets([f"json:{tmp_path / place}"]),
            traces=tmp_path / "traces",
            cluster=address,
            say=said[place].append,
        ).perform()
        for place, address in (("here", None), ("there", cluster))
    ]

    assert endings[0] == endings[1]
    assert without_times(tmp_path / "here") == without_times(tmp_path / "there")
    figures = re.compile(r"  figures .*")
    assert [figures.sub("", text) for text in said["here"]] == [figures.sub("", text) for text in said["there"]]


def test_a_candidate_of_ones_own_is_tested_in_contained_processes(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes again, for one that no machine's dask worker imports; its first failure is told at once."""
    spec = f"uio_msi={ROOT / 'examples' / 'uio_minimal.py'}:Minimal"
    common = ["run", "uio_msi", "--candidate", spec, "--engine", "interleave", "--traces", str(tmp_path / "traces")]

    here = invoke([*common, "--report", f"json:{tmp_path / 'here'}"])
    capsys.readouterr()
    there = invoke([*common, "--report", f"json:{tmp_path / 'there'}", "--cluster", cluster])
    assert re.search(r"first failure after .*\n\nUIO-\d+ violated by ", capsys.readouterr().err)

    assert here == there == int(Exit.DOES_NOT_CONFORM)
    assert without_times(tmp_path / "here") == without_times(tmp_path / "there")


@pytest.mark.usefixtures("toy")
def test_the_zoo_dies_by_the_same_clauses(cluster: str, tmp_path: Path) -> None:
    """`strength` says the same of every defect."""
    endings = [
        strength.Strength(
            ("toy",), reports=targets([f"json:{tmp_path / place}"]), cluster=address, say=lambda _: None
        ).perform()
        for place, address in (("here", None), ("there", cluster))
    ]

    assert endings[0] == endings[1]
    assert without_times(tmp_path / "here") == without_times(tmp_path / "there")


# -- the hunt


@pytest.mark.usefixtures("toy")
def test_a_hunt_gathers_what_all_machines_find(cluster: str, tmp_path: Path) -> None:
    """Several seeds, each failure once, and its trace in the corpus."""
    request = Request(
        candidates=(("toy", "builtin:as-posted"),),
        engines=("campaign", "machine"),
        budget=60.0,
        seed=7,
        corpus=str(tmp_path / "corpus"),
    )
    hunts: list[Any] = []

    class Short(command.Hunt):
        """Its time is up in the middle of the second round."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.slice = 0.2
            self.done: list[Any] = []
            hunts.append(self)

        def learn(self, number: int, result: Any) -> None:
            self.done.append(self.units[number])
            super().learn(number, result)
            if len(self.done) == 10:
                self.deadline = 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "Hunt", Short)
        ending = command.Run(request, traces=tmp_path / "traces", cluster=cluster, say=lambda _: None).perform()

    assert ending.exit is Exit.DOES_NOT_CONFORM
    (hunt,) = hunts
    assert {("campaign", 7), ("campaign", 8), ("machine", 7), ("machine", 8)} <= {(u.engine, u.seed) for u in hunt.done}
    assert hunt.done[-1].known
    assert hunt.rarest("toy")
    saved = [path.name.rpartition("-")[0] for path in (tmp_path / "corpus").rglob("*.json")]
    assert saved
    assert len(saved) == len(set(saved))


def test_a_hunt_does_not_wait_for_a_slow_machine(cluster: str) -> None:
    """What has not ended when the time is up is given up, and ended."""
    told: list[int] = []

    with executor(1, cluster) as machines:
        until = time.monotonic() + 4.0
        found = dict(machines.run(jobs.fork_and_wait, [0], lambda _, child, *__: told.append(child), until=until))

        assert found == {}
        assert machines.lost == [0]
    assert told
    assert gone(told[0])


# -- machines that are lost, or slow


def test_a_machine_that_is_killed_loses_nothing(cluster: str, tmp_path: Path) -> None:
    """What it was doing is done elsewhere."""
    found = done(cluster, jobs.kill_its_machine, [(tmp_path, number) for number in range(5)])

    assert found == {number: number**2 for number in range(5)}
    assert (tmp_path / "marker").exists()


def test_a_slow_machine_does_not_hold_the_end(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one that has nothing else to do does its job, too."""
    monkeypatch.setattr(clusters, "PATIENCE", 0.5)
    monkeypatch.setattr(clusters, "ANSWERING", 0.5)

    try:
        found = done(cluster, jobs.stop_its_machine, [(tmp_path, number) for number in range(5)])
    finally:
        os.kill(int((tmp_path / "marker").read_text()), signal.SIGCONT)

    assert found == {number: number**2 for number in range(5)}


def test_a_candidate_that_ends_its_process_takes_only_its_job_with_it(cluster: str) -> None:
    """The dask worker goes on."""
    found = done(cluster, jobs.die, list(range(4)))

    assert found[1] == Died("its process was killed by SIGKILL")
    assert {number: result for number, result in found.items() if number != 1} == {0: 0, 2: 4, 3: 9}


def test_what_a_job_raises_means_the_same_from_there(cluster: str) -> None:
    """A wrong use, and a mistake of ours."""
    with pytest.raises(UsageError, match="not like that"):
        done(cluster, jobs.refuse, list(range(3)))
    with pytest.raises(HarnessError, match="ZeroDivisionError"):
        done(cluster, jobs.break_down, [0])


def test_a_scheduler_that_is_lost_ends_the_run() -> None:
    """Which is no verdict on the candidate, and leaves nothing running."""
    told: list[int] = []

    def lose(_number: int, child: int, *_: int) -> None:
        told.append(child)
        os.kill(scheduler, signal.SIGKILL)

    with (
        started(1) as (address, scheduler),
        pytest.raises(HarnessError, match="the scheduler is gone"),
        executor(1, address) as machines,
    ):
        list(machines.run(jobs.fork_and_wait, [0], lose))

    assert gone(told[0])


# -- interrupted


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_nothing_outlives_whoever_wanted_it(cluster: str, how: signal.Signals) -> None:
    """After Ctrl-C, and where there was no time for it: the machines end the work by themselves."""
    program = (
        "from conformance.runs.executor import executor\n"
        "from tests import jobs\n"
        f"with executor(1, {cluster!r}) as machines:\n"
        "    found = machines.run(jobs.fork_and_wait, [0, 1], lambda *told: print(*told, flush=True))\n"
        "    assert not list(found) and machines.interrupted\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        children: dict[str, int] = {}
        while len(children) < 2:
            number, child, *_ = client.stdout.readline().split()
            children.setdefault(number, int(child))  # what it tells later is something else
        assert all(is_alive(child) for child in children.values())
        client.send_signal(how)
        client.stdout.read()

    assert client.returncode == (0 if how is signal.SIGINT else -how)
    assert all(gone(child) for child in children.values())


# -- refused


def test_other_sources_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence says what differs and where, before anything runs."""
    for folder in ("conformance", "model", "specs", "strategies"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "cluster.py", tmp_path / "tests")
    with (tmp_path / "model" / "uio_msi" / "view.py").open("a") as changed:
        changed.write("# hardly a change\n")

    with started(1, tmp_path) as (address, _):
        code = invoke(["run", "uio_msi", "--candidate", "builtin:upstream", "--cluster", address])

    assert code == int(Exit.USAGE)
    told = capsys.readouterr().err
    assert re.search(r"tcp://\S+: conformance's sources are \w{16} there and \w{16} here; install the same", told)


def test_a_candidate_that_is_not_there_is_refused(cluster: str, tmp_path: Path) -> None:
    """Its sources count, too."""
    (tmp_path / "mine.py").write_text("class Mine: ...\n")
    here = Path.cwd()
    os.chdir(tmp_path)

    try:
        with (
            pytest.raises(UsageError, match=r"the source of mine\.py:Mine is missing there"),
            executor(1, cluster, ["mine.py:Mine"]),
        ):
            pass
    finally:
        os.chdir(here)


def test_a_scheduler_that_does_not_answer_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was expected."""
    monkeypatch.setattr(clusters, "CONNECTING", 0.5)

    with (
        pytest.raises(UsageError, match=r"--cluster=tcp://127\.0\.0\.1:1: no scheduler answers"),
        executor(1, "tcp://127.0.0.1:1"),
    ):
        pass


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite does without it otherwise."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "conformance.runs.cluster", raising=False)
    monkeypatch.delitem(sys.modules, "conformance.runs.station", raising=False)
    monkeypatch.delattr("conformance.runs.cluster", raising=False)

    with pytest.raises(UsageError, match=r"pip install 'conformance\[cluster\]'"), executor(1, "tcp://host:8786"):
        pass


def test_workers_are_counted_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    """`-n` is for this machine."""
    arguments = ["run", "uio_msi", "--candidate", "builtin:upstream", "-n", "2", "--cluster", "tcp://host:8786"]

    assert invoke(arguments) == int(Exit.USAGE)
    assert "as many jobs run as its workers have threads" in capsys.readouterr().err
