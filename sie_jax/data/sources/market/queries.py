"""How a customer words a need."""

import numpy as np

from sie_jax.data.sources.market import words
from sie_jax.data.sources.market.needs import IS, NOT, OVER, UNDER, Constraint, Need
from sie_jax.data.sources.market.ontology import CUSTOMER, Ontology

_CHATTER = 0.08  # share of queries with a word that says nothing
_JOINED = 0.5  # share of accessory queries without "for": "phone case"


def say(
    rng: np.random.Generator, ontology: Ontology, need: Need, typos: float, foreign: bool
) -> str:
    """The need as a query: the class, what is asked of it, and at the end what is not wanted.

    Args:
      typos: probability that a word of four or more letters has two letters swapped, one dropped
        or one doubled.
      foreign: whether the customer speaks the second language.
    """
    front: list[str] = []
    behind: list[str] = []
    for constraint in need.constraints:
        phrase = phrase_of(rng, ontology, need, constraint, foreign)
        plain = constraint.mode == IS
        (front if plain and rng.random() < 0.6 else behind).append(phrase)
    noun = noun_of(rng, ontology, need, foreign)
    # What is negated or bounded stays behind the noun.
    front = [front[place] for place in rng.permutation(len(front))]
    if rng.random() < _CHATTER:
        front.insert(0, words.CHATTER[rng.integers(len(words.CHATTER))])
    spoken = " ".join([*front, noun, *behind]).split()
    wrong = rng.random(len(spoken)) < typos
    return " ".join(
        misspelt(rng, word) if mistake and len(word) >= 4 and word.isalpha() else word
        for word, mistake in zip(spoken, wrong, strict=True)
    )


def noun_of(rng: np.random.Generator, ontology: Ontology, need: Need, foreign: bool) -> str:
    """The class asked for: 'couch', 'furniture', 'case for phone'."""
    concept = ontology.hypernyms[need.department] if need.kind < 0 else ontology.kinds[need.kind]
    noun = concept.say(rng, CUSTOMER, foreign)
    if need.accessory < 0:
        return noun
    thing = ontology.accessories[need.department][need.accessory].say(rng, CUSTOMER, foreign)
    if rng.random() < _JOINED:
        return f"{noun} {thing}"
    return f"{thing} {words.FOR[foreign]} {noun}"


def phrase_of(
    rng: np.random.Generator,
    ontology: Ontology,
    need: Need,
    constraint: Constraint,
    foreign: bool,
) -> str:
    """One constraint in words: 'navy', 'without laces', 'under 38 cm'."""
    before = ""
    if constraint.attribute == "size":
        notation = 0 if rng.random() > ontology.gap else int(rng.integers(4))
        phrase = ontology.size(need.kind, constraint.value, notation)
    else:
        place = int(constraint.value)
        concept = {
            "brand": ontology.brands[need.department],
            "colour": ontology.colours,
            "feature": ontology.features[need.department],
        }[constraint.attribute][place]
        phrase = concept.say(rng, CUSTOMER, foreign)
    for mode, spoken in ((NOT, words.WITHOUT), (UNDER, words.UNDER), (OVER, words.OVER)):
        if constraint.mode == mode:
            choice = spoken[foreign]
            before = choice[rng.integers(len(choice))]
    return f"{before} {phrase}".strip()


def misspelt(rng: np.random.Generator, word: str) -> str:
    """The word with two neighbours swapped, a letter dropped, or a letter doubled."""
    kind, place = rng.integers(3), int(rng.integers(len(word) - 1))
    if kind == 0:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    return word[: place + 1] + word[place:]
