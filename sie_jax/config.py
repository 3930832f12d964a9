"""A run's configuration: the sections of all rooms, as JSON, and how two of them differ.

Every field can be set in a config file and overridden on the command line
(`--config.train.batch_size=16`). Each section checks itself; here stands only what one section asks
of another.
"""

import dataclasses
from typing import Any

from sie_jax import sections
from sie_jax.data.chats import ChatsConfig
from sie_jax.data.histories.section import HistoriesConfig
from sie_jax.data.section import DataConfig
from sie_jax.data.utterances import IntentsConfig
from sie_jax.devices.mesh import MeshConfig
from sie_jax.errors import UserError
from sie_jax.evaluation.recommending_section import RecommendingConfig
from sie_jax.evaluation.section import EvaluationConfig
from sie_jax.importance import ESTIMATORS
from sie_jax.importance.section import ImportanceConfig
from sie_jax.models.history_section import HistoryModelConfig
from sie_jax.models.section import ModelConfig
from sie_jax.retrieval.chain_section import StepsConfig
from sie_jax.retrieval.index import IndexConfig
from sie_jax.retrieval.negatives import NegativesConfig
from sie_jax.stages.history_runs import WEIGHTINGS
from sie_jax.stages.pretrain import PretrainConfig
from sie_jax.tasks import apart, can_estimate, classifies, listed
from sie_jax.training.history_section import HistoryTrainConfig
from sie_jax.training.section import TrainConfig
from sie_jax.training.tracking import TrackingConfig


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    """Everything a run depends on; stored as config.json in its workdir."""

    name: str = "quickstart"  # of the run, and of its workdir below runs/ where none is given
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    importance: ImportanceConfig = dataclasses.field(default_factory=ImportanceConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)

    def check(self) -> None:
        """Raises UserError for the first field whose type or value cannot work."""
        _check_sections(self)
        for name in self.importance.needs_folds:
            if not self.train.folds:
                raise UserError(
                    f"{name} needs predictions of models that never saw the query: give "
                    "--config.train.folds=5, or another number of folds"
                )
        self._check_task()
        if self.evaluation.folds and self.data.test_folds:
            raise UserError(
                f"evaluation.folds is {self.evaluation.folds} and data.test_folds is "
                f"{self.data.test_folds}: the first tests all folds, the second one of them; "
                "leave one of the two out"
            )

    def _check_task(self) -> None:
        """Raises UserError where data or importance ask for what the task does not have."""
        task, importance = self.train.task, self.importance
        if self.data.continuous and classifies(task):
            raise UserError(
                f"data.continuous says that labels are numbers, and train.task {task} has a class "
                "for each: set --config.train.task=regression or another with one relevance, or "
                "divide the labels into grades with --config.data.bins=5"
            )
        for name in dict.fromkeys((importance.score, *importance.estimators)):
            if not can_estimate(task, name):
                able = [one for one in ESTIMATORS if can_estimate(task, one)]
                raise UserError(
                    f"the score {name} is not defined for train.task {task}: choose one of "
                    f"{', '.join(able)}, or train.task=graded"
                )
        if self.model.features and (apart(task) or classifies(task)):
            reads = "reads query and item apart" if apart(task) else "has an output for each grade"
            raise UserError(
                f"model.features adds features to the one output of a cross-encoder, and "
                f"train.task {task} {reads}: set --config.train.task=listwise, another task of "
                "lists, or regression"
            )
        if not listed(task):
            return
        if importance.mode == "learned" or importance.use == "sampling":
            asked = "mode=learned" if importance.mode == "learned" else "use=sampling"
            raise UserError(
                f"importance.{asked} takes pairs by themselves, and train.task {task} takes lists: "
                "set importance.mode=offline and importance.use=weights"
            )


@dataclasses.dataclass(slots=True, kw_only=True)
class RecommendationConfig:
    """Everything that a recommender from histories depends on."""

    name: str = "recommend"  # of the run, and of its workdir below runs/ where none is given
    data: HistoriesConfig = dataclasses.field(default_factory=HistoriesConfig)
    model: HistoryModelConfig = dataclasses.field(default_factory=HistoryModelConfig)
    train: HistoryTrainConfig = dataclasses.field(default_factory=HistoryTrainConfig)
    # runs beside `uniform`, which weigh or leave out what they learn from
    weightings: tuple[str, ...] = ()
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    evaluation: RecommendingConfig = dataclasses.field(default_factory=RecommendingConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)

    def check(self) -> None:
        """Raises UserError for the first field whose type or value cannot work."""
        _check_sections(self)
        for name in self.weightings:
            sections.one_of("weightings", name, WEIGHTINGS)


