"""The llama.cpp server as a process of its own, which reports its URL to the node agent."""

import os
import signal
import socket
import sys
from pathlib import Path

from karez.core import environment
from karez.core.messages.greetings import ProcessGreeting
from karez.core.messages.reports import ListeningReport
from karez.transport import framing


def main() -> int:
    """Serve one model until killed."""
    env = os.environ  # noqa: TID251 - this process's own main
    try:
        import xllamacpp  # noqa: PLC0415 - absent where this engine is not installed
    except ModuleNotFoundError:
        sys.stderr.write("the llama.cpp engine is missing: pip install xllamacpp\n")
        return 3
    model = _model_file(Path(env[environment.INPUTS]) / "model", env[environment.ENGINE_MODEL])
    if model is None:
        sys.stderr.write("the model artifact holds no GGUF file\n")
        return 4
    address, threads = env[environment.ADDRESS], len(os.sched_getaffinity(0))
    port = _free_port(address)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {env[environment.ENGINE_ALIAS]}
    params.n_parallel = int(env[environment.ENGINE_PARALLEL])
    params.n_ctx = int(env[environment.ENGINE_TOKENS]) * params.n_parallel
    params.hostnames = [address]
    params.port = port
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.endpoint_metrics = True
    params.api_keys = [env[environment.ENGINE_KEY]]
    server = xllamacpp.Server(params)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(env[environment.STEWARD])
        greeting = ProcessGreeting(
            key=env[environment.KEY_NAME], token=env[environment.PROCESS_TOKEN]
        )
        framing.send_message(stream, greeting)
        framing.send_message(stream, ListeningReport(url=f"http://{address}:{port}"))
        signal.pause()
    del server
    return 0


def _model_file(folder: Path, name: str) -> Path | None:
    files = sorted(folder.rglob("*.gguf"))
    named = [file for file in files if file.name == name]
    return next(iter(named or files), None)


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
