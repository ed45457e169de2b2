"""The clauses of uio_msi."""

from __future__ import annotations

from conformance.specs.clause import Clause, Kind, Level

# -- Command decoding

UNKNOWN_COMMAND = Clause(
    id="UIO-001",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An ioctl whose command is not UIO_MSI_IRQ_SET is refused with the unknown-command errno and changes nothing.",
    source="uio_msi as posted, uio_msi_ioctl; ENOTTY by the kernel's ioctl convention",
)

UNKNOWN_IGNORES_ARGUMENT = Clause(
    id="UIO-002",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The answer to an unknown command does not depend on the argument, not even on a bad pointer.",
    source="uio_msi as posted, uio_msi_ioctl",
)

WHOLE_COMMAND_COMPARED = Clause(
    id="UIO-003",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The whole 32-bit command is compared, direction and size bits included.",
    source="uio_msi as posted, uio_msi_ioctl",
)

BAD_POINTER = Clause(
    id="UIO-004",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "When the 8 bytes cannot be copied, wholly or partly, the answer is -EFAULT, nothing changes and no lock "
        "stays held."
    ),
    source="uio_msi as posted, uio_msi_ioctl",
)

ARGUMENT_FETCHED_ONCE = Clause(
    id="UIO-005",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="The argument is fetched once; what user space writes there afterwards has no effect.",
    source="general rule against double fetches (TOCTOU)",
)

ARGUMENT_IS_EIGHT_BYTES = Clause(
    id="UIO-006",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The argument is the 8 bytes at the pointer, aligned or not, and nothing beyond them is read.",
    source="uio_msi as posted, the uapi header",
)

COMPAT_IDENTICAL = Clause(
    id="UIO-007",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A 32-bit caller gets the behaviour a 64-bit caller gets for the same bytes.",
    source="layout of struct uio_msi_irq_set; VFIO uses compat_ptr_ioctl for the same situation",
    needs=frozenset({"compat"}),
)

COPY_OUTSIDE_MUTEX = Clause(
    id="UIO-008",
    level=Level.SHOULD,
    kind=Kind.ENV_PROTOCOL,
    text="User memory is not accessed while the device's mutex is held.",
    source="uio_msi as posted, uio_msi_ioctl: the copy precedes the lock",
)

# -- UIO_MSI_IRQ_SET

NO_SUCH_VECTOR = Clause(
    id="UIO-009",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A vector not below max_vectors, taken as unsigned, is refused with the out-of-range errno.",
    source="uio_msi as posted, set_irq_eventfd; VFIO vfio_set_irqs_validate_and_prepare answers -EINVAL",
)

NO_SUCH_VECTOR_TOUCHES_NOTHING = Clause(
    id="UIO-010",
    level=Level.MUST,
    kind=Kind.STATE,
    text="After a vector out of range nothing has changed, the fd was not looked up and no irq call was made.",
    source="uio_msi as posted, set_irq_eventfd",
)

ORDER_OF_CHECKS = Clause(
    id="UIO-011",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Checks come in the order command, copy, vector range, negative fd, fd look-up, irq request; the first "
        "that fails decides the errno."
    ),
    source="uio_msi as posted, uio_msi_ioctl and set_irq_eventfd",
)

MINUS_ONE_DETACHES = Clause(
    id="UIO-012",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="fd -1 on a mapped vector unmaps it and returns 0.",
    source="uio_msi as posted, set_irq_eventfd",
)

DETACHING_TWICE_IS_FINE = Clause(
    id="UIO-013",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="fd -1 on an unmapped vector returns 0 and has no effect on irqs or eventfds.",
    source="uio_msi as posted, set_irq_eventfd",
)

ANY_NEGATIVE_DETACHES = Clause(
    id="UIO-014",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Every other negative fd behaves as -1 does.",
    source="uio_msi as posted, set_irq_eventfd; VFIO vfio_msi_set_vector_signal",
)

