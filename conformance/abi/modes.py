"""The two ways in which cffi joins C and Python: a module compiled for the header, or callbacks made at run time.

The compiled module is four times as fast. It is made once for each header, and kept in the user's cache. Where that
cannot be done the callbacks serve, and one sentence says so. `CONFORMANCE_ABI=callbacks` asks for them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

from conformance.abi.binding import Binding
from conformance.abi.header import FOLDER, Function, Header, ffi_class, header
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
        return callbacks(found, of, f"candidates by lib: run at a quarter of their speed: {error}")


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
    """cffi's API mode: a module compiled for the header.

    Raises:
        CannotCompileError  there is no compiler, or it fails
    """
    module = _import(found)
    binding = Binding(found, of, module.ffi)
    for call, plan in binding.calls.items():
        module.ffi.def_extern(name=f"conformance_{call}", onerror=binding.missed)(binding.answer(plan))
    binding.env = module.ffi.addressof(module.lib, "conformance_env")
    binding.leaving = module.ffi.addressof(module.lib, "conformance_leaving")

    def enter(entry: str, table: Any) -> Callable[..., Any]:
        function = getattr(module.lib, f"conformance_enter_{entry}")

        def entered(*given: Any) -> Any:
            return function(table, *given)

        return entered

    return Mode("compiled", binding, enter)


def _import(found: Header) -> Any:
    """The compiled module of a header; compiled first where it is not in the cache."""
    text, source = _sources(found)
    mark = hashlib.sha256(f"{text}\0{source}\0{sys.version}\0{_compiler()}".encode()).hexdigest()[:16]
    name = f"conformance_{found.subsystem}_{mark}"
    path = cache_folder() / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not path.is_file():
        _compile(name, text, source, path)
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


def _sources(found: Header) -> tuple[str, str]:
    """What cffi is told, and the C source: the table of environment calls, and one way into each entry point."""
    name = found.subsystem
    python = [_prototype(f"conformance_{call}", "void *world", f) for call, f in found.env.items()]
    leading = f"const struct {name}_driver *driver, void *self"
    enter = {entry: _prototype(f"conformance_enter_{entry}", leading, f) for entry, f in found.driver.items()}
    table = f"struct {name}_env conformance_env"
    text = "\n".join(
        [
            found.text,
            'extern "Python" {',
            *(f"{head};" for head in python),
            "}",
            *(f"{head};" for head in enter.values()),
            f"extern {table};",
            "extern int conformance_leaving;",
        ]
    )
    source = "\n".join(
        [
            f'#include "{name}.h"',
            _LEAVING,
            *(f"static {head};" for head in python),
            *(_outward(call, f) for call, f in found.env.items()),
            *(f"static {head}\n{_inward(f)}" for head, f in zip(enter.values(), found.driver.values(), strict=True)),
            f"static {table} = {{",
            *(f"\t.{call} = conformance_call_{call}," for call in found.env),
            "};",
        ]
    )
    return text, source


_LEAVING = """#include <setjmp.h>
struct conformance_frame { jmp_buf at; };
static struct conformance_frame *conformance_inside;
static int conformance_leaving;
"""
"""How C is left in the middle of an environment call, by a jump to the way into the entry point that it belongs to.

Other threads may have been inside while an environment call lasted, so it puts its own place back. That stands on its
stack, and so do the frames: where threads take turns on one stack, each finds its own.
"""


def _outward(call: str, function: Function) -> str:
    """An environment call: on to Python, and out of the entry point if that says so."""
    head = _prototype(f"conformance_call_{call}", "void *world", function)
    passed = ", ".join(["world", *function.parameters])
    is_void = function.result.cname == "void"
    keep, back = ("", "") if is_void else (f"{function.result.cname} result = ", "\n\treturn result;")
    return (
        f"static {head}\n{{\n\tstruct conformance_frame *mine = conformance_inside;\n"
        f"\t{keep}conformance_{call}({passed});\n\tconformance_inside = mine;\n"
        f"\tif (conformance_leaving)\n\t\tlongjmp(mine->at, 1);{back}\n}}"
    )


def _inward(function: Function) -> str:
    """The body of the way into an entry point."""
    passed = ", ".join(["self", *function.parameters])
    is_void = function.result.cname == "void"
    declared, keep, back = (
        ("", "", "") if is_void else (f"\t{function.result.cname} result = 0;\n", "result = ", "\treturn result;\n")
    )
    return (
        f"{{\n\tstruct conformance_frame mine, *outer = conformance_inside;\n{declared}"
        f"\tconformance_inside = &mine;\n\tif (!_setjmp(mine.at))\n\t\t{keep}driver->{function.name}({passed});\n"
        f"\telse\n\t\tconformance_leaving = 0;\n\tconformance_inside = outer;\n{back}}}"
    )


def _prototype(name: str, leading: str, function: Function) -> str:
    arguments = [leading]
    for parameter, ctype in zip(function.parameters, function.arguments, strict=True):
        arguments.append(f"{ctype.cname} {parameter}")
    return f"{function.result.cname} {name}({', '.join(arguments)})"


def _compile(name: str, text: str, source: str, path: Path) -> None:
    """Make the module, and put it into the cache in one step."""
    from cffi.recompiler import make_c_source

    ffi = ffi_class()()
    ffi.cdef(text)
    ffi.set_source(name, source)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            there = Path(folder)
            make_c_source(ffi, name, source, str(there / "module.c"), verbose=False)
            _run([*_compiler(), *_FLAGS, "-o", str(there / "module.so"), str(there / "module.c")])
            (there / "module.so").replace(path)
    except OSError as error:
        raise CannotCompileError(f"{path.parent}: {error.strerror}") from None


_FLAGS = (
    "-shared", "-fPIC", "-O1", "-w", f"-I{FOLDER}", f"-I{sysconfig.get_path('include')}",
)  # fmt: skip


def _compiler() -> list[str]:
    """The compiler's command: $CC, else the one of Python's own build, else cc."""
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
