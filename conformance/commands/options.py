"""What the command line and the pytest plugin both ask for, read from text with one clear sentence when it is wrong."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conformance.candidates.child import SHOW
from conformance.engines.corpus import check
from conformance.runs.request import ALL_ENGINES, ENGINES
from conformance.subsystem import available, subsystem
from conformance.symbolic.proposing import require_crosshair
from conformance.verdict import UsageError

DEFAULT_CANDIDATE = "builtin:upstream"
"""What pytest tests when nobody names a candidate."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@contextmanager
def shown_wire(path: str | None) -> Iterator[None]:
    """Have what processes under test say, and hear, written down meanwhile: `-` is standard error.

    Raises:
        UsageError  the file cannot be written
    """
    if path is None:
        yield
        return
    if path != "-":
        path = str(Path(path).resolve())
        try:
            Path(path).write_bytes(b"")
        except OSError as error:
            raise UsageError(f"--trace-wire={path}: {error.strerror}") from None
    before = os.environ.get(SHOW)
    os.environ[SHOW] = path
    try:
        yield
    finally:
        if before is None:
            del os.environ[SHOW]
        else:
            os.environ[SHOW] = before


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a usage error: what was probably meant, or what there is."""
    listed = list(known)
    folded = {item.lower(): item for item in listed}
    near = difflib.get_close_matches(name.lower(), folded, 1)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    return f"; known: {', '.join(listed[:8])}{', …' if len(listed) > 8 else ''}" if listed else ""


def subsystem_name(name: str) -> str:
    """A subsystem by name."""
    if name not in available():
        raise UsageError(f"unknown subsystem {name!r}{nearest(name, available())}")
    return name


def usable(tell: Callable[[str], None]) -> tuple[str, ...]:
    """Subsystems that can be loaded here; says of the others what they need."""
    names = []
    for name in available():
        try:
            subsystem(name)
        except UsageError as error:
            tell(f"{name} is left out: {error}")
        else:
            names.append(name)
    return tuple(names)


def candidates(
    specs: Sequence[str], subsystems: Sequence[str] = (), everything: Callable[[], tuple[str, ...]] = available
) -> tuple[tuple[str, str], ...]:
    """(subsystem, candidate spec) pairs, in the order of the subsystems.

    `SUBSYSTEM=SPEC` is for that subsystem, a plain SPEC for all the named subsystems that have none of their
    own; with no subsystem named, `builtin:NAME` is for `everything()` there is.

    Raises:
        UsageError  no candidate for a subsystem, an unknown subsystem, two candidates for one
    """
    own: dict[str, str] = {}
    plain: list[str] = []
    for spec in specs:
        named = re.match(r"([A-Za-z_]\w*)=(.+)", spec)
        if named is None:
            plain.append(spec)
            continue
        name = subsystem_name(named[1])
        if name in own:
            raise UsageError(f"--candidate={spec}: {name} has a candidate already, {own[name]}")
        own[name] = named[2]
    if len(plain) > 1:
        raise UsageError(f"--candidate={plain[1]}: one candidate for all is given already, {plain[0]}")
    for name in subsystems:
        subsystem_name(name)
    if plain and not subsystems and not plain[0].startswith("builtin:"):
        raise UsageError(f"--candidate={plain[0]}: say what it implements: --candidate=SUBSYSTEM={plain[0]}")
    wanted = tuple(subsystems) or (tuple(own) if own and not plain else everything())
    missing = [name for name in wanted if name not in own and not plain]
    if missing:
        raise UsageError(f"no candidate for {missing[0]}: say --candidate={missing[0]}=SPEC, or {DEFAULT_CANDIDATE}")
    stray = [name for name in own if name not in wanted]
    if stray:
        raise UsageError(f"--candidate={stray[0]}={own[stray[0]]}: {stray[0]} is not among the subsystems to run")
    return tuple((name, own.get(name) or plain[0]) for name in available() if name in wanted)


def seconds(text: str) -> float:
    """A budget: `90s`, `10m`, `1h`, or plain seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"--budget={text}: expected a time above 0, such as 90s, 10m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def engines(text: str | None, option: str = "--engine") -> tuple[str, ...]:
    """Engines by name, comma separated, in the order in which they run; those of the gate when None."""
    if text is None:
        return ENGINES
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ALL_ENGINES:
            raise UsageError(f"{option}={text}: unknown engine {name!r}{nearest(name, ALL_ENGINES)}")
    if not names:
        raise UsageError(f"{option}={text}: names no engine; known: {', '.join(ALL_ENGINES)}")
    if "symbolic" in names:
        require_crosshair(f"{option}={text}")
    return tuple(name for name in ALL_ENGINES if name in names)


def seed(number: int, option: str = "--seed") -> int:
    """A seed, as runs print them; others would be told apart by nobody."""
    if not 0 <= number < 2**32:
        raise UsageError(f"{option}={number}: expected a number from 0 to {2**32 - 1}")
    return number


def corpus(text: str | None, option: str = "--corpus") -> str | None:
    """A folder of traces, all of which can be read; by its whole path, wherever a candidate may lead us."""
    if text is None:
        return None
    check(Path(text), option)
    return str(Path(text).absolute())


def searches(text: str, matrix: str | None) -> tuple[str, ...]:
    """Engines that search for defects, by name; the corpus only repeats what was found."""
    if matrix is not None:
        raise UsageError(f"--engine={text}: a kill matrix is of all engines together")
    named = engines(text)
    if "corpus" in named:
        raise UsageError(f"--engine={text}: the corpus searches for nothing")
    return named


def place(workers: int, cluster: str | None) -> None:
    """UsageError when it is said twice how much is done side by side."""
    if cluster is not None and workers != 1:
        raise UsageError(f"-n {workers}: with --cluster={cluster} as many jobs run as its workers have threads")


def shard(text: str | None) -> tuple[int, int]:
    """`I/N`: the I-th of N parts, from 1."""
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard={text}: expected I/N with I from 1 to N, such as 1/4")
    return int(found[1]), int(found[2])