BAD_FD = Clause(
    id="UIO-015",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An fd not open in the caller or opened with O_PATH gives -EBADF, an open one that is no eventfd -EINVAL; "
        "the look-up's errno is forwarded unchanged."
    ),
    source="uio_msi as posted, set_irq_eventfd; fs/eventfd.c eventfd_ctx_fdget",
)

SET_RETURNS_ZERO = Clause(
    id="UIO-016",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A successful set returns exactly 0.",
    source="uio_msi as posted, set_irq_eventfd",
)

ONE_REFERENCE_EACH = Clause(
    id="UIO-017",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="Each mapped vector holds exactly one eventfd reference, and a failed set holds no new one.",
    source="uio_msi as posted, set_irq_eventfd",
)

FD_NAMES_OBJECT = Clause(
    id="UIO-018",
    level=Level.MUST,
    kind=Kind.STATE,
    text="The vector is mapped to the eventfd that the fd named at the time of the call.",
    source="fs/eventfd.c eventfd_ctx_fdget: the reference is to the object",
)

REPLACING = Clause(
    id="UIO-019",
    level=Level.MUST,
    kind=Kind.STATE,
    text="After a successful replacement only the new eventfd is signalled and the old reference is dropped.",
    source="uio_msi as posted, set_irq_eventfd",
)

BAD_FD_KEEPS_OLD = Clause(
    id="UIO-020",
    level=Level.SHOULD,
    kind=Kind.STATE,
    text="Replacing with an invalid fd leaves the old mapping working.",
    source="VFIO INTx design: swap, synchronise, then drop; uio_msi as posted loses it",
)

NEVER_HALF_MAPPED = Clause(
    id="UIO-021",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "When replacing fails, in request_irq or before, the vector ends with its old mapping intact or unmapped, "
        "never with one half of a mapping."
    ),
    source="uio_msi as posted, set_irq_eventfd",
)

REQUEST_ERRNO_FORWARDED = Clause(
    id="UIO-022",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="request_irq's errno is returned unchanged.",
    source="uio_msi as posted, set_irq_eventfd",
)

OTHER_VECTORS_UNTOUCHED = Clause(
    id="UIO-023",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A failed set never affects other vectors.",
    source="uio_msi as posted, set_irq_eventfd; contrast VFIO vfio_msi_set_block",
)

SAME_AGAIN = Clause(
    id="UIO-024",
    level=Level.MUST,
    kind=Kind.STATE,
    text="Setting the same eventfd on the same vector again succeeds and leaves one action and one reference.",
    source="uio_msi as posted, set_irq_eventfd",
)

SHARED_EVENTFD = Clause(
    id="UIO-025",
    level=Level.MUST,
    kind=Kind.STATE,
    text="One eventfd may serve several vectors, with one reference for each.",
    source="uio_msi as posted, set_irq_eventfd; VFIO allows it, KVM irqfd does not",
)

FREE_MATCHES_REQUEST = Clause(
    id="UIO-026",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="free_irq is called with the irq and the very dev_id of the matching request_irq.",
    source="kernel/irq/manage.c (4.9) free_irq",
)

REFERENCE_OUTLIVES_HANDLER = Clause(
    id="UIO-027",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="An eventfd reference is dropped only after the handler that uses it was removed and synchronised.",
    source="kernel/irq/manage.c (4.9) free_irq; VFIO, CVE-2024-26812",
)

READY_BEFORE_REQUEST = Clause(
    id="UIO-028",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="All that a handler needs is in place before request_irq, inside which it may already run.",
    source="kernel/irq/manage.c (4.9) request_threaded_irq",
)

CURRENT_IRQ_NUMBERS = Clause(
    id="UIO-029",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="irq numbers come from the current enabling of MSI-X, never from an earlier one.",
    source="drivers/pci/msi.c (4.9) pci_enable_msix",
)

NO_REQUEST_WHILE_DISABLED = Clause(
    id="UIO-030",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="While MSI-X is not enabled a set fails without calling request_irq.",
    source="uio_msi as posted lacks the check; drivers/pci/msi.c (4.9)",
)

