"""OpenVINO GenAI as a process of its own: its step loop, behind karez's HTTP."""

import asyncio
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from karez.engines.engine_http import application, serve
from karez.engines.engine_process import EngineProcess, own_memory, weights_file
from karez.engines.generation import REFUSED, Asked, Piece
from karez.engines.openai_server import TextServer
from karez.engines.openvino_codec import OpenVinoCodec
from karez.runtime.host_clock import monotonic_s

BATCH_TOKENS = 512
"""Most tokens of one step: prompts are computed in pieces, so that answers go on beside them."""
MOST_FAILURES = 3
"""Failed steps in a row after which the process ends, and is started anew."""
LOOK_S, STALLED_S = 5.0, 300.0
"""How often it is looked whether a step ends, and how long it may take."""
BLOCK = 32
"""Tokens of a block of the KV cache on a CPU; source: openvino.genai, SchedulerConfig."""


def main() -> int:
    """Serve one model until killed."""
    process = EngineProcess.here()
    try:
        openvino_genai, openvino = map(import_module, ("openvino_genai", "openvino"))
    except ModuleNotFoundError:
        sys.stderr.write("the OpenVINO engine is missing: pip install 'karez[openvino]'\n")
        return 3
    asyncio.run(_serve(process, openvino_genai, openvino.Tensor))
    return 0


async def _serve(process: EngineProcess, genai: Any, tensor: Any) -> None:
    launch = process.launch
    pipeline = _pipeline(process, genai)
    tokenizer = pipeline.get_tokenizer()
    backend = StepLoop(
        genai=genai, tensor=tensor, pipeline=pipeline, ends=_end_tokens(pipeline, tokenizer)
    )
    for target in (backend.run, backend.watch):
        threading.Thread(target=target, daemon=True).start()
    server = TextServer(
        alias=launch.alias,
        context=launch.tokens,
        adapters=(),
        backend=backend,
        codec=OpenVinoCodec(tokenizer),
        clock=process.now,
    )
    port = process.free_port()
    app = application(process.key, launch.alias, server.routes())
    await serve(app, process.address, port)
    await asyncio.to_thread(process.announce, port, own_memory)


