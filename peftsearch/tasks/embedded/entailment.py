"""Entailment: does the second sentence follow from the first? Pairs of sentences with the same words.

The pairs are about who did something to whom (active and passive), comparisons of two people, and statements about all,
some or none. Both sentences of a pair use the same content words under either label, so that their similarity carries
no information.
"""

from __future__ import annotations

from random import Random

from peftsearch.tasks.embedded.acceptability import plural
from peftsearch.tasks.embedded.generate import Draft
from peftsearch.tasks.embedded.vocabulary import DEEDS, MOODS, PEOPLE

LABELS = ("not_entailment", "entailment")

OPPOSITES = (
    ("taller", "shorter"),
    ("older", "younger"),
    ("stronger", "weaker"),
    ("richer", "poorer"),
    ("faster", "slower"),
    ("happier", "sadder"),
    ("louder", "quieter"),
    ("braver", "shyer"),
)
FOLLOWS = {"all": ("some", "many"), "no": ("not all", "not many"), "many": ("some",)}
CLASHES = {"all": ("not all", "no"), "no": ("some", "all", "many"), "many": ("no",)}


def two_people(rng: Random, rare: bool) -> tuple[str, str, str]:
    """Draw two different people, and their core, which does not depend on the order."""
    first = second = PEOPLE.pick(rng, rare)
    while second == first:
        second = PEOPLE.pick(rng, rare)
    return first, second, "|".join(sorted((first, second)))


def roles(rng: Random, label: int, rare: bool) -> tuple[str, str, str]:
    """Write that one person did something to another; the second sentence keeps or swaps the roles."""
    first, second, core = two_people(rng, rare)
    deed = DEEDS.pick(rng, rare)
    doer, target = (first, second) if label else (second, first)
    if rng.random() < 0.5:
        return f"the {first} {deed} the {second}", f"the {target} was {deed} by the {doer}", core
    return f"the {second} was {deed} by the {first}", f"the {doer} {deed} the {target}", core


def comparison(rng: Random, label: int, rare: bool) -> tuple[str, str, str]:
    """Compare two people; the second sentence states the reverse comparison, correctly or not."""
    first, second, core = two_people(rng, rare)
    more, less = rng.sample(rng.choice(OPPOSITES), 2)
    premise = f"the {first} is {more} than the {second}"
    if rng.random() < 0.5:
        return premise, f"the {second} is {less if label else more} than the {first}", core
    if label:
        return premise, f"the {second} is not {more} than the {first}", core
    return premise, f"the {first} is {less} than the {second}", core


def quantity(rng: Random, label: int, rare: bool) -> tuple[str, str, str]:
    """State something about all, many or no people; the second sentence follows from it or contradicts it."""
    people, mood = PEOPLE.pick(rng, rare), MOODS.pick(rng, rare)
    word = rng.choice(sorted(FOLLOWS))
    other = rng.choice((FOLLOWS if label else CLASHES)[word])
    return f"{word} {plural(people)} were {mood}", f"{other} {plural(people)} were {mood}", f"{people}|{mood}"


def make(rng: Random, label: int, rare: bool) -> Draft:
    """Write a pair whose second sentence follows (1) or does not (0)."""
    premise, hypothesis, core = rng.choice((roles, comparison, quantity))(rng, label, rare)
    return Draft(text=premise, pair=hypothesis, core=core)