SHARED_TABLE = Clause(
    id="UIO-031",
    level=Level.MAY,
    kind=Kind.STATE,
    text="A second opener may change the mappings made through another handle: the table belongs to the device.",
    source="uio_msi as posted: the callbacks do not see who calls",
    untestable=("It permits, and the callbacks do not see who calls, so no driver can keep it from one opener."),
)

MESSAGE_REWRITTEN = Clause(
    id="UIO-032",
    level=Level.SHOULD,
    kind=Kind.ENV_PROTOCOL,
    text="The MSI-X message is rewritten from the cached copy before a vector is unmasked.",
    source="VFIO vfio_msi_set_vector_signal: a backdoor reset may have cleared the table",
)

# -- Delivery

ONE_EVENT_ONE_SIGNAL = Clause(
    id="UIO-033",
    level=Level.MUST,
    kind=Kind.STATE,
    text="One device event on a mapped vector adds exactly 1 to exactly the mapped eventfd and 0 to all others.",
    source="uio_msi as posted, uio_msi_irqhandler",
)

MSIX_HANDLED = Clause(
    id="UIO-034",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The MSI-X handler returns IRQ_HANDLED.",
    source="uio_msi as posted, uio_msi_irqhandler",
)

EVENTS_ADD_UP = Clause(
    id="UIO-035",
    level=Level.MUST,
    kind=Kind.STATE,
    text="n events without a read in between add n to the counter, until it saturates.",
    source="fs/eventfd.c eventfd_signal",
)

SATURATION_DROPS = Clause(
    id="UIO-036",
    level=Level.MUST,
    kind=Kind.STATE,
    text="Signalling does not block: at saturation events are dropped and the handler still returns.",
    source="fs/eventfd.c eventfd_signal",
    untestable=(
        "eventfd_signal is the kernel's own, and the port has no other way to a counter, so no driver of this "
        "interface can break it."
    ),
)

FLAGS_DO_NOT_MATTER = Clause(
    id="UIO-037",
    level=Level.MUST,
    kind=Kind.STATE,
    text="The semaphore and nonblock flags of an eventfd do not change how much is added.",
    source="fs/eventfd.c eventfd_signal",
    untestable=(
        "eventfd_signal is the kernel's own, and the port has no other way to a counter, so no driver of this "
        "interface can break it."
    ),
)

COUNTER_PRESERVED = Clause(
    id="UIO-038",
    level=Level.MUST,
    kind=Kind.STATE,
    text="What an eventfd's counter held before is preserved and added to.",
    source="fs/eventfd.c eventfd_signal",
    untestable=(
        "eventfd_signal is the kernel's own, and the port has no other way to a counter, so no driver of this "
        "interface can break it."
    ),
)

SILENT_AFTER_DETACH = Clause(
    id="UIO-039",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "Once a detaching set has returned no signal reaches the old eventfd, not even from a handler that was running."
    ),
    source="kernel/irq/manage.c (4.9) free_irq waits for handlers",
)

SILENT_AFTER_RELEASE = Clause(
    id="UIO-040",
    level=Level.MUST,
    kind=Kind.STATE,
    text="Once the last release or remove has returned no signal reaches any eventfd.",
    source="kernel/irq/manage.c (4.9) free_irq waits for handlers",
)

UNMAPPED_EVENT_HELD = Clause(
    id="UIO-041",
    level=Level.MUST,
    kind=Kind.STATE,
    text="An event on an enabled but unmapped vector is signalled nowhere and held, by its pending bit or the driver.",
    source="PCI Local Bus 3.0, 6.8.2 (cited from general knowledge)",
)

HELD_EVENT_DELIVERED_ONCE = Clause(
    id="UIO-042",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A held event is delivered exactly once when the vector is mapped.",
    source="PCI Local Bus 3.0, 6.8.2 (cited from general knowledge)",
)

EVENT_WHILE_REPLACING = Clause(
    id="UIO-043",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "An event between the removal of the old mapping and the installation of the new one is delivered to the "
        "new one, exactly once."
    ),
    source="PCI Local Bus 3.0, 6.8.2 (cited from general knowledge)",
)

