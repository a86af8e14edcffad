"""Lets a model answer rows, and compares what it says with what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch

from karez.core.chat_rows import Row
from karez.engines.vector_model import context_of
from karez.studio.confidence_intervals import wilson
from karez.studio.recipes.chat_model import AnswerLoss, collate, encode
from karez.studio.recipes.greedy_answers import greedy_answers
from karez.studio.recipes.recipe_io import notice, tell
from karez.studio.recipes.row_lengths import FittedRows, fit_rows
from karez.studio.selective_answers import Judged
from karez.studio.settings import Evaluate
from karez.studio.text_scores import f1


@dataclass(slots=True, kw_only=True)
class Answers:
    """What a model answered to rows."""

    fitted: FittedRows
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    """Each answer beside the expected one."""

    def report(self) -> dict[str, Any]:
        """Return means and intervals, and all answers."""
        right = sum(one.is_right for one in self.judged)
        low, high = wilson(right, len(self.judged))
        return {
            "loss": fmean(self.losses),
            "accuracy": right / len(self.judged),
            "accuracy_95": [low, high],
            "right": right,
            "f1": fmean(self.scores),
            **self.fitted.facts(),
            "answers": self.texts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """A model that answers."""

    tokenizer: Any
    model: Any
    name: str
    settings: Evaluate

    def all(self, *parts: Sequence[Row]) -> list[Answers]:
        """Answer all rows that fit, greedily; progress goes to the job.

        The longest expected answer of all parts bounds the answers of each: so confidences of two
        parts can be compared.
        """
        fitted = [self._fitted(rows) for rows in parts]
        lengths = [len(tokens) - prompt for part in fitted for tokens, prompt in part.rows]
        # one token more tells who does not end there
        new_tokens = min(max(lengths) + 1, self.settings.new_tokens)
        return [
            self._answered(rows, part, new_tokens) for rows, part in zip(parts, fitted, strict=True)
        ]

    def _fitted(self, rows: Sequence[Row]) -> FittedRows:
        fitted = fit_rows(
            [encode(self.tokenizer, row) for row in rows],
            max_tokens=self.settings.max_tokens,
            context=context_of(self.model),
            max_cut=self.settings.max_cut,
        )
        if fitted.notice():
            notice(f"{self.name}: {fitted.notice()}")
        return fitted

    @torch.inference_mode()
    def _answered(self, rows: Sequence[Row], fitted: FittedRows, new_tokens: int) -> Answers:
        rows, encoded = [rows[number] for number in fitted.kept], fitted.rows
        answers, loss_of = Answers(fitted=fitted), AnswerLoss(self.model)
        for at in range(0, len(rows), self.settings.batch):
            part = encoded[at : at + self.settings.batch]
            tell(f"answering with {self.name}", at, len(rows))
            loss = float(loss_of(collate(self.tokenizer, part).to(self.model.device)))
            answers.losses += [loss] * len(part)
            prompts = [tokens[:prompt] for tokens, prompt in part]
            given = greedy_answers(self.tokenizer, self.model, prompts, new_tokens)
            for row, answer in zip(rows[at:], given, strict=False):
                expected = row[-1]["content"].strip()
                is_right = answer.text == expected
                answers.scores.append(f1(answer.text, expected))
                answers.judged.append(Judged(confidence=answer.confidence, is_right=is_right))
                answers.texts.append(
                    {
                        "expected": expected,
                        "answered": answer.text,
                        "confidence": float(f"{answer.confidence:.6g}"),
                    }
                )
        return answers
