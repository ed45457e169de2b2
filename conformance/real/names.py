"""Which real implementations there are: `real:NAME`, or `real:NAME@VERSION`."""

from __future__ import annotations

import difflib
import importlib

from conformance.real.adapter import Adapter
from conformance.subsystem import Subsystem
from conformance.verdict import UsageError

ADAPTERS: dict[tuple[str, str], tuple[str, bool]] = {
    ("avic", "kvm-lapic"): ("conformance.real.kvm_lapic:KvmLapic", False),
    ("uio_msi", "linux-vfio"): ("conformance.real.linux_vfio:LinuxVfio", True),
    ("avic", "linux-avic"): ("conformance.real.linux_avic:LinuxAvic", True),
    ("uio_msi", "linux-uio"): ("conformance.real.linux_uio:LinuxUio", True),
    ("tdp_mirror", "linux-tdpmmu"): ("conformance.real.linux_tdpmmu:LinuxTdpMmu", True),
    ("cet", "bochs-cet"): ("conformance.real.bochs_cet:BochsCet", False),
}
"""(subsystem, name) -> the adapter, and whether it wants a version; without one it is made with no argument."""


def names(of: Subsystem) -> tuple[str, ...]:
    """The real implementations of a subsystem."""
    return tuple(f"{name}@VERSION" if versioned else name for (_, name), (_, versioned) in _of(of).items())


def adapter(spec: str, name: str, of: Subsystem) -> Adapter:
    """The adapter of `real:NAME`, once it has probed what is there.

    Raises:
        UsageError  no such name, a version that is missing or not wanted, or the implementation is not there
    """
    base, _, version = name.partition("@")
    listed = _of(of)
    if (of.name, base) not in listed:
        known = names(of)
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}" if known else ""
        raise UsageError(f"--candidate={spec}: {of.name} has no real implementation {name!r}{hint}")
    where, versioned = listed[of.name, base]
    if versioned and not version:
        raise UsageError(f"--candidate={spec}: which version? real:{base}@VERSION")
    if version and not versioned:
        raise UsageError(f"--candidate={spec}: {base} has no versions to choose from")
    module, _, attribute = where.partition(":")
    kind: type[Adapter] = getattr(importlib.import_module(module), attribute)
    return kind(version) if versioned else kind()  # type: ignore[call-arg]  # those with versions take one


def _of(of: Subsystem) -> dict[tuple[str, str], tuple[str, bool]]:
    return {key: value for key, value in ADAPTERS.items() if key[0] == of.name}