CLOSED_FD_STILL_SIGNALLED = Clause(
    id="UIO-044",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "Closing the user's fd makes delivery neither fail nor go elsewhere: the driver's reference keeps the "
        "eventfd alive."
    ),
    source="fs/eventfd.c eventfd_ctx_fdget",
)

HANDLERS_DO_NOT_SLEEP = Clause(
    id="UIO-045",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="Handlers take no sleeping lock, allocate nothing and look up no fd.",
    source="interrupt context rules of the kernel",
)

POLLERS_WOKEN = Clause(
    id="UIO-046",
    level=Level.SHOULD,
    kind=Kind.STATE,
    text="Who polls the eventfd is woken by each delivery.",
    source="fs/eventfd.c eventfd_signal",
    untestable=(
        "eventfd_signal is the kernel's own, and the port has no other way to a counter, so no driver of this "
        "interface can break it."
    ),
)

# -- Open and release

FIRST_OPEN_ENABLES = Clause(
    id="UIO-047",
    level=Level.MUST,
    kind=Kind.STATE,
    text="The first open enables MSI-X exactly once, and further opens do not touch it.",
    source="uio_msi as posted, uio_msi_open",
)

FAILED_OPEN_NOT_COUNTED = Clause(
    id="UIO-048",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A failed open is not counted, so that the next open tries again.",
    source="the VFS calls no release for a failed open; igb_uio ab856f2947",
)

OPEN_NEVER_POSITIVE = Clause(
    id="UIO-049",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="open returns 0 or a negative errno, never a positive value.",
    source="fs/open.c do_dentry_open",
)

SHORT_OF_VECTORS = Clause(
    id="UIO-050",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text=(
        "With fewer vectors available than asked for, open fails with -ENOSPC, or enables fewer and lowers max_vectors "
        "until the last release."
    ),
    source="drivers/pci/msi.c (4.9) pci_enable_msix returns the number that could be had",
)

ENABLE_ERRNO_FORWARDED = Clause(
    id="UIO-051",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The negative errno of enabling MSI-X is what open returns.",
    source="uio_msi as posted, uio_msi_open",
)

RELEASE_WITH_OTHERS = Clause(
    id="UIO-052",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A release while others hold the device open changes nothing.",
    source="uio_msi as posted, uio_msi_release",
)

LAST_RELEASE_TEARS_DOWN = Clause(
    id="UIO-053",
    level=Level.MUST,
    kind=Kind.STATE,
    text="The last release unmaps every vector and then disables MSI-X, in one critical section.",
    source="uio_msi as posted, uio_msi_release",
)

DISABLED_AFTER_LAST_FREE = Clause(
    id="UIO-054",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="MSI-X is disabled only after the last action was freed.",
    source="drivers/pci/msi.c (4.9) free_msi_irqs: BUG otherwise",
)

RELEASE_RETURNS_ZERO = Clause(
    id="UIO-055",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="release returns 0.",
    source="uio_msi as posted, uio_msi_release",
)

REOPEN_STARTS_CLEAN = Clause(
    id="UIO-056",
    level=Level.MUST,
    kind=Kind.STATE,
    text="An open after the last release starts with nothing mapped and uses the new irq numbers.",
    source="uio_msi as posted, uio_msi_open; drivers/pci/msi.c (4.9)",
)

NO_DMA_WHILE_CLOSED = Clause(
    id="UIO-057",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="The first open turns bus mastering on and the last release turns it off.",
    source="uio_pci_generic release; igb_uio b58eedfc7d",
)

NO_IMPLICIT_RESET = Clause(
    id="UIO-058",
    level=Level.MUST_NOT,
    kind=Kind.STATE,
    text="open and release do not reset the function.",
    source="igb_uio f73b38e924 and 369db3ae8e removed that after reports of broken VFs and host crashes",
)

# -- Probe, remove, resources

PROBE_MEANS_REGISTERED = Clause(
    id="UIO-059",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="probe returns 0 if and only if the device is registered with the UIO core.",
    source="uio_msi as posted, uio_msi_probe",
)

