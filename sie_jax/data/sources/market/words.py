"""The words of the generated shop: kinds of products, attributes, accessories, and function words.

Every concept is a tuple of ways to say it. The last way is the one of the second language.
"""

from dataclasses import dataclass
from typing import NamedTuple

Ways = tuple[str, ...]


class Notation(NamedTuple):
    """How sizes of one unit are written: `factor` times the number, with each of the units.

    attached: the number and the unit are one word ("64gb").
    """

    factor: float
    unit: str
    attached: bool


@dataclass(frozen=True)
class KindWords:
    """A kind of product: its names, its sizes in the unit `measure`."""

    names: Ways
    measure: str
    sizes: tuple[float, ...]


@dataclass(frozen=True)
class DepartmentWords:
    """A department: its hypernyms, kinds (neighbours 2j and 2j + 1 replace each other), and more.

    features: what a product of the department may have. accessories: what fits its products.
    """

    hypernyms: Ways
    kinds: tuple[KindWords, ...]
    features: tuple[Ways, ...]
    accessories: tuple[Ways, ...]


NOTATIONS: dict[str, tuple[Notation, ...]] = {
    "length": (
        Notation(1, "inch", False),
        Notation(1, "in", True),
        Notation(2.54, "cm", False),
        Notation(25.4, "mm", True),
    ),
    "memory": (
        Notation(1, "gb", True),
        Notation(1, "gigabyte", False),
        Notation(1024, "mb", True),
        Notation(1, "gig", False),
    ),
    "volume": (
        Notation(1, "liter", False),
        Notation(1, "l", True),
        Notation(1000, "ml", True),
        Notation(33.8, "oz", False),
    ),
    "weight": (
        Notation(1, "kg", True),
        Notation(1000, "gram", False),
        Notation(2.2, "lb", False),
        Notation(1, "kilo", False),
    ),
    "count": (
        Notation(1, "pack", False),
        Notation(1, "pcs", True),
        Notation(1, "pieces", False),
        Notation(1, "ct", True),
    ),
}


def _ways(text: str) -> tuple[Ways, ...]:
    """'grey/gray, red/crimson' -> (('grey', 'gray'), ('red', 'crimson'))."""
    return tuple(tuple(concept.strip().split("/")) for concept in text.split(","))


def _department(
    hypernyms: str, kinds: dict[str, tuple[str, str]], features: str, accessories: str
) -> DepartmentWords:
    return DepartmentWords(
        hypernyms=tuple(hypernyms.split("/")),
        kinds=tuple(
            KindWords(tuple(names.split("/")), measure, tuple(map(float, sizes.split())))
            for names, (measure, sizes) in kinds.items()
        ),
        features=_ways(features),
        accessories=_ways(accessories),
    )


COLOURS = _ways(
    "black/ebony/jet/schwarz, white/ivory/snow/weiss, red/crimson/scarlet/rot,"
    "blue/navy/azure/blau, green/olive/emerald/grün, grey/gray/charcoal/grau,"
    "brown/chestnut/mocha/braun, pink/rose/blush/rosa, yellow/mustard/lemon/gelb,"
    "orange/tangerine/amber/apricot, purple/violet/plum/lila, silver/chrome/metallic/silbern"
)

