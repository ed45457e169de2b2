"""Looks a baseline over without running anything: what would keep a run from it, and what people should see to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec

from conformance.baseline.entry import Entry
from conformance.baseline.file import Baseline, Block, Broken, Problem
from conformance.subsystem import available, subsystem
from conformance.trace import TraceError, from_data


@dataclass(slots=True)
class Found:
    """What is wrong with a file, by line."""

    broken: list[Problem] = field(default_factory=list)
    """A run refuses the file because of these."""
    others: list[Problem] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        """All of them."""
        return sorted([*self.broken, *self.others], key=lambda problem: problem.line)


def lint(file: Baseline, today: date, untracked: bool) -> Found:
    """Everything that is wrong with a file; `untracked` entries, without ticket and last day, may be allowed."""
    found = Found()
    seen: dict[str, int] = {}
    last = ""
    for block in file.blocks:
        try:
            entry = block.entry(file.path)
        except Broken as error:
            found.broken.append(error.problem)
            continue
        if entry.id in seen:
            found.broken.append(Problem(block.line, f"{entry.id} stands twice, first in line {seen[entry.id]}"))
        seen.setdefault(entry.id, block.line)
        if not untracked and not entry.is_tracked:
            found.broken.append(Problem(block.line, f"{entry.id} has neither ticket nor expires"))
        if block.name < last:
            found.others.append(Problem(block.line, f"{block.name} stands after {last}; an update sorts them"))
        last = max(last, block.name)
        found.others += [Problem(block.line, f"{entry.id} {told}") for told in _wrong(block, entry, today, file.path)]
    return found


def _wrong(block: Block, entry: Entry, today: date, path: Path) -> Iterator[str]:
    if block.name != entry.id:
        yield f"is called {block.name}; an update calls it by what it is about"
    if entry.expires is not None and entry.expires < today:
        yield f"was accepted until {entry.expires.isoformat()}"
    if entry.last_seen < entry.first_seen:
        yield "was seen last before it was seen first"
    if entry.status == "fixed":
        yield f"no longer failed when it was last looked at; conformance baseline prune {path}"
    elif entry.status != "known":
        yield f"needs attention since it was last looked at ({entry.status})"
    if entry.signature.partition(":")[0] != entry.clause:
        yield f"is of {entry.clause}, and its signature of another clause"
    yield from _unknown(entry)


def _unknown(entry: Entry) -> Iterator[str]:
    """What this suite does not know of it."""
    if entry.subsystem not in available():
        yield f"is of a subsystem that is not here, {entry.subsystem!r}"
        return
    of = subsystem(entry.subsystem)
    if entry.clause not in {clause.id for clause in of.clauses}:
        yield f"is of a clause that {of.name} does not have"
    if entry.profile not in of.profiles:
        yield f"is of a profile that {of.name} does not have, {entry.profile!r}"
    for capability in entry.when.capabilities:
        if capability not in of.capabilities:
            yield f"is for candidates with {capability!r}, which {of.name} does not know"
    if entry.is_gap:
        if entry.trace:
            yield "says that nothing exercises the clause, and has a trace"
        return
    try:
        trace = from_data(msgspec.json.decode(entry.trace), {of.name: of.config}, {of.name: of.operations})
    except (TraceError, msgspec.DecodeError) as error:
        yield f"has no trace of this version: {error}"
        return
    if trace.profile != entry.profile:
        yield f"has a trace of another profile, {trace.profile!r}"