PROBE_FORWARDS_ERRNO = Clause(
    id="UIO-060",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "When an environment call of probe fails, probe returns its errno, and -ENOMEM for an allocation or a "
        "mapping that gave NULL."
    ),
    source="uio_msi as posted, uio_msi_probe; its -EINVAL for ioremap is accepted in as-posted",
)

FAILED_PROBE_LEAVES_NOTHING = Clause(
    id="UIO-061",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="A failed probe leaves nothing behind.",
    source="driver model: the core does not call remove after a failed probe",
)

NOTHING_RELEASED_TWICE = Clause(
    id="UIO-062",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="Nothing is released twice, and nothing that was never acquired.",
    source="kernel rules for iounmap, kfree, pci_release_regions, pci_disable_device",
)

REVERSE_ORDER = Clause(
    id="UIO-063",
    level=Level.SHOULD,
    kind=Kind.ORDERING,
    text="Resources are released in the reverse order of their acquisition.",
    source="igb_uio a0b6ce5051",
)

REGISTERED_LAST = Clause(
    id="UIO-064",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="Registration with the core comes after everything that callbacks use is initialised.",
    source="uio_msi as posted, uio_msi_probe: open may follow at once",
)

NUMBER_OF_VECTORS = Clause(
    id="UIO-065",
    level=Level.MUST,
    kind=Kind.STATE,
    text="max_vectors is the smaller of the MSI-X table size and 64, and 1 with INTx.",
    source="uio_msi as posted, uio_msi_probe",
)

NO_USABLE_INTERRUPT = Clause(
    id="UIO-066",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A function without MSI-X whose INTx cannot be masked is refused, with -EINVAL or -ENODEV.",
    source="uio_msi as posted, uio_msi_probe; uio_pci_generic",
)

INTX_FALLBACK = Clause(
    id="UIO-067",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A function without MSI-X whose INTx can be masked is bound in INTx mode.",
    source="uio_msi as posted, uio_msi_probe (intended there)",
    needs=frozenset({"intx"}),
)

UNUSABLE_MSIX = Clause(
    id="UIO-068",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text=(
        "Where MSI-X is there but can never be enabled, probe falls back to INTx or fails, rather than every open "
        "failing."
    ),
    source="igb_uio 4094930e55",
)

BARS_EXPORTED = Clause(
    id="UIO-069",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "Each memory BAR appears in mem[] as BARi with its address and size and each port BAR in port[], in BAR "
        "order, without gaps."
    ),
    source="uio_msi as posted, setup_maps",
)

AT_MOST_FIVE = Clause(
    id="UIO-070",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "At most five memory and five port entries are exported; surplus BARs are skipped and later BARs of the "
        "other kind are not."
    ),
    source="uio_msi as posted, setup_maps; include/linux/uio_driver.h",
)

SMALL_BARS_MAPPABLE = Clause(
    id="UIO-071",
    level=Level.SHOULD,
    kind=Kind.STATE,
    text=(
        "A BAR that is unaligned or smaller than a page is exported so that it can be mapped: aligned address, "
        "whole pages, offset."
    ),
    source="drivers/uio/uio.c (6.x) uio_mmap",
)

PORT_ONLY_DEVICES = Clause(
    id="UIO-072",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A function with only port BARs, or with none at all, is bound.",
    source="uio_msi as posted; igb_uio b61befb48c",
    needs=frozenset({"intx"}),
)

BRIDGES_REFUSED = Clause(
    id="UIO-073",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text="Bridges are refused with -ENODEV.",
    source="igb_uio 6f0841b770",
)

REMOVE_LEAVES_NOTHING = Clause(
    id="UIO-074",
    level=Level.MUST,
    kind=Kind.STATE,
    text="remove with no opens leaves nothing behind.",
    source="uio_msi as posted, uio_msi_remove",
)

