"""The host: what CPUID and the module's parameters say, and the profile that a candidate is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.model.avic.boot import setup_of
from conformance.model.avic.setup import detected

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.model.avic import Config
    from conformance.model.avic.operations import HwSetup
    from conformance.model.avic.state import Host as Found
    from conformance.specs.avic import Profile
    from conformance.specs.clause import Clause


class Host(Simulator):
    """The machine that the module is loaded on, and its log.

    Not modelled: the CPUs themselves, and what else the module does at setup.
    """

    def __init__(self, door: Environment, config: Config, profile: Profile) -> None:
        super().__init__(door)
        self.profile = profile
        self.loaded: HwSetup = setup_of(config)
        """How the module was last loaded."""
        self.found: Found = detected(self.loaded, profile)[0]
        """What a setup that is right finds here."""

    def load(self, op: HwSetup) -> Clause:
        """The module is loaded so; the clause that decides whether AVIC is on."""
        self.loaded = op
        self.found, because = detected(op, self.profile)
        return because

    def applies(self, clause: Clause) -> bool:
        """Whether the profile holds candidates to this clause."""
        return not clause.profiles or self.profile.name in clause.profiles

    def warn(self, text: str) -> None:
        """Log; a check says where a guest must not cause it."""
