"""Where sources disagree, and what a driver may lack."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs import clause
from conformance.specs.uio_msi.constants import EINVAL, ENOTTY, EOPNOTSUPP, ERANGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(clause.Profile):
    """Where the posted driver, VFIO and the kernel's conventions disagree."""

    unknown_cmd: int = -ENOTTY
    """Answer to an unknown command (UIO-001)."""
    vec_oob: int = -ERANGE
    """Answer to a vector out of range (UIO-009)."""
    bad_fd_replace: str = "keep"
    """`keep` or `lose`: whether it breaks UIO-020 that the old mapping is lost when the new fd is refused."""
    short_enable: str = "enospc"
    """`enospc` or `negative`: the errno of an open for which there are too few vectors (UIO-050)."""
    intx_unmask: str = "set"
    """`set`: by a successful set or irqcontrol; `explicit`: by irqcontrol, a set only on an unmapped vector;
    `user`: only by user space writing the command register (UIO-083)."""
    core: str = "6.x"
    """`6.x` or `4.1`: UIO core; the old one does not exclude callbacks from removal and releases after it."""
    security: str = "no-msix-table"
    """`no-msix-table` or `posted` (UIO-085)."""
    ioremap_einval: bool = False
    """Whether probe may answer a refused ioremap with -EINVAL (UIO-060)."""


PROFILES = {
    "upstream": Profile(
        name="upstream",
        text="The kernel's conventions where sources disagree, and no exported map over the MSI-X table.",
    ),
    "as-posted": Profile(
        name="as-posted",
        text="What the patch of 30 Sep 2015 meant to do, with its undefined behaviour removed.",
        unknown_cmd=-EOPNOTSUPP,
        bad_fd_replace="lose",
        intx_unmask="user",
        core="4.1",
        security="posted",
        ioremap_einval=True,
    ),
    "vfio-like": Profile(
        name="vfio-like",
        text="The same ioctl with the choices VFIO made in VFIO_DEVICE_SET_IRQS.",
        vec_oob=-EINVAL,
        bad_fd_replace="lose",
        short_enable="negative",
        intx_unmask="explicit",
    ),
}
"""By name; the first is the default."""

CAPABILITIES = {
    "intx": "binds functions without MSI-X and serves their INTx as vector 0",
    "compat": "has an entry point for 32-bit callers",
    "irqcontrol": "registers irqcontrol, so that write() of 1 unmasks INTx",
    "core-4.1": "survives callbacks that race with remove, and a release after it, as with the UIO core of Linux 4.1",
}
"""What a candidate may lack; clauses that need it are then not applicable."""
