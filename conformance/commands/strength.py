"""`conformance strength`: the zoo, defect by defect."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec.structs import replace

from conformance.baseline.kills import Matrix, lost
from conformance.baseline.kills import read as read_kills
from conformance.baseline.kills import write as write_kills
from conformance.candidates.defect import Defect
from conformance.candidates.load import defects
from conformance.commands.options import nearest
from conformance.reports import forms, record, text
from conformance.reports.forms import Target
from conformance.reports.progress import Progress
from conformance.runs.executor import Executor, executor
from conformance.runs.result import failure_from_data
from conformance.runs.strength import Kill, kill_job
from conformance.runs.workers import Died
from conformance.subsystem import subsystem
from conformance.verdict import Ending, Exit, UsageError


@dataclass
class Strength:
    """`conformance strength`: the zoo, defect by defect."""

    subsystems: Sequence[str]
    only: str = "*"
    workers: int = 1
    seed: int = 0
    reports: Sequence[Target] = ()
    cluster: str | None = None
    """Address of the scheduler whose machines do the work; None: this machine."""
    recording: Path | None = None
    """Where the kill matrix is to be written."""
    against: Path | None = None
    """A recorded one, of which no kill may be lost."""
    alone: tuple[str, ...] = ()
    """Engines to measure, each by itself doing what it does in the gate; (): all of them, one after the other."""
    say: Callable[[str], None] = print
    started: float = field(default_factory=time.monotonic)

    def perform(self) -> Ending:
        """Search for every defect; 1 where one survives, a clause is cited that nobody expected, or a kill is lost."""
        recorded = self._recorded()
        matching = {name: [d for d in defects(name) if fnmatchcase(d.id, self.only)] for name in self.subsystems}
        zoo = {name: listed for name, listed in matching.items() if listed}
        if not zoo:
            known = [d.id for name in self.subsystems for d in defects(name)]
            raise UsageError(f"-k {self.only}: matches no defect{nearest(self.only, known)}")
        headers = {
            name: record.Header(
                subsystem=name, candidate="zoo", profile=subsystem(name).default_profile, seed=self.seed
            )
            for name in zoo
        }
        if self.alone:
            return self._measured(zoo, headers)
        with executor(self.workers, self.cluster) as place:
            forms.begin(self.reports, list(headers.values()))
            found, interrupted = self._kills(zoo, place)
        lines: list[record.Line] = []
        survivors, unexpected = 0, 0
        whys = []
        matrix: dict[str, list[Kill]] = {}
        for name, listed in zoo.items():
            kills = [found[name, d.id] for d in listed if (name, d.id) in found]
            kills += [Kill(d, None, "", 0.0) for d in listed if d.candidate is None]
            self.say("\n".join(text.strength(subsystem(name), kills)))
            matrix[name] = kills
            lines += [headers[name], *(record.kill(k) for k in kills)]
            tried = [k for k in kills if k.defect.candidate is not None]
            survivors += sum(not k.is_killed for k in tried)
            unexpected += sum(k.is_killed and not k.is_expected and not k.defect.note for k in tried)
            whys.append(f"{name}: {sum(k.is_killed for k in tried)} of {len(tried)} defects killed")
        gone = [] if interrupted else list(lost(recorded, matrix, self.only))
        for told in gone:
            self.say(f"  lost      {told}")
        if self.recording is not None and not interrupted:
            write_kills(self.recording, matrix, self.only)
        ending = _ending("; ".join(whys), survivors, unexpected, gone, interrupted)
        elapsed = time.monotonic() - self.started
        lines.append(record.footer(ending.exit, ending.why, steps=0, seconds=elapsed, interrupted=interrupted))
        forms.write(self.reports, lines)
        return ending

    def _measured(self, zoo: dict[str, list[Defect]], headers: dict[str, record.Header]) -> Ending:
        """What each engine kills by itself: a measure of the engines, so a defect that survives one is no failure."""
        lines: list[record.Line] = []
        tables: dict[str, dict[str, list[Kill]]] = {name: {} for name in zoo}
        interrupted = False
        with executor(self.workers, self.cluster) as place:
            forms.begin(self.reports, list(headers.values()))
            for engine in self.alone if not interrupted else ():
                found, interrupted = self._kills(zoo, place, engine)
                for name, listed in zoo.items():
                    kills = [found[name, d.id] for d in listed if (name, d.id) in found]
                    tables[name][engine] = kills
                    lines += [replace(headers[name], engines=(engine,)), *(record.kill(k) for k in kills)]
        whys = []
        for name, table in tables.items():
            self.say("\n".join(text.alone(subsystem(name), table)))
            counted = (f"{engine} {sum(k.is_killed for k in kills)}" for engine, kills in table.items())
            whys.append(f"{name}: of {max(map(len, table.values()), default=0)} defects {', '.join(counted)}")
        ending = _ending("; ".join(whys), 0, 0, (), interrupted)
        elapsed = time.monotonic() - self.started
        lines.append(record.footer(ending.exit, ending.why, steps=0, seconds=elapsed, interrupted=interrupted))
        forms.write(self.reports, lines)
        return ending

    def _recorded(self) -> Matrix:
        """The matrix to compare with."""
        if self.against is None:
            return {}
        if not self.against.exists():
            words = f"strength {' '.join(self.subsystems)} --record {self.against}"
            told = f"there is no such file; this records it: {text.program()} {words}"
            raise UsageError(f"--against={self.against}: {told}")
        return read_kills(self.against)

    def _kills(
        self, zoo: dict[str, list[Defect]], place: Executor, alone: str = ""
    ) -> tuple[dict[tuple[str, str], Kill], bool]:
        listed = [(name, d.id, self.seed, alone) for name, ds in zoo.items() for d in ds if d.candidate is not None]
        by_id = {(name, d.id): d for name, ds in zoo.items() for d in ds}
        found: dict[tuple[str, str], Kill] = {}
        with Progress([identifier for _, identifier, _, _ in listed], has_steps=False) as progress:
            for number, answer in place.run(kill_job, listed, progress.tell):
                name, identifier, *_ = listed[number]
                defect = by_id[name, identifier]
                if isinstance(answer, Died):
                    found[name, identifier] = Kill(defect, None, answer.how, 0.0)
                    continue
                failure = answer["failure"] and failure_from_data(answer["failure"], subsystem(name))
                found[name, identifier] = Kill(defect, failure, answer["engine"], answer["seconds"])
                progress.end(number, 0, (), ())
        return found, place.interrupted


def _ending(why: str, survivors: int, unexpected: int, gone: Sequence[str], interrupted: bool) -> Ending:
    if survivors or unexpected or gone:
        told = [f"{survivors} survived"] if survivors else []
        told += [f"{unexpected} killed by a clause that nobody expected"] if unexpected else []
        told += [f"{len(gone)} of the recorded kills lost"] if gone else []
        return Ending(Exit.DOES_NOT_CONFORM, f"{why}; {', '.join(told)}")
    if interrupted:
        return Ending(Exit.INCONCLUSIVE, f"{why}; interrupted before the end")
    return Ending(Exit.CONFORMS, why)