REMOVE_WHILE_OPEN = Clause(
    id="UIO-075",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "remove with opens leaves nothing behind either: it frees actions, drops references and disables MSI-X itself."
    ),
    source="drivers/uio/uio.c (6.x): release is not called after unregistration; igb_uio 70efa41164",
)

CLOSE_AFTER_REMOVE = Clause(
    id="UIO-076",
    level=Level.MUST,
    kind=Kind.STATE,
    text="After remove, closing the surviving handles touches nothing that was freed and tears nothing down again.",
    source="drivers/uio/uio.c (4.1) uio_release calls the driver then, 6.x does not",
    needs=frozenset({"core-4.1"}),
)

PROBED_AGAIN = Clause(
    id="UIO-077",
    level=Level.MUST,
    kind=Kind.STATE,
    text="A device that was removed can be probed again and behaves as new.",
    source="driver model",
)

MEMORY_SAFE = Clause(
    id="UIO-078",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "No legal sequence of calls, no single refusal and no interleaving makes the driver dereference NULL, use "
        "freed memory, deadlock or hang."
    ),
    source="rules of the kernel at large",
)

# -- INTx

INTX_REQUEST = Clause(
    id="UIO-079",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="INTx is requested on the function's own irq with IRQF_SHARED and a dev_id of its own that is not NULL.",
    source="uio_msi as posted, set_irq_eventfd; kernel/irq/manage.c (4.9)",
    needs=frozenset({"intx"}),
)

INTX_NOT_OURS = Clause(
    id="UIO-080",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="With the status bit clear the handler returns IRQ_NONE, signals nothing and writes nothing.",
    source="uio_msi as posted, uio_intx_irqhandler",
    needs=frozenset({"intx"}),
)

INTX_MASKED_AND_SIGNALLED = Clause(
    id="UIO-081",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "With the status bit set and INTx not masked the handler masks it, signals once and returns IRQ_HANDLED, "
        "so that the line does not storm."
    ),
    source="drivers/pci/pci.c pci_check_and_mask_intx",
    needs=frozenset({"intx"}),
)

INTX_NO_SECOND_SIGNAL = Clause(
    id="UIO-082",
    level=Level.MUST,
    kind=Kind.STATE,
    text="While INTx is already masked a call of the handler does not signal again.",
    source="VFIO vfio_intx_handler guards with its masked flag",
    needs=frozenset({"intx"}),
)

INTX_UNMASK = Clause(
    id="UIO-083",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "irqcontrol(1), a set that maps INTx and, in the default profile, every successful set unmasks INTx: one more "
        "signal follows if the level is still asserted, none if it is gone."
    ),
    source=(
        "VFIO, igb_uio irqcontrol, DPDK EAL. In profile vfio-like a set on a mapped vector leaves the mask; as posted "
        "only user space unmasks"
    ),
    needs=frozenset({"intx"}),
)

INTX_LEFT_AS_FOUND = Clause(
    id="UIO-084",
    level=Level.SHOULD,
    kind=Kind.STATE,
    text=(
        "Whatever a former user left, a fresh set finds INTx unmasked, and remove leaves the disable bit as probe "
        "found it."
    ),
    source="uio_msi as posted leaks the mask",
    needs=frozenset({"intx"}),
)

# -- Security and hardening

NO_MSIX_TABLE_MAPPED = Clause(
    id="UIO-085",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "No exported map of the BARs that hold them overlaps the pages of the MSI-X table or the pending bits, unless "
        "interrupt remapping protects the host."
    ),
    source="review of the posted driver; VFIO exported such BARs only from 4.16 on",
    profiles=frozenset({"upstream", "vfio-like"}),
)

MAPPINGS_OF_OTHERS = Clause(
    id="UIO-086",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "A process can neither replace nor remove another opener's mapping, and a closing opener's mappings are "
        "dropped."
    ),
    source="hardened variant; contradicts UIO-031",
    untestable=(
        "The UIO callbacks carry no identity of the opener, so no driver of this interface can tell one from another."
    ),
)

