"""`conformance new`: a candidate that can be built, loaded and run, and has everything still to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from conformance.commands.options import nearest
from conformance.scaffold import c, command, python
from conformance.scaffold.parts import Plan, capabilities, filled, plan, table
from conformance.subsystem import subsystem
from conformance.trace import write_atomically
from conformance.verdict import Ending, Exit, UsageError

LANGUAGES: dict[str, ModuleType] = {"python": python, "c": c, "command": command}
"""What a candidate may be written in."""
HOLDS = {
    "driver.py": "the candidate",
    "driver.c": "the candidate",
    "wire.py": "how it talks with the suite; nothing to change",
    "Makefile": "`make` builds driver.so, `make check` runs the suite",
    "test_driver.py": "the suite as a test of pytest",
    ".github/workflows/conformance.yml": "the suite in CI",
}


def new(name: str, language: str, folder: Path, asked: Sequence[str], say: Callable[[str], None]) -> Ending:
    """Write a candidate into a folder that is new or empty.

    Raises:
        UsageError  the folder has something in it or cannot be written, or there is no such capability
    """
    of = subsystem(name)
    for capability in asked:
        if capability not in of.capabilities:
            near = nearest(capability, of.capabilities)
            raise UsageError(f"--capability={capability}: {name} knows no such capability{near}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already, and not an empty folder")
    files = contents(plan(of, frozenset(asked)), language)
    _write(folder, files)
    for path in files:
        say(f"  {folder / path}")
    spec = f"'{LANGUAGES[language].SPEC}'" if " " in LANGUAGES[language].SPEC else LANGUAGES[language].SPEC
    built = "make && " if language == "c" else ""
    return Ending(Exit.CONFORMS, f"next: cd {folder} && {built}conformance doctor {name} --candidate {spec}")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """All of them, or none, so that it can be asked for again."""
    try:
        for path, text in files.items():
            write_atomically(folder / path, text)
    except OSError as error:
        for path in files:
            with suppress(OSError):
                (folder / path).unlink()
        for made in sorted({(folder / path).parent for path in files} | {folder / ".github"}, reverse=True):
            with suppress(OSError):
                made.rmdir()
        raise UsageError(f"{folder}: {error.strerror or error}") from None


def contents(of: Plan, language: str) -> dict[str, str]:
    """What is written, by path."""
    module = LANGUAGES[language]
    name, spec = of.of.name, f"'{module.SPEC}'" if " " in module.SPEC else module.SPEC
    run = f"conformance run {name} --candidate {spec}"
    files: dict[str, str] = module.files(of)
    build = "      - run: make\n" if language == "c" else ""
    files[".github/workflows/conformance.yml"] = filled("ci.yml.in", run=run, build=build)
    rows = [f"| `{path}` | {HOLDS.get(path, 'a header of the ABI')} |" for path in files]
    files["README.md"] = filled(
        "README.md.in",
        subsystem=name,
        title=of.of.title,
        build="make\n" if language == "c" else "",
        doctor=f"conformance doctor {name} --candidate {spec}",
        run=run,
        spec=spec,
        files="\n".join(rows),
        profile=of.of.default_profile,
        capabilities=capabilities(of),
        entries=table(of.entries),
        calls=table(of.calls),
        numbers=f"`abi/{name}_constants.h`" if language == "c" else f"`conformance.specs.{name}.constants`",
    )
    return files
