"""What the specification must remember."""

from __future__ import annotations

from typing import Literal, NamedTuple

from conformance.model.uio_msi.operations import DECOY_COUNT, Config
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi.constants import MAX_MSIX_VECTORS

Life = Literal["unbound", "bound", "gone"]
"""`gone`: removed while handles are open."""
Past = Literal["new", "used", "refused"]
"""`used`: bound or opened before; `refused`: the last open failed; `new` otherwise, and while open."""
CLOSED = -1
"""In `State.fds`: the number is not in use."""
PIPE = -2
"""In `State.fds`: the number names a pipe."""


class State(NamedTuple):
    """The device as driver, hardware and user space left it."""

    config: Config
    life: Life
    past: Past
    """While unbound or closed, what happened before."""
    opens: int
    """Handles open."""
    msix: bool | None
    """MSI-X mode, else INTx; None while it is open whether the driver fell back."""
    limit: int
    """max_vectors."""
    wired: tuple[int | None, ...]
    """The eventfd each vector signals, by vector number; None while unmapped."""
    pending: tuple[bool, ...]
    """Events the function holds back, by vector number."""
    lost: frozenset[int]
    """Vectors whose message a reset cleared."""
    counters: tuple[int, ...]
    """Of each eventfd, the decoy last."""
    fds: tuple[int, ...]
    """What user fd FIRST_FD + i names: an eventfd's index, CLOSED or PIPE."""
    asserted: bool
    """The function asserts INTx."""
    masked: bool
    """The disable bit while INTx is mapped; False while the driver may leave it either way."""
    user_unmasks: bool
    """Whether user space writes the disable bit while the device is open, because nothing else unmasks INTx."""
    was_reset: bool
    """The function was reset since MSI-X was enabled: what `lost` says of an unmapped vector is a guess."""
    may_use_intx: bool
    """A trial of MSI-X was refused at probe: by which of the two the function interrupts its driver chooses."""


NONE_LOST: frozenset[int] = frozenset()


def number_of_vectors(config: Config) -> int:
    """max_vectors in the mode that the function's capabilities ask for (UIO-065)."""
    return min(config.vectors, MAX_MSIX_VECTORS) if config.vectors and not config.msix_broken else 1


def initial(config: Config, profile: Profile) -> State:
    """Before the first probe."""
    vectors = number_of_vectors(config)
    return State(
        config=config,
        life="unbound",
        past="new",
        opens=0,
        msix=None if config.msix_broken else bool(config.vectors),
        limit=vectors,
        wired=(None,) * vectors,
        pending=(False,) * vectors,
        lost=NONE_LOST,
        counters=(*(eventfd.count for eventfd in config.eventfds), DECOY_COUNT),
        fds=tuple(range(len(config.eventfds))),
        asserted=False,
        masked=config.left_masked and profile.intx_unmask == "user",
        user_unmasks=profile.intx_unmask == "user",
        was_reset=False,
        may_use_intx=False,
    )
