"""What leads a hunt on many machines: the campaign's memory, and what the machines are told."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.candidates.load import load
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.engines.leads import Leads, Recipe, rarest
from conformance.runs.request import Request, units
from conformance.runs.result import Result
from conformance.runs.work import Hunt
from conformance.subsystem import subsystem
from tests import toy

STEPS = 10_000


def walked(leads: Leads | None, seed: int = 0, steps: int = STEPS) -> Context:
    """A campaign over the correct candidate."""
    of = subsystem("uio_msi")
    candidate = load("builtin:upstream", of)
    context = Context(of, candidate, candidate.profile, seed=seed, steps=steps, leads=leads)
    campaign.run(context)
    return context


def result(clauses: dict[str, int], transitions: dict[str, int], recipes: dict[str, Recipe]) -> Result:
    """What some machine saw."""
    return Result("toy.campaign.1", "toy", "", "", [], clauses=clauses, transitions=transitions, recipes=recipes)


def hunt(budget: float = 60.0) -> Hunt:
    """A hunt by all engines."""
    request = Request((("toy", "builtin:upstream"),), budget=budget, seed=3)
    return Hunt(units(request), request)


def handed(count: int) -> Hunt:
    """A hunt that has handed out that many units."""
    hunted = hunt()
    given = iter(hunted)
    for _ in range(count):
        next(given)
    return hunted


def test_remembering_changes_nothing() -> None:
    """Where there is nothing to follow, the walks are those of the gate."""
    assert walked(Leads()).tally == walked(None).tally


def test_what_was_rare_is_seen_more_often_where_it_is_followed() -> None:
    """By walks of other seeds, all of which are judged as ever; over several memories, since each is of chance."""
    by_chance = led = 0
    for seed in (1, 5):
        leads = Leads()
        transitions, recipes = leads.told(walked(leads, seed, 4 * STEPS).tally.clauses)  # so that once is seldom
        sought = rarest(recipes, transitions, 0, 16)
        by_chance += seen(Leads(), sought)
        led += seen(Leads(tuple(dict.fromkeys(recipes[name] for name in sought))), sought)

    assert led > 1.1 * by_chance
    assert by_chance > 0


def seen(leads: Leads, sought: Sequence[str]) -> int:
    """How often walks of some other seeds take these transitions."""
    counts = [leads.told(walked(leads, seed).tally.clauses)[0] for seed in (2, 3, 4, 6)]
    return sum(counts[-1].get(name, 0) for name in sought)


def test_a_recipe_is_the_world_and_the_operations_of_a_walk() -> None:
    """Of the toy, in which little is rare."""
    leads = Leads()
    context = toy.context(steps=600, leads=leads)
    campaign.run(context)

    transitions, recipes = leads.told(context.tally.clauses)

    assert sum(transitions.values()) <= context.tally.steps
    assert "TOY-001>TOY-004" in transitions
    assert {recipe.world for recipe in recipes.values()} == {0}
    assert {name for recipe in recipes.values() for name in recipe.operations} <= {"Put", "Take", "Clear"}


def test_what_is_least_exercised_anywhere_leads() -> None:
    """The counts of all machines together decide, not those of one."""
    one, other, common = Recipe(0, ("Put",)), Recipe(1, ("Take",)), Recipe(0, ("Put", "Take"))
    hunted = handed(2)

    hunted.learn(0, result({"TOY-001": 1, "TOY-002": 5}, {"TOY-001>TOY-002": 2}, {"TOY-001": one, "TOY-002": other}))
    hunted.learn(1, result({"TOY-001": 9, "TOY-002": 1}, {"TOY-001>TOY-002": 2}, {"TOY-001>TOY-002": common}))

    assert hunted.seen["toy"] == {"TOY-001": 10, "TOY-002": 6, "TOY-001>TOY-002": 4}
    assert hunted.rarest("toy") == (other, one, common)


def test_what_the_seeds_of_a_unit_found_is_kept_as_one() -> None:
    """However many come: added up, without what leads the next ones."""
    hunted = handed(3)

    for number in range(3):
        hunted.learn(number, result({"TOY-001": 2}, {"TOY-001>TOY-001": 1}, {"TOY-001": Recipe(0, ("Put",))}))

    (kept,) = hunted.results()
    assert kept.clauses == {"TOY-001": 6}
    assert not kept.transitions
    assert not kept.recipes
    assert hunted.seen["toy"] == {"TOY-001": 6, "TOY-001>TOY-001": 3}


def test_seeds_follow_one_another_in_rounds() -> None:
    """What does the same every time is done once; the others again and again, with what is known by then."""
    hunted = hunt()
    given = iter(hunted)
    once = [next(given) for _ in range(4)]
    first = [next(given) for _ in range(6)]
    hunted.learn(0, result({"TOY-001": 1}, {}, {"TOY-001": Recipe(0, ("Put",))}))
    hunted.known["toy"] = {"TOY-001:Put:result": None}
    second = [next(given) for _ in range(6)]

    assert [unit.engine for unit in once] == ["corpus", "explore", "interleave", "interleave"]
    parts = ("campaign.1", "campaign.2", "machine.1", "machine.2", "machine.3", "machine.4")
    assert [(unit.name, unit.seed) for unit in first] == [(f"toy.{part}", 3) for part in parts]
    assert {(unit.seed, unit.known, unit.follow) for unit in second} == {
        (4, ("TOY-001:Put:result",), (Recipe(0, ("Put",)),))
    }
    assert all(unit.seconds is not None and unit.seconds <= 60.0 / 12 for unit in [*first, *second])


def test_a_hunt_ends_when_its_time_is_up() -> None:
    """Nothing is begun after that."""
    hunted = hunt()
    given = iter(hunted)
    next(given)

    hunted.deadline = 0.0

    assert list(given) == []
