"""The file of a baseline: TOML in which each entry is a table of its own, in the order of their ids.

It is kept as the text that people wrote. An entry is the lines from its header, with the comments right above it, to
the next one; what an update changes is changed in those lines alone, so comments, order and git's merges survive.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from conformance.baseline.entry import Entry
from conformance.reports.text import program
from conformance.trace import write_atomically
from conformance.verdict import UsageError

PREAMBLE = """\
# Failures that are known, each with the trace that shows it. `conformance baseline update` adds to this file,
# `conformance baseline prune` takes from it what no longer fails, `conformance baseline lint` looks it over.
# Reason, ticket, owner, expires and when are for people to fill in.
"""
_HEADER = re.compile(r"""^\[\s*known\s*\.\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))\s*\]\s*(?:#.*)?$""")
_FIELDS = tuple(name for name in Entry.__struct_fields__ if name != "where")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, and where."""

    line: int
    text: str


class Broken(ValueError):
    """Lines of the file are no entry."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.problem = Problem(line, text)


@dataclass(slots=True)
class Block:
    """The lines of one entry."""

    name: str
    """As its header has it."""
    line: int
    """Of the header, from 1; 0 for one that is not in the file yet."""
    lead: list[str]
    """The comments right above the header."""
    lines: list[str]
    """From the header on; no empty ones at the end."""

    def entry(self, path: Path) -> Entry:
        """What it says.

        Raises:
            Broken  it is not TOML, or not an entry
        """
        document = self._document()
        if set(document) != {"known"} or set(document["known"]) != {self.name}:
            raise Broken(self.line, "a baseline holds tables [known.ID], and nothing else")
        data = document["known"][self.name].unwrap()
        if "where" in data:
            raise Broken(self.line, f"{self.name}: unknown field `where`")
        try:
            entry = msgspec.convert(data, Entry)
        except msgspec.ValidationError as error:
            raise Broken(self.line, f"{self.name}: {error}") from None
        return msgspec.structs.replace(entry, where=f"{path}:{self.line}-{self.line + len(self.lines) - 1}")

    def _document(self) -> Any:
        return parsed("\n".join(self.lines), self.line)

    def change(self, entry: Entry, **values: Any) -> None:
        """Set fields, an empty one being taken away; the rest of the text stays as it is."""
        document = self._document()
        table = document["known"][self.name]
        for name, value in values.items():
            if value in ("", None):
                table.pop(name, None)
            else:
                table[name] = _item(value)
        self.lines = tomlkit.dumps(document).rstrip("\n").split("\n")
        self.rename(entry.id)

    def rename(self, identifier: str) -> None:
        """Give it the header of this id, which is another one once somebody renamed the candidate."""
        if self.name != identifier:
            comment = self.lines[0].partition("]")[2]
            self.name, self.lines[0] = identifier, f"[known.{identifier}]{comment}"


@dataclass(slots=True)
class Baseline:
    """The file, as it is and as it is to be."""

    path: Path
    preamble: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    before: str = ""
    """Its text when it was read; empty for a new one."""

    def entries(self) -> list[Entry]:
        """All of them.

        Raises:
            UsageError  one is broken, or stands twice
        """
        found: dict[str, Entry] = {}
        for block in self.blocks:
            try:
                entry = block.entry(self.path)
            except Broken as error:
                raise refused(self.path, error.problem) from None
            if entry.id in found:
                twice = f"{entry.id} stands twice, see {found[entry.id].where}"
                raise refused(self.path, Problem(block.line, twice))
            found[entry.id] = entry
        return list(found.values())

    def put(self, entries: Iterable[Entry]) -> None:
        """Add entries, or change what an update changes of those that are there."""
        there = {block.entry(self.path).id: block for block in self.blocks}
        for entry in entries:
            block = there.get(entry.id)
            if block is None:
                self.blocks.append(Block(entry.id, 0, [], text(entry).rstrip("\n").split("\n")))
                continue
            before = block.entry(self.path)
            changed = {name: getattr(entry, name) for name in _FIELDS if getattr(entry, name) != getattr(before, name)}
            if changed:
                block.change(entry, **changed)

    def drop(self, identifiers: Iterable[str]) -> None:
        """Take entries away, with the comments right above them."""
        gone = set(identifiers)
        self.blocks = [block for block in self.blocks if block.entry(self.path).id not in gone]

    def text(self) -> str:
        """The file as it is to be: entries by id, an empty line between them."""
        for block in self.blocks:
            block.rename(block.entry(self.path).id)
        parts = ["\n".join(self.preamble).strip("\n")] if any(self.preamble) else []
        parts += ["\n".join([*b.lead, *b.lines]) for b in sorted(self.blocks, key=lambda b: b.name)]
        return "\n\n".join(parts) + "\n"

    def write(self) -> bool:
        """Replace the file by what it is to be, whole or not at all; False where nothing changes."""
        now = self.text()
        if now == self.before:
            return False
        write_atomically(self.path.resolve(), now)
        self.before = now
        return True


def new(path: Path) -> Baseline:
    """One that has no file yet."""
    return Baseline(path, PREAMBLE.splitlines())


def read(path: Path) -> Baseline:
    """The file, in blocks; their contents are looked at when they are asked for.

    Raises:
        UsageError  it cannot be read, or what stands before the first entry is not TOML
    """
    try:
        content = path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a baseline: {error}") from None
    preamble, blocks = _blocks(content.replace("\r\n", "\n").split("\n"))
    try:
        if parsed("\n".join(preamble), 1):
            raise Broken(1, "a baseline holds tables [known.ID], and nothing else")
    except Broken as error:
        raise refused(path, error.problem) from None
    return Baseline(path, preamble, blocks, content)


def expected(
    path: Path, candidates: Sequence[tuple[str, str]], profile: str | None, untracked: bool
) -> tuple[Entry, ...]:
    """The entries that a run goes by.

    Raises:
        UsageError  there is no such file, it is broken, or an entry has neither ticket nor last day
    """
    if not path.exists():
        line = recording(path, candidates, profile)
        raise UsageError(f"--baseline={path}: there is no such file; this records it: {line}")
    entries = tuple(read(path).entries())
    for entry in entries:
        if not untracked and not entry.is_tracked:
            told = f"{entry.id} has neither ticket nor expires, so nobody will see to it; or say --allow-untracked"
            raise UsageError(f"--baseline={entry.where}: {told}")
    return entries


def recording(path: Path, candidates: Sequence[tuple[str, str]], profile: str | None) -> str:
    """What to type to record a new baseline."""
    specs = {spec for _, spec in candidates}
    words = ["baseline", "update", str(path), *(name for name, _ in candidates)]
    for name, spec in candidates:
        if len(specs) > 1:
            words += ["--candidate", f"{name}={spec}"]
    words += ["--candidate", *specs] if len(specs) == 1 else []
    words += ["--profile", profile] if profile is not None else []
    return f"{program()} {shlex.join([*words, '--accept', '--expires', '90d'])}"


def refused(path: Path, problem: Problem) -> UsageError:
    """Why nothing is done with such a file."""
    return UsageError(f"{path}: line {problem.line}: {problem.text}")


def parsed(content: str, line: int) -> Any:
    """A piece of the file that begins in this line, as tomlkit reads it.

    Raises:
        Broken  it is not TOML
    """
    try:
        return tomlkit.parse(content)
    except ParseError as error:
        told = re.sub(r" at line \d+ col \d+$", "", str(error))
        raise Broken(line + error.line - 1, f"not TOML: {told}") from None
    except (TOMLKitError, ValueError) as error:
        raise Broken(line, f"not TOML: {error}") from None


def _blocks(lines: Sequence[str]) -> tuple[list[str], list[Block]]:
    """What stands before the first entry, and the entries."""
    headers = [(number, found) for number, line in enumerate(lines) if (found := _HEADER.match(line.strip()))]
    starts = [_lead(lines, number) for number, _ in headers]
    blocks = []
    for (number, found), start, end in zip(headers, starts, [*starts[1:], len(lines)], strict=True):
        own = list(lines[number:end])
        while not own[-1].strip():
            own.pop()
        blocks.append(Block(found[1] or found[2] or found[3], number + 1, list(lines[start:number]), own))
    return list(lines[: starts[0]] if starts else lines), blocks


def _lead(lines: Sequence[str], header: int) -> int:
    """Where the comments right above a header begin."""
    start = header
    while start > 0 and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return start


def text(entry: Entry) -> str:
    """A new entry as its lines."""
    document, known, table = tomlkit.document(), tomlkit.table(is_super_table=True), tomlkit.table()
    for name in _FIELDS:
        value = getattr(entry, name)
        if name == "when":
            value = {k: list(v) if isinstance(v, tuple) else v for k, v in msgspec.structs.asdict(value).items() if v}
        if value in ("", None, {}):
            continue
        table.add(name, _item(value))
    known.add(entry.id, table)
    document.add("known", known)
    return tomlkit.dumps(document)


def _item(value: Any) -> Any:
    """A value as TOML; traces between single quotes, so that they can be copied."""
    if isinstance(value, str) and "'" not in value and value.isprintable():
        return tomlkit.string(value, literal=value.startswith("{"))
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    return tomlkit.item(value) if not isinstance(value, date) else tomlkit.date(value.isoformat())