def _pipeline(process: EngineProcess, genai: Any) -> Any:
    launch = process.launch
    config = genai.SchedulerConfig()
    config.max_num_batched_tokens = max(BATCH_TOKENS, launch.parallel)
    config.max_num_seqs = launch.parallel
    config.num_kv_blocks = launch.parallel * (-(-launch.tokens // BLOCK) + 1)
    config.enable_prefix_caching = True
    config.dynamic_split_fuse = True
    properties = {"INFERENCE_NUM_THREADS": process.threads}
    return genai.ContinuousBatchingPipeline(
        str(_source(process)), config, "CPU", properties=properties
    )


def _source(process: EngineProcess) -> Path:
    return weights_file(process.model, process.launch.model_file, ".gguf") or process.model


def _end_tokens(pipeline: Any, tokenizer: Any) -> frozenset[int]:
    config = pipeline.get_config()
    return frozenset({*config.stop_token_ids, config.eos_token_id, tokenizer.get_eos_token_id()})


@dataclass(slots=True)
class _Running:
    asked: Asked
    tell: Callable[[Piece], None]
    handle: Any = None
    told: int = 0
    is_given_up: bool = False


@dataclass(slots=True, kw_only=True)
class StepLoop:
    """OpenVINO's pipeline, stepped by a thread: a generation.Backend."""

    genai: Any
    tensor: Any
    """OpenVINO's class of tensors."""
    pipeline: Any
    ends: frozenset[int]
    _failures: int = 0
    """Steps in a row that could not be computed."""
    _stepped_at: float = field(default_factory=monotonic_s)
    """When the last step was over, or work came; by the host's clock."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _new: list[_Running] = field(default_factory=list)
    _running: list[_Running] = field(default_factory=list)

    @property
    def has_schemas(self) -> bool:
        """No: a schema that OpenVINO cannot compile fails every later step of its pipeline."""
        return False

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.ends

    def begin(self, asked: Asked, tell: Callable[[Piece], None]) -> Callable[[], None]:
        """As generation.Backend."""
        loop = asyncio.get_running_loop()

        def pass_on(piece: Piece) -> None:
            loop.call_soon_threadsafe(partial(tell, piece))

        one = _Running(asked, pass_on)
        with self._lock:
            self._new.append(one)
            self._lock.notify()

        def give_up() -> None:
            one.is_given_up = True

        return give_up

    def run(self) -> None:
        """Compute, until that is impossible; then the process ends, and is started anew."""
        try:
            self._run()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)  # its threads would wait for one another

    def watch(self) -> None:
        """End the process, which is started anew, if a step does not end."""
        never = threading.Event()
        while True:
            never.wait(LOOK_S)
            if self._running and monotonic_s() - self._stepped_at > STALLED_S:
                sys.stderr.write(f"OpenVINO has computed a step for more than {STALLED_S:.0f} s\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGKILL)

    def _run(self) -> None:
        while True:
            self._add_new()
            self._stepped_at = monotonic_s()
            for one in [one for one in self._running if one.is_given_up]:
                one.handle.cancel()
                self._running.remove(one)
            try:
                self.pipeline.step()
            except RuntimeError as error:
                self._fail(str(error))
            else:
                self._failures = 0
            for one in list(self._running):
                self._tell(one)

    def _add_new(self) -> None:
        """Take in what has come; wait while there is nothing to do."""
        with self._lock:
            while not self._new and not self._running:
                self._lock.wait()
            new, self._new = self._new, []
        for one in new:
            tokens = self.tensor(np.array([one.asked.tokens], dtype=np.int64))
            try:
                config = self._config(one.asked)
                one.handle = self.pipeline.add_request(next(self._numbers), tokens, config)
            except (RuntimeError, TypeError, ValueError) as error:
                one.tell(Piece(end=REFUSED, problem=_brief(error)))
            else:
                self._running.append(one)

    def _config(self, asked: Asked) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = asked.most
        config.ignore_eos = asked.ignores_end
        config.stop_token_ids = set() if asked.ignores_end else set(self.ends)
        config.do_sample = asked.temperature > 0
        if config.do_sample:
            config.temperature = asked.temperature
            config.top_p = asked.top_p
            if asked.top_k > 0:
                config.top_k = asked.top_k
            if asked.seed is not None:
                config.rng_seed = asked.seed % 2**32
        return config

    def _tell(self, one: _Running) -> None:
        """Tell what a request has got by a step."""
        if not one.handle.can_read():
            if one.handle.get_status() == self.genai.GenerationStatus.IGNORED:
                self._running.remove(one)
                one.tell(Piece(end="error", problem="the KV cache has no room for it"))
            return
        while one.handle.can_read():
            for output in one.handle.read().values():
                one.told += len(output.generated_ids)
                reason = output.finish_reason.name.lower()
                end = "" if reason == "none" else "length" if reason == "length" else "stop"
                if end:
                    self._running.remove(one)
                one.tell(Piece(tokens=list(output.generated_ids), end=end))

    def _fail(self, problem: str) -> None:
        """Give all up: the pipeline could not compute; if it cannot again, start anew."""
        self._failures += 1
        if self._failures == MOST_FAILURES:
            sys.stderr.write(f"OpenVINO cannot compute: {problem}\n")
            sys.stderr.flush()
            raise SystemExit(1)
        for one in self._running:
            one.handle.cancel()
            one.tell(Piece(end="error", problem=problem.partition("\n")[0]))
        self._running.clear()


def _brief(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2] or "OpenVINO refused it"


if __name__ == "__main__":
    sys.exit(main())
