from collections.abc import Sequence

import numpy as np

from sie_jax.retrieval import selection
from sie_jax.retrieval.selection import Effects, Selection, learned

KINDS = (
    *("shoe", "hat", "scarf", "coat", "glove", "sock"),
    *("shirt", "belt", "boot", "vest", "skirt", "tie"),
)
COLOURS = (
    *("red", "blue", "green", "black", "white", "grey"),
    *("pink", "brown", "teal", "gold", "lime", "mint"),
)


def made(count: int = 400) -> tuple[list[list[str]], list[set[str]]]:
    """Chats in which some customers correct themselves, and what each wants in the end."""
    generator = np.random.default_rng(0)
    chats, wants = [], []
    for _ in range(count):
        kind, colour, wrong = (str(generator.choice(of)) for of in (KINDS, COLOURS, COLOURS))
        turns = [f"please find a {kind}", f"it should be {colour}"]
        if wrong != colour and generator.random() < 0.5:
            turns = [turns[0], f"it should be {wrong}", f"actually {colour}"]
        if generator.random() < 0.5:
            turns.insert(1, "thanks")
        chats.append(turns)
        wants.append({kind, colour})
    return chats, wants


def of(wants: list[set[str]]) -> selection.Worth:
    """The share of a query's words that are wanted, times that of the wanted ones that it has."""

    def worth(queries: Sequence[str], chat: np.ndarray) -> np.ndarray:
        found = []
        for query, number in zip(queries, chat.tolist(), strict=True):
            words = query.split()
            right = sum(word in wants[number] for word in words)
            have = len(wants[number] & set(words)) / len(wants[number])
            found.append(have * right / max(len(words), 1))
        return np.array(found)

    return worth


def test_words_that_say_nothing_and_turns_that_are_corrected_go() -> None:
    chats, wants = made()
    learnt = learned(chats, of(wants))
    assert learnt.query(["please find a hat", "it should be blue"]) == "hat blue"
    turns = ["please find a coat", "it should be green", "actually red"]
    assert "it should be green" not in learnt.kept_turns(turns)
    assert learnt.query(turns) == "coat red"


def test_what_is_frequent_goes_first_and_all_stays_where_nothing_would() -> None:
    rule = Selection(Effects(-1.0, (), (), ()), Effects(-1.0, (), (), ()), ("please", "find", "a"))
    assert rule.rare_words(["please find a hat", "blue"]) == "hat blue"
    assert rule.rare_words(["please find"]) == "please find"
    harm = Effects(1.0, (), (), ())
    assert Selection(harm, harm).query(["a hat", "blue"]) == "a hat blue"


def test_effects_are_the_mean_difference_of_their_features() -> None:
    """One feature that stands in half of the pieces: least squares give the two means."""
    features = [["bad"], [], ["bad"], []] * 20
    effect = np.array([0.3, -0.1, 0.5, -0.3] * 20)
    found = selection._regressed(features, effect, np.arange(80), ridge=1e-9)
    assert found.names == ("bad",)
    assert found.chats == (40,)
    assert np.allclose(found.expected([["bad"], [], ["unknown"]]), [0.4, -0.2, -0.2])


def test_features_say_what_follows_a_turn_and_precedes_a_word() -> None:
    of_turn = selection.of_turns(["a hat", "Navy!", "actually black"])
    assert "actually begins the turn 1 later" in of_turn[1]
    assert "actually begins the turn 2 later" in of_turn[0]
    assert {"first turn", "2 words", "begins with a"} <= set(of_turn[0])
    assert selection.of_words("not navy", 1)[1] == ["word navy", "behind not"]
