"""docs/first_hour.md, done as it stands, and docs/reading_failures.md, held against what is printed."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from conformance.reports import text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "first_hour.md"
READING = ROOT / "docs" / "reading_failures.md"
PROGRAMS = {"conformance": ["-m", "conformance"], "pytest": ["-m", "pytest", "-p", "no:cacheprovider"]}


def blocks() -> Iterator[tuple[str, str]]:
    """What is to be done, in order: language and content."""
    yield from re.findall(r"(?ms)^```(console|python|diff)\n(.*?)^```$", PAGE.read_text())


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block with the lines that it prints."""
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


def run(command: str, folder: Path) -> str:
    """What a command prints on standard output."""
    program, *words = shlex.split(command)
    arguments = [name for word in words for name in (sorted(map(str, folder.glob(word))) if "*" in word else [word])]
    done = subprocess.run(
        [sys.executable, *PROGRAMS[program], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + (done.stderr if done.returncode == 2 else "")


def is_shown(lines: list[str], printed: list[str]) -> str:
    """The first line of the page that was not printed where it should; a line of … stands for any number of others."""
    at, loose = 0, False
    for line in lines:
        if line == "…":
            loose = True
            continue
        pattern = re.escape(line).replace("…", ".*")
        found = next((n for n in range(at, len(printed)) if re.fullmatch(pattern, printed[n])), None)
        if found is None or (not loose and found != at):
            return line
        at, loose = found + 1, False
    return ""


def patched(source: str, diff: str) -> str:
    """The source after a change; each piece is found by the lines that it has."""
    for piece in re.split(r"(?m)^@@\n", diff):
        lines = piece.splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] != "+")
        after = "\n".join(line[1:] for line in lines if line[:1] != "-")
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    return source


def test_the_first_hour_goes_as_it_is_told(tmp_path: Path) -> None:
    """Ten commands, one file, one change; everything that the page shows is printed."""
    folder, count = tmp_path, 0
    for language, block in blocks():
        if language == "python":
            (folder / "driver.py").write_text(block)
        elif language == "diff":
            (folder / "driver.py").write_text(patched((folder / "driver.py").read_text(), block))
        for command, lines in commands(block) if language == "console" else ():
            count += 1
            if command.startswith("cd "):
                folder /= command[3:]
                continue
            printed = run(command, folder).splitlines()
            missing = is_shown(lines, printed)
            assert not missing, f"{command}: no {missing!r} in\n" + "\n".join(printed)
    assert count <= 10


def test_its_draft_is_the_example() -> None:
    """The one that README shows as well."""
    (draft,) = [block for language, block in blocks() if language == "python"]

    assert draft == (ROOT / "examples" / "uio_minimal.py").read_text()


def test_every_label_is_explained() -> None:
    """Whatever stands before a line of a failure has its row."""
    source = inspect.getsource(text.finding) + inspect.getsource(text._mismatch) + inspect.getsource(text.another)
    labels = set(re.findall(r"_labelled\(\"(\w+)\"", source)) | {
        "repeat",
        "also",
        "left",
        "right",
        "at point K",
        "step N",
    }
    rows = re.findall(r"(?m)^\| (`[^|]*) \|", READING.read_text())

    assert labels >= {"world", "because", "expected", "got", "calls", "from", "source", "note"}
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} >= labels


def test_the_failure_that_is_explained_is_the_one_of_the_first_drafts() -> None:
    """It is held against what is printed there."""
    (shown,) = re.findall(r"(?s)```text\n(.*?)```", READING.read_text())

    assert shown in (ROOT / "docs" / "first_drafts.md").read_text()
