"""Text from a transformers model that continuous batching does not know: a request at a time."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from karez.engines.generation import Asked, Piece
from karez.engines.json_schemas import SchemaMatcher
from karez.engines.token_choice import Schema, choose


class _Choice(LogitsProcessor):
    """Leaves the token that a request draws."""

    def __init__(self, asked: Asked, schema: Schema | None) -> None:
        self._asked, self._schema = asked, schema

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        tokens = input_ids[0, len(self._asked.tokens) :].tolist()
        scores_V = scores[0].float().cpu()
        if self._schema is not None:
            scores_V = self._schema.restrict(scores_V, tokens)
        chosen = choose(scores_V, self._asked, len(tokens))
        scores[:] = -torch.inf
        scores[0, chosen] = 0.0
        return scores


class _GivenUp(StoppingCriteria):
    """Ends what nobody waits for."""

    def __init__(self, is_given_up: threading.Event) -> None:
        self._is_given_up = is_given_up

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        del scores
        return torch.full(
            (input_ids.shape[0],), self._is_given_up.is_set(), device=input_ids.device
        )


class _Teller(BaseStreamer):
    """Tells each token as it comes."""

    def __init__(self, tell: Callable[[list[int]], None]) -> None:
        self._tell, self._has_prompt = tell, False

    def put(self, value: torch.Tensor) -> None:
        if self._has_prompt:
            self._tell(value.reshape(-1).tolist())
        self._has_prompt = True

    def end(self) -> None:
        """Nothing more is told here: the caller knows."""


@dataclass(slots=True, kw_only=True)
class OneByOne:
    """A queue before `generate`."""

    model: Any
    end_tokens: frozenset[int]
    vocabulary: Any
    """As of ContinuousBatching."""
    _work: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._run, name="generate", daemon=True).start()

    @property
    def has_schemas(self) -> bool:
        """Whether answers keep to a JSON schema."""
        return self.vocabulary is not None

    def begin(self, asked: Asked, tell: Callable[[Piece], None]) -> Callable[[], None]:
        """As generation.Backend."""
        loop, is_given_up = asyncio.get_running_loop(), threading.Event()
        schema = SchemaMatcher(self.vocabulary, asked.schema) if asked.schema else None

        def pass_on(piece: Piece) -> None:
            if not is_given_up.is_set():
                loop.call_soon_threadsafe(tell, piece)

        def work() -> None:
            if not is_given_up.is_set():
                self._generate(asked, schema, pass_on, is_given_up)

        self._work.put(work)
        return is_given_up.set

    def _run(self) -> None:
        """Compute, until that is impossible; then the process ends, and is started anew."""
        try:
            while True:
                self._work.get()()
        finally:
            os._exit(1)

    @torch.inference_mode()
    def _generate(
        self,
        asked: Asked,
        schema: Schema | None,
        tell: Callable[[Piece], None],
        is_given_up: threading.Event,
    ) -> None:
        told = 0

        def hear(tokens: list[int]) -> None:
            nonlocal told
            told += len(tokens)
            tell(Piece(tokens=tokens))

        ends = None if asked.ignores_end else sorted(self.end_tokens)
        try:
            tokens_BL = torch.tensor([list(asked.tokens)], device=self.model.device)
            self.model.generate(
                input_ids=tokens_BL,
                attention_mask=torch.ones_like(tokens_BL),
                do_sample=False,
                max_new_tokens=asked.most,
                eos_token_id=ends,
                pad_token_id=0,
                streamer=_Teller(hear),
                logits_processor=LogitsProcessorList([_Choice(asked, schema)]),
                stopping_criteria=[_GivenUp(is_given_up)],
            )
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            tell(Piece(end="error", problem=str(error).partition("\n")[0]))
        else:
            tell(Piece(end="length" if told >= asked.most else "stop"))
