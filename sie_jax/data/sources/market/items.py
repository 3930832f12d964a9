"""The items of the generated shop: what each is, how popular it is, and how its seller words it."""

from dataclasses import dataclass

import numpy as np

from sie_jax.data.sources.market.ontology import (
    ACCESSORIES_EACH,
    BRANDS_EACH,
    FEATURES_EACH,
    SELLER,
    Ontology,
)
from sie_jax.data.sources.market.words import FILLERS, FOR, LIKE, WITHOUT

_ACCESSORIES = 0.22  # share of the items
_NEAR_DUPLICATES = 0.08
_FEATURE = 0.3  # chance that a product has a feature
_HIDDEN = 0.06  # chance that an attribute is not in the title; the text names it if there is a text
_TEXT_MISSING = 0.15
_SAYS_WHAT_IT_LACKS = 0.1  # share of titles: "without leather"
_SAYS_WHAT_IT_IS_LIKE = 0.1  # share of titles: "like <another brand>"
_ZIPF = 0.8


@dataclass(frozen=True)
class Catalogue:
    """The I items by column.

    kind [I]: a product's kind, or the kind that an accessory fits. department [I]: of the kind.
    accessory [I]: which of its department's accessories it is; -1 for a product.
    brand, colour [I]; size [I] float, in the first unit of the kind; features [I, F] bool. An
      accessory has those of the product it fits, and its own colour.
    original [I]: the item that this one nearly duplicates; itself where there is none.
    popularity [I]: > 0 with sum 1, by Zipf's law over the items in a random order.
    """

    kind: np.ndarray
    department: np.ndarray
    accessory: np.ndarray
    brand: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    features: np.ndarray
    original: np.ndarray
    popularity: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


def stock(rng: np.random.Generator, ontology: Ontology, count: int) -> Catalogue:
    """`count` items with random attributes; every kind has about as many."""
    kinds = len(ontology.kinds)
    kind = rng.permutation(np.arange(count) % kinds)
    accessory = np.where(
        rng.random(count) < _ACCESSORIES, rng.integers(ACCESSORIES_EACH, size=count), -1
    )
    brand = rng.integers(BRANDS_EACH, size=count)
    colour = rng.integers(len(ontology.colours), size=count)
    sizes = np.array([one.sizes for one in ontology.kind_words])
    size = sizes[kind, rng.integers(sizes.shape[1], size=count)]
    features = rng.random((count, FEATURES_EACH)) < _FEATURE
    index = np.arange(count)
    # Only an odd item copies the even one before it, so that no copy is copied.
    original = index - ((index % 2 == 1) & (rng.random(count) < 2 * _NEAR_DUPLICATES))
    weights = (1 + rng.permutation(count)) ** -_ZIPF
    return Catalogue(
        kind=kind[original],
        department=ontology.department[kind[original]],
        accessory=accessory[original],
        brand=brand[original],
        colour=colour[original],
        size=size[original],
        features=features[original],
        original=original,
        popularity=weights / weights.sum(),
    )


def describe(
    rng: np.random.Generator, ontology: Ontology, catalogue: Catalogue, second_language: float
) -> tuple[list[str], list[str]]:
    """The titles and the texts of all items; a share of sellers writes in the second language."""
    titles: list[str] = []
    texts: list[str] = []
    for item in range(len(catalogue)):
        original = int(catalogue.original[item])
        if original != item:
            titles.append(_reworded(rng, titles[original]))
            texts.append(texts[original])
            continue
        title, text = _texts(rng, ontology, catalogue, item, rng.random() < second_language)
        titles.append(title)
        texts.append(text)
    return titles, texts


def _texts(
    rng: np.random.Generator, ontology: Ontology, catalogue: Catalogue, item: int, foreign: bool
) -> tuple[str, str]:
    """Title and text of one item."""
    department, kind = int(catalogue.department[item]), int(catalogue.kind[item])
    brand_place = int(catalogue.brand[item])
    brand = ontology.brands[department][brand_place].say(rng, SELLER)
    noun = ontology.kinds[kind].say(rng, SELLER, foreign)
    colour = ontology.colours[catalogue.colour[item]].say(rng, SELLER, foreign)
    notation = int(ontology.notations[department, brand_place])
    size = ontology.size(kind, float(catalogue.size[item]), notation)
    have = np.flatnonzero(catalogue.features[item])
    lack = np.flatnonzero(~catalogue.features[item])
    concepts = ontology.features[department]
    features = [concepts[place].say(rng, SELLER, foreign) for place in have]
    parts = [brand, colour, size, *features]
    shown = rng.random(len(parts)) >= _HIDDEN
    hidden = [part for part, show in zip(parts, shown, strict=True) if not show]
    brand, colour, size, *features = (
        part if show else "" for part, show in zip(parts, shown, strict=True)
    )
    filler = FILLERS[rng.integers(len(FILLERS))]
    order = rng.integers(3)
    if catalogue.accessory[item] >= 0:
        thing = ontology.accessories[department][catalogue.accessory[item]].say(
            rng, SELLER, foreign
        )
        title = (
            [filler, thing, FOR[foreign], brand, noun, size, *features, colour],
            [brand, noun, thing, *features, colour, filler, size],
            [colour, thing, FOR[foreign], *features, noun, brand, size, filler],
        )[order]
    else:
        title = (
            [brand, colour, *features, noun, size, filler],
            [filler, brand, noun, *features, size, colour],
            [brand, size, noun, filler, *features, colour],
        )[order]
    traps, other = rng.random(2), rng.integers(BRANDS_EACH)
    if traps[0] < _SAYS_WHAT_IT_LACKS and len(lack):
        title += [WITHOUT[foreign][0], concepts[rng.choice(lack)].say(rng, SELLER, foreign)]
    elif traps[1] < _SAYS_WHAT_IT_IS_LIKE and other != brand_place:
        title += [LIKE[foreign], ontology.brands[department][other].say(rng, SELLER)]
    text = f"{ontology.hypernyms[department].say(rng, SELLER, foreign)}: {noun}"
    text = ", ".join([text, *hidden])
    return " ".join(filter(None, title)), "" if rng.random() < _TEXT_MISSING else text


def _reworded(rng: np.random.Generator, title: str) -> str:
    """The title with one filler word for another, or one more."""
    parts = title.split()
    fillers = [place for place, word in enumerate(parts) if word in FILLERS]
    others = [word for word in FILLERS if word not in parts]
    other = others[rng.integers(len(others))]
    if fillers and rng.random() < 0.5:
        parts[fillers[0]] = other
    else:
        parts.insert(0, other)
    return " ".join(parts)
