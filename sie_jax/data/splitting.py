"""Splits a clean table by query, so that no query is in two splits."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sie_jax.data.folds import assign
from sie_jax.data.schema import SPLITS, normalise_query
from sie_jax.errors import UserError
from sie_jax.tables.spool import pieces, spool


def split(
    table: pa.Table,
    *,
    validation: float,
    test: float,
    seed: int,
    folds: int = 0,
    fold: int = 0,
) -> tuple[pa.Table, pa.Table]:
    """Gives every row a split, and rejects rows whose query would leak from one split to another.

    Two rows have the same query where its texts are equal under `normalise_query`; query ids are
    not used. A split that the source gives is kept. A row without one counts as a training row.
    Where the source has no test rows, or no validation rows, that split is carved from the training
    queries: with u the BLAKE2b hash of query and seed, uniform in [0, 1),

        test         if u < test                       (only where test is carved)
        validation   if u < test + validation          (u < validation where test is given)
        train        otherwise

    so the split of a query depends on its text and the seed, but not on other rows. The exception
    is a split that would have no query: the split with the most queries gives it the one with the
    smallest hash.

    With `folds` the test split is one fold of a cross-validation, so that over all of them every
    query is tested once. Given splits and `test` count for nothing: the queries are dealt into
    folds (`folds.assign`, by text and seed), `fold` is the test split, and validation is carved
    from the other queries by the rule above, with the seed `seed + fold`. No row is rejected.

    Args:
      table: CLEAN_SCHEMA; `split` is "train", "validation", "test" or "".
      validation, test: shares of the training queries, each > 0, with a sum < 1.
      seed: any integer.
      folds: 0, or at least 2. fold: which of them is tested, in [0, folds).

    Returns:
      (table with `split` filled, rejected rows with a further column `reason`), both in the order
      of `table`. Reasons: `query_in_test`, for a training or validation row whose query has a test
      row, and `query_in_validation`, for a training row whose query has a validation row.

    Raises:
      UserError: a share is out of range, `split` has another value, or there are too few queries
        for every split, or every fold, to get one.
    """
    check_shares(validation, test)
    check_given(table["split"].unique().to_pylist())
    queries, query = _queries(table)  # row i is of queries[query[i]]
    if len(queries) < 2:
        raise UserError(
            f"splitting: {len(queries)} query in {table.num_rows} rows cannot be split: "
            "give rows of more queries"
        )
    given = given_places(table)
    heaviest = np.zeros(len(queries), given.dtype)
    if folds:
        heaviest[_tested(queries, folds, fold, seed)] = SPLITS.index("test")
    else:
        np.maximum.at(heaviest, query, given)
    split_of = {text: SPLITS[place] for text, place in zip(queries, heaviest, strict=True)}
    # queries of a fold do not leak: all of their rows go with them
    leaked = np.zeros(len(query), bool) if folds else given != heaviest[query]
    wanted = to_carve(split_of.values(), validation=validation, test=test)
    training = [query for query, name in split_of.items() if name == "train"]
    if len(training) < len(wanted) + 1:
        raise _too_few(len(training), wanted, len(queries), torn=len(np.unique(query[leaked])))
    # one seed for all folds would keep the same queries from training in each of them
    split_of.update(_carved(training, wanted, seed + fold if folds else seed))

    names, at = pa.array([split_of[text] for text in queries]), table.schema.names.index("split")

    def chunks() -> Iterator[pa.RecordBatch]:
        for start, piece in pieces(table):
            rows = slice(start, start + piece.num_rows)
            filled = piece.set_column(at, "split", names.take(pa.array(query[rows])))
            yield from filled.filter(pa.array(~leaked[rows])).to_batches()

    kept = spool(chunks(), table.schema)
    rejected = with_reasons(table.filter(pa.array(leaked)), heaviest[query[leaked]])
    if kept.num_rows + rejected.num_rows != table.num_rows:
        raise AssertionError(f"splitting lost rows: {table.num_rows} read")
    assert_disjoint(kept)
    return kept, rejected


def given_places(table: pa.Table) -> np.ndarray:
    """The place in SPLITS of each row's given split, int `[rows]`; 0 where it has none.

    SPLITS are in rising order of weight: what a query is held out for weighs more than what else it
    is given for. So the split of a query is the highest place of its rows, and its other rows leak.
    """
    return pc.index_in(table["split"], pa.array(SPLITS)).fill_null(0).to_numpy()


def to_carve(given: Collection[str], *, validation: float, test: float) -> dict[str, float]:
    """The splits to be carved from the training queries, with their shares.

    given: the splits that the source gives to its queries.
    """
    shares = {"test": test, "validation": validation}
    return {name: share for name, share in shares.items() if name not in given}


def carved(place: float, wanted: Mapping[str, float]) -> str:
    """The split of a training query whose hash is `place`; `wanted` is what `to_carve` gives."""
    bound = 0.0
    for name, share in wanted.items():
        bound += share
        if place < bound:
            return name
    return "train"


def with_reasons(leaked: pa.Table, heaviest: np.ndarray) -> pa.Table:
    """The leaked rows with a column `reason`, which names the split of their query.

    heaviest: its place in SPLITS, of each row.
    """
    reasons = pa.array([f"query_in_{name}" for name in SPLITS]).take(pa.array(heaviest))
    return leaked.append_column("reason", reasons)


def check_shares(validation: float, test: float) -> None:
    """Raises UserError for shares that leave no training queries."""
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"splitting: validation is {validation} and test is {test}: give shares above 0 with a "
            "sum below 1"
        )


def drawn(rng: np.random.Generator, queries: int, *, validation: float, test: float) -> np.ndarray:
    """A split for each query [queries] of a made-up source, drawn; every split has at least one.

    queries: 3 or more. validation, test: shares that `check_shares` lets through.
    """
    tested = min(max(1, round(test * queries)), queries - 2)
    validated = min(max(1, round(validation * queries)), queries - tested - 1)
    names = np.full(queries, "train", dtype="<U10")
    order = rng.permutation(queries)
    names[order[:tested]] = "test"
    names[order[tested : tested + validated]] = "validation"
    return names


def check_given(splits: Iterable[str]) -> None:
    """Raises UserError for a given split that is not one of SPLITS."""
    strange = sorted({*splits} - {"", *SPLITS})
    if strange:
        raise UserError(
            f"splitting: split is {strange[0]!r} in some rows: give {', '.join(SPLITS)}, or nothing"
        )


def assert_disjoint(table: pa.Table) -> None:
    """Raises AssertionError unless every row has a split, and every query is in one split only."""
    queries, query = _queries(table)
    place = pc.index_in(table["split"], pa.array(SPLITS))
    if place.null_count:
        raise AssertionError(f"split is {table['split'].filter(place.is_null())[0].as_py()!r}")
    places = place.to_numpy()
    lowest, highest = np.full(len(queries), len(SPLITS)), np.full(len(queries), -1)
    np.minimum.at(lowest, query, places)
    np.maximum.at(highest, query, places)
    for at in np.flatnonzero(lowest != highest):
        raise AssertionError(
            f"the query {queries[at]!r} is in {SPLITS[lowest[at]]} and in {SPLITS[highest[at]]}"
        )


def _queries(table: pa.Table) -> tuple[list[str], np.ndarray]:
    """The different queries under `normalise_query`, and the place of each row's query in them."""
    place: dict[str, int] = {}
    of_row = np.zeros(table.num_rows, np.int32)
    for start, piece in pieces(table):
        encoded = piece["query"].combine_chunks().dictionary_encode()
        of_text = [
            place.setdefault(normalise_query(text), len(place))
            for text in encoded.dictionary.to_pylist()
        ]
        of_row[start : start + piece.num_rows] = np.array(of_text)[encoded.indices.to_numpy()]
    return list(place), of_row


