"""Which engine serves a model and whether it fits, before it is deployed."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.artifacts import Artifact, FileEntry
from karez.core.devices import DeviceKind
from karez.core.engines import AUTO, Capabilities
from karez.core.errors import BadRequest, NotFound
from karez.core.fit import Fit, FitReport
from karez.core.gguf_header import read_gguf_facts
from karez.core.model_facts import ModelFacts, facts_of_config, facts_of_gguf
from karez.core.nodes import Node, NodeState
from karez.core.ports import BlobStore
from karez.core.resource_requests import ResourceRequest
from karez.core.services import ServiceSpec
from karez.core.stores.artifacts import ArtifactStore
from karez.core.stores.nodes import NodeStore
from karez.core.stores.replicas import ReplicaStore
from karez.core.units import MILLI, show_bytes
from karez.serving.engine_choice import Wanted, choose_engine
from karez.serving.fit_check import Room, Served, check_fit, reckon, total

SAME_SIZE = 4.0
"""Replicas are of about one size up to this ratio of what was reckoned for them."""
MOST_KNOWN = 1000
MOST_CONFIG = 4 << 20
"""Bytes of a config.json that are read."""
_WEIGHTS = (".safetensors", ".bin")
_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}\.gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFit:
    """What is known of models, engines, nodes and earlier replicas."""

    blobs: BlobStore
    pool: NodeStore
    replicas: ReplicaStore
    artifacts: ArtifactStore
    engines: Mapping[str, Capabilities]
    installed: Collection[str]
    """Engines whose packages are installed here."""
    _known: dict[str, tuple[ModelFacts | None, str]] = field(default_factory=dict)
    """Artifact -> its facts: its files never change."""

    def report(self, spec: ServiceSpec, model: Artifact, adapters: Sequence[Artifact]) -> FitReport:
        """The engine of a service, and what its replicas need. Raises BadRequest if none can."""
        facts, unknown = self._facts(model)
        kinds = {request.kind for request in spec.each}
        wanted = Wanted(
            engine=spec.engine,
            format=model.spec.format,
            task=spec.task,
            kinds=kinds,
            adapter_formats=sorted({one.spec.format for one in adapters}),
            architecture="" if facts is None else facts.architecture,
            prefer=spec.prefer,
        )
        needs = {} if facts is None else self._needs(spec, facts, kinds)
        try:
            choice = choose_engine(wanted, self.engines, self.installed, needs)
        except ValueError as error:
            raise BadRequest(problem=str(error), fix=self._fix(spec, model, adapters)) from error
        if facts is None:
            return FitReport(engine=choice.engine, why=choice.why, unknown=unknown)
        served = self._served(replace(spec, engine=choice.engine), facts)
        nodes = [node for node in self.pool.nodes() if node.state != NodeState.LOST]
        fits = tuple(
            check_fit(served, _room(each, nodes), self._measured(served, each.kind))
            for each in spec.each
        )
        return FitReport(engine=choice.engine, why=choice.why, fits=fits)

    def check(self, spec: ServiceSpec, model: Artifact, adapters: Sequence[Artifact]) -> FitReport:
        """The report of a service of which an alternative fits. Raises BadRequest if none does."""
        report = self.report(spec, model, adapters)
        if report.fits and not any(fit.is_enough for fit in report.fits):
            raise BadRequest(problem=_too_large(report.fits[0], model), fix=_smaller(report.fits))
        return report

    def _needs(
        self, spec: ServiceSpec, facts: ModelFacts, kinds: Collection[DeviceKind]
    ) -> Mapping[str, int]:
        """Engine -> the memory that it needs on the kind where it needs most."""
        return {
            name: max(
                total(reckon(self._served(replace(spec, engine=name), facts), kind))
                for kind in kinds
            )
            for name in self.engines
        }

    def _served(self, spec: ServiceSpec, facts: ModelFacts) -> Served:
        return Served(
            engine=spec.engine,
            capabilities=self.engines[spec.engine],
            facts=facts,
            task=spec.task,
            context_tokens=spec.context_tokens,
            parallel=spec.parallel,
        )

    def _measured(self, served: Served, kind: DeviceKind) -> list[float]:
        """What replicas of about this size took on this kind of device, by what was reckoned."""
        size = total(reckon(served, kind))
        found = []
        for one in self.replicas.measured():
            if one.spec.engine != served.engine or [each.kind for each in one.spec.each] != [kind]:
                continue
            model = self.artifacts.find(one.spec.model)
            facts = None if model is None else self._facts(model)[0]
            reckoned = 0 if facts is None else total(reckon(self._served(one.spec, facts), kind))
            if size / SAME_SIZE <= reckoned <= size * SAME_SIZE:
                found.append(one.status.memory_bytes / reckoned)
        return found

    def _fix(self, spec: ServiceSpec, model: Artifact, adapters: Sequence[Artifact]) -> str:
        """What helps where no engine loads a model with its adapters."""
        name = model.spec.name
        plain = next((one.spec.name for one in adapters if one.spec.format == "peft"), "")
        if model.spec.format == "gguf" and plain:
            return (
                f"Convert it: `karez models convert {plain} --name {plain} --base MODEL`, with the "
                f"folder that {name} was made of."
            )
        loads = spec.engine == AUTO or "gguf" in self.engines[spec.engine].formats
        if model.spec.format in ("hf", "") and loads:
            return f"Convert it: `karez models convert {name} --name {name}`; deploy {name}-gguf."
        return "Name a model that one of them loads."

    def _facts(self, model: Artifact) -> tuple[ModelFacts | None, str]:
        """The facts of a model, or why there are none."""
        if model.id not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[model.id] = self._read(model)
        return self._known[model.id]

    def _read(self, model: Artifact) -> tuple[ModelFacts | None, str]:
        files = model.spec.files
        gguf = next((file for file in files if file.path.endswith(".gguf")), None)
        config = next((file for file in files if file.path == "config.json"), None)
        try:
            if gguf is not None:
                with self.blobs.open(gguf.sha256) as file:
                    return facts_of_gguf(read_gguf_facts(file), _shards_bytes(gguf, files)), ""
            if config is None:
                return None, "it has neither a GGUF file nor a config.json"
            with self.blobs.open(config.sha256) as file:
                told = json.loads(file.read(MOST_CONFIG))
            if not isinstance(told, dict):
                return None, "its config.json is no object"
            return facts_of_config(told, _weights_bytes(files)), ""
        except (ValueError, RecursionError, NotFound) as error:
            return None, str(error)


def _weights_bytes(files: Sequence[FileEntry]) -> int:
    """Bytes of the weights at the top of a folder, in the first of the formats that it has."""
    for suffix in _WEIGHTS:
        sizes = [
            file.size_bytes for file in files if file.path.endswith(suffix) and "/" not in file.path
        ]
        if sizes:
            return sum(sizes)
    return 0


def _shards_bytes(first: FileEntry, files: Sequence[FileEntry]) -> int:
    """Bytes of a GGUF file, with the other parts of one that is split."""
    match = _SHARD.fullmatch(first.path)
    if match is None:
        return first.size_bytes
    parts = (_SHARD.fullmatch(file.path) for file in files)
    same = {found[0] for found in parts if found is not None and found[1] == match[1]}
    return sum(file.size_bytes for file in files if file.path in same)


def _room(request: ResourceRequest, nodes: Sequence[Node]) -> Room:
    """The memory that a replica finds at most with an alternative."""
    if request.kind == DeviceKind.CPU:
        most = request.memory_bytes or max((node.memory_bytes for node in nodes), default=0)
        return Room(kind=request.kind, device=request.show(), bytes=most or None)
    devices = [
        device.memory_bytes * min(request.milli, MILLI) // MILLI
        for node in nodes
        for device in node.devices
        if device.kind == request.kind and (not request.models or device.model in request.models)
    ]
    return Room(kind=request.kind, device=request.show(), bytes=max(devices, default=0) or None)


def _too_large(fit: Fit, model: Artifact) -> str:
    room = show_bytes(fit.room_bytes or 0)
    return (
        f"model {model.spec.name} does not fit: engine {fit.engine} needs {fit.show()} for "
        f"{fit.parallel} answers of {fit.context_tokens} tokens, and {fit.device} has {room}"
    )


def _smaller(fits: Sequence[Fit]) -> str:
    nearest = next((fit.nearest for fit in fits if fit.nearest), "")
    if nearest:
        return f"It fits with {nearest}."
    return "Ask for more memory for each replica, or serve a smaller model."
