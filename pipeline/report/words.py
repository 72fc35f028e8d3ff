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
    ours = [m for m in run.methods if m.name.startswith("entk") and run.selection in m.splits]
    if not ours or run.metric != "accuracy":
        return None
    return max(ours, key=lambda m: m.splits[run.selection]["accuracy"])


def headline(run: Run) -> dict[str, Any] | None:
    """The kernel's result in two numbers, beside each baseline's."""
    leading = ("id_test", "ood_test")
    chosen = leading_method(run)
    if chosen is None or not set(leading) <= set(chosen.splits):
        return None
    baselines = [
        m for m in run.methods if set(leading) <= set(m.splits) and not m.name.startswith("entk")
    ]
    return {
        "method": chosen.label,
        "tiles": [
            {
                "label": split_label(split),
                "accuracy": f"{100 * chosen.splits[split]['accuracy']:.1f}",
                "stderr": f"{100 * chosen.splits[split]['stderr']:.1f}",
                "against": [
                    (m.label, f"{_gain(chosen, m, split):+.1f}".replace("-", "−"))
                    for m in baselines
                ],
            }
            for split in leading
        ],
    }


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
        ("Code", f"entk {run.versions['entk']}" if "entk" in run.versions else ""),
        ("Command", str(run.versions.get("command") or "")),
    ]
    return [(term, value) for term, value in pairs if value]


def _gain(method: Method, other: Method, split: str) -> float:
    return 100.0 * (method.splits[split]["accuracy"] - other.splits[split]["accuracy"])


def _inner(options: Any, fallback: str = "") -> str:
    """A group of options on one line; its own groups are left to the full config."""
    if not isinstance(options, Mapping):
        return fallback
    plain = {k: v for k, v in options.items() if not isinstance(v, Mapping | list)}
    kind = str(plain.pop("kind", fallback))
    words = [quantity(k, v) for k, v in plain.items() if v is not None and v is not False]
    return ", ".join([kind, *words] if kind else words)


def _machine(machine: Mapping[str, Any]) -> str:
    words = [str(machine.get("system") or "")]
    if machine.get("cores"):
        words.append(f"{machine['cores']} cores")
    if machine.get("memory_bytes"):
        words.append(f"{size(machine['memory_bytes'])} memory")
    words += [str(gpu) for gpu in machine.get("gpus") or ()]
    return ", ".join(word for word in words if word)
