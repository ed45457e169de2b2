"""The small worlds by name, in the order in which they are explored."""

from __future__ import annotations

from itertools import product

from conformance.model.cet import operations as m
from conformance.model.step import Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, HOSTS, IBT_ONLY, NEITHER, SHSTK_ONLY
from conformance.strategies.cet.scopes import kept, nesting, running, setup, values
from conformance.strategies.domain import Scope


def _needs(steps: tuple[Step, ...]) -> frozenset[str]:
    """What a candidate must have to take all of these steps."""
    return frozenset[str]().union(*(m.NEEDS.get(type(step.op), frozenset()) for step in steps))


ONE, SVM = m.Config(vcpus=(m.Cpuid(),)), m.Config(AMD, (SHSTK_ONLY,))
TWO = m.Config(vcpus=(m.Cpuid(), m.Cpuid()))
LA57 = m.Config(m.Host(la57=True, s_cet=4), (m.Cpuid(),))
NO_XSAVES = m.Config(vcpus=(m.Cpuid(xsaves=False, xss=0),))
FEATURES = {
    "both": m.Cpuid(),
    "shstk": SHSTK_ONLY,
    "ibt": IBT_ONLY,
    "neither": NEITHER,
    "no-lm": m.Cpuid(lm=False),
}
NESTED, ONE_REG = frozenset({"nested"}), frozenset({"one-reg"})
"""What a candidate must have."""


def _plain() -> dict[str, Scope]:
    """One theme in one world each."""
    ignoring = m.Config(vcpus=(NEITHER,), ignore_msrs=True)
    return {
        "core": Scope(ONE, running.core()),
        "bypass": Scope(ONE, running.bypass()),
        "bypass-neither": Scope(m.Config(vcpus=(NEITHER,)), (*running.bypass(), Step(m.HostTask(0)))),
        "torn": Scope(ONE, running.torn(), depth=5),
        "pair": Scope(TWO, running.pair(range(4, 5)), depth=6),
        "control": Scope(ONE, setup.control()),
        "registers-host": Scope(ONE, tuple(values.registers_of_host()), depth=3, needs=ONE_REG),
        "registers-guest": Scope(ONE, tuple(values.registers_of_guest()), depth=4),
        "recreated": Scope(ONE, kept.recreated(), depth=6, needs=ONE_REG),
        "stale-reads": Scope(ONE, values.stale(), sequences=3, needs=ONE_REG),
        "control-ibt": Scope(m.Config(vcpus=(IBT_ONLY,)), setup.control()),
        "control-neither": Scope(m.Config(vcpus=(NEITHER,)), setup.control()),
        "smm": Scope(ONE, setup.smm(), depth=6, needs=frozenset({"smm"})),
        "smm-ibt": Scope(m.Config(vcpus=(IBT_ONLY,)), setup.smm(), depth=5, needs=frozenset({"smm"})),
        "emulator": Scope(ONE, setup.emulator(), depth=5, needs=frozenset({"emulator"})),
        "setting-up": Scope(ONE, setup.setting_up(), depth=3),
        "filtered": Scope(ONE, setup.filtered(), sequences=4),
        "bereft": Scope(ONE, setup.bereft(), depth=6, needs=ONE_REG),
        "setting-up-sev-es": Scope(
            m.Config(m.Host(vendor="amd", sev_es=True), (m.Cpuid(),)), setup.setting_up(), depth=3
        ),
        "setting-up-without-cet": Scope(values.PRESENCE["host-no-cet"], setup.setting_up(), depth=2),
        "vmread-entry-alone": Scope(m.Config(m.Host(load_cet_exit=False)), nesting.vmread(), depth=2, needs=NESTED),
        "vmread-exit-alone": Scope(m.Config(m.Host(load_cet_entry=False)), nesting.vmread(), depth=2, needs=NESTED),
        "capabilities": Scope(m.Config(vcpus=()), _loading("intel"), depth=2),
        "capabilities-svm": Scope(m.Config(AMD, ()), _loading("amd"), depth=2),
        "reloaded": Scope(m.Config(vcpus=()), setup.reloaded(), depth=7, needs=NESTED),
        "reloaded-svm": Scope(m.Config(AMD, ()), setup.reloaded(), depth=7, needs=NESTED),
        "nested-vmx": Scope(ONE, nesting.nested(), depth=2, needs=NESTED),
        "nested-svm": Scope(SVM, nesting.nested(), depth=2, needs=NESTED),
        "switches-vmx": Scope(ONE, nesting.switches(), depth=5, needs=NESTED),
        "switches-svm": Scope(SVM, nesting.switches(), depth=5, needs=NESTED),
        "nested-pair-vmx": Scope(TWO, nesting.nested_pair(), depth=7, needs=NESTED),
        "nested-pair-svm": Scope(m.Config(AMD, (SHSTK_ONLY, SHSTK_ONLY)), nesting.nested_pair(), depth=7, needs=NESTED),
        "userspace-in-l2": Scope(ONE, nesting.userspace_in_l2(), depth=7, needs=NESTED | ONE_REG),
        "userspace-in-l2-svm": Scope(SVM, nesting.userspace_in_l2(), depth=7, needs=NESTED | ONE_REG),
        "restored": Scope(ONE, nesting.restored(), depth=8, needs=NESTED),
        "two-vmcb12s": Scope(SVM, nesting.two_vmcb12s(), depth=9, needs=NESTED),
        "moved-svm": Scope(SVM, nesting.moved_svm(), depth=7, needs=NESTED),
        "reset-in-mode": Scope(ONE, nesting.reset_in_mode(), depth=7, needs=NESTED | frozenset({"smm"})),
        "reset-in-mode-svm": Scope(SVM, nesting.reset_in_mode(), depth=7, needs=NESTED | frozenset({"smm"})),
        "host-xss": Scope(m.Config(m.Host(own_xss=0x800), (m.Cpuid(),)), values.host_xss(), depth=6),
        "host-xss-sev-es": Scope(
            m.Config(m.Host(vendor="amd", ibt=False, sev_es=True, own_xss=0x800), (m.Cpuid(),)),
            values.host_xss(),
            depth=6,
        ),
        "others": Scope(TWO, kept.others(), depth=4),
        "migrated-svm": Scope(SVM, nesting.migrated_svm(), depth=8, needs=NESTED | ONE_REG),
        "userspace-ignoring": Scope(ignoring, values.userspace(), depth=1, needs=ONE_REG),
        "guest-values-ignoring": Scope(ignoring, tuple(values.guest_values()), depth=2),
        "pair-wide": Scope(TWO, running.pair(range(12)), depth=7, in_gate=False),
    }


