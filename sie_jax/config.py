"""The run's configuration: typed dataclasses, one per part of the line, and their validation.

Every field can be set from a config file and overridden on the command line
(`--config.train.batch_size=16`). `validate` names the field at fault and the mend.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from sie_jax.errors import UserError
from sie_jax.importance import ESTIMATORS, POLICIES, SCORES, needing
from sie_jax.models.bert import REMAT

SOURCES = ("synthetic", "esci", "wands", "table", "clicks")
MODES = ("offline", "online", "learned")
AUTO = "auto"
USES = ("weights", "sampling")
MODES_OF_AUTO = ("offline", "weights")
BALANCES = ("class", "query")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(slots=True, kw_only=True)
class SyntheticConfig:
    """The generated shop: its size, the rate of wrong labels, the rate of dirty rows, the seed."""

    queries: int = 400
    items_per_query: int = 20
    noise: float = 0.2
    noise_kind: str = "uniform"
    dirt: float = 0.02
    seed: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class EsciConfig:
    """Which part of the Shopping Queries data set: a locale (empty: all) and a version."""

    locale: str = "us"
    version: str = "large"


@dataclasses.dataclass(slots=True, kw_only=True)
class ColumnsConfig:
    """The names of columns; empty where a table has none, or a click log the field's own name."""

    query: str = "query"
    title: str = "title"
    label: str = "label"
    example_id: str = ""
    query_id: str = ""
    item_id: str = ""
    text: str = ""
    split: str = ""
    truth: str = ""
    position: str = ""  # from here on of click logs
    click: str = ""
    session: str = ""
    cart: str = ""
    purchase: str = ""


@dataclasses.dataclass(slots=True, kw_only=True)
class TableConfig:
    """What else a table's columns mean; all are lists separated by commas."""

    labels: str = ""  # the scale, lowest grade first; empty: the labels are 0, 1, …
    attributes: str = ""  # columns to see importance by, as in "brand,category"
    raters: str = ""  # columns with the labels that single people gave


@dataclasses.dataclass(slots=True, kw_only=True)
class ItemColumnsConfig:
    """The names of a catalogue's columns; empty where they are the fields' own."""

    item_id: str = ""
    title: str = ""
    text: str = ""


