import json
from dataclasses import replace

import pytest

from sie_jax.errors import UserError
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import Ranker

SUM = LinearRanker(("a", "b"), (0.1, 0.2), 0.5)


def test_a_ranker_survives_its_file(tmp_path):
    linear = LinearRanker(("a", "b"), (0.1, 1 / 3), 0.5)
    stack = LinearRanker(("a", "b", "run:linear", "run:uniform"), (1.0, 0.0, 2.0, -1.0), 0.1)
    ranker = Ranker(
        "stack",
        "uniform",
        linear=linear,
        stack=stack,
        encoders={"run:uniform": ".", "run:weighted": "encoders/weighted"},
        checkpoint="checkpoint",
        translation="translation.parquet",
        corpus="corpus.parquet",
        list_lengths={"low": 18, "median": 20},
    )
    blend = Ranker("blend", "u", linear=linear, trees="trees.json", corpus="corpus.parquet")
    head = Ranker("encoder", "u", encoders={"run:u": "."}, heads={"run:u": SUM}, corpus="c")
    for one in (ranker, blend, head, Ranker("current", "weighted", column="today's")):
        one.save(tmp_path)
        assert Ranker.load(tmp_path) == one


def test_a_file_of_an_older_version_lacks_what_came_later(tmp_path):
    Ranker("bm25", "u", corpus="c").save(tmp_path)
    path = tmp_path / "ranker.json"
    values = json.loads(path.read_text())
    del values["list_lengths"], values["trees"], values["heads"]
    path.write_text(json.dumps(values))
    assert Ranker.load(tmp_path) == Ranker("bm25", "u", corpus="c")


def test_a_folder_without_the_file_ranks_by_its_encoder(tmp_path):
    assert Ranker.load(tmp_path) == Ranker("encoder", "")


@pytest.mark.parametrize(
    ("ranker", "told"),
    [
        (Ranker("foo", "u"), "no ranker 'foo'"),
        (Ranker("bm25", "u"), "bm25 without its corpus"),
        (Ranker("checkpoint", "u"), "checkpoint without its checkpoint"),
        (Ranker("linear", "u", corpus="c"), "linear without its linear"),
        (Ranker("trees", "u", corpus="c"), "trees without its trees"),
        (Ranker("trees", "u", trees="t"), "trees without its corpus"),
        (Ranker("blend", "u", corpus="c"), "blend without its linear and trees"),
        (Ranker("trees", "u", corpus="c", trees="t", linear=SUM), "trees with a linear"),
        (Ranker("linear", "u", corpus="c", linear=SUM, trees="t"), "linear with a trees"),
        (Ranker("trees", "u", corpus="c", trees="../t"), r"\.\./t is not in this"),
        (Ranker("trees", "u", corpus="c", trees=["t"]), r"trees is \['t'\], not of type str"),
        (Ranker("current", "u"), "current without its column"),
        (Ranker("bm25", "u", corpus="../corpus.parquet"), r"\.\./corpus.parquet is not in this"),
        (
            Ranker("encoder", "u", encoders={"run:a": "/tmp/model"}),
            "/tmp/model is not in this folder",
        ),
        (Ranker("checkpoint", "u", checkpoint="a/../../b"), "is not in this folder"),
        (Ranker("bm25", 7, corpus="c"), "run is 7, not of type str"),
        (Ranker("bm25", "u", corpus=["c"]), r"corpus is \['c'\], not of type str"),
        (Ranker("current", "u", column=5), "column is 5, not of type str"),
        (Ranker("encoder", "u", encoders=["."]), "encoders is .* not of type dict"),
        (Ranker("encoder", "u", encoders={"run:a": 1}), "encoders are not names of folders"),
        (Ranker("encoder", "u", corpus="c", heads={"run:a": SUM}), "heads without their corpus"),
        (
            Ranker("encoder", "u", encoders={"run:a": "."}, heads={"run:a": SUM}),
            "heads without their corpus",
        ),
        (Ranker("encoder", "u", list_lengths={"low": 2}), "list_lengths is .*, not of the whole"),
        (Ranker("encoder", "u", list_lengths={"low": 2, "median": 2.5}), "not of the whole"),
        (Ranker("encoder", "u", list_lengths=3), "list_lengths is 3, not of type dict"),
        (Ranker("encoder", "u", seed=True), "seed is True, not of type int"),
        (Ranker("bm25", "u", corpus="c", stack=SUM), "bm25 with a stack"),
        (Ranker("linear", "u", corpus="c", linear=SUM, stack=SUM), "linear with a stack"),
        (Ranker("linear", "u", corpus="c", linear=replace(SUM, names=("a", 5))), "no text"),
        (Ranker("linear", "u", corpus="c", linear=replace(SUM, names=("a", "a"))), "occurs twice"),
    ],
)
def test_a_ranker_without_what_it_needs_is_refused(tmp_path, ranker, told):
    ranker.save(tmp_path)
    with pytest.raises(UserError, match=told):
        Ranker.load(tmp_path)


def test_a_weight_that_is_no_number_is_refused(tmp_path):
    linear = LinearRanker(("a", "b"), (0.1, 0.2), 0.5)
    Ranker("linear", "u", linear=linear, corpus="c").save(tmp_path)
    path = tmp_path / "ranker.json"
    for value in ("NaN", "Infinity", '"many"', "null"):
        path.write_text(path.read_text().replace("0.2", value))
        with pytest.raises(UserError, match=r"ranker\.json cannot be read"):
            Ranker.load(tmp_path)
        path.write_text(path.read_text().replace(value, "0.2"))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "stack", "stack": 3, "linear": 1}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "ranker.json").write_text(text)
    with pytest.raises(UserError, match=r"ranker\.json cannot be read"):
        Ranker.load(tmp_path)
