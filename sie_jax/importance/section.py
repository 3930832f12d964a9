"""The section `importance`: which score is turned into weights, by which policy, and when."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from sie_jax import sections
from sie_jax.errors import UserError
from sie_jax.importance.choosing import Candidate
from sie_jax.importance.modifiers import Balanced, Mixed, Together
from sie_jax.importance.policies import POLICIES, Policy
from sie_jax.importance.registry import ESTIMATORS, SCORES, hardness, needing

MODES = ("offline", "online", "learned")
AUTO = "auto"
USES = ("weights", "sampling")
MODES_OF_AUTO = ("offline", "weights")
BALANCES = ("class", "query")
LEVELS = ("pair", "query")
DOUBTFUL_GROUPS = "doubtful_groups"  # the score that looks at annotators and sellers
OF_THE_MEDIAN = ("clipped", "inverse")  # policies that compare a score with the median one


@dataclasses.dataclass(slots=True, kw_only=True)
class ImportanceConfig:
    """Which score is turned into weights, by which policy, and when."""

    score: str = "grad_norm"  # the score that the policy turns into weights
    estimators: tuple[str, ...] = ()  # further scores for importance.parquet
    policy: str = "clipped"  # how scores become weights; auto: chosen by cross-validation
    mode: str = "offline"  # offline, online (from each batch's own scores) or learned
    use: str = "weights"  # or sampling: the policy sets how often a row is drawn
    warmup_epochs: int = 1  # epochs of uniform training before the scoring pass
    power: float = 0.5  # the exponent of the policy `tempered`
    keep_fraction: float = 0.8  # the share that `keep` and `keep_hardest` keep
    drop_hardest: float = 0.1  # the share that `banded` drops
    drop_easiest: float = 0.1  # likewise
    # attribute with who labelled, for doubtful_groups and auto; empty: each query
    annotator: str = ""
    # attribute with the seller, such as brand, for doubtful_groups and auto; empty: none
    seller: str = ""
    level: str = "pair"  # or query: all pairs of a query get one weight, from their mean score
    balance: str = ""  # class or query: each keeps its share of the weight; empty: none
    mix_uniform: float = 0.0  # λ of (1 − λ) w + λ/N, for any policy
    compare: tuple[str, ...] = ()  # further policies, each trained as a run of its own name
    choosing_folds: int = 5  # folds of the training queries for the policy `auto`
    choosing_budget: float = 5.0  # the most that choosing may cost, in full trainings

    @property
    def further_scores(self) -> tuple[str, ...]:
        """The scores to compute beside SCORES, that of the policy included."""
        named = (self.score, *self.estimators)
        return tuple(dict.fromkeys(name for name in named if name not in SCORES))

    @property
    def groups(self) -> tuple[str, str]:
        """The attributes with annotators and sellers; "" where nothing looks at them."""
        if DOUBTFUL_GROUPS in self.further_scores or self.policy == AUTO:
            return self.annotator, self.seller
        return "", ""

    @property
    def needs_folds(self) -> list[str]:
        """The further scores that need models which never saw the query (train.folds)."""
        return needing(self.further_scores, "reference")

    def policy_named(self, name: str, pairs: pa.Table | None = None) -> Policy:
        """The policy of that name with the options of this section.

        pairs: whose scores it will see, with the columns label and query_id, by which `level` and
        `balance` group. Without them both are left out, and equal sections give equal policies.
        """
        kind = POLICIES[name]
        options = [option.name for option in dataclasses.fields(kind)]
        made: Policy = kind(**{option: getattr(self, _field(option)) for option in options})
        if pairs is not None and self.level == "query":
            groups = _groups(pairs["query_id"])
            made = Together(policy=made, groups=groups, num_groups=int(groups.max()) + 1)
        if pairs is not None and self.balance:
            groups = _groups(pairs["label" if self.balance == "class" else "query_id"])
            made = Balanced(policy=made, groups=groups, num_groups=int(groups.max()) + 1)
        return Mixed(policy=made, uniform=self.mix_uniform)

    def with_candidate(self, candidate: Candidate) -> Self:
        """This section with a candidate's score, policy and strength.

        A score that is not an estimator's leaves the score of the section as it is.
        """
        policy, changed = candidate.policy, dict[str, Any]()
        if candidate.score in ESTIMATORS:
            changed["score"] = candidate.score
        if policy.varied:
            changed[_field(policy.varied)] = policy.strength
        return dataclasses.replace(self, policy=policy.name, **changed)

    def only(self, policy: str) -> "ImportanceConfig":
        """What of this section makes the weights of one policy; the rest at its defaults."""
        options = [_field(option.name) for option in dataclasses.fields(POLICIES[policy])]
        kept = {
            name: getattr(self, name)
            for name in ("score", "level", "balance", "mix_uniform", *options)
        }
        return ImportanceConfig(policy=policy, **kept)

    def weights(self, scores: np.ndarray, pairs: pa.Table, policy: str) -> np.ndarray:
        """The offline weights `[N]`, sum 1, that a policy gives the training pairs.

        scores: of `score`, `[N]`; taken as float32, as importance.parquet holds them. pairs: of the
        same rows, with the columns label and query_id, by which `level` and `balance` group.
        """
        hard = hardness(self.score, jnp.asarray(scores, jnp.float32))
        return np.asarray(self.policy_named(policy, pairs)(hard))

    def check_groups(self, known: Sequence[str]) -> None:
        """Raises UserError where an attribute of `groups` is none of those of the data."""
        for field, name in zip(("annotator", "seller"), self.groups, strict=True):
            if name and name not in known:
                raise UserError(
                    f"importance.{field} is {name!r}, and the data have "
                    + (f"the attributes {', '.join(known)}" if known else "no attributes")
                    + ": name one of those that --config.data.table.attributes lists"
                )

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.one_of("importance.score", self.score, ESTIMATORS)
        for name in self.estimators:
            sections.one_of("importance.estimators", name, ESTIMATORS)
        sections.one_of("importance.policy", self.policy, (*POLICIES, AUTO))
        if self.policy == AUTO and (self.mode, self.use) != MODES_OF_AUTO:
            raise UserError(
                "importance.policy is auto, which chooses among fixed weights: set "
                f"importance.mode={MODES_OF_AUTO[0]} and importance.use={MODES_OF_AUTO[1]}"
            )
        for field, name in (("policy", self.policy), *(("compare", one) for one in self.compare)):
            if self.score == DOUBTFUL_GROUPS and name in OF_THE_MEDIAN:
                other = "set importance.policy=believed" if field == "policy" else "leave it out"
                raise UserError(
                    f"importance.score is {DOUBTFUL_GROUPS}, which is 0 of most pairs, so that the "
                    f"policy {name} of importance.{field} weighs all alike: {other}"
                )
        looked_at = DOUBTFUL_GROUPS in self.further_scores or self.policy == AUTO
        if not looked_at and (self.annotator or self.seller):
            field = "annotator" if self.annotator else "seller"
            raise UserError(
                f"importance.{field} is {getattr(self, field)!r}, which importance.score "
                f"{self.score} does not look at: set importance.score={DOUBTFUL_GROUPS} and "
                "importance.policy=believed, or leave it out"
            )
        sections.at_least("importance.choosing_folds", self.choosing_folds, 4)
        sections.positive("importance.choosing_budget", self.choosing_budget)
        if not math.isfinite(self.power):
            raise UserError(f"importance.power is {self.power}: give a finite number")
        sections.between("importance.keep_fraction", self.keep_fraction, 0.0, 1.0)
        sections.positive("importance.keep_fraction", self.keep_fraction)
        for field in ("drop_hardest", "drop_easiest"):
            sections.between(f"importance.{field}", getattr(self, field), 0.0, 1.0)
        dropped = self.drop_hardest + self.drop_easiest
        if dropped >= 1.0:
            raise UserError(
                f"importance.drop_hardest + importance.drop_easiest is {dropped:g}: "
                "make the sum less than 1, so that examples are left to train on"
            )
        sections.one_of("importance.mode", self.mode, MODES)
        if self.mode != "offline" and self.score not in SCORES:
            raise UserError(
                f"importance.score {self.score} is not known while a batch is trained on: "
                f"choose one of {', '.join(SCORES)}, or set importance.mode=offline"
            )
        sections.one_of("importance.use", self.use, USES)
        sections.between("importance.mix_uniform", self.mix_uniform, 0.0, 1.0)
        if self.use == "sampling" and self.mode != "offline":
            raise UserError(
                "importance.use is 'sampling', but a batch is drawn before its own scores are "
                "known: set importance.mode=offline"
            )
        if self.use == "sampling" and self.mix_uniform < 1e-6:
            raise UserError(
                f"importance.mix_uniform is {self.mix_uniform:g}, but "
                "importance.use=sampling must be able to draw every row: give at least 1e-6, "
                "for example 0.1"
            )
        sections.one_of("importance.level", self.level, LEVELS)
        if self.balance:
            sections.one_of("importance.balance", self.balance, BALANCES)
        for field, usual in (("level", LEVELS[0]), ("balance", "")):
            value = getattr(self, field)
            if value != usual and self.mode != "offline":
                raise UserError(
                    f"importance.{field} is {value!r}, but a batch does not hold the "
                    "rows of a whole class or query: leave it out, or set importance.mode=offline"
                )
        for name in self.compare:
            sections.one_of("importance.compare", name, POLICIES)
        if self.compare and self.mode == "learned":
            raise UserError(
                "importance.compare names policies, but learned weights have none: leave it out, "
                "or set importance.mode=offline"
            )
        if "uniform" in self.compare:
            raise UserError("importance.compare names uniform, which always runs: leave it out")
        sections.at_least("importance.warmup_epochs", self.warmup_epochs, 1)


def _groups(column: pa.ChunkedArray) -> np.ndarray:
    """The group of each row, from 0 up."""
    groups: np.ndarray = np.unique(column.to_numpy(), return_inverse=True)[1]
    return groups


def _field(option: str) -> str:
    """The field of the section that holds an option of a policy."""
    return "keep_fraction" if option == "fraction" else option
