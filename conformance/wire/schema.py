"""The protocol as JSON Schema, one for each subsystem, made from the port: `python -m conformance.wire.schema`.

Beside the shape of every message it has that of the arguments and the result of every entry point and every
environment call, with their docstrings. The files are `conformance/wire/schema/S.json`; a test holds them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import msgspec

from conformance.subsystem import NAMES, Subsystem, subsystem
from conformance.wire.entries import entries_of
from conformance.wire.messages import (
    PROTOCOL,
    Call,
    Create,
    Destroy,
    Enter,
    Greeting,
    Hello,
    Raise,
    Result,
    Return,
    Stop,
    Stopped,
)
from conformance.wire.values import EXACT, Method, methods

FOLDER = Path(__file__).with_name("schema")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(of: Subsystem) -> dict[str, Any]:
    """The schema of one subsystem: a line is a message of the suite's or of the driver's."""
    entries, calls = entries_of(of), methods(of.port)
    to_driver = [
        *(_shape(kind) for kind in (Greeting, Create, Result, Stop, Destroy)),
        *(_named(Enter, method) for method in entries.values()),
    ]
    to_suite = [
        _hello(of, entries),
        *(_shape(kind) for kind in (Return, Raise, Stopped)),
        *(_named(Call, method) for method in calls.values()),
    ]
    return {
        "$schema": DIALECT,
        "title": f"{of.name}, protocol {PROTOCOL}",
        "description": "A line of the conversation; docs/wire.md says who says what when.",
        "anyOf": [{"$ref": "#/$defs/to-driver"}, {"$ref": "#/$defs/to-suite"}],
        "$defs": {
            "int": {
                "description": "A number; beyond what every language reads exactly a string.",
                "anyOf": [
                    {"type": "integer", "minimum": -EXACT, "maximum": EXACT},
                    {"type": "string", "pattern": "^-?0x[0-9a-fA-F]+$"},
                ],
            },
            "bytes": {"type": "string", "pattern": "^([0-9a-fA-F]{2})*$"},
            "to-driver": {"anyOf": to_driver},
            "to-suite": {"anyOf": to_suite},
            "results": {name: _value(method.result) for name, method in calls.items()},
            "returns": {name: _value(method.result) for name, method in entries.items()},
        },
    }


def _shape(message: type[msgspec.Struct]) -> dict[str, Any]:
    """What msgspec knows of a message."""
    shape: dict[str, Any]
    (shape,) = msgspec.json.schema(message)["$defs"].values()
    return shape


def _named(message: type[msgspec.Struct], method: Method) -> dict[str, Any]:
    """An `enter` or a `call` of one name, with the arguments that it has."""
    shape = _shape(message)
    shape["title"] = method.name
    shape["description"] = method.doc
    shape["properties"]["name"] = {"const": method.name}
    shape["properties"]["args"] = _items(method.parameters.values(), list(method.parameters))
    return shape


def _hello(of: Subsystem, entries: Mapping[str, Method]) -> dict[str, Any]:
    shape = _shape(Hello)
    properties = shape["properties"]
    properties["subsystem"] = {"const": of.name}
    properties["profile"] = {"enum": [None, *of.profiles]}
    properties["capabilities"]["anyOf"][0]["items"] = {"enum": list(of.capabilities)}
    properties["entries"]["items"] = {"enum": list(entries)}
    return shape


def _value(kind: Any) -> dict[str, Any]:
    """The schema of one value of a port."""
    if kind is int:
        return {"$ref": "#/$defs/int"}
    if kind is bytes:
        return {"$ref": "#/$defs/bytes"}
    if kind is NoneType:
        return {"type": "null"}
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        return {"type": "array", "items": _value(first)} if others == [...] else _items((first, *others))
    return {"type": {bool: "boolean", str: "string"}[kind]}


def _items(kinds: Iterable[Any], names: Iterable[str] = ()) -> dict[str, Any]:
    """An array of just these."""
    items = [_value(kind) for kind in kinds]
    for item, name in zip(items, names, strict=False):
        item["title"] = name
    return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}


def text(of: Subsystem) -> str:
    """The file of a subsystem."""
    return json.dumps(schema(of), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files anew."""
    FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        path = FOLDER / f"{name}.json"
        path.write_text(text(subsystem(name)))
        print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
