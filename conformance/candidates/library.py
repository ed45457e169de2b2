"""`lib:PATH.so`: a candidate in C, by the ABI of `conformance/abi/S.h`; `lib:PATH.so?threads` on real threads."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

from conformance.abi.binding import Driver, driver_class
from conformance.abi.modes import Mode, mode
from conformance.candidates.promised import entry_points, usual
from conformance.subsystem import Subsystem
from conformance.verdict import UsageError

_UBSAN = re.compile(rb"__ubsan_handle_(\w+)")
_ALWAYS_ENDS = {b"builtin_unreachable", b"missing_return"}
"""Undefined behaviour behind which nothing can go on; each other kind has a second handler, which ends the process."""


def library(spec: str, path: str, of: Subsystem) -> type[Driver]:
    """The driver of a shared library, as a class.

    Raises:
        UsageError  it cannot be loaded, exports no such table, or lacks an entry point
    """
    path, _, option = path.partition("?")
    if option not in ("", "threads"):
        raise UsageError(f"--candidate={spec}: expected ?threads or nothing after the path, not {option!r}")
    if not Path(path).is_file():
        raise UsageError(f"--candidate={spec}: there is no file {path}")
    bound = bind(spec, path, of, mode(of.name))
    bound.real_threads = bool(option)
    return bound


def bind(spec: str, path: str, of: Subsystem, way: Mode) -> type[Driver]:
    """The same, in one of the two ways.

    Raises:
        UsageError  as `library`
    """
    table_of = f"{of.name}_driver"
    address = _exported(spec, Path(path), table_of, way.binding.header.subsystem)
    table = way.binding.ffi.cast(f"const struct {table_of} *", address)
    _check_version(spec, table, way)
    capabilities = _declared(table, way, of)
    _check_entries(spec, table, of, capabilities)

    def enter(entry: str) -> Any:
        return way.enter(entry, table) if getattr(table, entry) else None

    members = driver_class(way.binding, table, enter, Path(path).stem)
    if table.profile:
        members.profile = way.binding.ffi.string(table.profile).decode(errors="replace")
    members.capabilities = capabilities
    members.note = way.note
    return members


def _exported(spec: str, path: Path, symbol: str, name: str) -> int:
    """Address of what the library exports."""
    _check_sanitizer(spec, path)
    try:
        loaded = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise UsageError(f"--candidate={spec}: {path} cannot be loaded: {error}") from None
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(loaded, symbol))
    except ValueError:
        raise UsageError(
            f"--candidate={spec}: {path} exports no {symbol!r}; conformance/abi/{name}.h says what it is"
        ) from None


def _check_sanitizer(spec: str, path: Path) -> None:
    """A sanitizer must be in the process before the library that was built with it, and end the process."""
    text = path.read_bytes()
    for runtime, symbol in (("libasan.so", b"__asan_init"), ("libtsan.so", b"__tsan_init")):
        if symbol not in text:
            continue
        # The address sanitizer ends a process that throws an exception of C++, as greenlet does, unless it found them
        # when it started.
        first = os.environ.get("LD_PRELOAD", "")
        knows_cxx = "libasan" not in first or "stdc++" in first
        if not hasattr(ctypes.CDLL(None), symbol.decode()) or not knows_cxx:
            raise UsageError(
                f"--candidate={spec}: {path} was built with a sanitizer, which must be loaded first, and C++ with it:"
                f' run with LD_PRELOAD="$(cc -print-file-name={runtime}) libstdc++.so.6"'
            )
    goes_on = {name for name in _UBSAN.findall(text) if not name.endswith(b"_abort")} - _ALWAYS_ENDS
    if goes_on and not re.search(r"\bhalt_on_error=(1|true|yes)\b", os.environ.get("UBSAN_OPTIONS", "")):
        raise UsageError(
            f"--candidate={spec}: {path} prints undefined behaviour and goes on, so that it would pass: compile it"
            " with -fno-sanitize-recover=all as well, or run with UBSAN_OPTIONS=halt_on_error=1"
        )


def _check_version(spec: str, table: Any, way: Mode) -> None:
    wanted = way.binding.header.version
    if table.abi_version != wanted:
        name = way.binding.header.subsystem
        raise UsageError(
            f"--candidate={spec}: it has version {table.abi_version} of the ABI, expected {wanted}:"
            f" compile it with this suite's {name}.h, with .abi_version = {name.upper()}_ABI"
        )


def _declared(table: Any, way: Mode, of: Subsystem) -> frozenset[str]:
    if not table.capabilities:
        return usual(of)
    return frozenset(way.binding.ffi.string(table.capabilities).decode(errors="replace").split())


def _check_entries(spec: str, table: Any, of: Subsystem, capabilities: frozenset[str]) -> None:
    """Only what belongs to a capability that it does not have may be missing."""
    for entry in ("create", "destroy"):
        if not getattr(table, entry):
            raise UsageError(f"--candidate={spec}: .{entry} is NULL, and every driver needs it")
    for entry, _, capability in entry_points(of, capabilities):
        if not getattr(table, entry):
            hint = "" if capability is None else f"; add it, or declare .capabilities without {capability!r}"
            raise UsageError(f"--candidate={spec}: .{entry} is NULL, so it is not implemented{hint}")
