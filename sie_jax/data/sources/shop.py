"""The words of the synthetic shop: its categories, their attributes, brands and accessories."""

from dataclasses import dataclass

# Each value is a tuple of ways to say it; the first is the common one.
Value = tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """A kind of product: how it is called, what varies about it, and what goes with it."""

    nouns: Value
    brands: tuple[Value, ...]
    colours: tuple[Value, ...]
    features: tuple[Value, ...]
    sizes: tuple[Value, ...]
    accessories: tuple[str, ...]


def _values(text: str) -> tuple[Value, ...]:
    """'grey/gray, red' -> (('grey', 'gray'), ('red',))."""
    return tuple(tuple(value.strip().split("/")) for value in text.split(","))


def _category(
    nouns: str, brands: str, colours: str, features: str, sizes: str, accessories: str
) -> Category:
    return Category(
        nouns=tuple(nouns.split("/")),
        brands=_values(brands),
        colours=_values(colours),
        features=_values(features),
        sizes=_values(sizes),
        accessories=tuple(accessory.strip() for accessory in accessories.split(",")),
    )


# Within a category no value is part of another and no value occurs in two attributes, so that
# the words of a text say which values it names. No accessory is called like a product.
CATEGORIES = (
    _category(
        nouns="phone/smartphone/mobile",
        brands="lumina, kestrel, orbit, zephyr, novatek",
        colours="black, white, blue, gold, red",
        features="waterproof, dual sim, rugged, folding/foldable",
        sizes="64gb, 128gb, 256gb, 512gb",
        accessories="case, charger, screen protector, holder",
    ),
    _category(
        nouns="laptop/notebook/ultrabook",
        brands="lumina, kestrel, argon, pixelon, novatek",
        colours="black, silver, white, grey/gray, blue",
        features="touchscreen, gaming, lightweight/light, backlit",
        sizes="13 inch, 14 inch, 15 inch, 17 inch",
        accessories="sleeve, charger, docking station, cooling pad",
    ),
    _category(
        nouns="headphones/headset/earphones",
        brands="sonora, orbit, zephyr, pixelon, argon",
        colours="black, white, pink, red, silver",
        features="wireless/cordless, wired, folding/foldable, noise cancelling",
        sizes="over ear, on ear, in ear, kids",
        accessories="ear pads, stand, pouch, adapter cable",
    ),
    _category(
        nouns="sneakers/trainers/running shoes",
        brands="strider, boreal, vento, summit, cobalto",
        colours="black, white, red, blue, green",
        features="leather, mesh, canvas, suede",
        sizes="size 7, size 8, size 9, size 10",
        accessories="laces, insoles, cleaning kit, deodorant spray",
    ),
    _category(
        nouns="jacket/coat/parka",
        brands="boreal, summit, vento, larkfield, hemlock",
        colours="black, navy/dark blue, green, brown, red",
        features="leather, wool/woollen, denim, quilted/padded",
        sizes="small, medium, large, extra wide",
        accessories="hanger, lint brush, garment bag, zipper repair kit",
    ),
    _category(
        nouns="sofa/couch/settee",
        brands="larkfield, hemlock, nordhus, casaro, oakmere",
        colours="grey/gray, beige/cream, green, brown, blue",
        features="leather, velvet, linen, reclining/recliner",
        sizes="two seater, three seater, corner, single",
        accessories="slipcover, cushion, throw blanket, arm tray",
    ),
    _category(
        nouns="desk/writing table/workstation",
        brands="nordhus, casaro, oakmere, hemlock, fjordal",
        colours="white, black, brown, grey/gray, natural",
        features="bamboo, walnut, glass, standing/adjustable",
        sizes="100cm, 120cm, 140cm, 160cm",
        accessories="drawer organizer, cable tray, mat, monitor arm",
    ),
    _category(
        nouns="bicycle/bike/cycle",
        brands="strider, veloce, summit, cobalto, fjordal",
        colours="black, red, yellow, green, orange",
        features="aluminium/aluminum, carbon, folding/foldable, electric",
        sizes="24 inch, 26 inch, 28 inch, 29 inch",
        accessories="lock, pump, basket, bell",
    ),
    _category(
        nouns="coffee machine/coffee maker/espresso machine",
        brands="baristo, casaro, sonora, vapore, argon",
        colours="black, silver, red, white, beige/cream",
        features="automatic, programmable, compact/mini, manual",
        sizes="2 cup, 4 cup, 8 cup, 12 cup",
        accessories="filters, descaler, milk jug, water tank",
    ),
    _category(
        nouns="backpack/rucksack/daypack",
        brands="boreal, summit, strider, larkfield, veloce",
        colours="black, blue, green, grey/gray, orange",
        features="nylon, canvas, leather, waterproof",
        sizes="15 liter, 20 liter, 30 liter, 40 liter",
        accessories="rain cover, chest strap, packing cubes, name tag",
    ),
)

ACCESSORY_MAKERS = ("fitwell", "handig", "smartfix", "plusmore", "ezcare")
FILLERS = ("new", "classic", "premium", "original", "popular", "everyday", "quality", "modern")