@dataclasses.dataclass(slots=True, kw_only=True)
class ClicksConfig:
    """What of a click log counts, and how it becomes grades."""

    items: str = ""  # a catalogue with the titles, where the log has none
    item_columns: ItemColumnsConfig = dataclasses.field(default_factory=ItemColumnsConfig)
    minimum_impressions: int = 10
    minimum_examinations: float = 1.0
    maximum_position: int = 100
    maximum_session_impressions: int = 1000
    maximum_session_clicks: int = 100
    maximum_click_rate: float = 0.5
    cart_value: float = 1.0
    purchase_value: float = 2.0
    smoothing: float = 5.0
    grades: int = 4


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where pairs come from and how they become token ids."""

    source: str = "synthetic"
    path: str = ""
    synthetic: SyntheticConfig = dataclasses.field(default_factory=SyntheticConfig)
    esci: EsciConfig = dataclasses.field(default_factory=EsciConfig)
    columns: ColumnsConfig = dataclasses.field(default_factory=ColumnsConfig)
    table: TableConfig = dataclasses.field(default_factory=TableConfig)
    clicks: ClicksConfig = dataclasses.field(default_factory=ClicksConfig)
    gains: str = ""  # e.g. "0,0.01,0.1,1", lowest grade first; empty: the source's own
    validation: float = 0.1  # share of queries, where the source has no such split
    test: float = 0.2
    split_seed: int = 0
    max_query_characters: int = 512
    max_title_characters: int = 2000
    item_text: bool = False  # append the item's further text to its title
    max_length: int = 32
    buckets: int = 2
    vocabulary_size: int = 4096  # of the WordPiece vocabulary trained where no checkpoint is given


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """A checkpoint folder to start from, or the size of a BERT that starts from random weights."""

    pretrained: str = ""
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 512
    dropout: float = 0.1
    dtype: str = "float32"
    remat: str = "none"  # dots or layers: less memory, more computation (sie_jax.models.bert.REMAT)


@dataclasses.dataclass(slots=True, kw_only=True)
class PretrainConfig:
    """Pretraining on the catalogue's and the training queries' own text, before anything else."""

    steps: int = 0  # 0: none
    batch_size: int = 32
    learning_rate: float = 1e-4
    held_out: float = 0.05  # share of the item titles, with all texts they are in
    evaluate_every: int = 100  # steps


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """The optimiser, its schedule, and how many seeds repeat the comparison."""

    batch_size: int = 32
    learning_rate: float = 1e-3
    learning_rates: str = ""  # to choose from on validation queries, as in "5e-5,1e-4"; empty: none
    epochs: int = 3
    warmup_fraction: float = 0.1  # of the steps, from 0 up to the learning rate
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0
    seeds: int = 1
    folds: int = 0  # of the training queries, for out-of-fold predictions; 0 for none
    checkpoint_every: int = 200
    log_every: int = 20
    profile_steps: str = ""  # of every run, to be traced, as in "100-110"; empty: none


@dataclasses.dataclass(slots=True, kw_only=True)
class ImportanceConfig:
    """Which score is turned into weights, by which policy, and when."""

    score: str = "grad_norm"
    estimators: str = ""  # further scores for importance.parquet, as in "trak_self,knn_shapley"
    policy: str = "clipped"
    mode: str = "offline"
    use: str = "weights"  # or sampling: the policy says how often a row is drawn, not its weight
    warmup_epochs: int = 1  # of uniform training before the scoring pass
    power: float = 0.5  # of the policy `tempered`
    keep_fraction: float = 0.8  # of the policies `keep` and `keep_hardest`
    drop_hardest: float = 0.1  # of the policy `banded`, as shares
    drop_easiest: float = 0.1
    balance: str = ""  # class or query: each holds its share of rows; empty: no such bound
    mix_uniform: float = 0.0  # the share of uniform weights in those of every policy
    compare: str = ""  # further policies, comma-separated, each trained as a run of its own name
    choosing_folds: int = 3  # of the training queries, where the policy is `auto`
    choosing_budget: float = 2.0  # the most that choosing may cost, in full trainings


@dataclasses.dataclass(slots=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes what is left, and can stand once."""

    data: int = -1  # splits the batch
    fsdp: int = 1  # splits the batch, and parameters and optimizer state with it
    tensor: int = 1  # splits the matrix products


@dataclasses.dataclass(slots=True, kw_only=True)
class EvaluationConfig:
    """Bootstrap resamples over queries, and their seed; how much of the test is explained."""

    resamples: int = 1000
    seed: int = 0
    explained_queries: int = 10  # the worst test queries, explained in the report; 0: none