LOG_LIMITED = Clause(
    id="UIO-087",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="Log lines that user space can trigger are limited: 1000 identical calls print at most 10.",
    source="kernel practice; uio_msi as posted prints each",
)

REVIEWERS_CONTRACT = Clause(
    id="UIO-088",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "User space may format requests and read ring memory but can neither access BARs nor write rings; the "
        "kernel validates and posts."
    ),
    source="review of the posted driver",
    untestable="It asks for a device-specific driver with a ring interface, which this interface does not have.",
)

OPEN_IS_PRIVILEGED = Clause(
    id="UIO-089",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="Where no IOMMU protects the host, opening needs more than file permission (CAP_SYS_RAWIO).",
    source="VFIO no-IOMMU, commit 03a76b60f8ba",
)

NO_INTERNAL_CODES = Clause(
    id="UIO-090",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text="Kernel-internal codes (517, 524, 512) are never returned from open, ioctl or release.",
    source="include/linux/errno.h",
)

LINE_SERVED = Clause(
    id="UIO-091",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "While the device is open and INTx unmapped, the function cannot drive the shared line unserved: its disable "
        "bit is set, or a handler that masks it is installed."
    ),
    source=(
        "kernel/irq/spurious.c note_interrupt: nobody cared, and the line is switched off for all; VFIO "
        "vfio_pci_core_disable, uio_pci_generic keep it so"
    ),
    needs=frozenset({"intx"}),
    profiles=frozenset({"upstream", "vfio-like"}),
)

LINE_QUIET_WHEN_CLOSED = Clause(
    id="UIO-092",
    level=Level.SHOULD,
    kind=Kind.STATE,
    text="The same holds from the last release until the next open or remove.",
    source="VFIO vfio_pci_core_disable sets the disable bit; igb_uio frees the irq and leaves the bit as it is",
    needs=frozenset({"intx"}),
    profiles=frozenset({"upstream", "vfio-like"}),
)

IRQCONTROL_MASKS = Clause(
    id="UIO-093",
    level=Level.MUST,
    kind=Kind.STATE,
    text="irqcontrol(0) masks INTx and returns 0: nothing is signalled until it is unmasked.",
    source="include/linux/uio_driver.h irqcontrol: disable with 0; igb_uio igbuio_pci_irqcontrol",
    needs=frozenset({"intx", "irqcontrol"}),
    profiles=frozenset({"upstream", "vfio-like"}),
)

NO_LINE = Clause(
    id="UIO-094",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A function without MSI-X whose pdev->irq is 0 or IRQ_NOTCONNECTED has no interrupt: probe refuses it, or "
        "every set with an eventfd fails, and irq 0 is never requested."
    ),
    source="VFIO vfio_intx_enable; uio_pci_generic; kernel/irq/manage.c: IRQ_NOTCONNECTED is answered with -ENOTCONN",
    needs=frozenset({"intx"}),
)

USER_WRITES_DISABLE_BIT = Clause(
    id="UIO-095",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "When user space writes the INTx disable bit while the device is open, that is the mask: set, nothing is "
        "signalled; cleared, a level still asserted signals once more."
    ),
    source="DPDK eal_interrupts.c uio_intx_intr_disable and _enable write the command register through sysfs",
    needs=frozenset({"intx"}),
)

PAGES_OF_MSIX_TABLE = Clause(
    id="UIO-096",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "Where another BAR shares a page with the MSI-X table or the pending bits, no exported map has that page "
        "either, unless interrupt remapping protects the host."
    ),
    source="vfio-pci: vfio_pci_probe_mmaps maps a BAR of less than a page only where it has the page to itself",
    profiles=frozenset({"upstream", "vfio-like"}),
)

