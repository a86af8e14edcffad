"""A transformers model as a process of its own, on the device that it was granted."""

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from aiohttp import web
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from karez.core.engines import Task
from karez.core.errors import BrokenArtifact, KarezError
from karez.engines.adapter_turns import AdapterTurns
from karez.engines.continuous_batching import ContinuousBatching
from karez.engines.engine_http import application, serve
from karez.engines.engine_process import EngineProcess, own_memory
from karez.engines.generation import Asked, Backend, Piece
from karez.engines.json_schemas import vocabulary
from karez.engines.one_by_one import OneByOne
from karez.engines.openai_server import TextServer
from karez.engines.pooled_classifier import PooledClassifier, is_pooled_classifier
from karez.engines.text_codec import TokenizerCodec
from karez.engines.vector_model import (
    Pooling,
    TransformersVectors,
    context_of,
    longest_text,
)
from karez.engines.vector_server import VectorServer
from karez.runtime.device import computing_dtype, device_memory, granted_device, memory_full

FIRST_S = 120.0
"""How long a first token may take."""
_CLASSES: Mapping[Task, Any] = {
    Task.GENERATE: AutoModelForCausalLM,
    Task.EMBED: AutoModel,
    Task.RERANK: AutoModelForSequenceClassification,
    Task.CLASSIFY: AutoModelForSequenceClassification,
}


def main() -> int:
    """Serve one model until killed."""
    process = EngineProcess.here()
    torch.set_num_threads(process.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = granted_device()
    tokenizer, model = _load(process.model, process.launch.task, device)
    asyncio.run(_serve(process, tokenizer, model))
    return 0


def _load(folder: Path, task: Task, device: torch.device) -> tuple[Any, Any]:
    """(tokenizer, model on a device) of a folder. Raises BrokenArtifact, DeviceMemoryFull."""
    dtype = computing_dtype(device) if task == Task.GENERATE else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if task == Task.CLASSIFY and is_pooled_classifier(folder):
            model: Any = PooledClassifier.load(folder).eval()
        else:
            model = _CLASSES[task].from_pretrained(folder, dtype=dtype).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        problem = f"transformers {transformers.__version__} loads no model for this task: {error}"
        raise BrokenArtifact(name=folder.name, problem=problem) from error
    try:
        return tokenizer, model.to(device)
    except torch.OutOfMemoryError as error:
        raise memory_full(error, device) from error


async def _serve(process: EngineProcess, tokenizer: Any, model: Any) -> None:
    launch = process.launch
    routes: Sequence[web.RouteDef]
    if launch.task == Task.GENERATE:
        server = TextServer(
            alias=launch.alias,
            context=min(launch.tokens, context_of(model) or launch.tokens),
            adapters=launch.adapters,
            backend=await _backend(process, tokenizer, model),
            codec=TokenizerCodec(tokenizer, _vocabulary_of(model)),
            clock=process.now,
        )
        routes = server.routes()
    else:
        vectors = TransformersVectors(
            model=model,
            tokenizer=tokenizer,
            pooling=Pooling.of(process.model),
            most=min(launch.tokens, longest_text(model, tokenizer)),
        )
        routes = VectorServer(alias=launch.alias, task=launch.task, model=vectors).routes()
    port = process.free_port()
    await serve(application(process.key, launch.alias, routes), process.address, port)
    await asyncio.to_thread(process.announce, port, _memory_of(model.device))


def _memory_of(device: torch.device) -> Callable[[], int]:
    """What the model takes: of its device, or of the host."""

    def measure() -> int:
        memory = device_memory(device)
        return own_memory() if memory is None else memory.allocated

    return measure


async def _backend(process: EngineProcess, tokenizer: Any, model: Any) -> Backend:
    launch = process.launch
    for number, folder in enumerate(process.adapters.values()):
        model.load_adapter(str(folder), adapter_name=_module(number))  # names may have dots
    if process.adapters:
        model.disable_adapters()
    ends = _end_tokens(model, tokenizer)
    words = _words(tokenizer, _vocabulary_of(model))
    try:
        batching = ContinuousBatching.of(
            model,
            tokens=launch.tokens,
            parallel=launch.parallel,
            end_tokens=ends,
            vocabulary=words,
            may_share=not process.adapters,
        )
        backend: Backend = batching
        await _first_token(backend)
        threading.Thread(target=batching.end_with_it, name="watch", daemon=True).start()
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        said = str(error).partition("\n")[0]
        sys.stderr.write(f"answers come one by one: no continuous batching of this model: {said}\n")
        ContinuousBatching.leave(model)
        backend = OneByOne(model=model, end_tokens=ends, vocabulary=words)
    if not process.adapters:
        return backend
    return AdapterTurns(inner=backend, use=_user_of(model, launch.adapters))


def _vocabulary_of(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


def _words(tokenizer: Any, size: int) -> Any:
    """The tokens for matchers of schemas; None: this tokenizer has no such form."""
    try:
        return vocabulary(tokenizer, size)
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
        sys.stderr.write(f"no JSON schemas with this tokenizer: {error}\n")
        return None


def _module(number: int) -> str:
    return f"adapter{number}"


def _user_of(model: Any, names: Sequence[str]) -> Callable[[str], None]:
    def use(adapter: str) -> None:
        if adapter:
            model.enable_adapters()
            model.set_adapter(_module(names.index(adapter)))
        else:
            model.disable_adapters()

    return use


async def _first_token(backend: Backend) -> None:
    """Compute a token. Raises RuntimeError if the backend cannot."""
    pieces: asyncio.Queue[Piece] = asyncio.Queue()
    asked = Asked(tokens=[1], most=1, temperature=0.0, ignores_end=True)
    give_up = backend.begin(asked, pieces.put_nowait)
    try:
        piece = await asyncio.wait_for(pieces.get(), FIRST_S)
    except TimeoutError as error:
        raise RuntimeError(f"it gave no token in {FIRST_S:.0f} s") from error
    finally:
        give_up()
    if piece.end == "error":
        raise RuntimeError(piece.problem)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    told = getattr(model.generation_config, "eos_token_id", None)
    found = {told} if isinstance(told, int) else set(told or ())
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return frozenset(found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KarezError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
