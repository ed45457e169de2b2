"""Binding the driver to a device, and taking it away."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes
from conformance.model.uio_msi.operations import NOTHING_REFUSED, Answers, Errno
from conformance.model.uio_msi.state import NONE_LOST, State, number_of_vectors
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EINVAL, ENODEV, ENOMEM, ENOSPC


def probe(state: State, answers: Answers, profile: Profile) -> Outcomes:
    """Bind the device.

    What the environment refused       its errno, -ENOMEM for NULL; nothing is left (UIO-060, UIO-061)
    no MSI-X, and INTx not maskable    -EINVAL or -ENODEV (UIO-066)
    a bridge                           -ENODEV; 0 breaks UIO-073
    otherwise                          0, registered (UIO-059); afresh if bound before (UIO-077)

    Source: uio_msi as posted, uio_msi_probe.
    """
    config = state.config
    refusals: dict[int, Clause] = {}
    for errno in _probe_refusals(answers, profile):
        refusals.setdefault(errno, c.PROBE_FORWARDS_ERRNO)
    if not config.vectors and not config.intx:
        refusals.setdefault(-EINVAL, c.NO_USABLE_INTERRUPT)
        refusals.setdefault(-ENODEV, c.NO_USABLE_INTERRUPT)
    if config.bridge:
        refusals.setdefault(-ENODEV, c.BRIDGES_REFUSED)
    if config.msix_broken and answers == NOTHING_REFUSED:
        return _probe_of_broken_msix(state)
    refused = tuple(
        Outcome(state, errno, because, effect=c.FAILED_PROBE_LEAVES_NOTHING) for errno, because in refusals.items()
    )
    if not refused:
        return _bound(state)
    if list(refusals.values()) == [c.BRIDGES_REFUSED]:
        return (*refused, replace(_bound(state), breaches=(c.BRIDGES_REFUSED,)))
    return refused


def _probe_refusals(answers: Answers, profile: Profile) -> tuple[Errno, ...]:
    """What probe may answer to what it met."""
    memory = answers.kzalloc or answers.kcalloc or answers.kasprintf or answers.ioremap
    found = [answers.pci_enable_device, answers.pci_request_regions, answers.uio_register_device]
    found.append(-ENOMEM if memory else 0)
    found.append(-EINVAL if answers.ioremap and profile.ioremap_einval else 0)
    return tuple(errno for errno in found if errno)


def _probe_of_broken_msix(state: State) -> Outcomes:
    """MSI-X is there and cannot be enabled: fall back, or fail; which of the two the first open shows."""
    refused = tuple(
        Outcome(state, errno, c.UNUSABLE_MSIX, effect=c.FAILED_PROBE_LEAVES_NOTHING)
        for errno in (-EINVAL, -ENODEV, -ENOSPC)
    )
    return (replace(_bound(state), also=(c.UNUSABLE_MSIX,)), *refused)


def _bound(state: State) -> Outcome:
    config = state.config
    also: tuple[Clause, ...] = (c.PROBE_MEANS_REGISTERED,)
    if not config.vectors:
        also = (*also, c.INTX_FALLBACK)
    if not any(bar.start and bar.size and not bar.io for bar in config.bars):
        also = (*also, c.PORT_ONLY_DEVICES)
    if state.past == "used":
        also = (*also, c.PROBED_AGAIN)
    bound = state._replace(life="bound", past="new")
    return Outcome(bound, 0, also[-1], c.PROBED_AGAIN if state.past == "used" else None, also[:-1])


def remove(state: State, profile: Profile) -> Outcomes:
    """Unbind: nothing is left, with or without open handles (UIO-074, UIO-075)."""
    # The next probe asks for all vectors again, however few there were (UIO-077).
    torn = torn_down(state, profile)._replace(limit=number_of_vectors(state.config))
    msix = None if state.config.msix_broken else state.msix
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
