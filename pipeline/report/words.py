"""A run's facts in words: what was selected, how a fit ended, what a stage took."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.record import Method, Run, split_label

TERMS = {
    "lambda_max": "largest eigenvalue of K",
    "lambda_min": "smallest",
    "effective_dimension_stderr": "its standard error",
    "rounding_floor": "rounding error of K as an eigenvalue",
}
"""Facts of a certificate whose names say too little."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def described(selected: Mapping[str, Any] | None) -> str:
    """The selected hyperparameters in a few words."""
    if not selected:
        return ""
    words = []
    for key, value in selected.items():
        if key == "stopping":
            continue
        if key == "iterations":
            words.append(_stopping(selected))
        elif isinstance(value, bool):
            words += [key.replace("_", " ")] if value else []
        elif key == "model":
            words.append(str(value))
        elif isinstance(value, float):
            words.append(f"{key.replace('_', ' ')} = {value:.3g}")
        elif value is not None:
            words.append(f"{key.replace('_', ' ')} {value}")
    return " · ".join(word for word in words if word)


def _stopping(selected: Mapping[str, Any]) -> str:
    steps = selected["iterations"]
    if selected.get("stopping") == "converged":
        return f"converged in {steps:,} iterations" if steps else "converged"
    return f"stopped at iteration {steps:,}"


def certificate(method: Method) -> str:
    """How a fit ended: converged or not, and its other facts."""
    facts = dict(method.fit.get("certificate") or {})
    converged = facts.pop("converged", None)
    words = [] if converged is None else ["converged" if converged else "NOT CONVERGED"]
    return " · ".join(
        words + [quantity(TERMS.get(str(key), str(key)), value) for key, value in facts.items()]
    )


def quantity(key: str, value: Any) -> str:
    """One named figure with its unit, which its name tells."""
    words = key.split("_")
    name = " ".join(word for word in words if word not in ("bytes", "seconds"))
    if isinstance(value, bool):
        return name if value else f"not {name}"
    if isinstance(value, int | float):
        if "bytes" in words:
            return f"{name} {size(value)}".strip()
        if words[-1] == "seconds":
            return f"{name} {duration(value)}"
        text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        return f"{name} {text}"
    return f"{name} {value}"


def size(count: float) -> str:
    """A number of bytes in the binary unit that suits it."""
    power = 0
    while abs(count) >= 1024.0 and power < len(UNITS) - 1:
        count, power = count / 1024.0, power + 1
    return f"{count:.0f} {UNITS[power]}" if power == 0 else f"{count:.1f} {UNITS[power]}"


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def leading_method(run: Run) -> Method | None:
    """Of the kernel's variants the one best on the selection split.

    The reader's eye is led by a choice that read no test label.
    """
    ours = _kernel_methods(run)
    if not ours or run.metric != "accuracy":
        return None
    return max(ours, key=lambda m: m.splits[run.selection]["accuracy"])


def _kernel_methods(run: Run) -> list[Method]:
    return [m for m in run.methods if m.name.startswith("entk") and run.selection in m.splits]


def headline(run: Run) -> dict[str, Any] | None:
    """The kernel's accuracy on every test split, beside each baseline's."""
    chosen = leading_method(run)
    if chosen is None or not {"id_test", "ood_test"} <= set(chosen.splits):
        return None
    own = {*(run.config.get("variants") or ())}
    baselines = [m for m in run.methods if not m.name.startswith("entk") and m.name not in own]
    level = run.comparisons.get("level")
    return {
        "method": chosen.label,
        "among": [m.label for m in _kernel_methods(run)],
        "level": f"{100 * level:g}" if level else "",
        "tiles": [
            {
                "label": split_label(split),
                "accuracy": f"{100 * chosen.splits[split]['accuracy']:.1f}",
                "stderr": f"{100 * chosen.splits[split]['stderr']:.1f}",
                "against": [_lead(run, chosen, m, split) for m in baselines if split in m.splits],
            }
            for split in run.splits
            if split != "val" and split in chosen.splits
        ],
    }


def _lead(run: Run, chosen: Method, other: Method, split: str) -> tuple[str, str, str, bool]:
    """The other method, the lead over it, the lead's interval, and whether that leaves out 0."""
    gain = chosen.splits[split]["accuracy"] - other.splits[split]["accuracy"]
    found = run.lead(chosen.name, other.name, split)
    if found is None:
        return other.label, points(gain), "", True
    _, low, high = found
    return other.label, points(gain), f"{points(low)} to {points(high)}", not low <= 0 <= high


def points(share: float) -> str:
    """A difference between two shares, in points and with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def facts(run: Run) -> list[tuple[str, str]]:
    """What was run, as pairs of a term and its value."""
    machine = run.versions.get("machine") or {}
    pairs = [
        ("Benchmark", _inner(run.config.get("benchmark"), run.benchmark)),
        ("Network", _inner(run.config.get("model"))),
        ("Sketch", _inner(run.config.get("sketch"))),
        ("Features", _inner(run.config.get("features"))),
        ("Solver", _inner(run.config.get("solver"))),
        ("Chosen on", f"{run.selection_phrase}, by {run.metric}"),
        ("Machine", _machine(machine)),
        ("Started last", _moment(run.versions.get("started"))),
        ("Code", _code(run.versions)),
        ("Command", str(run.versions.get("command") or "")),
    ]
    return [(term, value) for term, value in pairs if value]


def _inner(options: Any, fallback: str = "") -> str:
    """A group of options on one line; its own groups are left to the full config."""
    if not isinstance(options, Mapping):
        return fallback
    plain = {k: v for k, v in options.items() if not isinstance(v, Mapping | list)}
    kind = str(plain.pop("kind", fallback))
    words = [quantity(k, v) for k, v in plain.items() if v is not None and v is not False]
    return ", ".join([kind, *words] if kind else words)


def _moment(stamp: Any) -> str:
    """An ISO time (UTC) as a person reads it."""
    return f"{str(stamp).replace('T', ' ').removesuffix('Z')} UTC" if stamp else ""


def _code(versions: Mapping[str, Any]) -> str:
    if "entk" not in versions:
        return ""
    commit = versions.get("commit")
    return f"entk {versions['entk']}" + (f", git commit {commit}" if commit else "")


def _machine(machine: Mapping[str, Any]) -> str:
    words = [str(machine.get("system") or "")]
    if machine.get("cores"):
        words.append(f"{machine['cores']} cores")
    if machine.get("memory_bytes"):
        words.append(f"{size(machine['memory_bytes'])} memory")
    words += [str(gpu) for gpu in machine.get("gpus") or ()]
    return ", ".join(word for word in words if word)
