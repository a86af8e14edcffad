"""The llama.cpp server as a process of its own, which reports its URL to the node agent."""

import sys
from typing import Any

from karez.core.engines import Task
from karez.engines.engine_process import EngineProcess, own_memory, weights_file


def main() -> int:
    """Serve one model until killed."""
    process = EngineProcess.here()
    try:
        import xllamacpp  # noqa: PLC0415 - absent where this engine is not installed
    except ModuleNotFoundError:
        sys.stderr.write("the llama.cpp engine is missing: pip install xllamacpp\n")
        return 3
    model = weights_file(process.model, process.launch.model_file, ".gguf")
    if model is None:
        sys.stderr.write("the model artifact holds no GGUF file\n")
        return 4
    params, launch = xllamacpp.CommonParams(), process.launch
    params.model.path = str(model)
    params.model_alias = {launch.alias}
    params.n_parallel = launch.parallel
    params.n_ctx = launch.tokens * launch.parallel
    params.hostnames = [process.address]
    params.port = process.free_port()
    params.cpuparams.n_threads = process.threads
    params.cpuparams_batch.n_threads = process.threads
    params.endpoint_metrics = True
    params.api_keys = [process.key]
    _set_task(xllamacpp, params, launch.task)
    adapters = []
    for name, folder in process.adapters.items():
        file = weights_file(folder, "", ".gguf")
        if file is None:
            sys.stderr.write(f"the adapter {name} holds no GGUF file: convert it first\n")
            return 4
        adapters.append(xllamacpp.CommonAdapterLoraInfo(str(file), 0.0))
    params.lora_adapters = adapters
    server = xllamacpp.Server(params)
    process.announce(params.port, own_memory)
    del server
    return 0


def _set_task(xllamacpp: Any, params: Any, task: Task) -> None:
    if task == Task.GENERATE:
        return
    params.embedding = True
    params.n_batch = params.n_ubatch = max(params.n_ctx // params.n_parallel, params.n_ubatch)
    if task == Task.RERANK:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


if __name__ == "__main__":
    sys.exit(main())
