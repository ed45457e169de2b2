"""The report for people who were not there: one page that needs nothing but a browser.

`report.html.jinja`, `report.css` and `report.js` beside this file make the page. What is read first stands in it as
text, and can be read where scripts are switched off; diagrams and graphs are drawn from data when they are opened. The
page allows itself no network, and no script or style but its own, by their hashes.

Everything that a candidate can influence goes through `legible` and is then escaped: by the template where it stands
as text, by `tojson` where it is data; the script makes text nodes of it and nothing else.
"""

from __future__ import annotations

import json
import unicodedata
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from conformance.reports.page import MARKS, Page, gather
from conformance.reports.record import Report
from conformance.reports.version import SUITE
from conformance.specs.clause import Level
from conformance.verdict import UsageError

if TYPE_CHECKING:
    import jinja2


def render(report: Report) -> bytes:
    """The page of one report."""
    return together([("", report)])


def together(reports: Sequence[tuple[str, Report]]) -> bytes:
    """One page of several reports, each with the name it is known by.

    Raises:
        UsageError  jinja2 is not installed
    """
    page = gather([(legible(name), _cleaned(report)) for name, report in reports])
    style, script = _own("report.css"), _own("report.js")
    text = template().render(
        page=page,
        suite=SUITE,
        marks=MARKS,
        levels=[level.value for level in Level],
        data=_data(page),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return text.encode()


def legible(text: str) -> str:
    """The text without what browsers would hide, obey or refuse: such characters as their escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_legible, text))


@cache
def _legible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cleaned(report: Report) -> Report:
    return msgspec.convert(_clean(msgspec.to_builtins(report)), Report)


def _clean(what: Any) -> Any:
    """Plain data with every text in it legible; traces stay what they are."""
    match what:
        case str():
            return legible(what)
        case dict():
            return {key: value if key == "trace" else _clean(value) for key, value in what.items()}
        case list() | tuple():
            return [_clean(item) for item in what]
    return what


def _data(page: Page) -> dict[str, Any]:
    """What the script draws from."""
    return {
        "failures": [
            {
                "story": msgspec.to_builtins(shown.found.story),
                "trace": json.dumps(shown.found.trace, indent=1),  # as text: 64 bits are too many for JavaScript
                "file": shown.file,
            }
            for shown in page.shown
        ],
        "scopes": {str(column.number): msgspec.to_builtins(column.part.scopes) for column in page.explored},
    }


def _own(name: str) -> str:
    return (files("conformance.reports") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def template() -> jinja2.Template:
    """The page before anything is filled in.

    Raises:
        UsageError  jinja2 is not installed
    """
    try:
        import jinja2
    except ImportError:
        raise UsageError("an HTML report needs jinja2: pip install 'conformance[reports]'") from None
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["thousands"] = lambda n: f"{n:,}"
    return environment.from_string(_own("report.html.jinja"))
