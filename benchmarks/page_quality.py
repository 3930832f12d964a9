"""Tables on how good models, scores and grades from clicks are."""

import functools
import runpy
from collections.abc import Callable, Iterable, Sequence

from page_tables import CONFIGS, ROOT, number, p_value, result, rows_as_table, with_interval

LABELS = {
    "random": "random order",
    "token_overlap": "counting shared words",
    "bm25": "BM25",
    "checkpoint": "the checkpoint's cosine",
    "checkpoint_text": "the checkpoint's cosine with further text",
    "linear": "linear, on features of the words",
    "trees": "trees, LambdaMART on the same features",
    "blend": "blend, the sum of linear and trees",
    "contest_of_features": "what the contest exports, without encoders",
    "translation": "translation of words",
    "stack": "stack of linear, translation and the encoders",
}
NESTED = {
    "lambdamart": "LambdaMART, its size chosen",
    "linear_of_pairs": "linear, without both",
    "lambdamart_of_pairs": "LambdaMART, without both",
    "cross_encoder": "cross-encoder",
    "cross_encoders": "mean of four cross-encoders",
    "stack": "stack: linear, with the cross-encoder's score",
    "stack_of_several": "the same, with the mean of four",
    "lambdamart_stack": "LambdaMART, with the cross-encoder's score",
    "exported": "a contest in which a baseline needs no margin",
    "exported_by_margin": "what the contest inside chooses",
    "listwise": "cross-encoder, listwise",
    "stack of listwise": "stack: linear, with the score of the listwise cross-encoder",
    "blend of listwise": "linear and LambdaMART, both with that score",
    "towers": "two towers",
    "towers_of_text": "two towers that read the description too",
    "sum with towers_of_text": "the sum of linear, trees and their cosine",
    "regression_with_features": "cross-encoder with features in its head",
    "sum with regression_with_features": "the sum of linear, trees and its score",
    "stack of towers": "stack: linear, with the cosine of the two towers",
    "blend of towers": "linear and LambdaMART, both with that cosine",
    "stack of all": "stack: linear, with the scores of all encoders",
}


def compared(name: str, metrics: Sequence[str] = ("ndcg@10", "macro_f1", "accuracy")) -> str:
    """A run's test metrics by model, and what each differs from `uniform` by."""
    found = result(name)
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    labels = {**LABELS, "weighted": f"weighted ({config.importance.policy})"}
    rows = []
    for run, of in found["test"].items():
        # a ranker that names no classes has no accuracy
        cells = [with_interval(of[metric]) if metric in of else "" for metric in metrics]
        paired = found["difference"].get(run)
        cells.append(with_interval(paired["ndcg@10"], sign=True) if paired else "")
        rows.append([labels.get(run, run), *cells])
    return rows_as_table(["", *_titles(metrics), "nDCG@10 less uniform's"], rows)


def nested(name: str, file: str = "nested") -> str:
    """nDCG@10 of baselines and rankers over all queries of a data set, and what they differ by."""
    found, labels = result(file)["sets"][name], {**LABELS, **NESTED}
    differences = {
        f"minus_{one}": f"less {text}"
        for one, text in {
            "best_baseline": labels[found["best_baseline"]],
            "linear": "linear",
            "lambdamart": "LambdaMART",
            "linear_of_pairs": "linear, of pairs alone",
        }.items()
        if f"minus_{one}" in found
    }
    rows, holm = [], found.get("holm_of_minus_best_baseline", {})
    for method, value in found["ndcg@10"].items():
        cells = [found[key].get(method) for key in differences]
        seeds = str(len(found["seeds"][method]))
        paired = [with_interval(one, sign=True) if one else "" for one in cells]
        if holm:
            paired.insert(1, p_value(holm[method]) if method in holm else "")
        rows.append([labels[method], seeds, with_interval(value), *paired])
    heads = [*differences.values()]
    if holm:
        heads.insert(1, "p of that")
    return rows_as_table(["", "seeds", "nDCG@10", *heads], rows)


def cost(name: str) -> str:
    """What each trained model of a run cost, per seed."""
    rows = [
        [run, f"{of['seconds']:.0f}", f"{of['examples']:,}", f"{of['forward_equivalents']:,}"]
        for run, of in result(name)["cost"].items()
    ]
    return rows_as_table(["cost of a seed", "seconds", "examples", "forward-equivalents"], rows)