@dataclasses.dataclass(slots=True, kw_only=True)
class RetrievalConfig:
    """Everything that finding items in a whole catalogue depends on."""

    name: str = "retrieval"  # of the run, and of its workdir below runs/ where none is given
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    tuned: bool = True  # whether towers are trained; else words and the checkpoint alone search
    negatives: NegativesConfig = dataclasses.field(default_factory=NegativesConfig)
    index: IndexConfig = dataclasses.field(default_factory=IndexConfig)
    depths: tuple[int, ...] = (10, 100)  # at which lists are measured
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)

    def check(self) -> None:
        """Raises UserError for the first field whose type or value cannot work."""
        _check_sections(self)
        for depth in self.depths:
            sections.at_least("depths", depth, 1)
        if not self.depths:
            raise UserError("depths is empty: give at least one, as in 10,100")
        if not apart(self.train.task):
            raise UserError(
                f"train.task is {self.train.task}, which reads query and item together: a "
                "catalogue is searched by towers, --config.train.task=contrastive"
            )
        if self.negatives.kinds and not self.tuned:
            raise UserError(
                "negatives.kinds trains towers further, and tuned is false: leave one of the two "
                "out"
            )
        if not self.tuned and not self.model.pretrained:
            raise UserError(
                "tuned is false and model.pretrained is empty, so that no encoder would search: "
                "give one of the two"
            )


@dataclasses.dataclass(slots=True, kw_only=True)
class ChainConfig:
    """Everything that the way from a query to a short list of the catalogue depends on."""

    name: str = "chain"  # of the run, and of its workdir below runs/ where none is given
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    # of the two towers, which find
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    # of the cross-encoder, which reads query and item together and re-ranks
    cross: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    index: IndexConfig = dataclasses.field(default_factory=IndexConfig)
    chain: StepsConfig = dataclasses.field(default_factory=StepsConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)

    def check(self) -> None:
        """Raises UserError for the first field whose type or value cannot work."""
        _check_sections(self)
        if not apart(self.train.task):
            raise UserError(
                f"train.task is {self.train.task}, which reads query and item together: a "
                "catalogue is searched by towers, --config.train.task=contrastive"
            )
        if apart(self.cross.task):
            raise UserError(
                f"cross.task is {self.cross.task}, which reads query and item apart: give "
                "--config.cross.task=regression, or leave the cross-encoder out by an empty "
                "chain.kept"
            )


@dataclasses.dataclass(slots=True, kw_only=True)
class ConversationConfig:
    """Everything that an assistant depends on: chats that end in items, and intents."""

    name: str = "conversation"  # of the run, and of its workdir below runs/ where none is given
    data: ChatsConfig = dataclasses.field(default_factory=ChatsConfig)
    # the folder model/ of a chain that searches; empty: words alone do
    chain: str = ""
    intents: IntentsConfig = dataclasses.field(default_factory=IntentsConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)

    def check(self) -> None:
        """Raises UserError for the first field whose type or value cannot work."""
        _check_sections(self)
        if not self.data.source and not self.intents.path:
            raise UserError(
                "there are neither chats nor intents: give --config.data.source=market or table, "
                "or --config.intents.path=PATH"
            )


AnyConfig = Config | RecommendationConfig | RetrievalConfig | ChainConfig | ConversationConfig
"""What a config file may give: each is of one recipe."""


def _check_sections(config: AnyConfig) -> None:
    """Raises UserError for a value of another type, no name, or what a section refuses."""
    sections.check_types(config)
    if not config.name:
        raise UserError("name is empty: give one, as in --config.name=quickstart")
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.type):
            section: sections.Section = getattr(config, field.name)
            section.check()


def as_json(config: AnyConfig) -> dict[str, Any]:
    """The config as nested dictionaries of numbers, strings, booleans and lists."""
    made: dict[str, Any] = dataclasses.asdict(
        config, dict_factory=lambda items: {k: _listed(v) for k, v in items}
    )
    return made


def from_json(values: dict[str, Any]) -> Config:
    """The config that `as_json` made these of."""

    def filled(node: Any, given: dict[str, Any]) -> Any:
        for name, value in given.items():
            inner = getattr(node, name)
            setattr(node, name, filled(inner, value) if isinstance(value, dict) else value)
        return node

    made: Config = filled(Config(), values)
    sections.check_types(made)  # a list in a tuple's place becomes a tuple
    return made


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
