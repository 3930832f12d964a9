"""Which turns of a chat, and which of their words, a search should be asked with.

What leaving a turn or a word out does to the list of found items is measured on chats whose chosen
items are known, and explained by what the turn or word is and where it stands. In a new chat goes
what is expected to do harm. A customer who corrects himself is an example: the turn before
"actually" says what he does not want.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float64

from sie_jax.data import lexical

Turns = Sequence[str]
Worth = Callable[[Sequence[str], np.ndarray], Float64[np.ndarray, "N"]]
"""What the lists of N queries are worth, each of the chat whose place is given: 0 to 1."""

LEAST = 10
"""Chats that a feature has to stand in, so that its effect is told from chance."""
MOST_WORDS = 5
SHARES = (1.0, 0.2, 0.1, 0.05, 0.02)
"""Of chats: words that stand in more of them are frequent."""


@dataclasses.dataclass(frozen=True)
class Effects:
    """What leaving a piece out is expected to do: constant + Σ of the effects of its features.

    chats: how many chats of those that it was learnt from have each feature.
    """

    constant: float
    names: tuple[str, ...]
    values: tuple[float, ...]
    chats: tuple[int, ...]

    def expected(self, features: Sequence[Sequence[str]]) -> Float64[np.ndarray, "N"]:
        """Of N pieces."""
        value = dict(zip(self.names, self.values, strict=True))
        return np.array(
            [self.constant + sum(value.get(one, 0.0) for one in own) for own in features]
        )


_NONE = Effects(-1.0, (), (), ())
"""Every piece is expected to help."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What of a chat a search is asked with.

    frequent: the words that stand in so many chats that leaving all of them out does best, a rule
    that needs no effects. turns, words: the effects of leaving out a turn, and then a word, of what
    that rule leaves.
    """

    turns: Effects
    words: Effects
    frequent: tuple[str, ...] = ()

    def kept_turns(self, turns: Turns) -> list[str]:
        """The turns that are not expected to do harm, all where none is left."""
        expected = self.turns.expected(of_turns(turns))
        kept = [turn for turn, effect in zip(turns, expected, strict=True) if effect <= 0]
        return kept or list(turns)

    def rare_words(self, turns: Turns) -> str:
        """All words but the frequent ones; all where none is left."""
        words = [word for turn in turns for word in turn.split()]
        return " ".join(self._rare(words) or words)

    def query(self, turns: Turns) -> str:
        """The words of the turns that are kept, without those that are expected to do harm.

        All that `rare_words` leaves of them, where none would be left.
        """
        words, features = self._pieces(self.kept_turns(turns))
        expected = self.words.expected(features)
        kept = [word for word, effect in zip(words, expected, strict=True) if effect <= 0]
        return " ".join(kept or words)

    def _rare(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if _plain(word) not in self.frequent]

    def _pieces(self, turns: Turns) -> tuple[list[str], list[list[str]]]:
        """The words that are left of some turns, and their features; all where none is left."""
        found = [
            (word, own)
            for place, turn in enumerate(turns)
            for word, own in zip(turn.split(), of_words(turn, place), strict=True)
        ]
        rare = [one for one in found if _plain(one[0]) not in self.frequent] or found
        return [word for word, _ in rare], [own for _, own in rare]


def of_turns(turns: Turns) -> list[list[str]]:
    """The features of each turn of a chat: its own first word and length, and what follows it."""
    first = [_first(turn) for turn in turns]
    found = []
    for place, turn in enumerate(turns):
        words = turn.split()
        own = [f"begins with {first[place]}", f"{min(len(words), MOST_WORDS)} words"]
        own += ["first turn"] * (place == 0) + ["last turn"] * (place == len(turns) - 1)
        for further in (1, 2):
            if place + further < len(turns):
                own.append(f"{first[place + further]} begins the turn {further} later")
        found.append(own)
    return found


def of_words(turn: str, place: int) -> list[list[str]]:
    """The features of each word of a turn: the word, and where it stands."""
    words = turn.split()
    found = []
    for at, word in enumerate(words):
        own = [f"word {_plain(word)}"]
        own.append(f"behind {_plain(words[at - 1])}" if at else "begins its turn")
        own += ["in the first turn"] * (place == 0)
        found.append(own)
    return found


def learned(chats: Sequence[Turns], worth: Worth, *, ridge: float = 1.0) -> Selection:
    """What turns and words do, from chats whose lists can be told the worth of.

    First the frequent words go. Then every turn of every chat is left out once, and, once the turns
    that do harm are gone, every word. The effect is the worth without the piece less that with all
    pieces. Effects are those of a ridge regression on the features: a feature that is rare, or
    whose effect differs from chat to chat, is taken to do what pieces do on average, which is to
    help.

    Raises ValueError where there is no chat.
    """
    if not len(chats):
        raise ValueError("there is no chat to learn from")
    rule = Selection(_NONE, _NONE, _frequent(chats, worth))
    of_turn = _effects([(_texts(rule, turns), of_turns(turns)) for turns in chats], worth, ridge)
    first = dataclasses.replace(rule, turns=of_turn)
    left = [first._pieces(first.kept_turns(turns)) for turns in chats]
    return dataclasses.replace(first, words=_effects(left, worth, ridge))


def _texts(rule: Selection, turns: Turns) -> list[str]:
    return [" ".join(rule._rare(turn.split())) for turn in turns]


def _frequent(chats: Sequence[Turns], worth: Worth) -> tuple[str, ...]:
    """The words of more than one of SHARES of the chats; the share whose lists are worth most."""
    own = [{_plain(word) for turn in turns for word in turn.split()} for turns in chats]
    counts = Counter(word for words in own for word in words)
    best, taken = -1.0, tuple[str, ...]()
    for share in SHARES:
        words = tuple(sorted(word for word, count in counts.items() if count > share * len(chats)))
        rule = Selection(_NONE, _NONE, words)
        queries = [rule.rare_words(turns) for turns in chats]
        value = float(worth(queries, np.arange(len(chats))).mean())
        if value > best:
            best, taken = value, words
    return taken


def _effects(
    chats: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]], worth: Worth, ridge: float
) -> Effects:
    """The effects of leaving out each piece of each chat, explained by its features."""
    whole = worth([" ".join(pieces) for pieces, _ in chats], np.arange(len(chats)))
    queries: list[str] = []
    chat: list[int] = []
    features: list[Sequence[str]] = []
    for number, (pieces, own) in enumerate(chats):
        if sum(bool(one) for one in pieces) < 2:  # without its one piece nothing is asked
            continue
        for place in range(len(pieces)):
            queries.append(" ".join((*pieces[:place], *pieces[place + 1 :])))
            chat.append(number)
        features += own
    places = np.array(chat, np.int64)
    if not len(places):
        return _NONE
    return _regressed(features, worth(queries, places) - whole[places], places, ridge)


def _regressed(
    features: Sequence[Sequence[str]],
    effect: Float[np.ndarray, "N"],
    chat: np.ndarray,
    ridge: float,
) -> Effects:
    """constant + Σ of effects, by least squares with a ridge on all but the constant."""
    seen = {(name, number) for own, number in zip(features, chat, strict=True) for name in own}
    counts = Counter(name for name, _ in seen)
    names = sorted(name for name, count in counts.items() if count >= LEAST)
    column = {name: place for place, name in enumerate(names)}
    data = np.zeros((len(features), len(names)))
    for row, own in enumerate(features):
        for name in own:
            if name in column:
                data[row, column[name]] += 1
    mean, of_effect = data.mean(0), float(effect.mean())
    centred = data - mean
    curvature = centred.T @ centred + ridge * np.eye(len(names))
    values = np.linalg.solve(curvature, centred.T @ (effect - of_effect))
    constant = of_effect - float(mean @ values)
    return Effects(
        constant,
        tuple(names),
        tuple(map(float, values)),
        tuple(counts[name] for name in names),
    )


def _first(turn: str) -> str:
    words = turn.split()
    return _plain(words[0]) if words else ""


def _plain(word: str) -> str:
    """The word as texts are searched for it, or as it is where that is nothing."""
    return " ".join(lexical.words(word)) or word
