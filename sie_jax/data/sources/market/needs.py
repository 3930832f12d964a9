"""What a customer really needs, and the grade that an item has for it: the rule behind all labels.

A need names a class (a kind of product, a whole department, or an accessory for a kind) and up to
four constraints. The grades:

    E  the item is of the class asked for and meets every constraint
    S  it is of the class asked for and breaks a constraint;
       or it is a product of the kind that replaces the one asked for, and breaks no constraint but
       one on size, which two kinds do not share
    C  it is an accessory that fits the class asked for; or, where an accessory is asked for, a
       product that the accessory fits
    I  everything else
"""

from dataclasses import dataclass

import numpy as np

from sie_jax.data.sources.market.items import Catalogue
from sie_jax.data.sources.market.ontology import Ontology

IRRELEVANT, COMPLEMENT, SUBSTITUTE, EXACT = range(4)
ATTRIBUTES = ("brand", "colour", "feature", "size")
IS, NOT, UNDER, OVER = "is", "not", "under", "over"
_HYPERNYM = 0.12  # share of the needs for a product that name a whole department
_CONSTRAINTS = (0.05, 0.4, 0.4, 0.15)  # chance of 0, 1, 2, 3 constraints
_NEGATED = 0.18  # share of constraints on colour and feature
_BOUNDED = 0.5  # share of constraints on size
_ANY = -1


@dataclass(frozen=True)
class Constraint:
    """What is asked of one attribute.

    attribute: one of ATTRIBUTES. value: a place in the ontology's list, or a size.
    mode: IS or NOT; for a size IS, UNDER (less than the value) or OVER (more than the value).
    """

    attribute: str
    value: float
    mode: str = IS


@dataclass(frozen=True)
class Need:
    """The class and the constraints; `kind` is -1 for a whole department, `accessory` for none."""

    department: int
    kind: int
    accessory: int
    constraints: tuple[Constraint, ...]


def draw(rng: np.random.Generator, ontology: Ontology, catalogue: Catalogue, item: int) -> Need:
    """A need that the item meets."""
    department, kind = int(catalogue.department[item]), int(catalogue.kind[item])
    accessory = int(catalogue.accessory[item])
    hypernym = accessory == _ANY and rng.random() < _HYPERNYM
    count = int(rng.choice(len(_CONSTRAINTS), p=_CONSTRAINTS))
    if hypernym:
        count = max(count, 1)
    asked = rng.permutation(4 - hypernym)[:count]
    constraints = [
        _constraint(rng, ontology, catalogue, item, ATTRIBUTES[place]) for place in sorted(asked)
    ]
    return Need(department, _ANY if hypernym else kind, accessory, tuple(constraints))


def _constraint(
    rng: np.random.Generator, ontology: Ontology, catalogue: Catalogue, item: int, attribute: str
) -> Constraint:
    """A constraint on the attribute that the item meets."""
    negated, bounded = rng.random() < _NEGATED, rng.random() < _BOUNDED
    if attribute == "brand":
        return Constraint(attribute, int(catalogue.brand[item]))
    if attribute == "colour":
        own, colours = int(catalogue.colour[item]), len(ontology.colours)
        if negated:
            return Constraint(attribute, int((own + rng.integers(1, colours)) % colours), NOT)
        return Constraint(attribute, own)
    if attribute == "feature":
        have = np.flatnonzero(catalogue.features[item])
        lack = np.flatnonzero(~catalogue.features[item])
        if len(lack) and (negated or not len(have)):
            return Constraint(attribute, int(rng.choice(lack)), NOT)
        return Constraint(attribute, int(rng.choice(have)))
    size = float(catalogue.size[item])
    sizes = ontology.kind_words[catalogue.kind[item]].sizes
    if not bounded:
        return Constraint(attribute, size)
    bound = float(rng.choice([other for other in sizes if other != size]))
    return Constraint(attribute, bound, UNDER if size < bound else OVER)


def met(catalogue: Catalogue, constraint: Constraint, items: np.ndarray) -> np.ndarray:
    """Whether each item [N] meets the constraint, whatever its class; bool [N]."""
    if constraint.attribute == "feature":
        return catalogue.features[items, int(constraint.value)] == (constraint.mode == IS)
    values = getattr(catalogue, constraint.attribute)[items]
    if constraint.mode == UNDER:
        return values < constraint.value
    if constraint.mode == OVER:
        return values > constraint.value
    return (values == constraint.value) == (constraint.mode == IS)


def judge(catalogue: Catalogue, need: Need, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grade [N] of each item for the need, and the perfect score [N].

    The perfect score is the grade plus half the share of the constraints that the item meets.
    """
    kept = np.array([met(catalogue, one, items) for one in need.constraints], bool)
    kept = kept.reshape(len(need.constraints), len(items))
    sizes = np.array([one.attribute == "size" for one in need.constraints], bool)
    kind, accessory = catalogue.kind[items], catalogue.accessory[items]
    inside = catalogue.department[items] == need.department
    fits = inside if need.kind == _ANY else kind == need.kind
    replaces = (need.kind != _ANY) & inside & (kind == need.kind ^ 1)
    everything = kept.all(0)
    asked = fits & (accessory == need.accessory)
    grade = np.zeros(len(items), np.int64)
    if need.accessory == _ANY:
        grade[fits & (accessory != _ANY)] = COMPLEMENT
        grade[replaces & (accessory == _ANY) & kept[~sizes].all(0)] = SUBSTITUTE
    else:
        grade[fits & (accessory == _ANY)] = COMPLEMENT
    grade[asked] = SUBSTITUTE
    grade[asked & everything] = EXACT
    share = kept.mean(0) if len(kept) else np.ones(len(items))
    return grade, grade + share / 2
