"""The two ways in which C and Python are joined: a module compiled for the header, or cffi's callbacks.

The compiled module is made once for each header, and kept in the user's cache. cffi makes its frame and the few calls
that pass records; those of numbers go straight to Python's own interface (`source.py`), at a fifth of what a call by
cffi costs in either of its modes. Where nothing can be compiled the callbacks serve, and one sentence says so.
`CONFORMANCE_ABI=callbacks` asks for them.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from functools import cache, partial
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

from conformance.abi import source
from conformance.abi.binding import Binding
from conformance.abi.header import FOLDER, Header, ffi_class, header
from conformance.abi.plan import of_subsystem
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import UsageError

CHOICE = "CONFORMANCE_ABI"
"""Environment variable: `compiled`, `callbacks`, or nothing."""
_LONGEST = 120.0
"""Seconds that the compiler may take."""

Enter = Callable[[str, Any], Callable[..., Any]]
"""(entry point, the library's table) -> function of `self` and the arguments in C."""


class CannotCompileError(Exception):
    """Why there is no compiled module; the message ends the sentence."""


class Mode:
    """The ABI of one subsystem in one of the two ways."""

    def __init__(self, name: str, binding: Binding, enter: Enter, note: str = "") -> None:
        self.name = name
        """`compiled` or `callbacks`."""
        self.binding = binding
        self.enter = enter
        self.note = note
        """Why it is not the faster one; empty where it is, or was not wanted."""


@cache
def mode(name: str) -> Mode:
    """The faster way that this machine has for a subsystem.

    Raises:
        UsageError  cffi is missing, or the environment variable says something else
    """
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", "compiled", "callbacks"):
        raise UsageError(f"{CHOICE}={choice}: expected compiled or callbacks")
    of = subsystem(name)
    found = header(name)
    if choice == "callbacks":
        return callbacks(found, of)
    try:
        return compiled(found, of)
    except CannotCompileError as error:
        if choice:
            raise UsageError(f"{CHOICE}={choice}: {error}") from None
        return callbacks(found, of, f"it runs slower than it could: {error}")


def callbacks(found: Header, of: Subsystem, note: str = "") -> Mode:
    """cffi's ABI mode: nothing is compiled."""
    ffi = ffi_class()()
    ffi.cdef(found.text)
    binding = Binding(found, of, ffi)
    binding.env = ffi.new(f"struct {found.subsystem}_env *")
    made = []
    for call, field in ffi.typeof(f"struct {found.subsystem}_env").fields:
        answer = binding.answer(binding.calls[call])
        made.append(ffi.callback(field.type, answer, onerror=binding.missed))
        setattr(binding.env, call, made[-1])
    _FOREVER.extend(made)
    return Mode("callbacks", binding, lambda entry, table: getattr(table, entry), note)


_FOREVER: list[Any] = []
"""Callbacks that tables of environment calls point to; a library may hold them for as long as it is loaded."""


def compiled(found: Header, of: Subsystem) -> Mode:
    """A module compiled for the header.

    Raises:
        CannotCompileError  there is no compiler, or it fails
    """
    calls, entries = of_subsystem(found, of)
    module = _import(found, source.declarations(found, calls), source.source(found, calls, entries))
    ffi, lib = module.ffi, module.lib
    binding = Binding(found, of, ffi)
    binding.env = ffi.addressof(lib, "conformance_env")
    start = ctypes.PyDLL(module.__file__).conformance_start
    start.restype = ctypes.py_object
    binding.new, binding.live = start()
    for call, plan in calls.items():
        if not source.is_direct(plan):
            ffi.def_extern(name=f"conformance_{call}", onerror=binding.missed)(binding.answer(plan))

    def enter(entry: str, table: Any) -> Callable[..., Any]:
        return partial(getattr(lib, f"conformance_enter_{entry}"), table)

    return Mode("compiled", binding, enter)


def _import(found: Header, text: str, own: str) -> Any:
    """The compiled module of a header; compiled first where it is not in the cache."""
    mark = hashlib.sha256(f"{text}\0{own}\0{sys.version}\0{_compiler()}".encode()).hexdigest()[:16]
    name = f"conformance_{found.subsystem}_{mark}"
    path = cache_folder() / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not path.is_file():
        _compile(name, text, own, path)
    loader = ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise CannotCompileError(f"{path} cannot be loaded: {error}") from None
    return module


def cache_folder() -> Path:
    """Where compiled modules are kept: $XDG_CACHE_HOME/conformance/abi, by default below ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if home else Path.home() / ".cache"
    return base / "conformance" / "abi"


def _compile(name: str, text: str, own: str, path: Path) -> None:
    """Make the module, and put it into the cache in one step."""
    from cffi.recompiler import make_c_source

    ffi = ffi_class()()
    ffi.cdef(text)
    ffi.set_source(name, own)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            there = Path(folder)
            make_c_source(ffi, name, own, str(there / "module.c"), verbose=False)
            _run([*_compiler(), *_FLAGS, "-o", str(there / "module.so"), str(there / "module.c")])
            (there / "module.so").replace(path)
    except OSError as error:
        raise CannotCompileError(f"{path.parent}: {error.strerror}") from None


_FLAGS = (
    "-shared", "-fPIC", "-O2", "-w", "-D_CFFI_NO_LIMITED_API", f"-I{FOLDER}", f"-I{sysconfig.get_path('include')}",
)  # fmt: skip


def _compiler() -> list[str]:
    """The compiler's command: $CC, else cc."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)  # noqa: S603 - the user's own compiler
    except FileNotFoundError:
        raise CannotCompileError(f"there is no C compiler {command[0]!r}") from None
    except subprocess.TimeoutExpired:
        raise CannotCompileError(f"{command[0]} did not end in {_LONGEST:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        first = next((line for line in lines if "error" in line), lines[0] if lines else "")
        raise CannotCompileError(f"{command[0]} failed: {first}")
