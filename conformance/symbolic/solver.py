"""z3, as CrossHair brings it: values for which a comparison ends otherwise, everything before it as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import z3

from conformance.symbolic.words import WIDTH, Condition, Term

EFFORT = 1_500_000
"""z3's measure of work for one question; not seconds, so that the same is found on any machine."""
FEW = 4
"""Variables of a question that are tried alone, the others as they are."""
NEAREST = 60
"""Conditions before the question that are kept, of those that concern its variables."""

Name = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A field of an operation of the trace."""

    value: int
    least: int
    most: int
    listed: tuple[int, ...] = ()
    """It is one of these, where there are any."""


def variables_of(term: Term, known: dict[int, frozenset[Name]]) -> frozenset[Name]:
    """Names of the variables in a term."""
    found = known.get(id(term))
    if found is None:
        if term[0] == "var":
            found = frozenset((term[1],))
        elif term[0] == "const":
            found = frozenset()
        else:
            found = frozenset().union(*(variables_of(part, known) for part in term[1:] if isinstance(part, tuple)))
        known[id(term)] = found
    return found


class Solver:
    """Answers questions about one run."""

    def __init__(self, variables: Mapping[Name, Variable], path: Sequence[Condition]) -> None:
        self.variables = variables
        self.path = path
        self.names: dict[int, frozenset[Name]] = {}
        self.made: dict[int, Any] = {}
        self.symbols = {name: z3.BitVec("_".join(map(str, name)), WIDTH) for name in variables}

    def solve(self, wanted: Term, answer: bool, before: int) -> dict[Name, int] | None:
        """Values with which `wanted` is answered so and the conditions before it as they were; None: none found.

        The other variables stay as they are where that can be. Where the path does not allow it, the question is
        asked again with less of the path: without what the world asked, with those numbers only that were met, with
        nothing. What is found may lead to the place another way.
        """
        own = self.variables_in(wanted)
        concerned = set(own)
        if not concerned:
            return None
        kept = self._concerning(concerned, before)
        question = self._formula(wanted)
        question = question if answer else z3.Not(question)
        limits = [self._limits(name) for name in sorted(concerned)]
        asked = -1
        for needed in (_any, _is_target, _is_held, _none):
            conditions = [condition for condition in kept if needed(condition)]
            if len(conditions) == asked:
                continue
            formulas = [question, *limits, *map(self._condition, conditions)]
            if asked < 0 and concerned > own:
                found = self._ask([*formulas, *self._kept(concerned - own)], set(own))
                if found is not None:
                    return found
            asked = len(conditions)
            found = self._ask(formulas, concerned)
            if found is not None:
                return found
        return None

    def alone(self, wanted: Term, answer: bool) -> list[dict[Name, int]]:
        """Values of one variable at a time with which it is answered so, the others as they are, whatever the path."""
        own = self.variables_in(wanted)
        question = self._formula(wanted)
        question = question if answer else z3.Not(question)
        limits = [self._limits(name) for name in sorted(own)]
        asked = (self._ask([question, *limits, *self._kept(own - {name})], {name}) for name in sorted(own)[:FEW])
        return [found for found in asked if found]

    def _kept(self, names: AbstractSet[Name]) -> list[Any]:
        return [self.symbols[name] == self.variables[name].value for name in sorted(names)]

    def variables_in(self, term: Term) -> frozenset[Name]:
        """Names of the variables in a term of this run."""
        return variables_of(term, self.names)

    def _concerning(self, names: set[Name], before: int) -> list[Condition]:
        """The conditions on these variables, and on those that they meet there, which are added to the names."""
        kept: list[Condition] = []
        left = list(reversed(self.path[:before]))
        while len(kept) < NEAREST:
            near = [condition for condition in left if variables_of(condition.term, self.names) & names]
            if not near:
                break
            kept += near[: NEAREST - len(kept)]
            names |= frozenset().union(*(variables_of(condition.term, self.names) for condition in near))
            taken = set(map(id, near))
            left = [condition for condition in left if id(condition) not in taken]
        return kept

    def _ask(self, formulas: list[Any], names: set[Name]) -> dict[Name, int] | None:
        solver = z3.SolverFor("QF_BV")
        solver.set("rlimit", EFFORT)
        solver.add(*formulas)
        if solver.check() != z3.sat:
            return None
        model = solver.model()
        values = {}
        for name in names:
            told = model[self.symbols[name]]
            if told is not None and told.as_signed_long() != self.variables[name].value:
                values[name] = told.as_signed_long()
        return values

    def _limits(self, name: Name) -> Any:
        variable = self.variables[name]
        if variable.listed:
            return z3.Or(*(self.symbols[name] == value for value in variable.listed))
        return z3.And(self.symbols[name] >= variable.least, self.symbols[name] <= variable.most)

    def _condition(self, condition: Condition) -> Any:
        formula = self._formula(condition.term)
        return formula if condition.answer else z3.Not(formula)

    def _formula(self, term: Term) -> Any:
        kind, *parts = term
        if kind == "all":
            return z3.And(*map(self._formula, parts))
        left, right = map(self._vector, parts)
        match kind:
            case "eq":
                return left == right
            case "ne":
                return left != right
            case "lt":
                return left < right
            case "le":
                return left <= right
            case "gt":
                return left > right
            case _:
                return left >= right

    def _vector(self, term: Term) -> Any:
        found = self.made.get(id(term))
        if found is None:
            found = self.made[id(term)] = self._made(term)
        return found

    def _made(self, term: Term) -> Any:
        kind = term[0]
        if kind == "const":
            return z3.BitVecVal(term[1], WIDTH)
        if kind == "var":
            return self.symbols[term[1]]
        left = self._vector(term[1])
        if kind == "byte":
            return z3.ZeroExt(WIDTH - 8, z3.Extract(8 * term[2] + 7, 8 * term[2], left))
        right = self._vector(term[2])
        match kind:
            case "add":
                return left + right
            case "sub":
                return left - right
            case "mul":
                return left * right
            case "and":
                return left & right
            case "or":
                return left | right
            case "xor":
                return left ^ right
            case "shl":
                return left << right
            case "shr":
                return left >> right
            case "div":
                return _divided(left, term[2], right)
            case _:
                return _modulo(left, term[2], right)


def _any(_condition: Condition) -> bool:
    return True


def _is_target(condition: Condition) -> bool:
    return condition.is_target


def _is_held(condition: Condition) -> bool:
    """Whether it is a number that was met."""
    return condition.is_target and (condition.term[0], condition.answer) in (("eq", True), ("ne", False), ("all", True))


def _none(_condition: Condition) -> bool:
    return False


def _power(term: Term) -> int | None:
    """Of a constant power of two, the exponent."""
    if term[0] == "const" and term[1] > 0 and not term[1] & term[1] - 1:
        return int(term[1].bit_length() - 1)
    return None


def _divided(left: Any, divisor: Term, right: Any) -> Any:
    power = _power(divisor)
    return z3.UDiv(left, right) if power is None else left >> power


def _modulo(left: Any, divisor: Term, right: Any) -> Any:
    return z3.URem(left, right) if _power(divisor) is None else left & right - 1
