"""Opening and closing /dev/uioN."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.matchers import ERRNO
from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.binding import masked_or_not, torn_down
from conformance.model.uio_msi.intx import perhaps_masked
from conformance.model.uio_msi.operations import NOTHING_REFUSED, Answers, Errno, FloodOpens, Open, has_line
from conformance.model.uio_msi.state import Life, Past, State, number_of_vectors
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    EACCES,
    EAGAIN,
    EBUSY,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOSPC,
    EPERM,
    ERANGE,
)


def open_device(state: State, op: Open, answers: Answers, profile: Profile) -> Outcomes:
    """Open a handle.

    no device                          an errno, by the core; or by a driver that is being removed
    enabling MSI-X refused             its errno; not counted (UIO-048, UIO-051); or 0, enabled at a further attempt
    anything else refused              its errno, -ENOMEM for NULL; not counted. request_irq may be made up for at a set
    only k vectors to be had           -ENOSPC, or 0 with max_vectors up to k until the last release (UIO-050)
    without CAP_SYS_RAWIO              -EPERM or -EACCES; 0 breaks UIO-089
    no interrupt at all                0, or any errno (UIO-094); beside MSI-X that breaks UIO-068
    otherwise                          0; the first open enables all vectors (UIO-047)

    Source: uio_msi as posted, uio_msi_open; drivers/uio/uio.c uio_open.
    """
    if state.life != "bound":
        return Outcome(state, ERRNO, c.PROBE_MEANS_REGISTERED)
    opened = _opened(state, answers, profile)
    if op.rawio:
        return opened
    denied = [
        Outcome(state, errno, c.OPEN_IS_PRIVILEGED, effect=c.FAILED_OPEN_NOT_COUNTED) for errno in (-EPERM, -EACCES)
    ]
    tolerated = (replace(o, breaches=(*o.breaches, c.OPEN_IS_PRIVILEGED)) if o.result == 0 else o for o in each(opened))
    return (*denied, *tolerated)


def _opened(state: State, answers: Answers, profile: Profile) -> Outcomes:
    more = state._replace(opens=state.opens + 1, past="new")
    refused = state if state.opens else state._replace(past="refused")
    met = _met(answers)
    if met:
        clause = c.FAILED_OPEN_NOT_COUNTED
        also = (c.REQUEST_ERRNO_FORWARDED,) if answers.request_irq else ()
        failed = tuple(Outcome(refused, e, clause, clause, also if e == answers.request_irq else ()) for e in met)
        if met != (answers.request_irq,) or state.msix:
            return failed
        return (*failed, *each(_opened(state, replace(answers, request_irq=0), profile)))
    if state.config.msix_broken and state.msix is not False:
        useless = Outcome(refused._replace(msix=True), -EINVAL, c.UNUSABLE_MSIX, breaches=(c.UNUSABLE_MSIX,))
        fallen = Outcome(more._replace(msix=False), 0, c.UNUSABLE_MSIX)
        if state.msix or not has_line(state.config):
            return useless
        return (*perhaps_masked(fallen), useless)
    if not state.msix and not has_line(state.config):
        breaches = (c.UNUSABLE_MSIX,) if state.config.vectors else ()
        return (
            Outcome(more, 0, c.NO_LINE, breaches=breaches),
            Outcome(refused, ERRNO, c.NO_LINE, c.FAILED_OPEN_NOT_COUNTED, breaches=breaches),
        )
    because = _OPENED_AFTER[state.past]
    if not state.msix:
        plain = Outcome(more, 0, c.INTX_FALLBACK if because is c.FIRST_OPEN_ENABLES else because)
        return perhaps_masked(plain)
    if state.opens:
        return Outcome(more, 0, because, effect=c.FIRST_OPEN_ENABLES)
    had, full = answers.pci_enable_msix, number_of_vectors(state.config)
    if had < 0:
        effect = c.FAILED_OPEN_NOT_COUNTED
        given_up = Outcome(refused, had, c.ENABLE_ERRNO_FORWARDED, effect, also=(c.OPEN_NEVER_POSITIVE, effect))
        return (given_up, *_with_fewer(more, full, c.ENABLE_ERRNO_FORWARDED))
    if had > 0:
        return _short_of_vectors(refused, more, full, profile)
    if state.limit < full:
        return (
            Outcome(_resized(more, full), 0, because, effect=because),
            Outcome(more, 0, because, effect=because, breaches=(c.SHORT_OF_VECTORS,)),
        )
    return Outcome(more, 0, because, effect=because)


def _met(answers: Answers) -> tuple[Errno, ...]:
    """What an open met beside MSI-X, as it must answer to it."""
    memory = answers.kzalloc or answers.kcalloc or answers.kasprintf or answers.ioremap
    found = (answers.pci_enable_device, answers.pci_request_regions, answers.request_irq, -ENOMEM if memory else 0)
    return tuple(errno for errno in found if errno)


_OPENED_AFTER: dict[Past, Clause] = {
    "new": c.FIRST_OPEN_ENABLES,
    "used": c.REOPEN_STARTS_CLEAN,
    "refused": c.FAILED_OPEN_NOT_COUNTED,
}
"""What an open that succeeds shows, by what came before it."""


def _short_of_vectors(state: State, more: State, full: int, profile: Profile) -> Outcomes:
    """-ENOSPC, or what could be had; a positive result is the one thing that cannot be (UIO-049).

    How many that is a further attempt decides, at which as many may be free as were wanted.
    Another errno breaks UIO-050, except where any that is like -ENOSPC will do.
    """
    because, effect, also = c.OPEN_NEVER_POSITIVE, c.FAILED_OPEN_NOT_COUNTED, (c.SHORT_OF_VECTORS,)
    refused = Outcome(state, -ENOSPC, because, effect, also)
    breaches = () if profile.short_enable == "negative" else also
    others = (Outcome(state, errno, because, effect, breaches=breaches) for errno in _LIKE_ENOSPC)
    return (refused, *_with_fewer(more, full, because), *others)


_LIKE_ENOSPC = (-ENOMEM, -EBUSY, -EINVAL, -EIO, -ENODEV, -EAGAIN, -ERANGE)


def _with_fewer(opened: State, most: int, because: Clause) -> tuple[Outcome, ...]:
    """Enabled at a further attempt, with some number of vectors; the view tells how many."""
    return tuple(Outcome(_resized(opened, count), 0, because, c.SHORT_OF_VECTORS) for count in range(most, 0, -1))


def _resized(state: State, limit: int) -> State:
    """Another max_vectors; nothing is mapped beyond it."""
    return state._replace(limit=limit)


def close_device(state: State, profile: Profile) -> Outcomes:
    """Close a handle: the last one tears everything down (UIO-053), others nothing (UIO-052).

    After remove nothing is left to tear down (UIO-076).
    """
    opens = state.opens - 1
    if state.life == "gone":
        life: Life = "gone" if opens else "unbound"
        old_core = profile.core == "4.1" or state.config.core_41
        because = c.CLOSE_AFTER_REMOVE if old_core else c.RELEASE_RETURNS_ZERO
        return Outcome(state._replace(opens=opens, life=life, past="new" if opens else "used"), 0, because, because)
    if opens:
        return Outcome(state._replace(opens=opens), 0, c.RELEASE_RETURNS_ZERO, c.RELEASE_WITH_OTHERS)
    closed = torn_down(state, profile)._replace(opens=0, past="used")
    return tuple(Outcome(left, 0, c.RELEASE_RETURNS_ZERO, c.LAST_RELEASE_TEARS_DOWN) for left in masked_or_not(closed))


def flood_opens(state: State, op: FloodOpens, profile: Profile) -> Outcomes:
    """So many opens, each handle closed at once: as one of each (UIO-087 looks at the log)."""
    opened = each(open_device(state, Open(op.rawio), NOTHING_REFUSED, profile))
    return tuple(
        replace(o, state=closed.state)
        for o in opened
        for closed in (each(close_device(o.state, profile)) if o.result == 0 else (o,))
    )


def after_remove(state: State) -> Outcome:
    """The core answers, or the driver, where a remove that has torn down already waits for its callbacks."""
    return Outcome(state, ERRNO, c.MEMORY_SAFE)
