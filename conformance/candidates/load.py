"""The candidate mini-language: what `--candidate` may say, and one clear sentence when it cannot be had.

| spec | meaning |
|---|---|
| `builtin:NAME` | shipped: `builtin:upstream`, `builtin:as-posted`, or a defect of the zoo by id |
| `pkg.mod:Class`, `path/file.py:Class` | a Python class, in process |
| `real:NAME`, `real:NAME@VERSION` | a real implementation, seen through an adapter |
| `cmd:PROGRAM ARGUMENT…` | a process that speaks JSON over its standard input and output; see docs/wire.md |
| `lib:path/file.so`, `lib:path/file.so?threads` | a shared library in C, in process, by the ABI of `conformance/abi/` |
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from conformance.abi.binding import Driver
from conformance.candidates.defect import Defect
from conformance.candidates.library import library
from conformance.candidates.process import load_command
from conformance.candidates.promised import check_capabilities, check_profile, entry_points, nearest, usual
from conformance.environment.foreign import described, shown
from conformance.real.adapter import Adapter, seen_by
from conformance.real.names import adapter
from conformance.subsystem import Subsystem
from conformance.verdict import UsageError

FORMS = "expected builtin:NAME, MODULE:CLASS, FILE.py:CLASS, lib:FILE.so, cmd:PROGRAM or real:NAME"
"""What a candidate may be, for who wrote something else."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An implementation under test, ready to be started any number of times."""

    spec: str
    factory: Callable[[Any], Any]
    """Takes the port, returns the candidate's object."""
    profile: str
    capabilities: frozenset[str]
    adapter: Adapter | None = None
    """What a real implementation is seen through."""
    note: str = ""
    """A sentence that its user should read, though it can be run."""

    def part(self, of: Subsystem) -> Subsystem:
        """The subsystem as this candidate can be driven and seen: what its capabilities reach, a real one in part."""
        return (of if self.adapter is None else seen_by(of, self.adapter)).within(self.capabilities)


def load(spec: str, of: Subsystem) -> Candidate:
    """Load a candidate of a subsystem.

    Raises:
        UsageError  unknown scheme or name, not importable, class or method missing, wrong arity
    """
    factory: type
    scheme, colon, name = spec.partition(":")
    if not colon or not name:
        raise UsageError(f"--candidate={spec}: {FORMS}")
    if scheme == "cmd":
        driver = load_command(spec, name, of)
        return Candidate(spec, driver, driver.profile, driver.capabilities)
    if scheme == "builtin":
        factory = _builtin(spec, name, of)
    elif scheme == "real":
        return from_adapter(adapter(spec, name, of), spec)
    elif scheme == "lib":
        factory = library(spec, name, of)
    else:
        module, _, attribute = spec.rpartition(":")
        if not module or not attribute:
            raise UsageError(f"--candidate={spec}: {FORMS}")
        factory = _attribute(spec, _module(spec, module), attribute)
    return from_class(factory, of, spec)


def from_class(candidate: type, of: Subsystem, spec: str) -> Candidate:
    """A class as a candidate of a subsystem; `spec` is what messages call it.

    Raises:
        UsageError  a method is missing or has another arity, or what the class declares does not exist
    """
    try:
        _check_methods(spec, candidate, of)
        profile, capabilities = _profile(spec, candidate, of), _capabilities(spec, candidate, of)
    except UsageError:
        raise
    except Exception as error:  # of a metaclass, a descriptor, an object that cannot be hashed
        raise UsageError(
            f"--candidate={spec}: looking at the class raised {type(error).__name__}: {described(error)}"
        ) from None
    note = candidate.note if issubclass(candidate, Driver) else ""
    return Candidate(spec, candidate, profile, capabilities, note=note)


def from_adapter(adapter: Adapter, spec: str) -> Candidate:
    """A real implementation as a candidate; there is nothing to make but the world that it is in."""
    return Candidate(spec, lambda _port: adapter, adapter.profile, adapter.capabilities, adapter)


def builtin_names(of: Subsystem) -> tuple[str, ...]:
    """Names of the shipped candidates, zoo excluded."""
    return tuple(_builtins(of.name))


def defects(name: str) -> tuple[Defect, ...]:
    """The zoo of a subsystem."""
    module = importlib.import_module(f"conformance.candidates.defects.{name}")
    zoo: tuple[Defect, ...] = module.DEFECTS
    return zoo


