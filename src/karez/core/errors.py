"""Every error a user may meet: one class each, with what happened and what to do next."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar


@dataclass(eq=False, kw_only=True)
class KarezError(Exception):
    """Shown by the API as problem+json, by the CLI as two lines; its fields are the facts."""

    code: ClassVar[str]
    status: ClassVar[int]

    def what(self) -> str:
        """One sentence with the values in it."""
        return type(self).__doc__ or self.code

    def hint(self) -> str:
        """The next step, as a command where there is one."""
        return "See `karez doctor`."

    def __str__(self) -> str:
        return f"{self.what()} {self.hint()}"

    def __reduce__(self) -> tuple[Callable[[], "KarezError"], tuple[()]]:
        return partial(type(self), **asdict(self)), ()  # errors cross process borders


@dataclass(eq=False, kw_only=True)
class BadRequest(KarezError):
    """Something in the request cannot be right."""

    code: ClassVar[str] = "bad-request"
    status: ClassVar[int] = 422
    problem: str
    fix: str = "Correct it and try again."

    def what(self) -> str:
        """See KarezError."""
        is_word = self.problem.split(" ", 1)[0].isalpha()  # a path or an option stays as it is
        begun = self.problem[:1].upper() + self.problem[1:] if is_word else self.problem
        return begun + ("" if begun.endswith(".") else ".")

    def hint(self) -> str:
        """See KarezError."""
        return self.fix


@dataclass(eq=False, kw_only=True)
class NotFound(KarezError):
    """No such thing, or none that this key may see."""

    code: ClassVar[str] = "not-found"
    status: ClassVar[int] = 404
    noun: str
    name: str

    def what(self) -> str:
        """See KarezError."""
        return f"There is no {self.noun} {self.name!r} that you may see."

    def hint(self) -> str:
        """See KarezError."""
        plural = {"dataset": "data", "project": "projects"}.get(self.noun, f"{self.noun}s")
        return f"`karez {plural} list` shows what there is."


@dataclass(eq=False, kw_only=True)
class NotSignedIn(KarezError):
    """The request carries no key, or one that is unknown or revoked."""

    code: ClassVar[str] = "not-signed-in"
    status: ClassVar[int] = 401

    def what(self) -> str:
        """See KarezError."""
        return "The API key is missing, unknown or revoked."

    def hint(self) -> str:
        """See KarezError."""
        return "Set KAREZ_KEY, or ask an admin for `karez keys create NAME`."


@dataclass(eq=False, kw_only=True)
class NotAllowed(KarezError):
    """The key is good, its role or project is not."""

    code: ClassVar[str] = "not-allowed"
    status: ClassVar[int] = 403
    needed: str
    held: str
    project: str

    def what(self) -> str:
        """See KarezError."""
        return f"This needs role {self.needed} in project {self.project}; your key is {self.held}."

    def hint(self) -> str:
        """See KarezError."""
        return "Ask an admin for a key with that role: `karez keys create NAME --role ROLE`."


@dataclass(eq=False, kw_only=True)
class AlreadyExists(KarezError):
    """A name is taken."""

    code: ClassVar[str] = "already-exists"
    status: ClassVar[int] = 409
    noun: str
    name: str

    def what(self) -> str:
        """See KarezError."""
        return f"There is a {self.noun} {self.name!r} already."

    def hint(self) -> str:
        """See KarezError."""
        return "Choose another name, or remove that one first."


@dataclass(eq=False, kw_only=True)
class QuotaExceeded(KarezError):
    """A workload asks for more than its project may ever hold."""

    code: ClassVar[str] = "quota-exceeded"
    status: ClassVar[int] = 409
    project: str
    kind: str
    asked: str
    quota: str

    def what(self) -> str:
        """See KarezError."""
        return (
            f"Project {self.project} may hold {self.quota} {self.kind}; this asks for {self.asked}."
        )

    def hint(self) -> str:
        """See KarezError."""
        return f"Ask for fewer, or let an admin run `karez projects quota {self.project} ...`."


@dataclass(eq=False, kw_only=True)
class StorageFull(KarezError):
    """The disk or shared memory has no room; nothing was kept of the write."""

    code: ClassVar[str] = "storage-full"
    status: ClassVar[int] = 507
    path: str
    wanted_bytes: int = 0

    def what(self) -> str:
        """See KarezError."""
        return f"There is no room left under {self.path}; what was being written was removed."

    def hint(self) -> str:
        """See KarezError."""
        return "Free some space there, or start with `karez up --home` on a larger disk."


@dataclass(eq=False, kw_only=True)
class BrokenArtifact(KarezError):
    """Bytes that are not what their name or digest says."""

    code: ClassVar[str] = "broken-artifact"
    status: ClassVar[int] = 422
    name: str
    problem: str

    def what(self) -> str:
        """See KarezError."""
        return f"{self.name} cannot be used: {self.problem}."

    def hint(self) -> str:
        """See KarezError."""
        return "Fetch or export it again, then import it anew."


@dataclass(eq=False, kw_only=True)
class Unreachable(KarezError):
    """Nothing answers at an address."""

    code: ClassVar[str] = "unreachable"
    status: ClassVar[int] = 503
    what_is_it: str
    address: str

    def what(self) -> str:
        """See KarezError."""
        return f"{self.what_is_it} does not answer at {self.address}."

    def hint(self) -> str:
        """See KarezError."""
        return "Start it with `karez up`, or point KAREZ_URL at a running one."


@dataclass(eq=False, kw_only=True)
class PortTaken(KarezError):
    """Another program listens where karez wants to."""

    code: ClassVar[str] = "port-taken"
    status: ClassVar[int] = 409
    port: int

    def what(self) -> str:
        """See KarezError."""
        return f"Port {self.port} is taken by another program."

    def hint(self) -> str:
        """See KarezError."""
        return "Stop that program, or choose another with `karez up --port` or `--gateway-port`."


@dataclass(eq=False, kw_only=True)
class AlreadyRunning(KarezError):
    """A cloud runs from this state folder."""

    code: ClassVar[str] = "already-running"
    status: ClassVar[int] = 409
    home: str
    pid: int

    def what(self) -> str:
        """See KarezError."""
        return f"A cloud already runs from {self.home} (pid {self.pid})."

    def hint(self) -> str:
        """See KarezError."""
        return "Use it as it is, or stop it with `karez down`."


@dataclass(eq=False, kw_only=True)
class MissingPart(KarezError):
    """A program or package that this needs is not installed."""

    code: ClassVar[str] = "missing-part"
    status: ClassVar[int] = 501
    part: str
    needed_for: str
    install: str

    def what(self) -> str:
        """See KarezError."""
        return f"{self.part} is not installed; {self.needed_for} needs it."

    def hint(self) -> str:
        """See KarezError."""
        return f"Install it: {self.install}"


@dataclass(eq=False, kw_only=True)
class StartFailed(KarezError):
    """A part of the cloud did not come up."""

    code: ClassVar[str] = "start-failed"
    status: ClassVar[int] = 500
    part: str
    detail: str

    def what(self) -> str:
        """See KarezError."""
        return f"{self.part} did not start: {self.detail}"

    def hint(self) -> str:
        """See KarezError."""
        return (
            "The files under `logs/` in the state folder say more; `karez doctor` checks the rest."
        )


@dataclass(eq=False, kw_only=True)
class Failed(KarezError):
    """A job or service that was waited for ended badly."""

    code: ClassVar[str] = "failed"
    status: ClassVar[int] = 500
    noun: str
    name: str
    reason: str

    def what(self) -> str:
        """See KarezError."""
        return f"The {self.noun} {self.name!r} failed: {self.reason}"

    def hint(self) -> str:
        """See KarezError."""
        return f"Read its last words with `karez logs {self.name}`."


@dataclass(eq=False, kw_only=True)
class Remote(KarezError):
    """An error that the API reported; it keeps the API's words."""

    code: ClassVar[str] = "remote"
    status: ClassVar[int] = 500
    kind: str
    http_status: int
    problem: str
    fix: str

    def what(self) -> str:
        """See KarezError."""
        return self.problem

    def hint(self) -> str:
        """See KarezError."""
        return self.fix


def every_error() -> tuple[type[KarezError], ...]:
    """All error classes, for the documentation and its test."""
    return tuple(sorted(KarezError.__subclasses__(), key=lambda error: error.code))
