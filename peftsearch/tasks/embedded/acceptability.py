"""Acceptability: does the verb agree with its subject in number, with other nouns between or before them?

"the keys near the old cabinet are rusty" is acceptable, "the keys near the old cabinet is rusty" is not. The other
noun has either number and comes after or before the subject, so that neither counting plurals nor looking at the noun
next to the verb gives the answer (the attraction errors of Linzen et al., arXiv 1611.01368).
"""

from __future__ import annotations

from random import Random

from peftsearch.tasks.embedded.generate import Draft
from peftsearch.tasks.embedded.vocabulary import DEEDS, MOODS, PEOPLE, THINGS, TRAITS

LABELS = ("unacceptable", "acceptable")

PLACES = ("near", "behind", "beside", "under", "above", "next to", "in front of")
VERBS = {False: ("is", "was", "looks", "seems"), True: ("are", "were", "look", "seem")}
P_PERSON, P_PLAIN, P_OTHER_NUMBER = 0.5, 0.4, 0.5


def plural(noun: str) -> str:
    """The regular plural of a noun of the vocabulary."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def make(rng: Random, label: int, rare: bool) -> Draft:
    """Write a sentence that is acceptable (1) or breaks agreement (0)."""
    persons = rng.random() < P_PERSON
    nouns, traits = (PEOPLE, MOODS) if persons else (THINGS, TRAITS)
    many = rng.random() < 0.5
    other_many = many != (rng.random() < P_OTHER_NUMBER)
    noun, other = nouns.pick(rng, rare), (PEOPLE if rng.random() < P_PERSON else THINGS).pick(rng, rare)
    subject = f"the {plural(noun) if many else noun}"
    attractor = f"the {plural(other) if other_many else other}"
    trait = traits.pick(rng, rare)
    predicate = f"{rng.choice(VERBS[many == bool(label)])} {trait}"
    place = rng.choice(PLACES)
    forms = [f"{subject} {place} {attractor} {predicate}", f"{place} {attractor} {subject} {predicate}"]
    if persons:
        forms.append(f"{subject} who {DEEDS.pick(rng, rare)} {attractor} {predicate}")
    text = f"{subject} {predicate}" if rng.random() < P_PLAIN else rng.choice(forms)
    return Draft(text=text, core=f"{noun}|{trait}")
