"""Binding the driver to a device, and taking it away."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes
from conformance.model.uio_msi.operations import Answers, Config, Errno, has_line
from conformance.model.uio_msi.state import NONE_LOST, State, number_of_vectors
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EINVAL, EIO, ENODEV, ENOMEM, ENOSPC, ENOTCONN


def probe(state: State, answers: Answers, profile: Profile) -> Outcomes:
    """Bind the device.

    What the environment refused       its errno, -ENOMEM for NULL; nothing is left (UIO-060, UIO-061)
    a trial of MSI-X was refused       its errno; or 0, to try again at open, or in INTx mode for good (UIO-068)
    no MSI-X, and INTx not maskable    -EINVAL or -ENODEV (UIO-066)
    no MSI-X, and no irq               -EINVAL, -ENODEV or -ENOTCONN; or 0, and every set fails (UIO-094)
    a bridge                           -ENODEV; 0 breaks UIO-073
    otherwise                          0, registered (UIO-059); afresh if bound before (UIO-077)

    Source: uio_msi as posted, uio_msi_probe.
    """
    refusals = dict.fromkeys(_probe_refusals(answers, profile), c.PROBE_FORWARDS_ERRNO)
    bound: tuple[Outcome, ...] = () if refusals else _bound(state)
    if answers.pci_enable_msix:
        trial = (answers.pci_enable_msix,) if answers.pci_enable_msix < 0 else (-ENOSPC, -EIO)
        for errno in trial:
            refusals.setdefault(errno, c.PROBE_FORWARDS_ERRNO)
        if bound:
            bound = tuple(replace(o, state=o.state._replace(may_use_intx=True)) for o in bound)
        if bound and state.config.intx:
            fallen = bound[0].state._replace(msix=False, limit=1)
            because = c.UNUSABLE_MSIX if has_line(state.config) else c.NO_LINE
            # Who left MSI-X alone, or never had it, finds the disable bit as it was.
            bound = (*bound, *(Outcome(left, 0, because) for left in masked_or_not(fallen)))
    for errno, because in _unusable(state, answers).items():
        refusals.setdefault(errno, because)
    refused = tuple(
        Outcome(state, errno, because, effect=c.FAILED_PROBE_LEAVES_NOTHING) for errno, because in refusals.items()
    )
    return (*bound, *refused) if state.config.msix_broken else (*refused, *bound)


def _probe_refusals(answers: Answers, profile: Profile) -> tuple[Errno, ...]:
    """What probe must answer to what it met."""
    memory = answers.kzalloc or answers.kcalloc or answers.kasprintf or answers.ioremap
    found = [answers.pci_enable_device, answers.pci_request_regions, answers.uio_register_device, answers.request_irq]
    found.append(-ENOMEM if memory else 0)
    found.append(-EINVAL if answers.ioremap and profile.ioremap_einval else 0)
    return tuple(errno for errno in found if errno)


def _unusable(state: State, answers: Answers) -> dict[Errno, Clause]:
    """What probe may answer to what the function is, or is left with once a trial of MSI-X failed."""
    config = state.config
    found: dict[Errno, Clause] = {-ENODEV: c.BRIDGES_REFUSED} if _is_bridge(config) else {}
    if config.msix_broken:
        return dict.fromkeys((-EINVAL, -ENODEV, -ENOSPC), c.UNUSABLE_MSIX) | found
    if has_line(config) or (config.vectors and not answers.pci_enable_msix):
        return found
    if config.intx:
        return dict.fromkeys((-EINVAL, -ENODEV, -ENOTCONN), c.NO_LINE) | found
    return dict.fromkeys((-EINVAL, -ENODEV), c.NO_USABLE_INTERRUPT) | found


def _is_bridge(config: Config) -> bool:
    return config.bridge or config.cardbus


def _bound(state: State) -> tuple[Outcome, ...]:
    """The device is bound; not where it has no interrupt that could be masked."""
    config = state.config
    if not config.vectors and not config.intx:
        return ()
    also: tuple[Clause, ...] = (c.PROBE_MEANS_REGISTERED,)
    if not config.vectors:
        also = (*also, c.INTX_FALLBACK if has_line(config) else c.NO_LINE)
    if not any(bar.start and bar.size and not bar.io for bar in config.bars):
        also = (*also, c.PORT_ONLY_DEVICES)
    if state.past == "used":
        also = (*also, c.PROBED_AGAIN)
    if config.msix_broken:
        also = (c.UNUSABLE_MSIX, *also)
    bound = state._replace(life="bound", past="new")
    effect = c.PROBED_AGAIN if state.past == "used" else None
    breaches = (c.BRIDGES_REFUSED,) if _is_bridge(config) else ()
    return (Outcome(bound, 0, also[-1], effect, also[:-1], breaches),)


def remove(state: State, profile: Profile) -> Outcomes:
    """Unbind: nothing is left, with or without open handles (UIO-074, UIO-075)."""
    # The next probe asks for all vectors again, however few there were (UIO-077).
    torn = torn_down(state, profile)._replace(limit=number_of_vectors(state.config), may_use_intx=False)
    msix = None if state.config.msix_broken else bool(state.config.vectors)
    if state.opens:
        gone, because = torn._replace(life="gone", msix=msix, past="new"), c.REMOVE_WHILE_OPEN
    else:
        gone, because = torn._replace(life="unbound", msix=msix, past="used"), c.REMOVE_LEAVES_NOTHING
    return tuple(Outcome(left, 0, because, effect=because) for left in masked_or_not(gone))


def torn_down(state: State, profile: Profile) -> State:
    """Nothing mapped, MSI-X off."""
    vectors = len(state.wired)
    return state._replace(
        wired=(None,) * vectors,
        pending=(False,) * vectors,
        lost=NONE_LOST,
        was_reset=False,
        masked=state.masked and profile.intx_unmask == "user",
    )


def masked_or_not(state: State) -> tuple[State, ...]:
    """A driver that never unmasks may still leave the disable bit as it found it (UIO-084)."""
    if not state.user_unmasks or state.msix:
        return (state,)
    return (state, state._replace(masked=not state.masked))
