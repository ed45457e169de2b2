"""The guest's first file system: busybox, our helper, the modules that are wanted, and a script that starts them."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.real.guest.packages import Kernel, busybox, cache
from conformance.real.tools import ran
from conformance.verdict import UsageError

HELPER = Path(__file__).with_name("helper.c")
"""Our only program inside; what it does is said at its head."""
PATIENCE = 120.0
"""Seconds that the compiler may take."""
_FILE, _FOLDER, _DEVICE = 0o100755, 0o040755, 0o020600
_HEAD = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tracefs tracefs /sys/kernel/tracing
"""
_TAIL = """
for n in /sys/class/virtio-ports/*; do
    [ "$(/bin/busybox cat $n/name)" = helper ] && port=/dev/${n##*/}
done
echo "conformance: ready" >/dev/console
exec /bin/helper $port
"""


def helper() -> Path:
    """The helper, compiled once for each source; UsageError where there is no C compiler."""
    target = cache() / "helper" / hashlib.sha256(HELPER.read_bytes()).hexdigest()[:16]
    if target.is_file():
        return target
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise UsageError("no C compiler on this machine; the helper inside a guest needs one (apt-get install gcc)")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    command = (compiler, "-O2", "-static", "-pthread", "-o", str(fresh), str(HELPER))
    try:
        ran(command, PATIENCE)
    except UsageError as error:
        raise UsageError(f"the helper inside a guest cannot be compiled: {error}") from None
    fresh.replace(target)
    return target


def initramfs(kernel: Kernel, modules: Sequence[str], parameters: str, lines: Sequence[str]) -> bytes:
    """A gzipped cpio archive. `modules` are inserted in the order of their needs, with `parameters` for all."""
    index = _modules(kernel)
    order: dict[str, None] = {}
    for name in modules:
        _visit(name, index, order)
    entries: list[tuple[str, int, bytes]] = [(name, _FOLDER, b"") for name in _folders()]
    entries += [("dev/console", _DEVICE, b""), ("bin/busybox", _FILE, busybox().read_bytes())]
    entries.append(("bin/helper", _FILE, helper().read_bytes()))
    entries += [(f"modules/{name}.ko", _FILE, _content(index[name])) for name in order]
    inserted = [f"/bin/busybox insmod /modules/{name}.ko {parameters}".rstrip() for name in order]
    script = "\n".join([_HEAD, *inserted, *lines, _TAIL])
    entries.append(("init", _FILE, script.encode()))
    return gzip.compress(b"".join(_cpio(entries)), 1, mtime=0)


def has_module(kernel: Kernel, name: str) -> bool:
    """Whether a driver is a module of this kernel rather than built in."""
    return name in _modules(kernel)


def _folders() -> tuple[str, ...]:
    return ("bin", "dev", "proc", "sys", "modules")


def _modules(kernel: Kernel) -> dict[str, Path]:
    found = sorted((kernel.modules / "kernel").rglob("*.ko*"))
    return {path.name.partition(".ko")[0].replace("-", "_"): path for path in found}


def _visit(name: str, index: dict[str, Path], order: dict[str, None]) -> None:
    """Depth first; what is built in is nobody's business."""
    name = name.replace("-", "_")
    if name in order or name not in index:
        return
    found = re.search(rb"\x00depends=([^\x00]*)\x00", _content(index[name]))
    for need in (found.group(1).decode() if found else "").split(","):
        if need:
            _visit(need, index, order)
    order[name] = None


def _content(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _cpio(entries: Sequence[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """The archive in the form `newc`."""
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        major, minor = (5, 1) if mode == _DEVICE else (0, 0)
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        yield head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