def _loading(vendor: str) -> tuple[Step, ...]:
    """The module loaded on each host of a vendor, and what is asked of it then."""
    probes = (m.SupportedXss(), m.MsrIndexList(), m.NestedCapabilities())
    return (*(Step(m.VendorInit(host)) for host in HOSTS if host.vendor == vendor), *map(Step, probes))


def _kept() -> dict[str, Scope]:
    """All registers, and what should leave them alone, by topic and world."""
    scopes = {}
    worlds = {"": ONE, "-ibt": m.Config(vcpus=(IBT_ONLY,)), "-shstk": m.Config(vcpus=(SHSTK_ONLY,)), "-amd": SVM}
    for (topic, between), (name, config) in product(kept.KEPT.items(), worlds.items()):
        if not name or topic in ("reset", "control", "nested", "refused"):
            steps = kept.kept(values.fitting(config.vcpus[0]), *between)
            scopes[f"kept-{topic}{name}"] = Scope(config, steps, depth=7, needs=_needs(steps))
    return scopes


def _values() -> dict[str, Scope]:
    """Values by way and by what the vCPU has."""
    scopes = {"sizes": Scope(ONE, values.sizes(), depth=5)}
    scopes |= {f"zero-{msr:x}": Scope(ONE, values.zero(msr), depth=4) for msr in k.MSRS}
    scopes["host-values-la57"] = Scope(LA57, tuple(values.host_values()), depth=1, needs=ONE_REG)
    scopes["nested-vmx-la57"] = Scope(LA57, nesting.nested(), depth=2, needs=NESTED)
    scopes["userspace-no-xsaves"] = Scope(NO_XSAVES, values.userspace(), depth=1, needs=ONE_REG)
    for name, cpuid in FEATURES.items():
        config = m.Config(vcpus=(cpuid,))
        scopes[f"userspace-{name}"] = Scope(config, values.userspace(), depth=2, needs=ONE_REG)
        scopes[f"host-values-{name}"] = Scope(config, tuple(values.host_values()), depth=1, needs=ONE_REG)
        scopes[f"guest-values-{name}"] = Scope(config, tuple(values.guest_values()), depth=2)
    return scopes


SCOPES = {
    **_plain(),
    **{
        f"presence-{name}": Scope(config, tuple(values.presence()), depth=2) for name, config in values.PRESENCE.items()
    },
    **_kept(),
    **_values(),
    **{
        f"torn-{name}-{point}": Scope(ONE, steps(point), depth=3 if name in ("reset", "ioctl") else 4)
        for name, (steps, points) in running.TORN.items()
        for point in range(points)
    },
    **{
        f"nested-vmx-{name}": Scope(m.Config(vcpus=(FEATURES[name],)), nesting.nested(), depth=2, needs=NESTED)
        for name in ("shstk", "ibt")
    },
}
