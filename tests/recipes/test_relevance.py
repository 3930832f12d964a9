"""Whole runs: what they leave, and what another command on their workdir makes again."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pyarrow.parquet as pq
import pytest
import workdirs
from markupsafe import escape
from tiny_runs import COLUMNS, METRICS, opened, run, tiny, unexplained
from workdirs import made_since, markers

from sie_jax.config import Config, as_json
from sie_jax.errors import UserError
from sie_jax.files import read_json
from sie_jax.recipes import plan, relevance

pytestmark = pytest.mark.slow

RANKING = METRICS - {"accuracy", "macro_f1", "micro_f1"}
CONTRACT = {
    "config.json",
    "cleaning.json",
    "rejected.parquet",
    "importance.parquet",
    "audit.csv",
    "metrics.json",
    "metrics.jsonl",
    "checkpoints",
    "model",
    "report.html",
}
STAGES = {
    "prepare",
    "features",
    "linear",
    "trees",
    "translation",
    "score",
    "weigh",
    "audit",
    "train/uniform-0",
    "train/weighted-0",
    "contest",
    "export",
    "explain",
    "robustness",
    "evaluate",
}


@pytest.fixture
def workdir(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workdir, with the times of its files."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_every_file_of_the_contract_is_there(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= CONTRACT
    assert not list(finished.rglob(".*.tmp"))
    assert not any(path.is_file() for path in (finished / "scratch").rglob("*"))
    assert read_json(finished / "config.json") == as_json(tiny())
    assert (finished / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    made = markers(finished)
    assert made.keys() == STAGES
    assert plan.stages(tiny()) == tuple(sorted(made, key=lambda name: made[name]))


def test_metrics_json(finished: Path) -> None:
    metrics = read_json(finished / "metrics.json")
    rows = metrics["rows"]
    assert rows["read"] == rows["kept"] + rows["rejected"]
    assert rows["rejected"] == pq.read_table(finished / "rejected.parquet").num_rows > 0
    cheap = ["random", "token_overlap", "bm25", "linear", "trees", "blend", "translation"]
    runs = [*cheap, "uniform", "weighted", "stack"]
    rankers = {"bm25", *cheap[3:], "stack"}  # which name no classes
    assert list(metrics["test"]) == runs
    assert set(metrics["difference"]) == set(runs) - {"uniform"}
    assert list(metrics["cost"]) == ["uniform", "weighted", "stack"]
    cost = {run: spent["forward_equivalents"] for run, spent in metrics["cost"].items()}
    assert cost["stack"] == cost["uniform"] + cost["weighted"]  # words are free, and there are none
    assert metrics["device"] == f"1 × {jax.devices()[0].device_kind}"
    for trained in metrics["train"].values():
        assert list(trained) == ["loss", "accuracy", "ndcg@10"]  # whatever Python's hashes are
    for part in ("test", "difference"):
        for name, values in metrics[part].items():
            assert set(values) == (RANKING if name in rankers else METRICS | COLUMNS)
            for estimate in values.values():
                assert set(estimate) == {"value", "low", "high"}
    for name in METRICS:
        for one in runs:
            if name not in metrics["test"][one]:
                continue
            estimate = metrics["test"][one][name]
            assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
            assert metrics["seeds"][one][name] == [pytest.approx(estimate["value"])]
        for one in metrics["difference"]:
            if name not in metrics["difference"][one]:
                continue
            assert metrics["difference"][one][name]["value"] == pytest.approx(
                metrics["test"][one][name]["value"] - metrics["test"]["uniform"][name]["value"]
            )


def test_the_verdict_is_about_the_exported_ranker(finished: Path) -> None:
    metrics = read_json(finished / "metrics.json")
    verdict, test = metrics["verdict"], metrics["test"]
    baselines = ["random", "token_overlap", "bm25"]
    best = max(baselines, key=lambda run: test[run]["ndcg@10"]["value"])
    # three validation queries are too few to put anything in the place of `linear`
    assert (verdict["ranker"], verdict["best_baseline"]) == ("linear", best)
    assert verdict["ndcg@10"]["value"] == pytest.approx(
        test["linear"]["ndcg@10"]["value"] - test[best]["ndcg@10"]["value"]
    )
    weighting = metrics["difference"]["weighted"]["ndcg@10"]["value"]
    assert verdict["weighting"] == {"value": pytest.approx(weighting), "low": None, "high": None}
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert all(str(escape(note)) in report for note in verdict["notes"])


def test_metrics_jsonl_has_the_curves_of_every_run(finished: Path) -> None:
    lines = workdirs.lines(finished)
    for name in ("warmup", "uniform-0", "weighted-0"):
        mine = [line for line in lines if line["run"] == name]
        assert [line["step"] for line in mine] == sorted(line["step"] for line in mine)
        assert any("loss" in line for line in mine)
        assert sum("validation_loss" in line for line in mine) == 1
        own = finished / "checkpoints" / name / "metrics.jsonl"
        assert [json.loads(line) for line in own.read_text().splitlines()] == mine


def test_every_run_is_described_beside_its_checkpoints(finished: Path) -> None:
    folders = sorted((finished / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == ["uniform-0", "warmup", "weighted-0"]
    for folder in folders:
        described = read_json(folder / "run.json")
        assert described["name"] == folder.name
        kind = "weights" if folder.name == "weighted-0" else "uniform"
        assert described["weighting"]["kind"] == kind
        assert workdirs.steps(finished, folder.name) == [6, 7]


def test_one_config_two_workdirs_the_same_bits(finished: Path, tmp_path: Path) -> None:
    run(tiny(), tmp_path / "again")
    workdirs.assert_same_results(tmp_path / "again", finished)
    for name in ("cleaning.json", "scores.parquet", "scores.json", "importance.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes(), name
    ids = [
        {name: read_json(one / "stages" / f"{name}.json")["id"] for name in STAGES - {"evaluate"}}
        for one in (finished, tmp_path / "again")
    ]
    assert ids[0] == ids[1]  # metrics.json alone has times


# ------------------------------------------------------------- another command on the same workdir


def test_a_finished_run_is_left_alone(finished: Path) -> None:
    before = workdirs.times(finished)
    said = io.StringIO()
    assert run(tiny(), finished, said=said) == read_json(finished / "metrics.json")
    assert workdirs.times(finished) == before
    assert f"Report: {finished / 'report.html'}" in said.getvalue()


def test_fields_that_only_tell_make_nothing_again(workdir: Path) -> None:
    before, config = workdirs.times(workdir), tiny()
    config.train.log_every, config.train.checkpoint_every = 1, 2
    config.train.profile_steps = (1, 2)
    run(config, workdir)
    told = {str(workdir / "config.json")}  # it says what was asked for last
    after = workdirs.times(workdir)
    assert {path for path in after if before.get(path) != after[path]} == told
    assert read_json(workdir / "config.json") == as_json(config)


def test_another_seed_is_one_more_run_of_each_kind(workdir: Path) -> None:
    before, config = markers(workdir), tiny()
    checkpoints = workdirs.times(workdir / "checkpoints")
    config.train.seeds = 2
    metrics = run(config, workdir)
    assert made_since(workdir, before) == {"train/uniform-1", "train/weighted-1", "evaluate"}
    assert (
        workdirs.times(workdir / "checkpoints").items()
        >= {
            path: at for path, at in checkpoints.items() if Path(path).name != "checkpoints"
        }.items()
    )
    for name in ("uniform", "weighted"):
        assert len(metrics["seeds"][name]["ndcg@10"]) == 2
    assert read_json(workdir / "config.json") == as_json(config)


def test_other_resamples_make_again_what_has_intervals(workdir: Path) -> None:
    before, config, said = markers(workdir), tiny(), io.StringIO()
    config.evaluation.resamples = 200
    metrics = run(config, workdir, said=said)
    assert made_since(workdir, before) == {"audit", "evaluate"}
    lines = said.getvalue().splitlines()
    assert lines[0].startswith(
        f"{workdir} was made with evaluation.resamples=100, and now has 200: new stages are added"
    )
    assert "stage evaluate is made again: evaluation.resamples 100, not 200" in lines
    assert metrics["test"]["uniform"]["ndcg@10"]["low"] is not None


def test_more_explained_queries_make_no_training_again(workdir: Path) -> None:
    before, config = markers(workdir), tiny()
    config.evaluation.explained_queries = 0
    run(config, workdir)
    assert made_since(workdir, before) == {"evaluate"}
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert '<section id="explanations">' not in page


def test_another_policy_is_refused_and_with_redo_made_from_there_on(workdir: Path) -> None:
    before, config = markers(workdir), tiny(policy="tempered")
    with pytest.raises(
        UserError,
        match=r"^stage weigh .*importance\.policy 'clipped', not 'tempered'.*--redo=weigh",
    ) as caught:
        run(config, workdir)
    assert "\n" not in str(caught.value)
    assert made_since(workdir, before) == set()
    run(config, workdir, "weigh")
    of_model = {"contest", "export", "explain", "robustness"}
    assert made_since(workdir, before) == {"weigh", "train/weighted-0", *of_model, "evaluate"}
    before = markers(workdir)
    run(config, workdir)
    assert made_since(workdir, before) == set()


def test_a_stage_made_again_with_the_same_outcome_leaves_the_others(workdir: Path) -> None:
    before = markers(workdir)
    run(tiny(), workdir, "audit", "train/uniform-0")
    assert made_since(workdir, before) == {"audit", "train/uniform-0"}


def test_an_unknown_stage_is_refused(workdir: Path) -> None:
    before = workdirs.times(workdir)
    with pytest.raises(UserError, match="--redo=scores: choose of the stages prepare, features"):
        run(tiny(), workdir, "weigh", "scores")
    assert workdirs.times(workdir) == before


def learning_rate(config: Config) -> None:
    config.train.learning_rate = 0.5


def epochs(config: Config) -> None:
    config.train.epochs = 2


def seed(config: Config) -> None:
    config.train.seed = 3


def model(config: Config) -> None:
    config.model.hidden_size = 8


def source(config: Config) -> None:
    config.data.synthetic.queries = 31


@pytest.mark.parametrize(
    ("change", "stage", "told"),
    [
        (learning_rate, "score", "train.learning_rate 0.001, not 0.5"),
        (epochs, "score", "train.epochs 1, not 2"),
        (seed, "score", "seed 0, not 3"),
        (model, "score", "model.hidden_size 16, not 8"),
        (source, "prepare", "data.synthetic.queries 30, not 31"),
    ],
)
def test_a_workdir_of_another_config_is_refused(
    workdir: Path, change: Callable[[Config], None], stage: str, told: str
) -> None:
    """Also where nothing but the checkpoints and markers says what it was made of."""
    config = tiny()
    change(config)
    for removed in ([], ["config.json", "metrics.json"]):
        for name in removed:
            (workdir / name).unlink()
        before = workdirs.times(workdir)
        with pytest.raises(UserError) as caught:
            run(config, workdir)
        message = str(caught.value)
        assert message.startswith(f"stage {stage} in {workdir} was made with other settings (")
        assert told in message
        assert f"--redo={stage} " in message
        assert "\n" not in message
        assert workdirs.times(workdir) == before


def test_a_workdir_of_an_older_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(as_json(tiny())))
    (tmp_path / "data").mkdir()
    before = workdirs.times(tmp_path)
    with pytest.raises(
        UserError, match=f"^{tmp_path} was made by an older version of sie_jax: give another"
    ):
        run(tiny(), tmp_path)
    assert workdirs.times(tmp_path) == before


@pytest.mark.parametrize("name", ["data", "checkpoints", "model", "metrics.json"])
def test_what_no_run_made_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"has a folder {name} that no run made"):
        run(tiny(), tmp_path)
    assert not any((tmp_path / name).iterdir())


# ---------------------------------------------------------------------------- before it is begun


def nothing_fits(config: Config) -> None:
    """With a vocabulary of little more than letters, every query fills eight tokens."""
    config.data.vocabulary_size, config.data.max_length = 100, 8


def too_little(config: Config) -> None:
    config.importance.policy, config.importance.choosing_budget = "auto", 0.5


def too_many_folds(config: Config) -> None:
    config.importance.policy, config.importance.choosing_folds = "auto", 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: setattr(config.train, "batch_size", 0), r"train\.batch_size"),
        (lambda config: setattr(config.data, "gains", (0.0, 1.0)), "gains|label scale"),
        (nothing_fits, r"data\.max_length"),
        (lambda config: setattr(config.model, "pretrained", "nowhere"), "nowhere"),
        (lambda config: setattr(config.mesh, "data", 512), r"mesh\.data"),
        (lambda config: setattr(config.data.synthetic, "noise_kind", "evil"), "noise_kind"),
        (too_little, r"importance\.choosing_budget: a budget of 0\.5 .* too small"),
        (too_many_folds, r"importance\.choosing_folds: 99 folds of"),
        (lambda config: setattr(config.train, "folds", 99), r"train\.folds: 99 folds of"),
    ],
)
def test_what_the_user_can_fix_ends_the_run_before_anything_is_written(
    tmp_path: Path, change: Callable[[Config], None], message: str
) -> None:
    config = tiny()
    change(config)
    with pytest.raises(UserError, match=message) as caught:
        run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_beam_that_is_not_there_or_has_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(Beam is not installed|model\.pretrained is empty)"):
        relevance.prepare_on_beam(tiny(), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_without_lightgbm_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match=r"^LightGBM.* cannot be loaded"):
        run(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------- other modes


def test_online_weights_and_further_policies(finished: Path, tmp_path: Path) -> None:
    config = unexplained(mode="online", score="el2n", compare=("proportional",), mix_uniform=0.1)
    metrics = run(config, tmp_path)
    assert list(metrics["test"])[7:] == ["uniform", "weighted", "proportional", "stack"]
    cost = metrics["cost"]
    for one in ("weighted", "proportional"):  # no scoring pass is charged to them
        assert cost[one]["forward_equivalents"] == cost["uniform"]["forward_equivalents"]
    assert metrics["test"]["uniform"] == read_json(finished / "metrics.json")["test"]["uniform"]
    assert metrics["weights"] == {}
    predictions = [
        pq.read_table(tmp_path / "predictions" / f"{one}-0.parquet")
        for one in ("uniform", "weighted", "proportional")
    ]
    assert not predictions[1].equals(predictions[0])
    assert not predictions[1].equals(predictions[2])
    assert read_json(tmp_path / "checkpoints" / "proportional-0" / "run.json")["weighting"] == {
        "kind": "online",
        "score": "el2n",
        "policy": "proportional",
    }


def test_learned_weights_are_charged_their_validation_pairs(finished: Path, learned: Path) -> None:
    metrics = read_json(learned / "metrics.json")
    theirs = read_json(finished / "metrics.json")
    assert metrics["test"]["uniform"] == theirs["test"]["uniform"]
    assert metrics["weights"] == {}
    splits = read_json(learned / "cleaning.json")["splits"]
    held = [min(16, splits["validation"] - start) for start in range(0, splits["validation"], 16)]
    steps = -(-splits["train"] // 16)
    examples = splits["train"] + sum(held[step % len(held)] for step in range(steps))
    cost = metrics["cost"]["weighted"]
    assert (cost["examples"], cost["forward_equivalents"]) == (examples, 3 * examples)
    theta = [x for x in workdirs.lines(learned) if x["run"] == "weighted-0" and "theta_loss" in x]
    assert [x["step"] for x in theta] == list(range(2, steps + 1, 2))
    assert all({"theta_threshold", "agreement", "validation_loss"} <= x.keys() for x in theta)
    assert theta[-1]["theta_loss"] != 0
    # it has seen the labels of the validation queries, by which the contest judges
    contest = read_json(learned / "contest.json")
    assert "uniform" in contest["outcome"]["standings"]
    assert "weighted" not in contest["outcome"]["standings"]
    assert "run:weighted" not in contest["stack"]["names"]
    # another number of seeds or policies later touches no run that stands
    before = markers(learned)
    with pytest.raises(UserError, match=r"^stage weigh .*importance\.score"):
        run(unexplained(mode="learned", score="el2n"), learned)
    assert made_since(learned, before) == set()


def test_a_further_policy_adds_its_run(workdir: Path) -> None:
    before = markers(workdir)
    metrics = run(tiny(compare=("keep",)), workdir)
    # what is exported is chosen anew, and is another encoder here
    of_model = {"contest", "export", "explain", "robustness"}
    assert made_since(workdir, before) == {"train/keep-0", *of_model, "evaluate"}
    assert list(metrics["test"])[7:] == ["uniform", "weighted", "keep", "stack"]
    assert (
        metrics["cost"]["keep"]["forward_equivalents"]
        == (metrics["cost"]["weighted"]["forward_equivalents"])
    )


def test_two_processes_of_one_config_do_not_share_a_workdir(workdir: Path) -> None:
    with (
        opened(tiny(), workdir),
        pytest.raises(UserError, match="is in use by another run: wait until it is done"),
    ):
        run(tiny(), workdir)
