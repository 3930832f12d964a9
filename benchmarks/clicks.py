"""How well grades from clicks agree with the true ones, with and without correction of the bias.

    python benchmarks/clicks.py

Shops whose true grades are known, a ranker that is right more often than not, and people who look
at position k with probability 1 / k^η and click by the position-based model; one setting breaks
that model on purpose. Each setting is three logs, read as sie_jax reads any log. Figures are means
of the three, with 95 % bootstrap intervals over queries. Leaves benchmarks/results/clicks.json.

Of each estimate and its grades: Spearman's correlation with the true grade over all graded pairs
(`overall`) and as the mean within queries (`within`), and Spearman's partial correlation given the
pair's mean position (`beyond_ranker`): what it adds to what the ranker knew.
"""

import argparse
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sie_jax.data.sources import click_counts, click_model, clicks, synthetic
from sie_jax.errors import UserError
from sie_jax.evaluation import intervals
from sie_jax.files import write_json

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1, 2)
RESAMPLES = 1000
# How often a pair of true grade I, C, S, E is clicked when it is looked at.
CLICK = np.array([0.03, 0.15, 0.35, 0.7])


@dataclass(frozen=True)
class World:
    """A shop's visitors and its ranker.

    eta: position k is looked at with probability 1 / k^eta.
    exploration: standard deviation, in grades, of what a session's ranking adds to a pair's score.
    ranker_noise: the same of what the ranker gets wrong about a pair in every session alike.
    taste: standard deviation of the log odds of a click between the queries, and between the pairs
      of a grade: clicks are no perfect judges.
    cascade: people look from the top and go on after a click with probability 0.3 only.
    """

    eta: float = 1.0
    exploration: float = 1.0
    ranker_noise: float = 2.0
    taste: float = 0.5
    cascade: bool = False
    queries: int = 500
    searches: int = 40_000
    bots: float = 0.01  # share of the searches


def simulate(world: World, seed: int) -> tuple[pa.Table, dict[tuple[str, str], int]]:
    """The log, one row per shown item, and the true grade of every (query, item)."""
    source = synthetic.read(
        queries=world.queries, items_per_query=20, noise=0.0, dirt=0.0, seed=seed
    )
    shop = source.table.to_pydict()
    grade = np.array([source.scale.names.index(name) for name in shop["truth"]])
    _, query = np.unique(shop["query_id"], return_inverse=True)
    rows_of = np.split(np.argsort(query, kind="stable"), np.cumsum(np.bincount(query))[:-1])

    rng = np.random.default_rng([seed, 1])
    logit = np.log(CLICK / (1 - CLICK))[grade]
    logit = logit + world.taste * rng.normal(size=world.queries)[query]
    logit = logit + world.taste * rng.normal(size=len(grade))
    attractiveness = 1 / (1 + np.exp(-logit))
    score = grade + world.ranker_noise * rng.normal(size=len(grade))
    popularity = rng.lognormal(sigma=1.0, size=world.queries)
    searched = rng.choice(world.queries, size=world.searches, p=popularity / popularity.sum())
    # People search twice in a session; a bot's session has 60 searches and clicks on everything.
    bots = int(world.bots * world.searches)
    session = np.arange(world.searches) // 2
    session[:bots] = -1 - np.arange(bots) // 60

    parts: dict[str, list[np.ndarray]] = {"row": [], "position": [], "click": [], "session": []}
    for at, wanted in enumerate(searched):
        rows = rows_of[wanted]
        ranking = np.argsort(-(score[rows] + world.exploration * rng.normal(size=len(rows))))
        rows = rows[ranking]
        position = np.arange(1, len(rows) + 1)
        if at < bots:
            click = rng.random(len(rows)) < 0.95
        else:
            liked = rng.random(len(rows)) < attractiveness[rows]
            if world.cascade:
                stops = liked & (rng.random(len(rows)) < 0.7)
                looked = np.cumsum(stops) - stops == 0
            else:
                looked = rng.random(len(rows)) < position**-world.eta
            click = liked & looked
        for name, values in (("row", rows), ("position", position), ("click", click)):
            parts[name].append(values)
        parts["session"].append(np.full(len(rows), session[at]))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    row = pa.array(columns["row"])
    log = pa.table(
        {
            "session": pa.array(columns["session"]).cast(pa.string()),
            **{name: source.table[name].take(row) for name in ("query", "item_id", "title")},
            "position": columns["position"],
            "click": columns["click"].astype(np.int8),
        }
    )
    pairs = zip(shop["query"], shop["item_id"], strict=True)
    return log, dict(zip(pairs, grade.tolist(), strict=True))


