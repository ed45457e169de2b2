"""KTAP as the kernel's kunit parser understands it: its rules, for the tests of our KTAP, in few lines.

Rules: the first version line begins; lines of a kernel's end stop everything; results are numbered; only SKIP
changes a status; a `# Subtest:` line before a nested version line makes a second level; what a plan promises and is
not there has crashed; a parent is no better than its children.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

VERSION = re.compile(r"\s*K?TAP version \d+$")
END = re.compile(r"List of all partitions:|Kernel panic - not syncing: VFS:|reboot: System halted")
SUBTEST = re.compile(r"\s*# Subtest: (.*)$")
PLAN = re.compile(r"\s*1\.\.(\d+)")
RESULT = re.compile(r"\s*(ok|not ok) (\d+) (?:- )?([^#]*?)( # .*)?$")
SKIP = re.compile(r"\s*(ok|not ok) (\d+) (?:- )?(.*) # SKIP(.*)$")


@dataclass
class Test:
    """One test with the tests in it."""

    __test__ = False
    name: str = ""
    status: str = "crashed"
    children: list[Test] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def all_errors(self) -> list[str]:
        return self.errors + [error for child in self.children for error in child.all_errors()]


class Lines:
    """The lines of a report, from its version line to the kernel's end."""

    def __init__(self, text: str) -> None:
        self.lines = list(_isolated(text))
        self.at = 0

    def peek(self) -> str | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        line = self.peek()
        found = pattern.match(line) if line is not None else None
        if found:
            self.at += 1
        return found

    def skip(self) -> list[str]:
        """Lines that are neither result nor header."""
        start = self.at
        while (line := self.peek()) is not None and not any(p.match(line) for p in (RESULT, SUBTEST, VERSION, PLAN)):
            self.at += 1
        return self.lines[start : self.at]


def _isolated(text: str) -> Iterator[str]:
    prefix = None
    for raw in text.split("\n"):
        line = raw.rstrip()
        if prefix is None and VERSION.search(line):
            prefix = len(re.split("K?TAP version", line)[0])
        if prefix is not None:
            if END.search(line):
                return
            yield line[prefix:]


def parse(text: str) -> Test:
    """The whole report as one test."""
    lines = Lines(text)
    main = Test("main")
    if not lines.take(VERSION):
        main.errors.append("no version line")
        return main
    plan = lines.take(PLAN)
    _children(lines, main, None if plan is None else int(plan[1]))
    lines.skip()
    if lines.peek() is not None:
        main.errors.append(f"left over: {lines.peek()}")
    main.status = _worst(child.status for child in main.children)
    return main


def _children(lines: Lines, parent: Test, count: int | None) -> None:
    number = 0
    while count is None or number < count:
        number += 1
        log = lines.skip()
        if lines.peek() is None:
            if count is not None:
                parent.children.append(Test(errors=["missing"]))
            if count is None:
                return
            continue
        parent.children.append(_test(lines, number, log))


def _test(lines: Lines, number: int, log: list[str]) -> Test:
    test = Test(log=log)
    early = lines.take(SUBTEST)
    if lines.take(VERSION):
        if early:
            test.errors.append("two levels of one name")
        named = lines.take(SUBTEST)
        plan = lines.take(PLAN)
        if plan is None:
            test.errors.append("no plan")
        _children(lines, test, None if plan is None else int(plan[1]))
        lines.skip()
        test.name = named[1] if named else ""
    line = lines.peek() or ""
    found = lines.take(RESULT)
    if not found:
        test.errors.append(f"no result line: {line!r}")
        return test
    skipped = SKIP.match(line)
    test.name = skipped[3] if skipped else found[3]
    if int(found[2]) != number:
        test.errors.append(f"expected test number {number} but found {found[2]}")
    own = "skipped" if skipped else "success" if found[1] == "ok" else "failure"
    test.status = _worst([own, *(child.status for child in test.children)]) if test.children else own
    return test


def _worst(statuses: Iterator[str] | list[str]) -> str:
    listed = list(statuses)
    return next((s for s in ("crashed", "failure", "success") if s in listed), "skipped" if listed else "no tests")