def aa_check() -> str:
    """The shares of pairs of procedures that each interval calls different."""
    found, ways = result("aa_check"), ("verdict", "plain_sum", "bootstrap")
    rows = []
    for kind in ("identical", "equal", "better"):
        for seeds, of in found[kind]["by_seeds"].items():
            difference = number(of["difference"], 4)
            shares = [f"{of[way]['helped']:.1%} / {of[way]['hurt']:.1%}" for way in ways]
            rows.append([kind, seeds, str(of["pairs"]), difference, *shares])
    heads = ["over queries and seeds", "both variances added up", "bootstrap over queries"]
    titles = ["procedures", "seeds", "pairs", "mean difference"]
    return rows_as_table([*titles, *(f"{head}: helped / hurt" for head in heads)], rows)


def quickstart_rivals() -> str:
    """The quickstart's exported ranker beside LightGBM's on the same labels."""
    found = result("quickstart_rivals")
    names = {
        "lambdamart": "LambdaMART on the features",
        "lambdamart_translation": "LambdaMART on the features and word translation",
    }
    rows = [[f"exported: {found['ranker']}", number(found["ndcg@10"]["exported"]), ""]]
    rows += [
        [
            text,
            number(found["ndcg@10"][name]),
            with_interval(found["exported_minus"][name], sign=True),
        ]
        for name, text in names.items()
    ]
    return rows_as_table(["", "nDCG@10", "exported less this"], rows)


def planted_errors() -> str:
    """The AUROC of the quickstart's scores for the labels that it planted wrong."""
    found = result("quickstart")["planted_errors"]["auroc"]
    return rows_as_table(["", *found], [["AUROC", *(number(value) for value in found.values())]])


def list_weights(name: str) -> str:
    """nDCG@10 of a listwise ranker under each weighting, by the kind of noise."""
    rows = []
    found = result(name)
    for kind, runs in found["kinds"].items():
        for run, of in runs.items():
            claim = of["minus_uniform"]
            cells = [with_interval(claim, sign=True), p_value(claim["holm"])] if claim else ["", ""]
            rate = found["rates"][kind]
            noise = f"{kind}, {rate:.0%}" if rate else kind
            rows.append([noise, run, with_interval(of["ndcg@10"]), *cells])
    return rows_as_table(["noise", "weights", "nDCG@10", "less `uniform`", "p by Holm"], rows)


def training_tasks(name: str) -> str:
    """nDCG@10 of encoders trained on each task or with care, alone and in the stack."""
    found = result(name)
    rows = []
    by_linear = "less linear" in found["alone"]["graded"]  # older results do not have it
    untrained = [run for run in ("checkpoint", "checkpoint_text") if run in found["alone"]]
    for run in (*untrained, "linear", "translation", *found["settings"]):
        cells = []
        for of in (found["alone"], found["stack"]):
            told = of.get(run, {})
            value, claim = told.get("ndcg@10"), told.get("difference")
            cells += [with_interval(value) if value else ""]
            cells += [with_interval(claim, sign=True) if claim else ""]
            if of is found["alone"] and by_linear:
                claim = told.get("less linear")
                cells += [with_interval(claim, sign=True) if claim else ""]
        rows.append([f"`{run}`", *cells])
    blank = ["", "", *([""] if by_linear else [])]
    rows.append(["no encoder", *blank, with_interval(found["stack"]["none"]["ndcg@10"]), ""])
    further = ["less `linear`"] if by_linear else []
    head = ["encoder", "alone", "less `graded`", *further, "in the stack"]
    head.append("less the stack without it")
    return rows_as_table(head, rows)


def rater_disagreement() -> str:
    """How scores go with the disagreement of raters."""
    found = result("icecat")["rater_disagreement"]
    cells = [with_interval(value) for value in found.values()]
    return rows_as_table(["", *found], [["Spearman's ρ", *cells]])


def noise_detection() -> str:
    """AUROC of the scores for planted errors, by the rate of the errors."""
    rates = {rate: of for rate, of in result("noise")["rates"].items() if of["auroc"]}
    scores = next(iter(rates.values()))["auroc"]
    rows = [[name, *(with_interval(of["auroc"][name]) for of in rates.values())] for name in scores]
    return rows_as_table(["AUROC for the wrong labels", *_noise(rates)], rows)