CLAUSES = (
    UNKNOWN_COMMAND,
    UNKNOWN_IGNORES_ARGUMENT,
    WHOLE_COMMAND_COMPARED,
    BAD_POINTER,
    ARGUMENT_FETCHED_ONCE,
    ARGUMENT_IS_EIGHT_BYTES,
    COMPAT_IDENTICAL,
    COPY_OUTSIDE_MUTEX,
    NO_SUCH_VECTOR,
    NO_SUCH_VECTOR_TOUCHES_NOTHING,
    ORDER_OF_CHECKS,
    MINUS_ONE_DETACHES,
    DETACHING_TWICE_IS_FINE,
    ANY_NEGATIVE_DETACHES,
    BAD_FD,
    SET_RETURNS_ZERO,
    ONE_REFERENCE_EACH,
    FD_NAMES_OBJECT,
    REPLACING,
    BAD_FD_KEEPS_OLD,
    NEVER_HALF_MAPPED,
    REQUEST_ERRNO_FORWARDED,
    OTHER_VECTORS_UNTOUCHED,
    SAME_AGAIN,
    SHARED_EVENTFD,
    FREE_MATCHES_REQUEST,
    REFERENCE_OUTLIVES_HANDLER,
    READY_BEFORE_REQUEST,
    CURRENT_IRQ_NUMBERS,
    NO_REQUEST_WHILE_DISABLED,
    SHARED_TABLE,
    MESSAGE_REWRITTEN,
    ONE_EVENT_ONE_SIGNAL,
    MSIX_HANDLED,
    EVENTS_ADD_UP,
    SATURATION_DROPS,
    FLAGS_DO_NOT_MATTER,
    COUNTER_PRESERVED,
    SILENT_AFTER_DETACH,
    SILENT_AFTER_RELEASE,
    UNMAPPED_EVENT_HELD,
    HELD_EVENT_DELIVERED_ONCE,
    EVENT_WHILE_REPLACING,
    CLOSED_FD_STILL_SIGNALLED,
    HANDLERS_DO_NOT_SLEEP,
    POLLERS_WOKEN,
    FIRST_OPEN_ENABLES,
    FAILED_OPEN_NOT_COUNTED,
    OPEN_NEVER_POSITIVE,
    SHORT_OF_VECTORS,
    ENABLE_ERRNO_FORWARDED,
    RELEASE_WITH_OTHERS,
    LAST_RELEASE_TEARS_DOWN,
    DISABLED_AFTER_LAST_FREE,
    RELEASE_RETURNS_ZERO,
    REOPEN_STARTS_CLEAN,
    NO_DMA_WHILE_CLOSED,
    NO_IMPLICIT_RESET,
    PROBE_MEANS_REGISTERED,
    PROBE_FORWARDS_ERRNO,
    FAILED_PROBE_LEAVES_NOTHING,
    NOTHING_RELEASED_TWICE,
    REVERSE_ORDER,
    REGISTERED_LAST,
    NUMBER_OF_VECTORS,
    NO_USABLE_INTERRUPT,
    INTX_FALLBACK,
    UNUSABLE_MSIX,
    BARS_EXPORTED,
    AT_MOST_FIVE,
    SMALL_BARS_MAPPABLE,
    PORT_ONLY_DEVICES,
    BRIDGES_REFUSED,
    REMOVE_LEAVES_NOTHING,
    REMOVE_WHILE_OPEN,
    CLOSE_AFTER_REMOVE,
    PROBED_AGAIN,
    MEMORY_SAFE,
    INTX_REQUEST,
    INTX_NOT_OURS,
    INTX_MASKED_AND_SIGNALLED,
    INTX_NO_SECOND_SIGNAL,
    INTX_UNMASK,
    INTX_LEFT_AS_FOUND,
    NO_MSIX_TABLE_MAPPED,
    MAPPINGS_OF_OTHERS,
    LOG_LIMITED,
    REVIEWERS_CONTRACT,
    OPEN_IS_PRIVILEGED,
    NO_INTERNAL_CODES,
    LINE_SERVED,
    LINE_QUIET_WHEN_CLOSED,
    IRQCONTROL_MASKS,
    NO_LINE,
    USER_WRITES_DISABLE_BIT,
    PAGES_OF_MSIX_TABLE,
)
"""The catalogue, in the order of the ids."""

ROBUSTNESS = MEMORY_SAFE
"""Cited for crashes, hangs and values of a wrong type."""
