"""Where the sources on AVIC disagree, and what a candidate may lack."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs.clause import Profile as BaseProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(BaseProfile):
    """Where the posted design, upstream, the manual and KVM's routing disagree."""

    opt_in: bool = False
    """Any non-zero parameter turns AVIC on, and auto mode does not exist."""
    inhibits_big_ids: bool = True
    """An id above the hardware maximum is created and inhibits AVIC."""
    either_ppr: bool = False
    """With equal classes PPR may be TPR or the class of the in-service vector."""
    kvm_routing: bool = False
    """Messages are routed as KVM's optimised map and its fall-back do."""


PROFILES = {
    "upstream": Profile(name="upstream", text="AVIC as Linux has it now, and the manuals' routing."),
    "as-posted": Profile(
        name="as-posted",
        text="The design posted in 2016, opt-in and without limits.",
        opt_in=True,
        inhibits_big_ids=False,
    ),
    "arch": Profile(
        name="arch", text="The manuals alone, where they leave freedom.", inhibits_big_ids=False, either_ppr=True
    ),
    "kvm-lapic": Profile(
        name="kvm-lapic",
        text="The manuals with the routing of KVM's local APIC, its deviations included.",
        kvm_routing=True,
    ),
}
CAPABILITIES = {
    "layer-r": "routes messages: names the APICs that accept one",
    "layer-t": "maintains VMCB fields, backing pages and tables",
    "exits": "completes AVIC exits and follows loading, blocking and inhibits",
    "posted": "posts device interrupts and listens to the GALog",
    "helpers": "exposes its pure functions",
    "kvm-return": "returns the number of acceptances as KVM_SIGNAL_MSI does",
    "irqfd": "delivers what eventfds signal, through a routing table",
}
DECLARED = frozenset({"irqfd"})
"""Those that a candidate has only if it says so."""