def noise_ranking() -> str:
    """nDCG@10 by policy and rate of planted errors, and the differences from uniform."""
    rates = result("noise")["rates"]
    runs = next(iter(rates.values()))
    rows = [
        [
            LABELS.get(run, run),
            *(with_interval(of["test"][run]["ndcg@10"]) for of in rates.values()),
        ]
        for run in runs["test"]
    ]
    for run in (run for run in runs["difference"] if run not in LABELS):
        paired = [of["difference"][run]["ndcg@10"] for of in rates.values()]
        rows.append([f"{run} less uniform", *(with_interval(one, sign=True) for one in paired)])
    return rows_as_table(["test nDCG@10", *_noise(rates)], rows)


def pretrained_ranking() -> str:
    """Test metrics with and without pretraining."""
    found, metrics = result("pretrain"), ("ndcg@10", "macro_f1", "accuracy")
    rows = [
        [label, *(with_interval(found["test"][run][metric]) for metric in metrics)]
        for run, label in (("uniform", "uniform"), ("pretrained", "uniform, pretrained"))
    ]
    paired = found["difference"]["pretrained"]
    rows.append(["difference", *(with_interval(paired[metric], sign=True) for metric in metrics)])
    return rows_as_table(["", *_titles(metrics)], rows)


def pretraining_curve() -> str:
    """Held-out perplexity and accuracy by step of pretraining."""
    found = result("pretrain")["pretraining"]
    points = [(0, found["before"]["perplexity"], found["before"]["pair_accuracy"])]
    for entry in found["curve"]:
        values = entry["held_out_perplexity"], entry["held_out_pair_accuracy"]
        points.append((entry["step"], *values))
    rows = [[f"{step:,}", f"{one:,.0f}", number(two)] for step, one, two in points]
    return rows_as_table(["step", "held-out perplexity", "accuracy on pairs"], rows)


def pretraining_rows() -> str:
    """What the pretraining was measured on, in a sentence."""
    found = result("pretrain")["pretraining"]
    rows = found["rows"]
    return (
        f"{found['steps']:,} steps of {found['batch_size']} texts took "
        f"{found['seconds'] / 60:.0f} minutes. There were {rows['train']:,} texts to learn from "
        f"and {rows['held_out']:,} held-out texts, of which {rows['measured']:,} were measured."
    )


def learning_rates() -> str:
    """Validation nDCG@10 by learning rate and epoch."""
    rates = result("tune")["rates"]
    rows = [
        [f"{float(rate):g}", *(number(entry["validation_ndcg@10"]) for entry in entries)]
        for rate, entries in rates.items()
    ]
    epochs = [f"epoch {entry['epoch']}" for entry in next(iter(rates.values()))]
    return rows_as_table(["learning rate", *epochs], rows)


def _titles(metrics: Sequence[str]) -> list[str]:
    return [{"ndcg@10": "nDCG@10", "macro_f1": "macro-F1"}.get(name, name) for name in metrics]


def _noise(rates: Iterable[str]) -> list[str]:
    return [f"{float(rate):.0%} noise" for rate in rates]


def clicks() -> str:
    """Spearman's correlation of grades from clicks with the true ones, by setting."""
    rows = []
    for setting, of in result("clicks")["settings"].items():
        if "refused" in of:
            rows.append([setting, "refused", *[""] * 6])
            continue
        grades = [
            of["metrics"][f"{name} grade"] for name in ("corrected", "uncorrected", "click_rate")
        ]
        rows.append(
            [
                setting,
                number(of["metrics"]["ranker"]["overall"]["value"]),
                *(number(one["overall"]["value"]) for one in grades),
                with_interval(of["metrics"]["corrected - click_rate grade"]["overall"], sign=True),
                *(_largest(of[key]) for key in ("error", "error_of_joint_maximum")),
            ]
        )
    head = ["setting", "ranker alone", "corrected", "uncorrected", "click rate"]
    head += ["corrected less click rate", "error of θ", "error of θ by the joint likelihood"]
    return rows_as_table(head, rows)


def _largest(errors: Sequence[float | None]) -> str:
    known = [error for error in errors if error is not None]
    return number(max(known)) if known else ""


def tables() -> str:
    """Over small tables: nDCG@10 of every ranker, and exported less linear."""
    found = result("tables")
    rows = [[LABELS.get(run, run), number(value, 4)] for run, value in found["ndcg@10"].items()]
    less = with_interval(found["exported_minus_linear"], sign=True)
    rows.append(["exported less linear", less])
    rows.append([f"tables where it is below by {found['below']:g}", f"{found['share_below']:.0%}"])
    return rows_as_table(["", "mean over tables"], rows)


