"""Tables on time, memory and bytes: of steps, estimators, data, devices, interruptions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from page_tables import result, rows_as_table


def step() -> str:
    """Time and memory of a weighted step, relative to a plain one."""
    lengths = result("step")["lengths"]
    head = [""]
    head += [f"time, T = {length}" for length in lengths]
    head += [f"temporary memory, T = {length}" for length in lengths]
    rows = []
    for variant in next(iter(lengths.values())):
        found = [of[variant] for of in lengths.values()]
        times = [
            f"{one['time_ratio']:.2f} ({one['time_ratio_low']:.2f}–{one['time_ratio_high']:.2f})"
            for one in found
        ]
        rows.append([variant, *times, *(f"{one['memory_ratio']:.2f}" for one in found)])
    return rows_as_table(head, rows)


def norms() -> str:
    """The largest relative difference of the norms from those of vmap(grad)."""
    found = {run: of["largest_relative_difference"] for run, of in result("norms").items()}
    routes = list(next(iter(found.values())))
    rows = [[run, *(f"{of[route]:.1e}" for route in routes)] for run, of in found.items()]
    return rows_as_table(["batches of", *routes], rows)


def per_example() -> str:
    """Time and temporary memory of every way to a weighted gradient, relative to a plain one."""
    settings = result("per_example")["settings"]
    rows = []
    for variant in next(iter(settings.values())):
        found = [of[variant] for of in settings.values()]
        cells = [f"{one['time_ratio']:.2f} / {one['memory_ratio']:.2f}" for one in found]
        rows.append([variant, *cells])
    return rows_as_table(["", *settings], rows)


def coupled() -> str:
    """Time and temporary memory of contributions under a coupled loss, relative to its step."""
    rows = []
    for variant, one in result("coupled")["results"].items():
        low, high = (f"{one[f'time_ratio_{end}']:.2f}" for end in ("low", "high"))
        time = f"{one['time_ratio']:.2f} ({low}–{high})"
        rows.append([variant, time, f"{one['memory_ratio']:.2f}"])
    return rows_as_table(["", "time", "temporary memory"], rows)


def largest_batch() -> str:
    """The largest batch whose step fits the memory limit."""
    found = result("per_example")["largest_batch"]["batch_sizes"]
    return rows_as_table(
        ["variant", "largest batch"], [[variant, str(size)] for variant, size in found.items()]
    )


def estimator_costs() -> str:
    """Each estimator's passes, their time relative to a training step, and the work on the host."""
    found = result("estimators")
    models = [
        f"{name}, B = {of['batch_size']}, T = {of['length']}"
        for name, of in found["models"].items()
    ]
    rows = [[f"`{name}`", *_estimator(found, name)] for name in found["needs"]]
    return rows_as_table(["estimator", "passes", *models, "on the host"], rows)


def _estimator(found: Mapping[str, Any], name: str) -> list[str]:
    needs = found["needs"][name]
    passes = ", ".join(needs["training"]) or "none"
    if needs["targets"]:
        passes += f"; validation: {', '.join(needs['targets'])}"
    if needs["checkpoints"] == "every":
        passes += "; every checkpoint"
    cells = [passes]
    for model in found["models"].values():
        of = model["estimators"][name]
        ratio = f"{of['training']['ratio']:.2f}" if needs["training"] else "0"
        if needs["targets"]:
            ratio += f" + {of['targets']['ratio']:.2f} v"
        if needs["trainings"] != "0":
            ratio += f" + {needs['trainings']} trainings"
        cells.append(ratio)
    if name not in found["host"]:
        return [*cells, ""]
    host = found["host"][name]
    rows, seconds = next(iter(host["seconds"].items()))
    power = f", N^{host['exponent']:.1f}" if "exponent" in host else ""
    return [*cells, f"{seconds:.2g} s for {int(rows):,}{power}"]


def estimator_passes() -> str:
    """Each pass relative to a training step, with its quartiles."""
    models = result("estimators")["models"]
    passes = [name for name in next(iter(models.values()))["passes"] if name != "training step"]
    rows = []
    for name in passes:
        found = [model["passes"][name] for model in models.values()]
        cells = [f"{one['ratio']:.2f} ({one['low']:.2f}–{one['high']:.2f})" for one in found]
        rows.append([name, *cells])
    return rows_as_table(["pass", *models], rows)