@dataclasses.dataclass(slots=True, kw_only=True)
class TrackingConfig:
    """Where curves go beside metrics.jsonl and TensorBoard's files."""

    wandb_project: str = ""  # of Weights & Biases; empty: none


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    """Everything a run depends on; stored as config.json in its workdir."""

    name: str = "quickstart"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    importance: ImportanceConfig = dataclasses.field(default_factory=ImportanceConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)

    def compared_policies(self) -> tuple[str, ...]:
        """The further policies named in `importance.compare`, in order."""
        return listed(self.importance.compare)

    def estimators(self) -> tuple[str, ...]:
        """The scores that are wanted beside `importance.SCORES`, that of the policy included."""
        named = (self.importance.score, *listed(self.importance.estimators))
        return tuple(dict.fromkeys(name for name in named if name not in SCORES))

    def gains(self) -> tuple[float, ...] | None:
        """The gains named in `data.gains`, or None where the source's own are to be used."""
        if not self.data.gains:
            return None
        return _numbers("data.gains", self.data.gains, "lowest grade first, as in 0,0.01,0.1,1")

    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates named in `train.learning_rates`, in order; none where it is empty."""
        return _numbers("train.learning_rates", self.train.learning_rates, "as in 5e-5,1e-4")

    def validate(self) -> None:
        """Raises UserError for the first field whose type or value cannot work."""
        _check_types(self, "")
        data, model, train, importance = self.data, self.model, self.train, self.importance
        pretrain = self.pretrain
        if not self.name:
            raise UserError("name is empty: give one, as in --config.name=quickstart")
        _one_of("data.source", data.source, SOURCES)
        if data.source in ("esci", "wands") and not data.path:
            raise UserError(
                f"data.path is empty: give the folder of the files of {data.source}, "
                "--config.data.path=FOLDER"
            )
        if data.source in ("table", "clicks") and not data.path:
            raise UserError(
                "data.path is empty: give a file or a folder of its parts, --config.data.path=PATH"
            )
        _at_least("data.buckets", data.buckets, 1)
        _at_least("data.max_length", data.max_length, 8)
        _at_least("data.vocabulary_size", data.vocabulary_size, 100)
        _at_least("data.max_query_characters", data.max_query_characters, 1)
        _at_least("data.max_title_characters", data.max_title_characters, 1)
        _positive("data.validation", data.validation)
        _positive("data.test", data.test)
        if data.validation + data.test >= 1.0:
            raise UserError(
                f"data.validation + data.test is {data.validation + data.test:g}: "
                "make the sum less than 1, so that queries are left to train on"
            )
        self.gains()
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            _at_least(f"model.{field}", getattr(model, field), 1)
        _at_least("model.intermediate_size", model.intermediate_size, 1)
        if model.hidden_size % model.num_attention_heads:
            raise UserError(
                f"model.hidden_size {model.hidden_size} is not a multiple of "
                f"model.num_attention_heads {model.num_attention_heads}: change one of them"
            )
        _between("model.dropout", model.dropout, 0.0, 0.99)
        _one_of("model.dtype", model.dtype, DTYPES)
        _one_of("model.remat", model.remat, REMAT)
        _at_least("pretrain.steps", pretrain.steps, 0)
        _at_least("pretrain.batch_size", pretrain.batch_size, 1)
        _at_least("pretrain.evaluate_every", pretrain.evaluate_every, 1)
        _positive("pretrain.learning_rate", pretrain.learning_rate)
        _positive("pretrain.held_out", pretrain.held_out)
        if pretrain.held_out >= 1.0:
            raise UserError(f"pretrain.held_out is {pretrain.held_out:g}: give a share below 1")
        if pretrain.steps % pretrain.evaluate_every:
            raise UserError(
                f"pretrain.steps {pretrain.steps} is not a multiple of pretrain.evaluate_every "
                f"{pretrain.evaluate_every}: change one of them"
            )
        for field in ("batch_size", "epochs", "seeds", "checkpoint_every", "log_every"):
            _at_least(f"train.{field}", getattr(train, field), 1)
        if train.folds == 1 or train.folds < 0:
            raise UserError(f"train.folds is {train.folds}: give at least 2, or 0 for none")
        # the seed of a run is an int32 on the device
        _between("train.seed", train.seed, 0, 2**31 - 1 - train.seeds)
        _positive("train.learning_rate", train.learning_rate)
        for rate in self.learning_rates():
            _positive("train.learning_rates", rate)
        _positive("train.clip_norm", train.clip_norm)
        _between("train.warmup_fraction", train.warmup_fraction, 0.0, 1.0)
        _at_least("train.weight_decay", train.weight_decay, 0)
        _one_of("importance.score", importance.score, ESTIMATORS)
        for name in listed(importance.estimators):
            _one_of("importance.estimators", name, ESTIMATORS)
        for name in needing(self.estimators(), "reference"):
            if not train.folds:
                raise UserError(
                    f"{name} needs predictions of models that never saw the query: give "
                    "--config.train.folds=5, or another number of folds"
                )
        _one_of("importance.policy", importance.policy, (*POLICIES, AUTO))
        if importance.policy == AUTO and (importance.mode, importance.use) != MODES_OF_AUTO:
            raise UserError(
                f"importance.policy is auto, which tries weights that stay as they are: set "
                f"importance.mode={MODES_OF_AUTO[0]} and importance.use={MODES_OF_AUTO[1]}"
            )
        _at_least("importance.choosing_folds", importance.choosing_folds, 3)
        _positive("importance.choosing_budget", importance.choosing_budget)
        if not math.isfinite(importance.power):
            raise UserError(f"importance.power is {importance.power}: give a finite number")
        _between("importance.keep_fraction", importance.keep_fraction, 0.0, 1.0)
        _positive("importance.keep_fraction", importance.keep_fraction)
        for field in ("drop_hardest", "drop_easiest"):
            _between(f"importance.{field}", getattr(importance, field), 0.0, 1.0)
        dropped = importance.drop_hardest + importance.drop_easiest
        if dropped >= 1.0:
            raise UserError(
                f"importance.drop_hardest + importance.drop_easiest is {dropped:g}: "
                "make the sum less than 1, so that examples are left to train on"
            )
        _one_of("importance.mode", importance.mode, MODES)
        if importance.mode != "offline" and importance.score not in SCORES:
            raise UserError(
                f"importance.score {importance.score} is not known while a batch is trained on: "
                f"choose one of {', '.join(SCORES)}, or set importance.mode=offline"
            )
        _one_of("importance.use", importance.use, USES)
        _between("importance.mix_uniform", importance.mix_uniform, 0.0, 1.0)
        if importance.use == "sampling" and importance.mode != "offline":
            raise UserError(
                "importance.use is 'sampling', but a batch is drawn before its own scores are "
                "known: set importance.mode=offline"
            )
        if importance.use == "sampling" and importance.mix_uniform < 1e-6:
            raise UserError(
                f"importance.mix_uniform is {importance.mix_uniform:g}, but "
                "importance.use=sampling needs every row to be drawn at times: give at least "
                "1e-6, as in 0.1"
            )
        if importance.balance:
            _one_of("importance.balance", importance.balance, BALANCES)
            if importance.mode != "offline":
                raise UserError(
                    f"importance.balance is {importance.balance!r}, but a batch does not hold the "
                    "rows of a whole class or query: leave it out, or set importance.mode=offline"
                )
        for name in self.compared_policies():
            _one_of("importance.compare", name, POLICIES)
        if self.compared_policies() and importance.mode == "learned":
            raise UserError(
                "importance.compare names policies, but learned weights have none: leave it out, "
                "or set importance.mode=offline"
            )
        if "uniform" in self.compared_policies():
            raise UserError("importance.compare names uniform, which always runs: leave it out")
        _at_least("importance.warmup_epochs", importance.warmup_epochs, 1)
        for field in ("data", "fsdp", "tensor"):
            size = getattr(self.mesh, field)
            if size == 0 or size < -1:
                raise UserError(f"mesh.{field} is {size}: give a number of devices, or -1")
        _at_least("evaluation.resamples", self.evaluation.resamples, 100)
        _at_least("evaluation.seed", self.evaluation.seed, 0)
        _at_least("evaluation.explained_queries", self.evaluation.explained_queries, 0)


def listed(text: str) -> tuple[str, ...]:
    """What a list separated by commas names, white space around the names cut."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(field: str, text: str, form: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in listed(text))
    except ValueError:
        raise UserError(f"{field} is {text!r}: give numbers separated by commas, {form}") from None


