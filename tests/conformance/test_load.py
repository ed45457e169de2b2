"""The candidate mini-language: what loads, and one sentence for what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.candidates.load import load
from conformance.verdict import UsageError
from tests.toy import TOY

GOOD = """
class Shelf:
    def __init__(self, port): self.port = port
    def put(self, value): return 0
    def take(self): return 0
    def clear(self): return 0
"""


def written(folder: Path, text: str) -> str:
    """A candidate file and the start of its spec."""
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def test_a_class_in_a_file_loads(tmp_path: Path) -> None:
    """It gets the default profile and all capabilities unless it says otherwise."""
    candidate = load(f"{written(tmp_path, GOOD)}:Shelf", TOY)

    assert (candidate.profile, candidate.capabilities) == ("upstream", frozenset())


def test_a_class_in_a_module_loads() -> None:
    """By import path."""
    assert load("tests.toy:Shelf", TOY).spec == "tests.toy:Shelf"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nonsense", "expected builtin:NAME, MODULE:CLASS, FILE.py:CLASS"),
        ("nowhere.py:Shelf", "there is no file nowhere.py"),
        ("no_such_module:Shelf", "no module named 'no_such_module' is importable"),
        ("tests.toy:Shelv", "defines no 'Shelv'; did you mean 'Shelf'?"),
        ("tests.toy:ENOMEM", "ENOMEM is a int, expected a class"),
        ("lib:driver.so", "there is no file driver.so"),
    ],
)
def test_what_is_not_there_is_named(spec: str, message: str) -> None:
    """With the nearest thing that is."""
    with pytest.raises(UsageError) as refusal:
        load(spec, TOY)

    assert str(refusal.value).startswith(f"--candidate={spec}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("def put", "def putt"), "Shelf has no method 'put'; did you mean 'putt'?"),
        (GOOD.replace("self, value", "self"), "Shelf.put(self) must accept put(self, value: int) -> int"),
        (GOOD.replace("self, port", "self"), "must take one argument, the port"),
        (GOOD.replace("class Shelf:", "class Shelf:\n    profile = 'upstrem'"), "did you mean 'upstream'?"),
        (GOOD.replace("class Shelf:", "class Shelf:\n    capabilities = {'x'}"), "knows no capability 'x'"),
        (GOOD + "1/0", "raised ZeroDivisionError: division by zero"),
        (GOOD + "def", "raised SyntaxError at line"),
        (GOOD + "import nowhere_at_all", "ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_a_class_is_named(tmp_path: Path, text: str, message: str) -> None:
    """Methods, arity, constructor, profile, capabilities, and code that does not load."""
    with pytest.raises(UsageError) as refusal:
        load(f"{written(tmp_path, text)}:Shelf", TOY)

    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_optional_method_names_its_capability(tmp_path: Path) -> None:
    """Who declares nothing is held to everything, and is told how to declare less."""
    of = replace(TOY, optional={"clear": "clearing"}, capabilities={"clearing": "can clear"})
    text = GOOD.replace("def clear", "def tidy")

    with pytest.raises(UsageError, match="add it, or declare `capabilities` without 'clearing'"):
        load(f"{written(tmp_path, text)}:Shelf", of)

    text = text.replace("class Shelf:", "class Shelf:\n    capabilities = frozenset()")
    assert load(f"{written(tmp_path, text)}:Shelf", of).capabilities == frozenset()