def estimator_once() -> str:
    """What is computed once per run: seconds."""
    models = result("estimators")["models"]
    rows = [
        [name, *(_seconds(model["once"][name]["seconds"]) for model in models.values())]
        for name in next(iter(models.values()))["once"]
    ]
    return rows_as_table(["once per run", *models], rows)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def own_table() -> str:
    """Rows read, kept and rejected of tables with broken rows, seconds and peak memory."""
    rows = []
    for kind, sizes in result("table")["tables"].items():
        for of in sizes.values():
            counts = [f"{of[key]:,}" for key in ("read", "kept", "rejected")]
            peaks = [f"{of[f'peak_{key}mebibytes']:.0f}" for key in ("", "anonymous_")]
            rows.append([kind, *counts, f"{of['seconds']:.0f}", *peaks])
    head = ["table", "read", "kept", "rejected", "seconds", "peak", "without mapped files"]
    return rows_as_table(head, rows)


def preparing() -> str:
    """Seconds, rates and peak memory of preparing and streaming data of two sizes."""
    found = result("data")
    sizes = [key for key in found if key.endswith(" pairs")]
    small, large = (found[size] for size in sizes)

    def grown(step: str, kind: str) -> list[str]:
        first, second = (f"{of[step][f'{kind}_mebibytes']:.0f} MiB" for of in (small, large))
        return [first, f"{second}, {found[f'{kind}_ratio'][step]:.2f} times as much"]

    def per_second(step: str) -> list[str]:
        return [f"{of[step]['pairs_per_second']:,}" for of in (small, large)]

    rows = [
        ["prepared in", *(f"{of['prepare']['seconds']:.0f} s" for of in (small, large))],
        ["peak memory of that", *grown("prepare", "peak")],
        ["of which not mapped files", *grown("prepare", "peak_own")],
        ["tokenised pairs per second", *per_second("tokenise")],
        ["an epoch streamed, pairs per second", *per_second("stream")],
        ["peak memory of that", *grown("stream", "peak")],
    ]
    heads = [f"{int(size.split()[0]):,} pairs" for size in sizes]
    return rows_as_table(["", *heads], rows)


def waiting() -> str:
    """The share of a step in which training waits for data."""
    rows = [
        [
            {"minilm": "MiniLM-L6"}.get(model, model),
            f"{of['step_seconds'] * 1e3:.0f} ms",
            f"{of['data_wait_share']:.3%}",
        ]
        for model, of in result("data")["training"].items()
    ]
    return rows_as_table(["model", "a step", "share of it spent waiting for data"], rows)


def predicting() -> str:
    """Pairs scored per second, and peak memory."""
    names = {"quickstart": "an encoder of 0.2 M parameters", "minilm": "MiniLM-L6"}
    rows = [
        [names[model], f"{int(size.split()[0]):,}", *_speed(of)]
        for model, sizes in result("predict").items()
        if model in names
        for size, of in sizes.items()
        if size.endswith(" rows")
    ]
    return rows_as_table(["model", "rows", "pairs per second", "peak memory"], rows)


def _speed(of: Mapping[str, Any]) -> list[str]:
    return [f"{of['pairs_per_second']:,.0f}", f"{of['peak_mebibytes']:.0f} MiB"]


def starting() -> str:
    """How long it takes until a table of one row is scored."""
    rows = []
    for name, found in result("predict")["starting"].items():
        costs = [found["imports"]["sie_jax.serving"]]
        costs += [found[f"first row, {compiled} compiled"] for compiled in ("nothing", "all")]
        rows.append([name, *(f"{cost['seconds']:.1f} s" for cost in costs)])
    header = ["", "importing", "first row, nothing compiled yet", "first row, all compiled"]
    return rows_as_table(header, rows)


def installations() -> str:
    """The packages that are needed for each import, and how long it takes."""
    found = result("predict")["starting"]["now"]["imports"]
    rows = [
        [f"`{name}`", str(cost["packages"]), f"{cost['seconds']:.2f} s"]
        for name, cost in found.items()
    ]
    return rows_as_table(["import", "packages", "seconds"], rows)


def exported() -> str:
    """The largest difference of a probability from what other libraries compute."""
    libraries = ("transformers", "sentence-transformers")
    rows = [
        [
            run,
            *(
                f"{of[name]['largest_difference']:.1e} ({of[name]['version']})"
                for name in libraries
            ),
        ]
        for run, of in result("exported").items()
    ]
    return rows_as_table(["model of", *(f"{name} (version)" for name in libraries)], rows)


