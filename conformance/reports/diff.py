"""What changed between two reports: fixed, broken, exercised, slower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from conformance.reports.cases import line
from conformance.reports.record import ClauseVerdict, Part, Report
from conformance.verdict import Ending, Exit, Verdict

SLOWER = 1.5
"""By what factor the steps a second must have fallen before it is told: clocks are not exact."""
_JUDGED = (Verdict.PASS.value, Verdict.FAIL.value, Verdict.KNOWN.value, Verdict.NOT_FOLLOWED.value)


@dataclass(slots=True)
class Difference:
    """What changed, each as one line."""

    broken: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """Failures that are gone, though nothing shows that they are fixed."""
    exercised: list[str] = field(default_factory=list)
    unexercised: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """MUST clauses among those no longer exercised."""
    slower: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    """What was tested otherwise, so that the rest is to be read with care."""
    is_truncated: bool = False


def compare(old: Report, new: Report) -> Difference:
    """The differences by subsystem; failures are the same where their signatures are."""
    found = Difference(is_truncated=new.footer is None)
    if old.footer is None:
        found.other.append("OLD is truncated")
    if new.footer is None:
        found.other.append("NEW is truncated")
    before = {part.header.subsystem: part for part in old.parts}
    after = {part.header.subsystem: part for part in new.parts}
    for name in before | after:
        if name not in after:
            found.other.append(f"{name}: not in NEW")
        elif name not in before:
            found.other.append(f"{name}: not in OLD")
        else:
            _compare(before[name], after[name], found)
    return found


def _compare(old: Part, new: Part, found: Difference) -> None:
    name = new.header.subsystem
    found.other += [f"{name}: {told}" for told in _headers(old, new)]
    verdicts = {clause.id: clause for clause in new.clauses}
    was, now = _signatures(old), _signatures(new)
    for signature, clause in now.items():
        if signature not in was:
            found.broken.append(_told(new, clause, signature))
    for signature, clause in was.items():
        if signature in now:
            continue
        verdict = verdicts[clause].verdict if clause in verdicts else "not judged"
        if verdict == Verdict.PASS.value:
            found.fixed.append(_told(new, clause, signature))
        else:
            found.unseen.append(f"{_told(new, clause, signature)} ({verdict.replace('-', ' ')})")
    _exercise(old, new, found)
    _kills(old, new, found)
    found.slower += _slower(old, new)


def _headers(old: Part, new: Part) -> Iterator[str]:
    for field_ in ("suite", "candidate", "profile", "capabilities", "only", "strict", "engines"):
        was, now = getattr(old.header, field_), getattr(new.header, field_)
        if was != now:
            yield line(f"{field_} {_value(was)} -> {_value(now)}")


def _value(what: object) -> str:
    return " ".join(what) or "none" if isinstance(what, tuple) else str(what)


def _signatures(part: Part) -> dict[str, str]:
    """Failures and warnings, signature -> clause; those that did not show again are no evidence."""
    return {f.signature: f.clause for f in [*part.failures, *part.warnings] if not f.flaky}


def _told(part: Part, clause: str, signature: str) -> str:
    sentence = part.clause(clause).text
    return line(f"{signature}  {sentence}" if sentence else signature)


def _exercise(old: Part, new: Part, found: Difference) -> None:
    was, now = _judged(old), _judged(new)
    found.exercised += [_clause(clause) for name, clause in now.items() if name not in was]
    for name, clause in was.items():
        if name not in now:
            found.unexercised.append(_clause(clause))
            if clause.is_binding:
                found.missed.append(name)


def _judged(part: Part) -> dict[str, ClauseVerdict]:
    return {clause.id: clause for clause in part.clauses if clause.verdict in _JUDGED}


def _clause(clause: ClauseVerdict) -> str:
    return line(f"{clause.id} ({clause.level})  {clause.text}")


def _kills(old: Part, new: Part, found: Difference) -> None:
    """Of reports of strength: a defect that survives is a hole in the suite."""
    before = {kill.defect: kill for kill in old.kills}
    for kill in new.kills:
        was = before.get(kill.defect)
        if was is None or kill.why_not:
            continue
        if was.killed and not kill.killed:
            found.broken.append(f"{kill.defect}  is no longer killed")
        elif kill.killed and not was.killed:
            found.fixed.append(f"{kill.defect}  is killed by {kill.clause}")


def _slower(old: Part, new: Part) -> list[str]:
    """Steps a second, since a hunt's time says nothing."""
    rates = [p.conclusion.steps / p.conclusion.seconds for p in (old, new) if p.conclusion and p.conclusion.seconds]
    if len(rates) < 2 or rates[0] < SLOWER * rates[1]:
        return []
    return [f"{new.header.subsystem}: {rates[0]:,.0f} -> {rates[1]:,.0f} steps/s"]


def lines(found: Difference) -> list[str]:
    """What people read."""
    told: list[str] = []
    for title, listed in (
        ("tested otherwise", found.other),
        ("broken", found.broken),
        ("fixed", found.fixed),
        ("no longer seen, not known to be fixed", found.unseen),
        ("newly exercised", found.exercised),
        ("no longer exercised", found.unexercised),
        ("slower", found.slower),
    ):
        if listed:
            told += [f"{title}:", *(f"  {each}" for each in listed)]
    return told


def ending(found: Difference) -> Ending:
    """1 where something broke, 4 where NEW cannot tell."""
    if found.broken:
        return Ending(Exit.DOES_NOT_CONFORM, f"{len(found.broken)} broken, {len(found.fixed)} fixed")
    if found.is_truncated:
        return Ending(Exit.INCONCLUSIVE, "inconclusive: NEW is truncated")
    if found.missed:
        return Ending(Exit.INCONCLUSIVE, f"inconclusive: no longer exercised: {_few(found.missed)}")
    return Ending(Exit.CONFORMS, f"nothing broke, {len(found.fixed)} fixed")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
