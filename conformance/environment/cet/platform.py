"""The host: what its processors have, and how KVM was loaded there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.model.cet.capabilities import BOTH
from conformance.model.cet.operations import Config, Host
from conformance.verdict import Crash

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Platform(Simulator):
    """What the host has, in CPUID and VMX capability MSRs, and the parameters and capabilities of the module.

    All physical CPUs are alike. Features that CET does not depend on are not modelled.
    """

    def __init__(self, door: Environment, config: Config) -> None:
        self.door = door
        self.host = config.host
        self.amd = config.host.vendor == "amd"
        self.ignore_msrs = config.ignore_msrs
        self.caps = (False, False)
        """SHSTK and IBT as the module offers them."""
        self.known = BOTH
        """Which of the two it knows of, as far as it showed on the configuration's host."""

    def boot(self, host: Host) -> None:
        """Another host takes the place of this one."""
        self.host = host
        self.amd = host.vendor == "amd"

    def host_cap(self, name: str) -> int:
        """A field of `Host`; `vendor` is 1 for AMD."""
        if name == "ignore_msrs":
            return int(self.ignore_msrs)
        if name == "vendor":
            return int(self.amd)
        if name == "width":
            return self.host.width
        value = getattr(self.host, name, None)
        if not isinstance(value, int):
            raise Crash(f"host_cap: no property {name!r}", "type")
        return int(value)
