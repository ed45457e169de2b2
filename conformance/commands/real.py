"""`conformance real`: the kernels that real candidates run, and whether this machine can run them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from conformance.commands.output import say
from conformance.real.guest import packages
from conformance.real.guest.initramfs import helper
from conformance.real.guest.machine import qemu_version
from conformance.verdict import Ending, Exit, UsageError

USUAL = ("6.1", "6.12")
"""Kernels that are fetched when none is named."""


def fetch(series: Sequence[str]) -> Ending:
    """Fetch kernels and busybox into the cache."""
    say(f"busybox   {packages.fetch_busybox()}")
    for name in series or USUAL:
        found = packages.fetch(name)
        say(f"{name:<8}  Linux {found.release}, package {found.version}")
    return Ending(Exit.CONFORMS, f"the kernels are in {packages.cache()}")


def show(offered: bool) -> Ending:
    """What the cache holds and, if asked, what can be fetched."""
    have = packages.kernels()
    for kernel in have:
        say(f"{kernel.series:<8}  Linux {kernel.release}, package {kernel.version}")
    if not offered:
        return Ending(Exit.CONFORMS, f"{len(have)} kernels in {packages.cache()}")
    for series, suite in packages.offered().items():
        if series not in {kernel.series for kernel in have}:
            say(f"{series:<8}  can be fetched{f' from {suite}' if suite else ''}")
    return Ending(Exit.CONFORMS, f"{len(have)} kernels in {packages.cache()}")


def doctor() -> Ending:
    """What real candidates need, and whether it is here; usage where something is missing."""
    missing = 0
    for name, sentence in _looked_at():
        is_here = not sentence.startswith("no: ")
        missing += not is_here
        say(f"{name:<10} {sentence}")
    if missing:
        return Ending(Exit.USAGE, f"{missing} of what real candidates need {'are' if missing > 1 else 'is'} not here")
    return Ending(Exit.CONFORMS, "all that real candidates need is here")


def _looked_at() -> list[tuple[str, str]]:
    found = []
    for name, look in {"qemu": _qemu, "helper": _helper, "busybox": _busybox, "kernels": _kernels}.items():
        try:
            found.append((name, look()))
        except UsageError as error:
            found.append((name, f"no: {error}"))
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    found.append(("/dev/kvm", "can be opened" if usable else "no: it cannot be opened; real:kvm-lapic needs it"))
    bochs = shutil.which("bochs")
    found.append(("bochs", bochs or "no: apt-get install --no-install-recommends bochs bochs-term binutils"))
    return found


def _qemu() -> str:
    return qemu_version().splitlines()[0]


def _helper() -> str:
    return f"compiled as {helper()}"


def _busybox() -> str:
    return str(packages.busybox())


def _kernels() -> str:
    have = packages.kernels()
    if not have:
        raise UsageError("none in the cache; run `conformance real fetch`")
    return ", ".join(f"{kernel.series} ({kernel.release})" for kernel in have)
