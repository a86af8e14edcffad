"""Text from a transformers model on any device, with the requests of several callers in a batch."""

import itertools
import os
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from karez.engines.generation import Asked, Piece
from karez.engines.json_schemas import SchemaMatcher
from karez.engines.token_choice import TokenChoice, kwargs_of

PAGE = 256
"""Tokens of a page of the KV cache: transformers' own default."""
PREFILL_CPU, PREFILL = 512, 4096
"""Most tokens of one batch: prompts are computed in pieces, so that answers go on beside them."""
_CHOOSES, _MANAGER = "_get_logits_processor", "_karez_manager"
STOP_S = 30.0
NEVER = -1
"""A token that ends nothing."""


@dataclass(slots=True, kw_only=True)
class ContinuousBatching:
    """transformers' continuous batching."""

    manager: Any
    choice: TokenChoice
    end_tokens: frozenset[int]
    vocabulary: Any
    """Tokens as matchers of schemas want them; None: no schema can be kept to."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def of(
        cls,
        model: Any,
        *,
        tokens: int,
        parallel: int,
        end_tokens: frozenset[int],
        vocabulary: Any,
        may_share: bool,
    ) -> "ContinuousBatching":
        """Begin to answer with a model.

        Args:
            model: On its device.
            tokens: Most tokens of prompt and answer of a request.
            parallel: Most requests in one batch.
            end_tokens: Tokens that end an answer.
            vocabulary: As the field.
            may_share: Whether requests that begin alike share what was computed; not those of
                several adapters.
        """
        choice = TokenChoice()
        setattr(model, _CHOOSES, lambda *_, **__: LogitsProcessorList([choice]))
        is_cpu = model.device.type == "cpu"
        config = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=parallel * (-(-tokens // PAGE) + 1),
            max_batch_tokens=max(parallel, PREFILL_CPU if is_cpu else PREFILL),
            max_requests_per_batch=parallel,
            allow_block_sharing=may_share,
            use_async_batching=False,  # `choice` knows one batch at a time
            per_request_processors=True,
        )
        manager = model.init_continuous_batching(
            generation_config=GenerationConfig(
                do_sample=False, max_new_tokens=tokens, eos_token_id=NEVER
            ),
            continuous_batching_config=config,
        )
        setattr(model, _MANAGER, manager)
        manager.logit_processor.tensors_required = 1  # counted for processors it converts alone
        manager.start()
        return cls(manager=manager, choice=choice, end_tokens=end_tokens, vocabulary=vocabulary)

    @staticmethod
    def leave(model: Any) -> None:
        """Make a model what it was, after continuous batching of it has failed."""
        vars(model).pop(_CHOOSES, None)
        manager = vars(model).pop(_MANAGER, None)
        if manager is not None:
            manager.stop(block=True, timeout=STOP_S)

    @property
    def has_schemas(self) -> bool:
        """Whether answers keep to a JSON schema."""
        return self.vocabulary is not None

    def begin(self, asked: Asked, tell: Callable[[Piece], None]) -> Callable[[], None]:
        """As generation.Backend."""
        ident = f"r{next(self._numbers)}"
        if asked.schema:
            self.choice.schemas[ident] = SchemaMatcher(self.vocabulary, asked.schema)
        told = 0

        def hear(output: Any) -> None:
            nonlocal told
            new, told = output.generated_tokens[told:], len(output.generated_tokens)
            end = ""
            if output.is_finished():
                self.choice.schemas.pop(ident, None)
                end = "length" if told >= asked.most else "stop"
            if output.error:
                end = "error"
            tell(Piece(tokens=new, end=end, problem=output.error or ""))

        def give_up() -> None:
            self.manager.output_router.result_handlers.pop(ident, None)
            self.manager.cancel_request(ident)
            self.choice.schemas.pop(ident, None)

        self._forget_unheard()
        self.manager.register_result_handler(ident, hear)
        taken = self.manager.add_request(
            list(asked.tokens),
            request_id=ident,
            max_new_tokens=asked.most,
            streaming=True,
            eos_token_id=NEVER if asked.ignores_end else sorted(self.end_tokens),
            **kwargs_of(asked),
        )
        if taken is None:
            give_up()
            tell(Piece(end="error", problem="the model has stopped; it is started anew"))
        return give_up

    def _forget_unheard(self) -> None:
        """Drop what came for requests that were given up; nobody else reads that queue."""
        unheard = self.manager.output_router.output_queue
        with suppress(queue.Empty):
            while True:
                unheard.get_nowait()

    def end_with_it(self) -> None:
        """End this process once the thread that computes has ended; it is started anew then."""
        self.manager._generation_thread.join()
        sys.stderr.write(f"the model has stopped: {self._fatal_error()}\n")
        sys.stderr.flush()
        os._exit(1)

    def _fatal_error(self) -> object:
        return self.manager.background_thread_status.fatal_error
