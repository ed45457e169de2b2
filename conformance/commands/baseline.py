"""`conformance baseline`: record what is known, take away what is fixed, look a file over."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import msgspec

from conformance.baseline import file as files
from conformance.baseline.entry import Entry, Stale, gap, today
from conformance.baseline.file import Baseline
from conformance.baseline.lint import lint as problems
from conformance.commands.options import subsystem_name
from conformance.commands.run import Run
from conformance.reports import text
from conformance.reports.json import encode
from conformance.runs.conclusion import Conclusion, attention, worst
from conformance.runs.describe import describe
from conformance.runs.request import Request, units
from conformance.runs.result import Result
from conformance.trace import to_data
from conformance.verdict import Ending, Exit, Failure, UsageError, Verdict

ROUNDS = 12
"""Gates run at most for one candidate: each new failure that is recorded may uncover another one."""
SEEN = timedelta(days=30)
"""Age at which `last_seen` is written again."""


def expiry(text: str | None) -> date | None:
    """A last day: `2027-01-31`, or `90d` from today."""
    if text is None:
        return None
    if found := re.fullmatch(r"(\d{1,4})d", text):
        return today() + timedelta(days=int(found[1]))
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--expires={text}: expected a day such as 2027-01-31, or 90d") from None


@dataclass(frozen=True, slots=True)
class Note:
    """What an update writes into the entries that it adds."""

    reason: str = ""
    ticket: str = ""
    owner: str = ""
    expires: date | None = None


@dataclass
class Update:
    """`conformance baseline update`: run the gate, and bring the file up to what it shows."""

    path: Path
    request: Request
    accept: bool = False
    """Whether what is new is recorded."""
    note: Note = field(default_factory=Note)
    untracked: bool = False
    strict: bool = False
    say: Callable[[str], None] = print
    complain: Callable[[str], None] = print
    unreliable: set[str] = field(default_factory=set)
    """Signatures whose traces do not fail when they are judged again."""

    def perform(self) -> Ending:
        """Each candidate in turn; the file is written after each, whole or not at all.

        Raises:
            UsageError  the file is broken or cannot be written, or new entries would have neither ticket nor day
        """
        if self.accept and not self.untracked and not self.note.ticket and self.note.expires is None:
            raise UsageError(
                "--accept needs --ticket or --expires, so that somebody sees to what is recorded; "
                "or say --allow-untracked"
            )
        file = files.read(self.path) if self.path.exists() else files.new(self.path)
        if file.blocks or self.accept:
            _check(self.path)
        file.entries()
        for name, spec in self.request.candidates:
            describe(name, spec, self.request.profile)
        endings = []
        for candidate in self.request.candidates:
            ending = self._candidate(file, candidate)
            endings.append(Ending(ending.exit, f"{candidate[0]}: {ending.why}"))
            if file.blocks or self.accept:
                file.write()
            if ending.exit is Exit.INCONCLUSIVE and "interrupted" in ending.why:
                break
        return Ending(worst(ending.exit for ending in endings), "; ".join(ending.why for ending in endings))

    def _candidate(self, file: Baseline, candidate: tuple[str, str]) -> Ending:
        """Run until nothing is new any more; what was recorded is judged again by the run after."""
        gate = replace(self.request, candidates=(candidate,), budget=None)
        hunt = replace(gate, budget=self.request.budget)
        gate = replace(gate, seed=0) if hunt.budget is not None else gate
        added: set[str] = set()
        recorded = 0
        for request in [*([hunt] if hunt.budget is not None else []), *([gate] * ROUNDS)]:
            conclusion = self._concluded(replace(request, baseline=tuple(file.entries())))
            if conclusion is None or conclusion.interrupted:
                return Ending(Exit.INCONCLUSIVE, "inconclusive: interrupted before the end, nothing recorded")
            if conclusion.errors or not conclusion.steps:
                return Ending(conclusion.exit, f"{conclusion.why}; nothing recorded")
            self._distrust(file, conclusion, added)
            new = self._new(file, conclusion, hunting=request.budget is not None)
            if not self.accept:
                break
            file.put(new)
            added = {entry.id for entry in new}
            recorded += len(new)
            if not new and request.budget is None:
                break
        assert conclusion is not None
        self._refresh(file, conclusion)
        return self._ending(conclusion, [] if self.accept else new, recorded)

    def _concluded(self, request: Request) -> Conclusion | None:
        """One run; None where it was interrupted before anything was done."""
        run = Run(request, strict=self.strict, say=self.say, complain=self.complain)
        with run.executor() as place:
            conclusions, interrupted = run.concluded(units(request), place)
        if not conclusions:
            return None
        conclusions[0].interrupted |= interrupted
        return conclusions[0]

    def _distrust(self, file: Baseline, conclusion: Conclusion, added: set[str]) -> None:
        """Take away what was just recorded and does not fail when it is judged: it proves nothing."""
        wrong = [found for found in conclusion.stale if found.id in added and found.became != "expired"]
        for found in wrong:
            self.unreliable.add(found.signature)
            self.say(f"  not recorded {found.signature}: it does not show when its trace is judged again")
        file.drop(found.id for found in wrong)

    def _new(self, file: Baseline, conclusion: Conclusion, *, hunting: bool) -> list[Entry]:
        """Entries for what the file does not know, in order; each is told of."""
        there = {entry.id: entry for entry in file.entries()}
        new = []
        for found in conclusion.failures:
            if found.signature in conclusion.known or found.signature in self.unreliable:
                continue
            if found.flaky:
                self.unreliable.add(found.signature)
                self.say(f"  not recorded {found.signature}: it did not show again when replayed")
                continue
            entry = self._entry(conclusion, found.clause.id, found.signature, found)
            before = there.get(entry.id)
            if before is not None and not before.when.holds(conclusion.capabilities):
                self.unreliable.add(found.signature)
                self.say(f"  not recorded {found.signature}: {before.where} is for elsewhere, by its `when`")
                continue
            kept = {} if before is None else {"trace": entry.trace, "status": "known", "last_seen": entry.last_seen}
            new.append(entry if before is None else msgspec.structs.replace(before, **kept))
            self.say(text.recorded(found.signature, found.clause))
        for clause, verdict in conclusion.verdicts.items():
            accepted = clause.id in conclusion.gaps or not clause.level.is_binding or hunting
            if verdict is Verdict.NOT_EXERCISED and not accepted and conclusion.complete:
                new.append(self._entry(conclusion, clause.id, gap(clause.id)))
                self.say(text.recorded(gap(clause.id), clause))
        return new

    def _entry(self, of: Conclusion, clause: str, signature: str, found: Failure | None = None) -> Entry:
        day = self.request.today
        return Entry(
            clause=clause,
            signature=signature,
            subsystem=of.subsystem.name,
            candidate=of.spec,
            profile=of.profile,
            first_seen=day,
            last_seen=day,
            reason=self.note.reason,
            ticket=self.note.ticket,
            owner=self.note.owner,
            expires=self.note.expires,
            trace="" if found is None or found.trace is None else encode(to_data(found.trace)).decode(),
        )

    def _refresh(self, file: Baseline, conclusion: Conclusion) -> None:
        """Write down what became of the entries; one that now fails as something else that is recorded is done with."""
        became = {found.id: found.became for found in conclusion.stale if found.became != "expired"}
        kept, gone = [], []
        for entry in file.entries():
            if (entry.subsystem, entry.candidate, entry.profile) != _about(conclusion):
                continue
            if self.accept and became.get(entry.id) == "changed":
                gone.append(entry.id)
            elif entry.id in became:
                kept.append(msgspec.structs.replace(entry, status=became[entry.id]))
            elif entry.signature in conclusion.known or (entry.is_gap and entry.clause in conclusion.gaps):
                old = self.request.today - entry.last_seen > SEEN
                seen = self.request.today if old else entry.last_seen
                kept.append(msgspec.structs.replace(entry, status="known", last_seen=seen))
        file.put(kept)
        file.drop(gone)
        conclusion.stale = [found for found in conclusion.stale if found.id not in gone]

    def _ending(self, conclusion: Conclusion, new: Sequence[Entry], recorded: int) -> Ending:
        told = [f"{recorded} recorded"] if recorded else []
        told += [f"{n} known"] if (n := len(conclusion.known) + len(conclusion.gaps)) else []
        told += [f"{len(self.unreliable)} not recorded, since nothing shows them again"] if self.unreliable else []
        failures = [entry for entry in new if not entry.is_gap]
        if new:
            told.append(f"{len(new)} new, not recorded without --accept")
        for found in conclusion.stale:
            self.say(f"  attention {found.text}")
        why = ", ".join(told) or "nothing is known, and nothing failed"
        if failures or self.unreliable:
            return Ending(Exit.DOES_NOT_CONFORM, why)
        if new:
            return Ending(Exit.INCONCLUSIVE, why)
        if conclusion.stale:
            return Ending(Exit.STALE_BASELINE, f"{why}; {attention(conclusion.stale)}")
        return Ending(Exit.CONFORMS, why)


def _check(path: Path) -> None:
    """Find out before anything runs whether the file can be written; folders that are missing are made.

    Raises:
        UsageError  it cannot
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written, since nothing can be in {folder}")


