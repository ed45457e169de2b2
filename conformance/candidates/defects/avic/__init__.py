"""The zoo of avic: one wrong driver per known defect."""

from conformance.candidates.defect import Defect
from conformance.candidates.defects.avic import drivers as d
from conformance.candidates.defects.avic import posted as p
from conformance.candidates.defects.avic import races as r


def _defect(number: str, text: str, candidate: type, *clauses: int, steps: int | None = None, note: str = "") -> Defect:
    return Defect(number, text, candidate, tuple(f"AVIC-{n:03d}" for n in clauses), steps, note=note)


_AROUND_A_SWITCH = (88, 85, 89, 20, 82, 107, 30, 36, 94)
"""Clauses that a vCPU shows which turns AVIC off or on at the wrong moment."""
_BESIDE = "What ran beside it may be blamed, where the view alone shows the difference."


DEFECTS: tuple[Defect, ...] = (
    _defect("AP-01", "The address mask keeps everything but bit 0.", d.WrongMask, 14, steps=1),
    Defect(
        "AP-02",
        "The maximum index is 255.",
        why_not="255 is a legal maximum index: nothing shows while entry 255 is 0.",
    ),
    _defect("AP-03", "In flat mode the logical id is used as the index.", d.FlatIndexIsValue, 37, steps=1),
    _defect("AP-04", "The cluster number is always 0.", d.ClusterAlwaysZero, 37, steps=1),
    _defect("AP-05", "The member nibble is used as an index, with 4 accepted.", d.MemberIsValue, 37, steps=1),
    _defect("AP-06", "Cluster 15 is not rejected.", d.ClusterFifteen, 37, 38, steps=1),
    _defect("AP-07", "A new logical entry leaves the old one valid.", d.OldEntryStays, 38, 41, 43, 44, 45, steps=2),
    _defect("AP-08", "Errors of the backing page are ignored.", d.BackingErrorIgnored, 59, 58, 14, steps=2),
    _defect("AP-09", "The access page counts as done after a failure.", p.DoneAfterFailure, 58, steps=2),
    _defect("AP-10", "A failed creation drops a count it never took.", d.CountNotSymmetric, 58, 60, steps=3),
    _defect(
        "AP-11", "Failed growth leaves existing vCPUs with freed pages.", d.GrowthFailsDangling, 52, 58, 48, steps=3
    ),
    _defect("AP-12", "Growth wipes live APIC state.", d.GrowthWipes, 52, steps=4),
    _defect(
        "AP-12b", "A new highest id wipes the others' pages in the posted design.", p.GrowthWipesPosted, 52, steps=2
    ),
    _defect("AP-16b", "The posted design's pages lie at the APIC window.", p.InsideTheWindow, 49, steps=2),
    _defect(
        "AP-13",
        "Growth changes VMCB pointers of running vCPUs without clean bits or a kick.",
        d.GrowthMovesPages,
        18,
        19,
        58,
        steps=4,
    ),
    _defect("AP-14", "A duplicate id wipes the live page.", d.DuplicateWipes, 61, 52, steps=4),
    _defect("AP-15", "The backing page is not pinned.", d.NotPinned, 48, steps=3),
    _defect("AP-16", "Backing pages are guest memory.", d.GuestReachable, 49, steps=3),
    _defect("AP-17", "Backing pages are user-space memory.", d.UserReachable, 49, 90, steps=3),
    _defect("AP-18", "There are two copies of the APIC state.", d.TwoCopies, 53, steps=4),
    _defect("AP-19", "RESET and INIT do not reset the backing page.", d.ResetKeepsPage, 50, 44, steps=4),
    _defect("AP-20", "APIC_BAR is lost when the VMCB is rebuilt.", d.BarLost, 17, 23, steps=3),
    _defect("AP-21", "LVT0 is an unmasked ExtINT on every vCPU.", d.Lvt0Unmasked, 51, steps=2),
    _defect("AP-22", "A VM without an in-kernel APIC has its APIC read.", d.NoIrqchipCheck, 10, steps=2),
    _defect(
        "AP-23",
        "Per-VM data is published before it is complete, by an unlocked test.",
        d.LazyTables,
        62,
        16,
        14,
        10,
        60,
        65,
        58,
        25,
        steps=2,
    ),
    _defect("AP-24", "The last vCPU is found by two separate atomics.", d.UninitRaces, 60, 65, 62, 16, 58, steps=2),
    _defect(
        "AP-23b",
        "Per-VM data of the posted design is published before it is complete.",
        p.PublishedEarly,
        62,
        16,
        14,
        10,
        58,
        60,
        65,
        25,
        steps=2,
    ),
    _defect(
        "AP-24b", "The posted count is tested and dropped in two steps.", p.CountedInTwoSteps, 60, 65, 62, 58, steps=1
    ),
    _defect("AP-25", "Tags race and wrap.", d.TagsRace, 63, steps=3),
    _defect("AP-25b", "The posted tag is read and advanced in two steps.", p.TagReadThenAdvanced, 63, steps=3),
    _defect("AP-26", "Ids are not validated.", d.IdsUnchecked, 11, 64, 28, 15, 75, steps=2),
    _defect("AP-27", "The physical table is never populated.", d.EntryNeverWritten, 26, 30, steps=3),
    _defect("AP-28", "The host APIC id has eight bits.", d.HostIdTruncated, 31, steps=1),
    _defect("AP-29", "A negative index is not rejected.", d.SignedIndex, 29, steps=1),
    _defect("AP-30", "Pointers to freed pages are kept.", d.PointerKept, 65, steps=3),
    _defect("AP-31", "The result of deleting the memslot is ignored.", d.DeleteResultIgnored, 58, steps=3),
    Defect(
        "AP-32",
        "The test for NULL comes after the dereference.",
        why_not="It shows only through AP-23, which lets a NULL table be seen.",
    ),
    _defect("AP-33", "Flat and cluster are judged per vCPU.", d.MixedModesAccepted, 38, 86, 87, steps=1),
    Defect(
        "AP-34",
        "AVIC fields are missing from diagnostics.",
        why_not="Diagnostics are no part of the port, and no clause speaks of them.",
    ),
    _defect("AP-35", "x2APIC mode is not excluded.", d.X2ApicNotExcluded, 85, 90, steps=1),
    _defect("UP-01", "Cores with APIC ids above 255 are refused.", d.HostIdRefused, 30, 31, steps=1),
    _defect("UP-02", "An IPI to a target that does not run is sent again.", d.SentAgain, 70, 71, 72, 107, steps=5),
    _defect("UP-03", "An IPI with an invalid target is dropped.", d.InvalidTargetDropped, 69, 107, steps=1),
    _defect("UP-04", "An invalid target makes the host warn.", d.WarnsOnInvalidTarget, 75, steps=1),
    _defect("UP-05", "Busy is left set after the IPI was sent.", d.BusyLeftSet, 68, 69, steps=1),
    _defect("UP-06", "A multi-bit LDR installs an entry for its lowest bit.", d.LowestBitOnly, 37, 38, steps=1),
    _defect("UP-07", "A bad LDR is not remembered.", d.BadLdrForgotten, 41, steps=5),
    _defect("UP-08", "A bad LDR skips the software APIC and ends in user space.", d.BadLdrExits, 42, 81, steps=1),
    _defect("UP-09", "One target is woken, the one that the exit names.", d.OneTargetKicked, 71, 70, 72, 74, steps=3),
    _defect(
        "UP-10",
        "x2APIC logical destinations are misread when targets are woken.",
        d.X2LogicalMisread,
        71,
        72,
        70,
        74,
        steps=3,
    ),
    _defect("UP-11", "A new APIC id moves the physical entry.", d.IdMovesEntry, 26, 80, 30, 31, 32, steps=1),
    _defect("UP-12", "Aliased ids do not inhibit AVIC.", d.AliasesNotInhibited, 86, 85, 38, steps=1),
    _defect("UP-13", "Delivery reads whether AVIC is active too early.", d.StaleActive, 82, 88, 74, 36, steps=1),
    _defect(
        "UP-13b",
        "A vCPU follows reasons that are not yet in force.",
        r.RefreshesEarly,
        *_AROUND_A_SWITCH,
        steps=1,
        note=_BESIDE,
    ),
    _defect(
        "UP-13c",
        "A vCPU is kicked before it is asked to refresh.",
        r.KickedBeforeAsked,
        *_AROUND_A_SWITCH,
        steps=1,
        note=_BESIDE,
    ),
    _defect(
        "UP-13d",
        "An older look at the registers wins.",
        r.LastLookLost,
        86,
        87,
        42,
        85,
        20,
        65,
        88,
        steps=1,
        note="The lock also keeps the registers that it looks at.",
    ),
    _defect("UP-14b", "A blocking vCPU that gets a core says that it runs.", d.RunsWhileBlocking, 34, 30, steps=4),
    _defect("UP-14", "IsRunning stays set when AVIC is inhibited.", d.RunningWhileInhibited, 30, 34, 89, steps=1),
    _defect("UP-15", "Erratum 1235 is ignored.", d.ErratumIgnored, 8, 74, steps=1),
    _defect("UP-16", "V_TPR is not synchronised before VMRUN.", d.VTprNotSynced, 24, steps=3),
    _defect("UP-17", "Leaving x2APIC mode by reset leaves the MSRs open.", d.InterceptsByMode, 21, 20, steps=2),
    _defect("UP-18", "The access page stays in hybrid mode.", d.AccessPageStays, 90, steps=1),
    _defect("UP-19", "The index is masked with 0xFF.", d.IndexTruncated, 15, 75, 70, 71, 72, 74, steps=3),
    _defect("UP-20", "A big id fails the creation.", d.BigIdRefused, 64, steps=2),
    _defect(
        "UP-21", "AVIC fields are initialised only while AVIC is active.", d.PointersOnlyWhenActive, 23, 17, steps=2
    ),
    _defect("UP-22", "A VM that failed leaks its tables.", d.FailedVmLeaks, 66, 60, steps=1),
    _defect("UP-23", "An IRTE that cannot be posted stays on the old list.", d.DanglingIrte, 93, 94, steps=3),
    _defect("UP-23b", "An IRTE is told where its vCPU was.", r.IrteToldUnlocked, 94, 30, 36, steps=1),
    _defect("UP-24", "Memory is allocated with a spinlock held.", d.SleepsAtomically, 113, steps=1),
    _defect("UP-25", "The notifier outlives the module.", d.NotifierStays, 67, steps=1),
    _defect("UP-25b", "A VM that is being destroyed is still found by its tags.", d.GaLogFindsDyingVm, 67, steps=2),
    _defect("UP-25c", "A vCPU found by its tag is used after the lock is dropped.", r.WakesAfterUnlock, 67, steps=4),
    _defect("C-01", "Two creations of one id both succeed.", r.DuplicateSeenLate, 61, 62, 85, steps=2),
    _defect("C-02", "Two first creations both make the memslot.", r.SlotUnlocked, 58, 62, 52, 85, steps=2),
    _defect("C-03", "Two locks are taken in two orders.", r.LocksInTwoOrders, 65, 108, steps=1),
    _defect("UP-26", "A remote read write is re-applied.", d.RemoteReadApplied, 78, steps=1),
    _defect("UP-27", "A DFR change never re-installs the LDR's entry.", d.DfrNeverReinstalls, 39, steps=2),
    _defect("UP-28", "PIT reinjection does not inhibit AVIC.", d.PitRunsWithAvic, 86, steps=1),
    _defect("UP-29", "SNP hosts are offered AVIC.", d.SnpIgnored, 7, steps=1),
    _defect("UP-30", "The maximum index is put into the wrong field.", d.WrongFieldCarriesIndex, 14, 15, 75, steps=2),
)