def _tested(queries: list[str], folds: int, fold: int, seed: int) -> np.ndarray:
    """Which of the queries are in the fold that is tested, bool [Q]."""
    if len(queries) < folds:
        raise UserError(
            f"splitting: {len(queries)} queries are too few for {folds} folds, each with a query "
            "to test: give fewer folds, or rows of more queries"
        )
    return assign(queries, folds=folds, seed=seed) == fold


def _too_few(training: int, wanted: Iterable[str], queries: int, *, torn: int) -> UserError:
    """The error about so few training queries; `torn` of all queries have several given splits."""
    fix = "give rows of more queries"
    if torn:
        fix = (
            f"{torn} of {queries} queries have rows in several given splits, and what is held out "
            "cannot train: give all rows of a query the same split, or name no column of splits"
        )
    return UserError(
        f"splitting: {training} training queries are too few for "
        f"{' and '.join(['train', *wanted])}: {fix}"
    )


def _carved(queries: list[str], wanted: dict[str, float], seed: int) -> dict[str, str]:
    """The split of each of these queries, once the `wanted` splits are carved from them."""
    place = {query: uniform(query, seed) for query in queries}
    members: dict[str, list[str]] = {"train": [], **{name: [] for name in wanted}}
    for query in sorted(queries, key=place.__getitem__):
        members[carved(place[query], wanted)].append(query)
    for name in members:
        if not members[name]:
            donor = max(members, key=lambda other: len(members[other]))
            members[name].append(members[donor].pop(0))
    return {query: name for name, held in members.items() for query in held}


def uniform(query: str, seed: int) -> float:
    """A number in [0, 1) that depends on the query and the seed alone."""
    digest = hashlib.blake2b(query.encode(), digest_size=8, key=str(seed).encode()).digest()
    # 53 bits, which a float holds exactly, so that the number stays below 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53
