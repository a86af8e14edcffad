"""Certificates of a comparison: what was compared, how closely, and what was not."""

import html
from typing import Any

from karez.equivalence.record import FLOORS
from karez.equivalence.run import Outcome, digest_of
from karez.equivalence.signed_certificate import FORM
from karez.equivalence.verdict import Difference

_MOST = 200


def certificate(found: Outcome, *, now: str, version: str) -> dict[str, Any]:
    """The body of a certificate, ready to be signed."""
    order, verdict = found.order, found.verdict
    counts = {
        kind: sum(one.kind == kind for one in verdict.differences)
        for kind in ("forward", "backward", "optimizer", "gradient")
    }
    first = verdict.first
    return {
        "form": FORM,
        "made_at": now,
        "karez": version,
        "lossless": verdict.is_lossless,
        "script": list(order.words),
        "original_sha256": digest_of(_folder(order.original)),
        "migrated_sha256": digest_of(_folder(order.migrated)),
        "reference": {"device": order.reference, **_about(found.reference.about)},
        "target": {"device": order.target, "chip": order.chip, **_about(found.target.about)},
        "compared": {
            "ranks": order.ranks,
            "rank_of_these_figures": found.rank,
            "modules_forward": counts["forward"],
            "modules_backward": counts["backward"],
            "optimizer_states": counts["optimizer"],
            "gradients": counts["gradient"],
            "steps_in_detail": order.steps,
            "losses": min(map(len, verdict.losses)),
            "weights_sampled": verdict.weights,
            "weights_that_only_round": verdict.still,
        },
        "worst": _row(verdict.worst),
        "first_difference": _row(first) | {"operator": found.operator} if first else None,
        "loss": {"error": verdict.loss_error, "limit": verdict.loss_limit},
        "unmatched": verdict.unmatched[:_MOST],
        "settings": verdict.settings[:_MOST],
        "floors": FLOORS,
        "not_shown": _not_shown(found),
    }


def page(signed: dict[str, Any], found: Outcome) -> str:
    """For people: the verdict, the loss curves, and the modules by their error."""
    verdict = found.verdict
    word = "lossless" if signed["lossless"] else "NOT lossless"
    parts = [
        f"<h1>{_e(' '.join(signed['script']) or found.order.migrated)}: {word}</h1>",
        f"<p>{_e(signed['reference']['device'])} against {_e(signed['target']['device'])}; "
        f"{len(verdict.differences)} results of modules and optimizers in "
        f"{signed['compared']['steps_in_detail']} steps, {signed['compared']['losses']} losses</p>",
    ]
    first = signed["first_difference"]
    if first:
        inside = f", operator <code>{_e(first['operator'])}</code>" if first["operator"] else ""
        parts.append(
            f"<p><b>They part at</b> <code>{_e(first['name'])}</code> ({_e(first['type'])}), "
            f"{_e(first['kind'])}, step {first['step'] + 1}{inside}: off by {first['error']:.2e}, "
            f"allowed {first['limit']:.2e}. {_e(first['problem'])}</p>"
        )
    for line in signed["settings"]:
        parts.append(f"<p><b>Another setting</b>: {_e(line)}</p>")
    parts.append("<h2>Losses</h2>" + _curves(verdict.losses))
    parts.append(
        f"<p>Largest relative difference {verdict.loss_error:.2e}; allowed "
        f"{verdict.loss_limit:.2e}.</p><h2>Results by error</h2>"
    )
    ranked = sorted(verdict.differences, key=lambda one: -one.error / max(one.limit, 1e-30))
    rows = "".join(
        f"<tr class={'off' if one.is_off else 'ok'}><td>{one.step + 1}</td><td>{one.kind}</td>"
        f"<td><code>{_e(one.name)}</code></td><td>{_e(one.type)}</td><td>{one.error:.2e}</td>"
        f"<td>{one.limit:.2e}</td><td>{_e(one.problem)}</td></tr>"
        for one in ranked[:_MOST]
    )
    parts.append(
        "<table><tr><th>step</th><th>part</th><th>module</th><th>type</th><th>error</th>"
        f"<th>allowed</th><th></th></tr>{rows}</table><h2>What this does not show</h2><ul>"
        + "".join(f"<li>{_e(line)}</li>" for line in signed["not_shown"])
        + f"</ul><p>Signed with {_e(signed['key'])}.</p>"
    )
    style = (
        "body{font:15px/1.5 system-ui;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #e3e6ea}"
        "table{border-collapse:collapse}.off{background:#fbe9e7}svg{max-width:100%}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{word}</title>'
        f"<style>{style}</style><body>{''.join(parts)}</body></html>\n"
    )


def _curves(losses: tuple[Any, Any]) -> str:
    values = [value for line in losses for value in line]
    if len(values) < 2 or not all(map(_finite, values)):
        return "<p>Too few to draw.</p>"
    low, high = min(values), max(values)
    span = high - low or 1.0
    lines = []
    for line, color, width in zip(losses, ("#2457a6", "#d39a2c"), (4, 1.6), strict=True):
        step = 680 / max(1, len(line) - 1)
        points = " ".join(
            f"{10 + at * step:.1f},{190 - 180 * (value - low) / span:.1f}"
            for at, value in enumerate(line)
        )
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}"/>'
        )
    return (
        f'<svg viewBox="0 0 700 200" role="img" aria-label="loss curves">{"".join(lines)}</svg>'
        f"<p>Blue, wide: the reference; yellow: the migrated. From {low:.4g} to {high:.4g}.</p>"
    )


def _not_shown(found: Outcome) -> list[str]:
    lines = []
    if found.order.target == "record":
        lines.append(
            "Only what two records hold was compared; who made them, and how, was not seen."
        )
        if found.reference.about.get("task") == "statistics":
            lines.append("Of each tensor there were the norm, extremes and mean, not its elements.")
        if not found.verdict.losses[0]:
            lines.append("There were no losses among it.")
    if found.order.target == "emulated":
        lines.append(
            "The NPU was emulated on a CPU: function was shown, not an Ascend's numerics, "
            "memory or speed."
        )
    if found.order.target in ("emulated", "cpu"):
        lines.append("Random numbers came from one generator; on a device of its own they differ.")
    steps = found.order.steps
    if found.order.target != "record":
        lines.append(
            f"Modules were recorded in the first {steps} steps; after that only losses were."
        )
    lines.append(
        "Of large tensors up to 2,048 elements were compared, spread evenly, and the norm."
    )
    floor = FLOORS[found.reference.widest_type]
    lines.append(
        f"Relative differences below {floor:.0e} ({found.reference.widest_type}, the floor for "
        "rounding) are not told from rounding; settings of modules and optimizers were compared."
    )
    if found.verdict.still:
        lines.append(
            f"{found.verdict.still} of {found.verdict.weights} sampled weights have no gradient "
            "beyond rounding; they wander in every run and were not compared."
        )
    if found.order.reference == "migrated":
        lines.append("The reference is the migrated code on the CPU, not the original.")
    return lines


def _about(about: dict[str, Any]) -> dict[str, Any]:
    wanted = ("devices", "torch", "threads", "parameters", "steps", "form", "task", "level")
    return {name: about[name] for name in wanted if name in about}


def _row(one: Difference | None) -> dict[str, Any]:
    if one is None:
        return {}
    return {
        "step": one.step,
        "kind": one.kind,
        "name": one.name,
        "type": one.type,
        "error": one.error,
        "limit": one.limit,
        "problem": one.problem,
    }


def _folder(path: Any) -> Any:
    return path if path.is_dir() else path.parent


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _e(value: object) -> str:
    return html.escape(str(value))