SETTINGS = {
    "bias η = 0.2 (weak)": World(eta=0.2),
    "bias η = 0.5": World(eta=0.5),
    "bias η = 1": World(),
    "bias η = 1.5": World(eta=1.5),
    "a quarter of the log": World(searches=10_000),
    "four times the log": World(searches=160_000),
    "ranker knows nothing": World(ranker_noise=20.0, exploration=10.0),
    "good ranker": World(ranker_noise=0.5),
    "little exploration": World(exploration=0.1),
    "no exploration": World(exploration=0.0),
    "cascade (model is wrong)": World(cascade=True),
}
METRICS = ("overall", "within", "beyond_ranker")
ARMS = ("corrected", "uncorrected", "click_rate", "plain_ips")


def estimates(cells: click_model.Cells, propensities: np.ndarray) -> dict[str, np.ndarray]:
    """The relevance of each pair under each of ARMS.

    uncorrected: what sie_jax does, told that all positions are looked at alike. click_rate: clicks
    over impressions, smoothed towards the mean of the log. plain_ips: Σ_k (c_k / θ_k) / Σ_k n_k.
    """
    ones = np.ones_like(propensities)
    shown, clicked = (
        np.bincount(cells.pair, values) for values in (cells.impressions, cells.clicks)
    )
    weighted = np.zeros_like(cells.clicks)
    np.divide(cells.clicks, propensities[cells.position], out=weighted, where=cells.clicks > 0)
    return {
        "corrected": click_model.relevance(cells, propensities, smoothing=5.0).estimate,
        "uncorrected": click_model.relevance(cells, ones, smoothing=5.0).estimate,
        "click_rate": (clicked + 5 * clicked.sum() / shown.sum()) / (shown + 5),
        "plain_ips": np.bincount(cells.pair, weighted) / shown,
    }


def joint_maximum(cells: click_model.Cells, *, iterations: int = 2000) -> np.ndarray:
    """The propensities by expectation maximisation of the joint likelihood of θ and γ, for
    comparison (Chuklin, Markov and de Rijke, 2015, section 4.2), to a step of 1e-6."""
    pair, position, shown, clicks, _ = cells
    shown_at, shown_of = np.bincount(position, shown), np.bincount(pair, shown)
    theta = np.bincount(position, clicks) / shown_at
    theta, gamma = theta / theta.max(), np.bincount(pair, clicks) / shown_of
    for _ in range(iterations):
        t, g = theta[position], gamma[pair]
        skipped = (shown - clicks) / np.maximum(1 - t * g, 1e-12)
        before = theta / theta[0]
        theta = np.bincount(position, clicks + skipped * t * (1 - g)) / shown_at
        gamma = np.bincount(pair, clicks + skipped * g * (1 - t)) / shown_of
        if np.abs(theta / theta[0] - before).max() < 1e-6:
            break
    return theta / theta[0]


def spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Spearman's correlation with each entry counted `weights` times, mean ranks for ties.

    first, second: int, equal for equal values and in their order.
    """

    def rank(places: np.ndarray) -> np.ndarray:
        times = np.bincount(places, weights)
        return (np.cumsum(times) - times / 2)[places]

    return _correlation(rank(first), rank(second), weights)


def _correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    first = first - np.average(first, weights=weights)
    second = second - np.average(second, weights=weights)
    scale = np.sqrt((weights @ first**2) * (weights @ second**2))
    return float(weights @ (first * second) / scale) if scale > 0 else 0.0


def measure(
    values: np.ndarray, truth: np.ndarray, place: np.ndarray, query: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Every metric `[r]` under `counts` [r, Q], how often each query is drawn.

    Within a query that has one true grade alone there is nothing to order: it is left out. One
    whose values are all equal counts 0.
    """
    columns = [np.unique(column, return_inverse=True)[1] for column in (values, truth, place)]
    x, t, z = columns
    each = np.full(counts.shape[1], np.nan)
    for at in range(len(each)):
        rows = np.flatnonzero(query == at)
        if len(np.unique(t[rows])) > 1:
            each[at] = spearman(x[rows], t[rows], np.ones(len(rows)))
    overall, beyond = [], []
    for drawn in counts:
        weights = drawn[query].astype(float)
        xt, xz, tz = (spearman(a, b, weights) for a, b in ((x, t), (x, z), (t, z)))
        overall.append(xt)
        rest = (1 - xz**2) * (1 - tz**2)
        beyond.append((xt - xz * tz) / np.sqrt(rest) if rest > 1e-9 else np.nan)
    within = intervals.weighted_mean(each, counts)
    return {"overall": np.array(overall), "within": within, "beyond_ranker": np.array(beyond)}