def importance_table() -> str:
    """Time, disk space and memory of steps over a table larger than memory."""
    small, large = result("importance_table")["sizes"].items()
    rows = []
    for name, of in large[1].items():
        numbers = [
            f"{of['seconds']:.0f}",
            f"{of['cpu_seconds']:.0f}",
            f"{of['rows_per_cpu_second'] / 1e6:.2f}",
            f"{of['bytes'] / 1e9:.2f}",
            f"{of['peak_scratch_bytes'] / 1e9:.2f}",
        ]
        peaks = [f"{sizes[name]['peak_mebibytes']:.0f}" for sizes in (small[1], large[1])]
        rows.append([name, *numbers, *peaks])
    head = ["step", "s", "CPU s", "million rows per CPU s", "GB left", "GB of temporary files"]
    head += [f"peak MiB, {int(rows) // 10**6} million rows" for rows, _ in (small, large)]
    return rows_as_table(head, rows)


def meshes() -> str:
    """What a step computes and sends on every mesh, per device: uniform → online."""
    rows = []
    for mesh, of in result("devices")["meshes"].items():
        steps = [of["uniform"], of["online"]]
        cells = [
            [f"{one['flops_per_device'] / 1e9:.1f}" for one in steps],
            [f"{steps[0]['state_bytes_per_device'] / 1e6:.1f}"],
            *(list(_collectives(steps, kind)) for kind in ("all-reduce", "all-gather")),
            list(_other_collectives(steps)),
        ]
        rows.append([mesh, *(" → ".join(cell) or "0" for cell in cells)])
    head = ["mesh", "GFLOPs", "parameters and optimiser state, MB"]
    head += ["all-reduce: number, MB", "all-gather: number, MB", "other, MB"]
    return rows_as_table(head, rows)


def _collectives(steps: Iterable[Mapping[str, Any]], kind: str) -> Iterator[str]:
    for one in (step["collectives"] for step in steps):
        if kind in one:
            yield f"{one[kind]['count']}, {one[kind]['bytes'] / 1e6:.1f}"


def _other_collectives(steps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in (step["collectives"] for step in steps):
        kinds = one.keys() - {"all-reduce", "all-gather"}
        if kinds:
            yield f"{sum(one[kind]['bytes'] for kind in kinds) / 1e6:.1f}"


def paper() -> str:
    """The same on paper, for a slice that was not at hand."""
    of = result("devices")["v5e_256_on_paper"]
    rows = [
        ["FLOPs per device", f"{of['flops_per_device'] / 1e9:.0f} G"],
        ["time for them at the published peak", f"{of['seconds_at_peak_flops'] * 1e3:.2f} ms"],
        ["bytes sent per device", f"{of['bytes_sent_per_device'] / 1e6:.0f} MB"],
        ["time for them at the links' full rate", f"{of['seconds_at_peak_link'] * 1e3:.2f} ms"],
        ["bytes that scoring adds", f"{of['bytes_added_by_scoring'] / 1e6:.2f} MB"],
    ]
    settings = f"{of['rows']:,} pairs of {of['length']} tokens on {of['devices']} devices"
    return rows_as_table([settings, ""], rows)


def kills() -> str:
    """What was left of a run that was killed many times."""
    found = result("kill")
    kills = found["kills"]
    phases = {
        phase: sum(one["phase"] == phase for one in kills) for phase in found["phase_seconds"]
    }
    rows = [[f"kills in the phase {phase}", str(count)] for phase, count in phases.items()]
    half = sum(one["checkpoint_half_written"] for one in kills)
    gone = sum(len(one["finished_files_gone"]) for one in kills)
    rows += [
        ["kills in all", str(len(kills))],
        ["of these while a checkpoint was half written", str(half)],
        ["finished files lost", str(gone)],
        ["most steps that one kill made necessary again", str(found["most_steps_to_take_again"])],
        ["results equal to the last bit", ", ".join(k for k, v in found["equal"].items() if v)],
        ["results that differ", ", ".join(k for k, v in found["equal"].items() if not v) or "none"],
    ]
    return rows_as_table(["what was counted", ""], rows)


PARTS: dict[str, Callable[[], str]] = {
    "weighted step": step,
    "norms": norms,
    "per-example gradients": per_example,
    "coupled losses": coupled,
    "largest batch": largest_batch,
    "estimator costs": estimator_costs,
    "estimator passes": estimator_passes,
    "estimator costs, once": estimator_once,
    "own table": own_table,
    "preparing": preparing,
    "waiting for data": waiting,
    "predicting": predicting,
    "starting": starting,
    "installations": installations,
    "exported models": exported,
    "importance table": importance_table,
    "meshes": meshes,
    "v5e on paper": paper,
    "kills": kills,
}