def clicks_beyond_the_ranker() -> str:
    """What grades add to the mean position, and the sessions taken for bots."""
    rows = []
    for setting, of in result("clicks")["settings"].items():
        if "refused" not in of:
            grades = [of["metrics"][f"{name} grade"] for name in ("corrected", "uncorrected")]
            rows.append(
                [
                    setting,
                    *(number(one["beyond_ranker"]["value"]) for one in grades),
                    _span(of["bot_sessions"]),
                    _span(of["bots_planted"]),
                ]
            )
    head = ["setting", "corrected, given position", "uncorrected, given position"]
    return rows_as_table([*head, "sessions left out", "planted bots"], rows)


def _span(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def foreign_files() -> str:
    """What was read of the files of each program: those with the same outcome in one row."""
    found = result("foreign_files")
    named: dict[tuple[str, ...], list[str]] = {}
    for one in found["files"]:
        version = found["tools"].get(one["tool"], "")
        rejected = ", ".join(f"{rows} {reason}" for reason, rows in one.get("rejected", {}).items())
        outcome = (
            (one["refused"].replace("FOLDER/", ""), "", "")
            if "refused" in one
            else (str(one["read"]), str(one["kept"]), rejected or "none")
        )
        ending = one["file"].partition(".")[2]
        named.setdefault((f"{one['tool']} {version}".strip(), *outcome), []).append(
            f"`.{ending}` {one['what']}" if ending else one["what"]
        )
    rows = [[tool, "; ".join(names), *outcome] for (tool, *outcome), names in named.items()]
    return rows_as_table(["written by", "files", "rows read", "kept", "rejected"], rows)


def doubtful_groups() -> str:
    """What is doubted of real pairs, as they are and with planted faults; means over seeds."""
    names = {"esci": "ESCI", "icecat": "Icecat"}
    kinds = {
        "as they are": ("queries", "none"),
        "a fifth blind": ("queries", "a fifth of the queries, blindly"),
        "brands as they are": ("brands", "none"),
        "a fifth cheat": ("brands", "a fifth of the brands, all the best grade"),
    }
    rows = []
    for data, found in result("doubtful")["sets"].items():
        for kind, (unit, planted) in kinds.items():
            if kind not in found:
                continue
            seeds = found[kind]
            of = found["queries"] if unit == "queries" else seeds[0]["compared"]
            totals = {
                key: sum(one[key] for one in seeds) / len(seeds)
                for key in ("planted", "found", "false")
            }
            cells = [number(totals[key], 1) for key in ("planted", "found", "false")]
            rows.append([names[data], f"{of} {unit}", planted, *cells])
    head = ["pairs", "compared", "planted", "how many", "of them doubted", "others doubted"]
    return rows_as_table(head, rows)


PARTS: dict[str, Callable[[], str]] = {
    "doubtful groups": doubtful_groups,
    "aa check": aa_check,
    "planted errors of the quickstart": planted_errors,
    "rivals of the quickstart": quickstart_rivals,
    "rater disagreement": rater_disagreement,
    "noise, detection": noise_detection,
    "noise, ranking": noise_ranking,
    "pretraining, ranking": pretrained_ranking,
    "pretraining, curve": pretraining_curve,
    "pretraining, texts": pretraining_rows,
    "learning rates": learning_rates,
    "small tables": tables,
    "foreign files": foreign_files,
    "clicks": clicks,
    "clicks beyond the ranker": clicks_beyond_the_ranker,
    **{f"nested, {name}": functools.partial(nested, name) for name in ("esci", "icecat")},
    "encoders, icecat": functools.partial(nested, "icecat", "nested_encoders"),
    "encoders, esci": functools.partial(nested, "esci", "nested_head"),
    **{
        f"features, {name}": functools.partial(nested, name, "nested_features")
        for name in ("esci", "icecat")
    },
    "list weights": functools.partial(list_weights, "list_weights"),
    "list weights, again": functools.partial(list_weights, "list_weights_again"),
    **{
        f"training tasks, {name}": functools.partial(training_tasks, f"training_tasks_{name}")
        for name in (
            *("shop", "few", "icecat", "esci", "esci_text"),
            *("shop_features", "few_features", "esci_features"),
        )
    },
    **{f"results of {name}": functools.partial(compared, name) for name in CONFIGS},
    **{f"cost of {name}": functools.partial(cost, name) for name in CONFIGS},
}
