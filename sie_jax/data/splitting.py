"""Splits a clean table by query, so that no query is in two splits."""

import hashlib

import pyarrow as pa

from sie_jax.data.schema import SPLITS, normalise_query
from sie_jax.errors import UserError


def split(
    table: pa.Table, *, validation: float, test: float, seed: int
) -> tuple[pa.Table, pa.Table]:
    """Gives every row a split; rows whose query would leak from one split to another are rejected.

    Two rows are of the same query where their texts are equal under `normalise_query`; query ids
    play no part. A split that the source gives is kept. A row without one counts as a training
    row. Where the source gives no test rows, and where it gives no validation rows, that split is
    carved from the training queries: with u the BLAKE2b hash of query and seed, uniform in [0, 1),

        test         if u < test                       (only where test is carved)
        validation   if u < test + validation          (u < validation where test is given)
        train        otherwise

    so a query's split depends on nothing but its text and the seed, not on the other rows. Only
    where that leaves a split without a query does the split with the most give it the one with the
    smallest hash.

    Args:
      table: CLEAN_SCHEMA; `split` is "train", "validation", "test" or "".
      validation, test: shares of the training queries, > 0 and with a sum < 1.
      seed: any integer.

    Returns:
      (table with `split` filled, rejected rows with a further column `reason`), both in the order
      of `table`. Reasons: `query_in_test`, for a training or validation row whose query has a test
      row, and `query_in_validation`, for a training row whose query has a validation row.

    Raises:
      UserError: a share is out of range, `split` has another value, or there are too few queries
        for every split to get one.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"splitting: validation is {validation} and test is {test}; give shares above 0 with a "
            "sum below 1"
        )
    queries = [normalise_query(query) for query in table["query"].to_pylist()]
    given = [value or "train" for value in table["split"].to_pylist()]
    strange = sorted(set(given) - set(SPLITS))
    if strange:
        raise UserError(
            f"splitting: split is {strange[0]!r} in some rows; give {', '.join(SPLITS)}, or nothing"
        )
    if len(set(queries)) < 2:
        raise UserError(
            f"splitting: {len(set(queries))} query in {table.num_rows} rows, nothing to split; "
            "give rows of more queries"
        )

    # What a query is held out for weighs more than what else it is given for.
    split_of: dict[str, str] = {}
    for name in SPLITS:
        split_of.update({query: name for query, value in zip(queries, given, strict=True)
                         if value == name})  # fmt: skip
    reasons = [
        None if value == split_of[query] else f"query_in_{split_of[query]}"
        for query, value in zip(queries, given, strict=True)
    ]
    shares = {"test": test, "validation": validation}
    wanted = {name: share for name, share in shares.items() if name not in split_of.values()}
    split_of.update(
        _carved([query for query, name in split_of.items() if name == "train"], wanted, seed)
    )

    column = pa.array([split_of[query] for query in queries], pa.string())
    at = table.schema.get_field_index("split")
    kept = table.set_column(at, "split", column).filter(
        pa.array([reason is None for reason in reasons])
    )
    rejected = table.append_column("reason", pa.array(reasons, pa.string())).filter(
        pa.array([reason is not None for reason in reasons])
    )
    if kept.num_rows + rejected.num_rows != table.num_rows:
        raise AssertionError(f"splitting lost rows: {table.num_rows} read")
    assert_disjoint(kept)
    return kept, rejected


def assert_disjoint(table: pa.Table) -> None:
    """Raises AssertionError unless every row has a split, and every query is in one split only."""
    split_of: dict[str, str] = {}
    for query, name in zip(table["query"].to_pylist(), table["split"].to_pylist(), strict=True):
        if name not in SPLITS:
            raise AssertionError(f"split is {name!r} for the query {query!r}")
        if split_of.setdefault(normalise_query(query), name) != name:
            raise AssertionError(f"the query {query!r} is in {split_of[normalise_query(query)]} "
                                 f"and in {name}")  # fmt: skip


def _carved(queries: list[str], wanted: dict[str, float], seed: int) -> dict[str, str]:
    """The split of each of these training queries, with `wanted` splits carved from them."""
    if len(queries) < len(wanted) + 1:
        raise UserError(
            f"splitting: {len(queries)} training queries, too few for "
            f"{' and '.join(['train', *wanted])}; give rows of more queries"
        )
    place = {query: _uniform(query, seed) for query in queries}
    members: dict[str, list[str]] = {"train": [], **{name: [] for name in wanted}}
    for query in sorted(queries, key=place.__getitem__):
        bound = 0.0
        for name, share in wanted.items():
            bound += share
            if place[query] < bound:
                members[name].append(query)
                break
        else:
            members["train"].append(query)
    for name in members:
        if not members[name]:
            donor = max(members, key=lambda other: len(members[other]))
            members[name].append(members[donor].pop(0))
    return {query: name for name, held in members.items() for query in held}


def _uniform(query: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the query and the seed."""
    digest = hashlib.blake2b(query.encode(), digest_size=8, key=str(seed).encode()).digest()
    # 53 bits, which a float holds exactly, so that the number stays below 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53