def one_log(world: World, seed: int, resamples: int) -> dict[str, Any]:
    """The figures of one simulated log; of each metric the value, then the resampled values."""
    log, true_grade = simulate(world, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        pq.write_table(log, path)
        found = clicks.read(str(path))  # refuses what cannot be corrected
        counted = click_counts.aggregate(str(path))
    cells, positions, pairs, _ = click_counts.as_arrays(counted)
    propensities = np.array([entry["propensity"] for entry in found.summary.positions])
    rows = found.source.table.select(["query", "item_id", "label"]).to_pylist()
    spelling = dict(zip(*(counted.queries[n].to_pylist() for n in ("query", "text")), strict=True))
    keys = [
        (spelling[query], item)
        for query, item in zip(
            *(pairs[name].to_pylist() for name in pairs.column_names), strict=True
        )
    ]
    graded = {(row["query"], row["item_id"]): int(row["label"]) for row in rows}
    kept = np.array([key in graded for key in keys])
    keys = [key for key in keys if key in graded]
    truth = np.array([true_grade[key] for key in keys])
    shown = np.bincount(cells.pair, cells.impressions)
    place = np.bincount(cells.pair, cells.impressions * positions[cells.position]) / shown
    query = np.unique([text for text, _ in keys], return_inverse=True)[1]
    size = query.max() + 1
    counts = np.concatenate(
        [np.ones((1, size), int), *intervals.resampling(size, resamples=resamples, seed=seed)]
    )
    figures: dict[str, Any] = {"ranker": measure(-place[kept], truth, place[kept], query, counts)}
    for arm, estimate in estimates(cells, propensities).items():
        grades = click_model.grade(estimate[kept], grades=4)
        if arm == "corrected" and grades.tolist() != [graded[key] for key in keys]:
            raise AssertionError("the grades of clicks.read are not those measured here")
        for kind, values in (("relevance", estimate[kept]), ("grade", grades)):
            figures[f"{arm} {kind}"] = measure(values, truth, place[kept], query, counts)
    true_theta = positions**-world.eta
    return {
        "metrics": figures,
        "propensities": propensities.tolist(),
        "error": None if world.cascade else float(np.abs(propensities - true_theta).max()),
        "error_of_joint_maximum": None
        if world.cascade
        else float(np.abs(joint_maximum(cells) - true_theta).max()),
        "impressions": found.summary.impressions_read,
        "pairs": found.summary.pairs,
        "pairs_kept": found.summary.pairs_kept,
        "bot_sessions": found.summary.bot_sessions,
        "bots_planted": len({name for name in log["session"].to_pylist() if name[0] == "-"}),
    }


def summed_up(logs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over the logs of every figure, with intervals where it was resampled."""
    mean = {
        name: {
            metric: np.mean([log["metrics"][name][metric] for log in logs], axis=0)
            for metric in METRICS
        }
        for name in logs[0]["metrics"]
    }
    for kind in ("relevance", "grade"):
        for arm in ARMS[1:]:
            mean[f"corrected - {arm} {kind}"] = {
                metric: mean[f"corrected {kind}"][metric] - mean[f"{arm} {kind}"][metric]
                for metric in METRICS
            }
    return {
        "metrics": {
            name: {m: intervals.interval(float(v[0]), v[1:]) for m, v in metrics.items()}
            for name, metrics in mean.items()
        },
        **{name: [log[name] for log in logs] for name in logs[0] if name != "metrics"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "clicks.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"click": CLICK.tolist(), "seeds": SEEDS, "settings": {}}
    console = Console(width=180)
    shown = Table(title="Correlation of the grades with the true ones: overall / within queries")
    heads = ("ranker", *ARMS[:3], "corrected − uncorrected", "error of θ", "of joint EM")
    for column in ("setting", *heads):
        shown.add_column(column)
    for name, world in SETTINGS.items():
        try:
            result = summed_up([one_log(world, seed, arguments.resamples) for seed in SEEDS])
        except UserError as error:
            results["settings"][name] = {"world": asdict(world), "refused": str(error)}
            shown.add_row(name, "refused")
            continue
        results["settings"][name] = {"world": asdict(world), **result}
        metrics = result["metrics"]
        names = ["ranker", *[f"{arm} grade" for arm in ARMS[:3]]]
        cells = [
            f"{metrics[n]['overall']['value']:.3f} / {metrics[n]['within']['value']:.3f}"
            for n in names
        ]
        difference = metrics["corrected - uncorrected grade"]["overall"]
        errors = [result[key] for key in ("error", "error_of_joint_maximum")]
        shown.add_row(
            name,
            *cells,
            "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**difference),
            *["" if error[0] is None else f"{max(error):.3f}" for error in errors],
        )
    write_json(arguments.out, results)
    console.print(shown)


if __name__ == "__main__":
    main()