def _about(of: Conclusion) -> tuple[str, str, str]:
    return of.subsystem.name, of.spec, of.profile


@dataclass
class Prune:
    """`conformance baseline prune`: judge the stored traces, and take away the entries that no longer fail."""

    path: Path
    workers: int = 1
    say: Callable[[str], None] = print
    complain: Callable[[str], None] = print

    def perform(self) -> Ending:
        """Each candidate and profile of the file in turn; what cannot be judged stays."""
        file = files.read(self.path)
        _check(self.path)
        entries = file.entries()
        about = {(e.subsystem, e.candidate, e.profile): None for e in entries}
        judged = [self._judged([e for e in entries if (e.subsystem, e.candidate, e.profile) == key]) for key in about]
        errors = [error for result in judged for error in result.errors]
        stale = [msgspec.convert(found, Stale) for result in judged for found in result.stale]
        gone = {found.id for found in stale if found.became == "fixed"}
        gone |= {entry.id for entry in entries if entry.is_gap and entry.status == "fixed"}
        for entry in entries:
            if entry.id in gone:
                self.say(f"  deleted   {entry.signature}: {entry.id} ({entry.where})")
        left = [found for found in stale if found.id not in gone]
        for found in left:
            self.say(f"  attention {found.text}")
        file.drop(gone)
        file.write()
        why = f"{len(gone)} deleted, {len(entries) - len(gone)} kept"
        if errors:
            return Ending(Exit.HARNESS, f"{why}; {errors[0]}")
        if left:
            return Ending(Exit.STALE_BASELINE, f"{why}; {attention(left)}")
        return Ending(Exit.CONFORMS, why)

    def _judged(self, entries: Sequence[Entry]) -> Result:
        """What the stored traces of one candidate come to in one profile."""
        subsystem_name(entries[0].subsystem)
        request = Request(
            candidates=((entries[0].subsystem, entries[0].candidate),),
            profile=entries[0].profile,
            engines=(),
            workers=self.workers,
            baseline=tuple(entries),
        )
        run = Run(request, say=self.say, complain=self.complain)
        with run.executor() as place:
            results, interrupted = run.results(units(request), place)
        if interrupted or not results:
            raise KeyboardInterrupt
        return results[0]


def lint(path: Path, untracked: bool, say: Callable[[str], None]) -> Ending:
    """`conformance baseline lint`: everything that is wrong with a file, by line."""
    file = files.read(path)
    found = problems(file, today(), untracked)
    for problem in found.problems:
        say(f"{path}:{problem.line}: {problem.text}")
    entries = f"{len(file.blocks)} {'entry' if len(file.blocks) == 1 else 'entries'}"
    if found.broken:
        return Ending(Exit.USAGE, f"{path}: {len(found.broken)} of {entries} cannot be used")
    if found.others:
        return Ending(Exit.STALE_BASELINE, f"{path}: {len(found.others)} to look at in {entries}")
    return Ending(Exit.CONFORMS, f"{path}: {entries}, nothing wrong")
