"""Executes runs of `karez migrate verify` on the pool: one job each, its record fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from karez.client.sdk import Client
from karez.core import environment
from karez.core.artifacts import ArtifactKind
from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest, Failed
from karez.core.gang_syntax import make_gang
from karez.core.jobs import JobSpec
from karez.equivalence.local_run import failed
from karez.equivalence.run_spec import RunSpec

TARGETS = {"npu": "npu", "gpu": "cuda", "cpu": "emulated"}
"""Default target for each kind of device."""
REFERENCES = {"npu": "cpu", "gpu": "cuda", "cpu": "cpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPool:
    """Executes runs as jobs that request `need`, such as npu:1."""

    client: Client
    need: str
    project: str
    say: Callable[[str], object]

    def __call__(self, piece: RunSpec) -> None:
        """Upload, run and fetch; the job is cancelled if the caller is interrupted."""
        if piece.env.get(environment.EMUNPU_OPS):
            raise BadRequest(
                problem="--kernels names a file of this machine, which the pool's nodes lack",
                fix="Leave out --on, or --kernels.",
            )
        name = f"verify-{piece.folder.name}"
        code = self.client.upload(
            piece.base, name=f"{name}-code", kind=ArtifactKind.CODE, project=self.project
        )
        words = piece.command("python", f"${environment.OUT}/record", piece.script)
        spec = JobSpec(
            name=name,
            project=self.project,
            command=tuple(words),
            code=code.id,
            gang=make_gang("1", [_each(self.need)]),
            max_duration_s=piece.limit_s,
            env={key: value for key, value in piece.env.items() if value},
        )
        job = self.client.submit(spec)
        self.say(f"job {job.id} asks for {self.need}; `karez why {job.id}` if it waits")
        try:
            done = self.client.wait(job.id, limit_s=piece.limit_s)
        except Failed as error:
            raise failed(piece, self._said(job.id, piece.folder) or error.reason) from error
        except BaseException:
            self.client.cancel(job.id)
            raise
        self._said(job.id, piece.folder)
        self._fetch(done.status.outputs["record"], piece.folder)

    def _said(self, job: str, folder: Path) -> str:
        text = "".join(piece for _, piece in self.client.follow_logs("jobs", job, follow=False))
        (folder / "output.txt").write_text(text)
        return text

    def _fetch(self, artifact: str, folder: Path) -> None:
        for entry in self.client.artifact(artifact).spec.files:
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.client.artifact_file(artifact, entry.path))


def target_on(client: Client, need: str) -> str:
    """The target that a request is answered with: NPUs of a pool without a real one are emulated.

    Raises:
        BadRequest: The request names no devices.
    """
    kind = kind_of(need)
    devices = [d for node in client.pool() for d in node.devices if d.kind == kind]
    is_emulated = bool(devices) and all(device.is_emulated for device in devices)
    return "emulated" if is_emulated else TARGETS[kind]


def kind_of(need: str) -> str:
    """The device kind of a request such as npu:1. Raises BadRequest."""
    kind, _, amount = need.partition(":")
    if kind not in TARGETS or not (amount or "1").isdigit():
        known = ", ".join(f"{one}:1" for one in TARGETS)
        raise BadRequest(problem=f"{need!r} names no devices", fix=f"Such as {known}.")
    return DeviceKind(kind).value


def _each(need: str) -> str:
    kind, _, amount = need.partition(":")
    return f"{kind}={amount or 1}"