def magic(name: str) -> tuple[Defect, ...]:
    """The magic zoo of a subsystem, which is no part of the zoo; nothing where there is none."""
    if importlib.util.find_spec(f"conformance.candidates.magic.{name}") is None:
        return ()
    module = importlib.import_module(f"conformance.candidates.magic.{name}")
    zoo: tuple[Defect, ...] = module.MAGIC
    return zoo


def _builtins(name: str) -> dict[str, type]:
    module = importlib.import_module(f"conformance.candidates.builtin.{name}")
    candidates: dict[str, type] = module.CANDIDATES
    return candidates


def _builtin(spec: str, name: str, of: Subsystem) -> type:
    shipped = _builtins(of.name)
    if name in shipped:
        return shipped[name]
    zoo = {defect.id: defect for defect in (*defects(of.name), *magic(of.name))}
    if name in zoo:
        candidate = zoo[name].candidate
        if candidate is None:
            raise UsageError(f"--candidate={spec}: {name} has no candidate: {zoo[name].why_not}")
        return candidate
    raise UsageError(f"--candidate={spec}: {of.name} ships no {name!r}{nearest(name, [*shipped, *zoo])}")


def _module(spec: str, name: str) -> ModuleType:
    if name.endswith(".py"):
        return _file(spec, Path(name))
    here = str(Path.cwd())
    _make_importable(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise UsageError(f"--candidate={spec}: no module named {name!r} is importable from {here}") from None
        raise UsageError(f"--candidate={spec}: importing {name} failed: no module named {error.name!r}") from None
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--candidate={spec}: importing {name} raised {type(error).__name__}: {described(error)}"
        ) from None


def _file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"--candidate={spec}: there is no file {path}")
    _make_importable(str(path.resolve().parent))
    name = f"candidate_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = f" at line {error.lineno}" if isinstance(error, SyntaxError) else ""
        message = error.msg if isinstance(error, SyntaxError) else described(error)
        raise UsageError(f"--candidate={spec}: loading {path} raised {type(error).__name__}{line}: {message}") from None
    return module


def _make_importable(folder: str) -> None:
    """What lies beside a candidate can be imported by it, as with `python file.py`."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _attribute(spec: str, module: ModuleType, name: str) -> type:
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, value in vars(module).items() if inspect.isclass(value)]
        near = nearest(name, classes)
        raise UsageError(f"--candidate={spec}: {module.__name__.removeprefix('candidate_')} defines no {name!r}{near}")
    if not inspect.isclass(found):
        raise UsageError(f"--candidate={spec}: {name} is a {type(found).__name__}, expected a class")
    return found


def _check_methods(spec: str, candidate: type, of: Subsystem) -> None:
    """Every entry point is there and takes what the port's Protocol says."""
    for name, wanted, capability in entry_points(of, _capabilities(spec, candidate, of)):
        method = getattr(candidate, name, None)
        if method is None:
            own = [n for n in dir(candidate) if not n.startswith("_")]
            hint = nearest(name, own)
            if capability is not None:
                hint = f"; add it, or declare `capabilities` without {capability!r}"
            raise UsageError(f"--candidate={spec}: {candidate.__name__} has no method {name!r}{hint}")
        if not callable(method):
            raise UsageError(
                f"--candidate={spec}: {candidate.__name__}.{name} is a {type(method).__name__}, expected a method"
            )
        arguments = [None for _ in list(inspect.signature(wanted).parameters)[1:]]
        try:
            inspect.signature(method).bind(None, *arguments)
        except TypeError:
            asked = str(inspect.signature(wanted)).replace("'", "")
            raise UsageError(
                f"--candidate={spec}: {candidate.__name__}.{name}{inspect.signature(method)} must accept {name}{asked}"
            ) from None
    try:
        inspect.signature(candidate).bind(None)
    except TypeError:
        raise UsageError(f"--candidate={spec}: {candidate.__name__}(…) must take one argument, the port") from None


def _profile(spec: str, candidate: type, of: Subsystem) -> str:
    name = getattr(candidate, "profile", of.default_profile)
    if not isinstance(name, str):
        raise UsageError(f"--candidate={spec}: its profile is a {type(name).__name__}, expected a name")
    check_profile(f"--candidate={spec}: profile", name, of)
    return str(name)


def _capabilities(spec: str, candidate: type, of: Subsystem) -> frozenset[str]:
    declared = getattr(candidate, "capabilities", None)
    if declared is None:
        return usual(of)
    if isinstance(declared, str) or not isinstance(declared, Iterable) or not all(isinstance(n, str) for n in declared):
        raise UsageError(f"--candidate={spec}: its capabilities are {shown(declared)}, expected a set of names")
    return check_capabilities(spec, declared, of)