def as_json(config: Config) -> dict[str, Any]:
    """The config as nested dictionaries of numbers, strings and booleans."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any]) -> Config:
    """The config that `as_json` made these of."""

    def filled(node: Any, given: dict[str, Any]) -> Any:
        for name, value in given.items():
            inner = getattr(node, name)
            setattr(node, name, filled(inner, value) if isinstance(value, dict) else value)
        return node

    made: Config = filled(Config(), values)
    return made


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by their dotted names: `train.epochs`."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """One text per field that differs between two configs as JSON: `train.epochs 3, not 2`."""
    mine, other = flat(ours), flat(theirs)
    return [
        f"{name} {other.get(name)!r}, not {mine.get(name)!r}"
        for name in sorted(mine.keys() | other.keys())
        if mine.get(name) != other.get(name)
    ]


def _check_types(node: Any, prefix: str) -> None:
    for field in dataclasses.fields(node):
        value, name = getattr(node, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            if not isinstance(value, field.type):  # type: ignore[arg-type]  # a class, as checked
                raise UserError(f"{name} must be a {field.type.__name__}")  # type: ignore[union-attr]
            _check_types(value, f"{name}.")
            continue
        if field.type is float and type(value) is int:
            setattr(node, field.name, float(value))
        elif type(value) is not field.type:
            kind = getattr(field.type, "__name__", field.type)
            raise UserError(f"{name} is {value!r}: give a value of type {kind}")


def _one_of(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}: choose one of {', '.join(choices)}")


def _at_least(name: str, value: float, low: float) -> None:
    if not low <= value < math.inf:
        raise UserError(f"{name} is {value}: give a number of at least {low}")


def _positive(name: str, value: float) -> None:
    if not (0 < value < math.inf):
        raise UserError(f"{name} is {value}: give a number greater than 0")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{name} is {value}: give a number from {low:g} to {high:g}")
