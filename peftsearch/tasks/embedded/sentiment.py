"""Sentiment: short reviews whose verdict depends on negation and contrast, not on single words.

"the acting was not bad at all but the plot bored everyone" is negative: the main clause decides, and a negation
reverses it. Counting positive and negative words is right for about two thirds of the reviews.
"""

from __future__ import annotations

from random import Random

from peftsearch.tasks.embedded.generate import Draft
from peftsearch.tasks.embedded.vocabulary import ASPECTS, BAD, GOOD, PLEASES, UPSETS

LABELS = ("negative", "positive")

NEGATED = (
    "the {aspect} was not {word} at all",
    "the {aspect} was not {word}",
    "the {aspect} was never {word}",
    "the {aspect} was hardly {word}",
    "the {aspect} was far from {word}",
    "the {aspect} was anything but {word}",
    "nobody called the {aspect} {word}",
    "the {aspect} was by no means {word}",
)
PLAIN = (
    "the {aspect} was {word}",
    "the {aspect} was really {word}",
    "the {aspect} was truly {word}",
    "the {aspect} seemed {word} to me",
    "everybody called the {aspect} {word}",
    "the {aspect} was {word} as always",
)
AUDIENCE = ("us", "everyone", "me", "the guests", "the critics")
CONTRASTS = (
    "{aside} but {main}",
    "{aside} , yet {main}",
    "although {aside} , {main}",
    "{main} although {aside}",
    "{main} even though {aside}",
    "while {aside} , {main}",
)
P_NEGATED, P_VERB, P_CONTRAST = 0.25, 0.2, 0.4


def clause(rng: Random, label: int, rare: bool) -> tuple[str, str]:
    """Say something good (1) or bad (0) about one aspect.

    Returns:
        The clause, and its core.
    """
    aspect, negated = ASPECTS.pick(rng, rare), rng.random() < P_NEGATED
    praise = bool(label) != negated
    if rng.random() < P_VERB:
        past, base = rng.choice(list((PLEASES if praise else UPSETS).items()))
        verb = f"did not {base}" if negated else past
        return f"the {aspect} {verb} {rng.choice(AUDIENCE)}", f"{aspect}|{base}"
    word = (GOOD if praise else BAD).pick(rng, rare)
    return rng.choice(NEGATED if negated else PLAIN).format(aspect=aspect, word=word), f"{aspect}|{word}"


def make(rng: Random, label: int, rare: bool) -> Draft:
    """Write a review with the verdict `label`."""
    main, core = clause(rng, label, rare)
    if rng.random() >= P_CONTRAST:
        return Draft(text=main, core=core)
    aside, _ = clause(rng, 1 - label, rare)
    return Draft(text=rng.choice(CONTRASTS).format(main=main, aside=aside), core=core)
