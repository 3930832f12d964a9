"""What the customers of a generated shop do: histories, click logs and chats, with their truth.

Nothing here is made unless it is asked for. Each function is a pure one of the shop, its arguments
and a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sie_jax.data.sources.market import queries
from sie_jax.data.sources.market.market import Market
from sie_jax.data.sources.market.needs import EXACT, IS, Constraint, Need, judge
from sie_jax.data.sources.market.ontology import BRANDS_EACH

# Chance that a customer who looks at an item of grade I, C, S, E clicks on it; then puts it into
# the cart; then buys it.
CLICK = np.array([0.02, 0.08, 0.25, 0.75])
CART = np.array([0.02, 0.1, 0.2, 0.6])
PURCHASE = np.array([0.1, 0.3, 0.3, 0.7])
_POSITION = 0.8  # the customer looks at position k with probability k^-0.8
_LOYALTY = 0.5  # how often a purchase follows the customer's own brand and colour
_LEAST_TURNS, _MOST_TURNS = 2, 5
_STREAMS = {"users": 100, "sessions": 101, "chats": 102}  # behind those of the shop itself
_OPENINGS = ("i am looking for a", "do you have a", "i need a", "show me a")
_ADDITIONS = ("it should be", "i want it", "please", "and")
_CORRECTIONS = ("actually", "sorry i meant", "no rather")
_FILLING = ("hello", "thanks", "ok", "hmm let me think")


@dataclass(frozen=True)
class Users:
    """The U customers: their tastes, and what they bought, oldest first.

    departments [U, D]: how often a customer wants something of each department; rows sum to 1.
    brand [U, D]: the brand that the customer prefers in each department. colour [U]: likewise.
    histories: for each customer the places of the items in the catalogue.
    """

    departments: np.ndarray
    brand: np.ndarray
    colour: np.ndarray
    histories: tuple[np.ndarray, ...]


def propensities(positions: int) -> np.ndarray:
    """The probability [positions] that a customer looks at each position, the first with 1."""
    return (1.0 + np.arange(positions)) ** -_POSITION


def users(market: Market, count: int, *, purchases: int = 12, seed: int = 0) -> Users:
    """Customers with histories of 1 to 2 · `purchases` − 1 products each.

    The department of a purchase follows the taste. Half of the purchases are among the items of the
    preferred brand and, where it has some, of the preferred colour; the others are any product of
    the department. Popular ones are likelier.
    """
    rng = _generator(market, "users", seed)
    catalogue = market.catalogue
    known = len(market.ontology.hypernyms)
    departments = rng.dirichlet(np.full(known, 0.4), size=count)
    brand = rng.integers(BRANDS_EACH, size=(count, known))
    colour = rng.integers(len(market.ontology.colours), size=count)
    histories = []
    for user in range(count):
        history = []
        for department in rng.choice(
            known, size=int(rng.integers(1, 2 * purchases)), p=departments[user]
        ):
            pool = np.flatnonzero((catalogue.department == department) & (catalogue.accessory < 0))
            if rng.random() < _LOYALTY:
                for liked in (
                    catalogue.brand == brand[user, department],
                    catalogue.colour == colour[user],
                ):
                    pool = pool[liked[pool]] if liked[pool].any() else pool
            weights = catalogue.popularity[pool]
            history.append(int(rng.choice(pool, p=weights / weights.sum())))
        histories.append(np.array(history))
    return Users(departments, brand, colour, tuple(histories))


def sessions(
    market: Market, customers: Users, count: int, *, positions: int = 10, seed: int = 0
) -> pa.Table:
    """A search log of `count` sessions, one row for each item shown.

    A customer searches with one of the training queries, in the departments of his taste. The shop
    shows its judged items in an order between that of shared words and chance, drawn anew each
    time, so that one item is seen at several positions. The customer looks at position k with
    probability `propensities`[k]. What he looks at he clicks by its grade (CLICK), and twice as
    often, at most always, where the brand is the one that he prefers. What he clicks he puts into
    the cart by CART, and what is in the cart he buys by PURCHASE.

    Returns:
      Columns session, user, query_id, query, item_id, title, position (from 1), click, cart,
      purchase: what a shop would log. Then the truth: looked, grade, propensity.
    """
    rng = _generator(market, "sessions", seed)
    truth, table = market.truth, market.source.table
    split = np.array(table["split"].to_pylist())
    starts = np.flatnonzero(np.diff(truth.query, prepend=-1, append=-1)[:-1])
    starts = starts[split[starts] == "train"]
    counts = np.bincount(truth.query)
    rows_of = {int(truth.query[row]): row + np.arange(counts[truth.query[row]]) for row in starts}
    asked = np.array(sorted(rows_of))
    department = np.array([truth.needs[query].department for query in asked])
    look = propensities(positions)
    user_of = rng.integers(len(customers.histories), size=count)
    chosen, session_of, position_of = [], [], []
    for session, user in enumerate(user_of):
        weights = customers.departments[user][department] + 1e-9
        query = int(rng.choice(asked, p=weights / weights.sum()))
        rows = rows_of[query]
        words = set(market.texts[query].split())
        shared = np.array(
            [len(words & set(market.titles[item].split())) for item in truth.item[rows]]
        )
        order = np.argsort(-(shared / len(words) + rng.gumbel(scale=0.5, size=len(rows))))
        shown = rows[order[:positions]]
        chosen.append(shown)
        session_of.append(np.full(len(shown), session))
        position_of.append(np.arange(len(shown)))
    row, session_at, position = map(np.concatenate, (chosen, session_of, position_of))
    grade, item, user = truth.grade[row], truth.item[row], user_of[session_at]
    liked = market.catalogue.brand[item] == customers.brand[user, market.catalogue.department[item]]
    draws = rng.random((4, len(row)))
    looked = draws[0] < look[position]
    click = looked & (draws[1] < np.minimum(1, CLICK[grade] * np.where(liked, 2, 1)))
    cart = click & (draws[2] < CART[grade])
    purchase = cart & (draws[3] < PURCHASE[grade])
    return pa.table(
        {
            "session": [f"s{one}" for one in session_at.tolist()],
            "user": [f"u{one}" for one in user.tolist()],
            "query_id": [f"q{one}" for one in truth.query[row].tolist()],
            "query": [market.texts[one] for one in truth.query[row].tolist()],
            "item_id": [f"i{one}" for one in item.tolist()],
            "title": [market.titles[one] for one in item.tolist()],
            "position": position + 1,
            "click": click.astype(np.int64),
            "cart": cart.astype(np.int64),
            "purchase": purchase.astype(np.int64),
            "looked": looked,
            "grade": grade,
            "propensity": look[position],
        }
    )


@dataclass(frozen=True)
class Chat:
    """A customer's turns, 2 to 5, and what was asked for after each.

    texts: what the customer said. needs: after each turn, what is asked for so far; the last is the
      need that the chat ends in. exact: the places of the items that meet it. query: the number of
      the query that has the same need.
    """

    query: int
    texts: tuple[str, ...]
    needs: tuple[Need, ...]
    exact: np.ndarray


def chats(market: Market, count: int, *, seed: int = 0) -> list[Chat]:
    """Chats that end in the needs of the shop's queries.

    The first turn names the class. Each further turn says nothing, adds a constraint of the need,
    or corrects one that was first said wrong ("actually navy"). All of the need is said in the end.
    """
    rng = _generator(market, "chats", seed)
    long = [query for query, need in enumerate(market.truth.needs) if need.constraints]
    made = []
    for _ in range(count):
        query = long[int(rng.integers(len(long)))]
        need = market.truth.needs[query]
        foreign = bool(rng.random() < market.config.second_language)
        steps = _steps(rng, market, need)
        texts: list[str] = []
        needs: list[Need] = []
        said = Need(need.department, need.kind, need.accessory, ())
        for opening, added in steps:
            said = Need(
                need.department,
                need.kind,
                need.accessory,
                tuple({one.attribute: one for one in (*said.constraints, *added)}.values()),
            )
            phrases = [queries.phrase_of(rng, market.ontology, need, one, foreign) for one in added]
            if not texts:
                phrases.append(queries.noun_of(rng, market.ontology, need, foreign))
            texts.append(" ".join([opening, *phrases]))
            needs.append(said)
        items = np.arange(len(market.catalogue))
        grade, _ = judge(market.catalogue, need, items)
        made.append(Chat(query, tuple(texts), tuple(needs), np.flatnonzero(grade == EXACT)))
    return made


def _steps(
    rng: np.random.Generator, market: Market, need: Need
) -> list[tuple[str, tuple[Constraint, ...]]]:
    """What opens each turn, and the constraints that it adds or corrects."""
    rest = [need.constraints[place] for place in rng.permutation(len(need.constraints))]
    steps: list[tuple[str, tuple[Constraint, ...]]] = [(_any(rng, _OPENINGS), ())]
    if rest[0].mode == IS and rest[0].attribute == "colour" and rng.random() < 0.5:
        wrong = (int(rest[0].value) + int(rng.integers(1, 12))) % len(market.ontology.colours)
        steps.append((_any(rng, _ADDITIONS), (Constraint("colour", wrong),)))
        steps.append((_any(rng, _CORRECTIONS), (rest.pop(0),)))
    while rest:
        last = len(steps) == _MOST_TURNS - 1
        taken = len(rest) if last else 1
        steps.append((_any(rng, _ADDITIONS), tuple(rest[:taken])))
        rest = rest[taken:]
    while len(steps) < _MOST_TURNS and rng.random() < 0.3:
        steps.insert(int(rng.integers(1, len(steps) + 1)), (_any(rng, _FILLING), ()))
    return steps


def _any(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _generator(market: Market, what: str, seed: int) -> np.random.Generator:
    """The stream of one kind of behaviour, of the shop's seed and one more."""
    return np.random.default_rng([market.config.seed, _STREAMS[what], seed])
