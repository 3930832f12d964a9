"""How the shop's sellers and its customers speak: which word each uses for which concept.

The words are those of `words`, with invented ones added; who uses which is drawn from the seed. So
what connects a query's word with a title's word has to be learnt from judged pairs.
"""

from dataclasses import dataclass

import numpy as np

from sie_jax.data.sources.market import words
from sie_jax.data.sources.market.words import COLOURS, DEPARTMENTS, NOTATIONS, KindWords, Ways

BRANDS_EACH = 7  # of a department
FEATURES_EACH = 8
ACCESSORIES_EACH = 4
SELLER, CUSTOMER = 0, 1
_HABIT = np.array([0.85, 0.1, 0.04, 0.01])  # how often the first, second, ... word is used
_INVENTED = 0.3  # share of concepts that have an invented word too
_NICKNAMED = 0.8  # share of a brand's mentions by customers at a gap of 1 that are its nickname
_ONSETS = (
    *("b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "k", "kl", "l", "m"),
    *("n", "p", "pr", "r", "s", "st", "t", "tr", "v", "w", "z"),
)
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
_CODAS = ["", "", "", "n", "r", "l", "x", "s", "m", "nd", "rk"]


@dataclass(frozen=True)
class Concept:
    """The ways to say one thing, how often each speaker uses each [2, W], and a foreign one.

    A row of `habits` sums to 1.
    """

    ways: Ways
    habits: np.ndarray
    foreign: str

    def say(self, rng: np.random.Generator, speaker: int, second_language: bool = False) -> str:
        """One way to say it."""
        draw = rng.random()  # drawn in both cases, so that the language changes no other draw
        if second_language:
            return self.foreign
        return self.ways[int(np.searchsorted(np.cumsum(self.habits[speaker])[:-1], draw))]


@dataclass(frozen=True)
class Ontology:
    """The concepts of the shop; kinds are numbered through all departments.

    kinds [K], hypernyms [D], colours [C], features [D][F], accessories [D][A], brands [D][B].
    department [K]: of a kind. The kinds 2j and 2j + 1 are each other's substitutes.
    kind_words [K]: the kind's sizes and their unit.
    habits [D, B]: the notation in which a brand's sellers write sizes; a place in NOTATIONS[unit].
    gap: how far customers' words are from sellers', 0 (alike) to 1 (opposite habits).
    """

    kinds: tuple[Concept, ...]
    hypernyms: tuple[Concept, ...]
    colours: tuple[Concept, ...]
    features: tuple[tuple[Concept, ...], ...]
    accessories: tuple[tuple[Concept, ...], ...]
    brands: tuple[tuple[Concept, ...], ...]
    department: np.ndarray
    kind_words: tuple[KindWords, ...]
    notations: np.ndarray
    gap: float

    def size(self, kind: int, value: float, notation: int) -> str:
        """A size of the kind in one notation: '15 inch', '38 cm', '64gb'."""
        factor, unit, attached = NOTATIONS[self.kind_words[kind].measure][notation]
        number = value * factor
        shown = f"{number:.0f}" if number >= 20 else f"{round(number, 1):g}"
        return f"{shown}{unit}" if attached else f"{shown} {unit}"


def build(rng: np.random.Generator, gap: float) -> Ontology:
    """The shop's way to speak.

    Args:
      gap: in [0, 1]. A customer uses a seller's habits with weight 1 - gap, and the same habits in
        the opposite order of words with weight gap.
    """
    taken = _real_words()
    kinds = [kind for department in DEPARTMENTS for kind in department.kinds]
    return Ontology(
        kinds=tuple(_concept(rng, kind.names, gap, taken) for kind in kinds),
        hypernyms=tuple(_concept(rng, one.hypernyms, gap, taken) for one in DEPARTMENTS),
        colours=tuple(_concept(rng, colour, gap, taken) for colour in COLOURS),
        features=tuple(
            tuple(_concept(rng, feature, gap, taken) for feature in one.features)
            for one in DEPARTMENTS
        ),
        accessories=tuple(
            tuple(_concept(rng, accessory, gap, taken) for accessory in one.accessories)
            for one in DEPARTMENTS
        ),
        brands=tuple(
            tuple(_brand(rng, gap, taken) for _ in range(BRANDS_EACH)) for _ in DEPARTMENTS
        ),
        department=np.repeat(np.arange(len(DEPARTMENTS)), [len(one.kinds) for one in DEPARTMENTS]),
        kind_words=tuple(kinds),
        notations=rng.choice(4, size=(len(DEPARTMENTS), BRANDS_EACH), p=_HABIT / _HABIT.sum()),
        gap=gap,
    )


def _real_words() -> set[str]:
    """All words that mean something already."""
    concepts = [*COLOURS, *(kind.names for one in DEPARTMENTS for kind in one.kinds)]
    for one in DEPARTMENTS:
        concepts += [one.hypernyms, *one.features, *one.accessories]
    concepts += [words.FILLERS, words.CHATTER, words.FOR, words.LIKE]
    concepts += [*words.WITHOUT, *words.UNDER, *words.OVER]
    units = {notation.unit for notations in NOTATIONS.values() for notation in notations}
    return units | {word for ways in concepts for way in ways for word in way.split()}


def _concept(rng: np.random.Generator, names: Ways, gap: float, taken: set[str]) -> Concept:
    """A concept whose last name is the second language's."""
    own = list(names[:-1])
    if rng.random() < _INVENTED:
        own.append(_invent(rng, taken, 2))
    habit = np.zeros(len(own))
    order = rng.permutation(len(own))
    habit[order] = (_HABIT[: len(own)] if len(own) <= 4 else np.append(_HABIT, 0.02))[: len(own)]
    opposite = np.zeros(len(own))
    opposite[order[::-1]] = habit[order]
    habits = np.stack([habit, (1 - gap) * habit + gap * opposite])
    return Concept(tuple(own), habits / habits.sum(1, keepdims=True), names[-1])


def _brand(rng: np.random.Generator, gap: float, taken: set[str]) -> Concept:
    """A brand's name and its nickname: the name's consonants, its beginning, or another word."""
    name = _invent(rng, taken, 3)
    kind = rng.integers(3)
    nickname = "".join(letter for letter in name if letter not in "aeiou") if kind == 0 else ""
    if kind == 1:
        nickname = name[:3]
    if len(nickname) < 3 or nickname in taken:
        nickname = _invent(rng, taken, 2)
    taken.add(nickname)
    mentions = _NICKNAMED * gap
    return Concept((name, nickname), np.array([[1.0, 0.0], [1 - mentions, mentions]]), name)


def _invent(rng: np.random.Generator, taken: set[str], syllables: int) -> str:
    """A new word that can be spoken; it joins `taken`."""
    while True:
        word = "".join(
            _ONSETS[rng.integers(len(_ONSETS))] + _VOWELS[rng.integers(len(_VOWELS))]
            for _ in range(syllables)
        )
        word += _CODAS[rng.integers(len(_CODAS))]
        if word not in taken and len(word) > 3:
            taken.add(word)
            return word
