"""`conformance report`: reports that were written before, in another form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from conformance.commands.options import nearest
from conformance.reports import forms, json
from conformance.reports.forms import FORMS, TOGETHER
from conformance.verdict import Ending, Exit, UsageError


def report(form: str, out: str, paths: Sequence[str]) -> Ending:
    """Read reports and write them again.

    Raises:
        UsageError  no such form, one that does not hold so many reports, or a file that is no report
    """
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r}{nearest(form, FORMS)}")
    (target,) = forms.targets([f"{form}:{out}"], "report")
    if len(paths) > 1 and form not in TOGETHER:
        raise UsageError(f"{form}: holds one report, and {len(paths)} are given; {', '.join(TOGETHER)} holds several")
    read = [(name, json.read(Path(path))) for name, path in zip(_names(paths), paths, strict=True)]
    data = TOGETHER[form](read) if form in TOGETHER else FORMS[form](read[0][1])
    forms.put(target, data)
    what = paths[0] if len(paths) == 1 else f"{len(paths)} reports"
    truncated = [path for path, (_, whole) in zip(paths, read, strict=True) if whole.footer is None]
    if truncated:
        return Ending(
            Exit.INCONCLUSIVE, f"{what} written as {form} to {out}; inconclusive: {truncated[0]} is truncated"
        )
    return Ending(Exit.CONFORMS, f"{what} written as {form} to {out}")


def _names(paths: Sequence[str]) -> list[str]:
    """File names; more of the path where those are the same."""
    names = [Path(path).name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([Path(path).absolute().parent for path in paths])
    return [os.path.relpath(Path(path).absolute(), common) for path in paths]
