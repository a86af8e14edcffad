"""Recipe: a model of fewer bits, accepted only if it answers held-out rows about as well."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from karez.core import environment
from karez.core.chat_rows import Row
from karez.core.errors import AccuracyLost, BadRequest, BrokenArtifact
from karez.studio.accuracy_gate import check_gate, measure_gate
from karez.studio.recipes.convert_gguf import convert
from karez.studio.recipes.gguf_quantization import quantize_file
from karez.studio.recipes.llamacpp_answers import Said, llamacpp_answers
from karez.studio.recipes.recipe_io import (
    folder,
    notice,
    read_rows,
    say,
    settings_of,
    tell,
    write_card,
)
from karez.studio.settings import Quantize
from karez.studio.text_scores import f1


def main() -> None:
    """Quantise, measure both, and keep the smaller one if it lost little."""
    settings = settings_of(Quantize)
    inputs = folder(environment.INPUTS)
    rows = read_rows(inputs / "data" / "held_out.jsonl")[: settings.rows]
    reference = _reference(inputs / "model", settings)
    file = folder(environment.CODE) / f"model-{settings.type}.gguf"
    quantize_file(reference, file, settings.type, lambda n, of: tell("quantising", n, of))
    smaller, whole = file.stat().st_size, reference.stat().st_size
    say(f"{reference.name}: {whole:,} bytes; {file.name}: {smaller:,} bytes")
    if smaller >= whole:
        raise BadRequest(
            problem=f"{settings.type} makes {reference.name} no smaller",
            fix="Choose a type with fewer bits, or take a model that is not quantised yet.",
        )
    before = _answers(reference, rows, settings)
    after = _answers(file, rows, settings)
    gate = measure_gate(_scores(before, rows, settings), _scores(after, rows, settings))
    same = sum(a.text == b.text for a, b in zip(before, after, strict=True)) / len(rows)
    cut = sum(a.is_cut for a in before)
    if cut:
        notice(
            f"{cut} of {len(rows)} answers of the reference were cut after {settings.new_tokens} "
            "tokens: allow more by new_tokens"
        )
    say(f"{settings.type}: {gate.show()}; {same:.1%} of the answers are the same")
    _write_report(rows, before, after, {**asdict(gate), "same_answers": same, "cut": cut})
    try:
        check_gate(file.name, gate, settings.max_loss)
    except AccuracyLost as error:
        notice(str(error))
        raise
    target = folder(environment.OUT) / "gguf"
    target.mkdir(exist_ok=True)
    file.rename(target / file.name)
    facts = {
        "summary": f"{whole / smaller:.1f} times smaller; {settings.measure}: {gate.show()}",
        "outtype": settings.type,
        "bytes": smaller,
        "bytes_before": whole,
        "measure": settings.measure,
        "rows": gate.rows,
        "score": round(gate.score, 4),
        "score_before": round(gate.reference, 4),
        "lost_at_most": round(gate.lost_at_most, 4),
        "same_answers": round(same, 4),
        "cut_answers": cut,
    }
    write_card(target, kind="model", format="gguf", facts=facts)


def _reference(source: Path, settings: Quantize) -> Path:
    """The model as GGUF; a folder is converted in half precision for this alone."""
    found = sorted(source.glob("*.gguf"))
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"it holds {len(found)} GGUF files, and one model is quantised"
        raise BrokenArtifact(name=str(source), problem=problem)
    file = folder(environment.CODE) / "model-f16.gguf"
    tell("converting to f16")
    convert(source, file, outtype="f16", converter=settings.converter)
    return file


def _answers(file: Path, rows: Sequence[Row], settings: Quantize) -> list[Said]:
    return llamacpp_answers(file, rows, context=settings.context, new_tokens=settings.new_tokens)


def _scores(answers: Sequence[Said], rows: Sequence[Row], settings: Quantize) -> list[float]:
    expected = [row[-1]["content"].strip() for row in rows]
    if settings.measure == "f1":
        return [f1(one.text, wanted) for one, wanted in zip(answers, expected, strict=True)]
    return [float(one.text == wanted) for one, wanted in zip(answers, expected, strict=True)]


def _write_report(
    rows: Sequence[Row], before: Sequence[Said], after: Sequence[Said], told: dict[str, object]
) -> None:
    """Write what both answered: also of a model that is not accepted."""
    target = folder(environment.OUT) / "report"
    target.mkdir(exist_ok=True)
    answers = [
        {"expected": row[-1]["content"].strip(), "before": a.text, "after": b.text}
        for row, a, b in zip(rows, before, after, strict=True)
    ]
    (target / "report.json").write_text(json.dumps({**told, "answers": answers}, indent=1))
    facts = {name: value for name, value in told.items() if isinstance(value, int | float)}
    write_card(target, kind="report", format="quantisation", facts=facts)
