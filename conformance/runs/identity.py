"""What must be the same wherever the parts of one run are done: versions, and the sources themselves."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from conformance.reports.version import SUITE

PACKAGE = Path(__file__).parents[1]
DECIDING = ("hypothesis", "greenlet", "msgspec")
"""Packages of others whose version may change what a run finds."""
NAMES_SUITE = "conformance's sources"
READ = (".py", ".so")
"""What of a folder counts as sources."""


def identity(specs: Iterable[str] = ()) -> dict[str, str]:
    """Versions and digests by what they are of, those of the candidates included; nothing is imported for it."""
    found = {"Python": f"{sys.version_info.major}.{sys.version_info.minor}", "conformance": SUITE.split()[-1]}
    found |= {name: _version(name) for name in DECIDING}
    found[NAMES_SUITE] = digest([PACKAGE])
    for spec in specs:
        scheme, _, _ = spec.partition(":")
        if scheme != "builtin":
            found[f"the source of {spec}"] = digest(_places(spec))
    return found


def difference(ours: Mapping[str, str], theirs: Mapping[str, str], where: str) -> str:
    """One sentence on the first thing that is not the same at `where`; empty when all is."""
    for name, here in ours.items():
        there = theirs.get(name, "missing")
        if here != there:
            what = f"{name} {'are' if name == NAMES_SUITE else 'is'}"
            return f"{where}: {what} {there} there and {here} here; install the same on every machine"
    return ""


def digest(places: Iterable[Path]) -> str:
    """A digest of the files at these places, by path and content; `missing` where there is none."""
    total = hashlib.sha256()
    empty = True
    for place in places:
        for path in _files(place):
            empty = False
            name = path.relative_to(place).as_posix()
            content = path.read_bytes()
            total.update(f"{name}\0{len(content)}\0".encode())
            total.update(content)
    return "missing" if empty else total.hexdigest()[:16]


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, folders, names in os.walk(place, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(READ))


def _places(spec: str) -> list[Path]:
    """The file of a candidate, or the whole package that its module is in."""
    module = spec.rpartition(":")[0]
    if module.endswith(".py"):
        return [Path(module)]
    top = module.partition(".")[0]
    found = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
    if found is None:
        return []
    if found.submodule_search_locations:
        return [Path(place) for place in found.submodule_search_locations]
    return [Path(found.origin)] if found.origin is not None else []


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
