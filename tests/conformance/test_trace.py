"""Trace files: what is written is read back, and everything else is refused by its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.model.step import Fault, Parallel, Step
from conformance.trace import Trace, TraceError, decode, encode, write_atomically
from tests.toy import Clear, Config, Put, Take, trace

KNOWN: Any = ({"toy": Config}, {"toy": {"Put": Put, "Take": Take, "Clear": Clear}})

FULL = trace(
    Step(Put(7), (Fault("alloc", -12), Fault("alloc", -5, nth=2))),
    Step(Take(), during=((3, Step(Clear())), (5, Step(Put(1))))),
    Step(Parallel(Step(Put(1)), Step(Take()), (2, 4))),
)


def read(text: str) -> Trace:
    """Decode with the toy's types."""
    return decode(text, *KNOWN)


def test_a_trace_survives_the_round_trip() -> None:
    """Faults, company and threads included."""
    assert read(encode(FULL)) == FULL


def test_defaults_are_left_out() -> None:
    """A plain step is just its operation."""
    data = json.loads(encode(trace(Put(0))))

    assert data["steps"] == [{"op": "Put"}]
    assert data["config"] == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "$.schema"),
        ({"subsystem": "tyo"}, "$.subsystem: unknown subsystem 'tyo'"),
        ({"extra": 1}, "$.extra: unknown field"),
        ({"steps": {}}, "$.steps: expected array"),
        ({"steps": [{"op": "Putt"}]}, "$.steps[0].op: unknown operation 'Putt'"),
        ({"steps": [{}]}, "$.steps[0].op"),
        ({"steps": [{"op": "Put", "value": "x"}]}, "$.steps[0].value: Expected `int`, got `str`"),
        ({"steps": [{"op": "Put", "valu": 1}]}, "$.steps[0].valu: unknown field"),
        ({"steps": [{"op": "Put", "answers": {"alloc": 0}}]}, "$.steps[0].answers.alloc"),
        ({"steps": [{"op": "Put", "answers": {"alloc#x": -1}}]}, "$.steps[0].answers.alloc#x"),
        ({"steps": [{"op": "Put", "during": [[-1, {"op": "Take"}]]}]}, "$.steps[0].during[0]"),
        ({"steps": [{"op": "Put", "during": [[1, {"op": "x"}]]}]}, "$.steps[0].during[0][1].op"),
        ({"steps": [{"op": "Parallel", "left": {"op": "Put"}}]}, "$.steps[0].right: missing"),
        ({"subsystem": ["toy"]}, "$.subsystem: unknown subsystem ['toy']"),
        (
            {"steps": [{"op": "Put", "during": [[1, {"op": "Take", "during": []}]]}]},
            "$.steps[0].during[0][1]: a step beside or within another has no company",
        ),
        ({"config": {"size": 1.5}}, "$.config.size"),
        ({"profile": 3}, "$.profile"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change: dict[str, Any], message: str) -> None:
    """Unknown fields, wrong types and unknown versions are refused."""
    data = json.loads(encode(trace(Put(1)))) | change

    with pytest.raises(TraceError) as refusal:
        read(json.dumps(data))

    assert message in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema":1}'])
def test_what_is_no_trace_at_all_is_refused(text: str) -> None:
    """Truncated and foreign files."""
    with pytest.raises(TraceError):
        read(text)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses nothing that was there."""
    path = tmp_path / "trace.json"
    write_atomically(path, "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]