DEPARTMENTS = (
    _department(
        "electronics/gadget/device/elektronik",
        {
            "phone/smartphone/mobile/cellphone/handy": ("memory", "64 128 256 512"),
            "tablet/pad/slate/tafelrechner": ("memory", "32 64 128 256"),
            "laptop/notebook/ultrabook/klapprechner": ("length", "13 14 15 17"),
            "monitor/display/screen/bildschirm": ("length", "22 24 27 32"),
            "camera/camcorder/cam/kamera": ("memory", "16 32 64 128"),
            "recorder/dictaphone/voice logger/diktiergerät": ("memory", "4 8 16 32"),
        },
        "wireless/cordless/untethered/kabellos, waterproof/water resistant/wasserdicht,"
        "rugged/shockproof/drop proof/stossfest, touchscreen/touch panel/berührbar,"
        "fast charging/quick charge/schnelllader, refurbished/renewed/generalüberholt,"
        "solar/sun powered/solarbetrieben, backlit/illuminated/beleuchtet",
        "case/cover/sleeve/hülle, charger/power adapter/ladegerät, stand/holder/mount/halterung,"
        "protector/guard film/schutzfolie",
    ),
    _department(
        "footwear/shoes/schuhwerk",
        {
            "sneakers/trainers/kicks/turnschuhe": ("length", "9 10 11 12"),
            "running flats/joggers/racers/laufschuhe": ("length", "9 10 11 12"),
            "boots/wellies/stompers/stiefel": ("length", "10 11 12 13"),
            "galoshes/overshoes/rubbers/gummischuhe": ("length", "10 11 12 13"),
            "slippers/loafers/mules/pantoffeln": ("length", "8 9 10 11"),
            "sandals/flip flops/thongs/sandalen": ("length", "8 9 10 11"),
        },
        "leather/cowhide/echtleder, suede/nubuck/wildleder, vegan/animal free/tierfrei,"
        "laced/lace up/geschnürt, padded/cushioned/gepolstert, non slip/grippy/rutschfest,"
        "breathable/airy/atmungsaktiv, wide fit/broad/weit",
        "laces/shoestrings/senkel, insoles/footbeds/einlagen, polish/shine cream/pflegecreme,"
        "horn/shoe lifter/löffel",
    ),
    _department(
        "furniture/furnishing/möbel",
        {
            "sofa/couch/settee/chesterfield/kanapee": ("length", "60 70 80 90"),
            "armchair/recliner/easy chair/sessel": ("length", "30 34 38 42"),
            "desk/writing table/workstation/schreibtisch": ("length", "40 48 55 63"),
            "bureau/secretary/escritoire/sekretär": ("length", "36 40 44 48"),
            "bookcase/bookshelf/shelving/bücherregal": ("length", "36 48 60 72"),
            "cabinet/cupboard/sideboard/schrank": ("length", "30 40 50 60"),
        },
        "oak/oakwood/eiche, velvet/plush/samt, foldable/folding/collapsible/klappbar,"
        "rustic/farmhouse/ländlich, adjustable/height changing/verstellbar,"
        "upholstered/fabric covered/bezogen, lockable/with lock/abschliessbar,"
        "assembled/ready built/montiert",
        "slipcover/throw/überwurf, castors/wheels/rollen, handles/knobs/griffe,"
        "felt pads/gliders/filzgleiter",
    ),
    _department(
        "kitchenware/cookware/küchenbedarf",
        {
            "kettle/water boiler/teapot/wasserkocher": ("volume", "1 1.5 1.7 2"),
            "coffee maker/espresso machine/percolator/kaffeemaschine": ("volume", "0.5 1 1.2 1.8"),
            "pan/skillet/frypan/pfanne": ("length", "8 9.5 11 12"),
            "wok/stir fryer/karahi/wokpfanne": ("length", "11 12 13 14"),
            "blender/liquidiser/smoothie maker/mixer": ("volume", "0.6 1 1.5 2"),
            "juicer/squeezer/press/entsafter": ("volume", "0.4 0.8 1 1.2"),
        },
        "stainless/inox/rostfrei, nonstick/easy release/antihaft, induction/hob ready/induktion,"
        "ceramic/earthen/keramik, programmable/with timer/programmierbar, silent/quiet/leise,"
        "glass/see through/gläsern, compact/mini/kompakt",
        "lid/top/deckel, filter/strainer/sieb, descaler/limescale remover/entkalker,"
        "brush/scrubber/bürste",
    ),
    _department(
        "garden tools/yard gear/gartengerät",
        {
            "lawnmower/mower/grass cutter/rasenmäher": ("length", "13 15 17 20"),
            "trimmer/strimmer/edger/freischneider": ("length", "9 10 11 12"),
            "hose/water pipe/flexi tube/schlauch": ("length", "300 600 900 1200"),
            "sprinkler/irrigator/lawn shower/regner": ("length", "120 240 360 480"),
            "planter/flowerpot/jardiniere/blumentopf": ("length", "6 8 10 14"),
            "raised bed/grow box/veg trough/hochbeet": ("length", "24 32 40 48"),
        },
        "electric/mains powered/elektrisch, petrol/gasoline/gas/benzin,"
        "frostproof/winter hard/frostfest,"
        "self watering/with reservoir/selbstbewässernd, galvanised/zinc coated/verzinkt,"
        "expandable/stretchy/dehnbar, terracotta/clay/ton, ergonomic/easy grip/ergonomisch",
        "blade/cutter/klinge, nozzle/spray head/düse, saucer/drip tray/untersetzer,"
        "connector/coupling/kupplung",
    ),
    _department(
        "outdoor gear/camping/expedition/campingbedarf",
        {
            "backpack/rucksack/daypack/tornister": ("volume", "15 20 30 45"),
            "duffel/holdall/gym bag/reisetasche": ("volume", "30 40 60 80"),
            "tent/shelter/bivouac/zelt": ("weight", "1.5 2 3 4"),
            "tarp/canopy/awning/plane": ("weight", "0.5 1 1.2 2"),
            "sleeping bag/mummy bag/quilt/schlafsack": ("weight", "0.8 1 1.4 2"),
            "bottle/flask/canteen/trinkflasche": ("volume", "0.4 0.5 0.75 1"),
        },
        "ultralight/featherweight/ultraleicht, rainproof/weatherproof/regenfest,"
        "nylon/polyamide/perlon,"
        "insulated/thermal/isoliert, reflective/hi vis/reflektierend, ventilated/meshed/belüftet,"
        "inflatable/blow up/aufblasbar, organic/eco/biologisch",
        "rain cover/rain hood/regenhülle, straps/webbing/gurte, pegs/stakes/heringe,"
        "patch kit/repair set/flickzeug",
    ),
    _department(
        "pet supplies/animal care/tierbedarf",
        {
            "kibble/dry food/chow/trockenfutter": ("weight", "2 4 7.5 12"),
            "wet food/pate/gravy/nassfutter": ("count", "6 12 24 48"),
            "leash/lead/tether/leine": ("length", "48 60 72 120"),
            "harness/body collar/vest/geschirr": ("length", "12 16 20 26"),
            "litter/cat sand/granules/streu": ("weight", "5 8 10 15"),
            "pee pads/training mats/puppy sheets/unterlagen": ("count", "20 40 60 100"),
        },
        "grain free/no cereal/getreidefrei, salmon/fish flavour/lachs, chicken/poultry/huhn,"
        "puppy/junior/welpe, senior/mature/ältere, scented/perfumed/duftend,"
        "hypoallergenic/sensitive/verträglich, retractable/auto rewind/ausziehbar",
        "scoop/shovel/schaufel, bowl/dish/napf, tag/id plate/plakette, dispenser/feeder/spender",
    ),
    _department(
        "office supplies/stationery/bürobedarf",
        {
            "pens/ballpoints/biros/kugelschreiber": ("count", "10 12 50 100"),
            "pencils/leads/graphites/bleistifte": ("count", "12 24 36 72"),
            "binder/folder/ringbook/ordner": ("count", "1 4 10 20"),
            "clipfile/portfolio/report cover/mappe": ("count", "5 10 25 50"),
            "printer paper/copy sheets/ream/druckpapier": ("count", "100 250 500 2500"),
            "notepad/jotter/writing block/notizblock": ("count", "3 5 10 20"),
        },
        "recycled/reclaimed/wiederverwertet, erasable/rub out/radierbar, lined/ruled/liniert,"
        "dotted/bullet grid/gepunktet, hardcover/rigid/festeinband, glossy/shiny/glänzend,"
        "acid free/archival/säurefrei, magnetic/with magnet/magnetisch",
        "refill/cartridge/ersatzmine, sharpener/pointer/spitzer,"
        "dividers/separators/trennblätter, labels/stickers/aufkleber",
    ),
)

# Function words: the first language, then the second.
WITHOUT = (("without", "no", "not"), ("ohne", "nicht"))
UNDER = (("under", "below", "less than"), ("unter", "weniger als"))
OVER = (("over", "above", "more than"), ("über", "mehr als"))
FOR = ("for", "für")
LIKE = ("like", "wie")
FILLERS = (
    *("new", "classic", "premium", "original", "popular", "everyday", "quality", "modern"),
    *("deluxe", "value", "pro", "basic", "plus", "exclusive", "authentic", "essential"),
)
CHATTER = ("best", "cheap", "good", "top", "sale", "buy")
