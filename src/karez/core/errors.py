"""Every error a user may meet: one class each, with what happened and what to do next."""

from dataclasses import dataclass
from typing import Final

from karez.core.error_base import KarezError as KarezError
from karez.core.error_base import error_from as error_from
from karez.core.error_base import every_error as every_error
from karez.core.error_hints import LISTED

DEVICE_FAULT: Final = 74
"""Exit code of a rank whose device has failed: EX_IOERR of sysexits.h."""


@dataclass(eq=False, kw_only=True)
class BadRequest(KarezError):
    """Something in the request cannot be right."""

    code = "bad-request"
    status = 422
    advice = "{fix}"
    problem: str
    fix: str = "Correct it and try again."

    def what(self) -> str:
        """Write the problem as a sentence; a path or an option at its start keeps its case."""
        is_word = self.problem.split(" ", 1)[0].isalpha()
        sentence = self.problem[:1].upper() + self.problem[1:] if is_word else self.problem
        return sentence + ("" if sentence.endswith(".") else ".")


@dataclass(eq=False, kw_only=True)
class NotFound(KarezError):
    """No such thing, or none that this key may see."""

    code = "not-found"
    status = 404
    message = "There is no {noun} {name!r} that you may see."
    noun: str
    name: str

    def hint(self) -> str:
        """Name the command that lists such things."""
        return LISTED.get(self.noun, "Look at the name again.")


@dataclass(eq=False, kw_only=True)
class NotSignedIn(KarezError):
    """The request carries no key, or one that is unknown or revoked."""

    code = "not-signed-in"
    status = 401
    message = "The API key is missing, unknown or revoked."
    advice = "Set KAREZ_KEY, or ask an admin for `karez keys create NAME`."


@dataclass(eq=False, kw_only=True)
class NotAllowed(KarezError):
    """The key is good, its role or project is not."""

    code = "not-allowed"
    status = 403
    message = "This needs role {needed} in project {project}; your key is {held}."
    advice = "Ask an admin for a key with that role: `karez keys create NAME --role ROLE`."
    needed: str
    held: str
    project: str


@dataclass(eq=False, kw_only=True)
class AlreadyExists(KarezError):
    """A name is taken."""

    code = "already-exists"
    status = 409
    message = "There is a {noun} {name!r} already."
    advice = "Choose another name, or remove that one first."
    noun: str
    name: str


@dataclass(eq=False, kw_only=True)
class AmbiguousName(KarezError):
    """Several live workloads have the name."""

    code = "ambiguous-name"
    status = 409
    message = "{count} live {noun}s are called {name!r}: {which}."
    advice = "Give the id of the one that you mean."
    noun: str
    name: str
    count: int
    which: str


@dataclass(eq=False, kw_only=True)
class QuotaExceeded(KarezError):
    """A workload asks for more than its project may ever hold."""

    code = "quota-exceeded"
    status = 409
    message = "Project {project} may hold {quota} {kind}; this asks for {asked}."
    advice = "Ask for fewer, or let an admin run `karez projects quota {project} ...`."
    project: str
    kind: str
    asked: str
    quota: str


@dataclass(eq=False, kw_only=True)
class TooLarge(KarezError):
    """The body of a request is larger than its path takes."""

    code = "too-large"
    status = 413
    message = "The body of this request is larger than {limit_bytes} bytes."
    advice = "Upload what is large as an artifact, and name that in the request."
    limit_bytes: int


@dataclass(eq=False, kw_only=True)
class TooSlow(KarezError):
    """The body of a request did not come in time."""

    code = "too-slow"
    status = 408
    message = "Nothing of this request's body came for {seconds} seconds."
    advice = "Send it again, over a better line."
    seconds: int


@dataclass(eq=False, kw_only=True)
class TooManyRequests(KarezError):
    """A key sends more requests than it may."""

    code = "too-many-requests"
    status = 429
    message = "This key sends too many requests: {limit}."
    advice = "Try again in {retry_after_s} seconds; `requests_per_s` of karez.toml is the limit."
    limit: str
    retry_after_s: int


@dataclass(eq=False, kw_only=True)
class LimitExceeded(KarezError):
    """A project has, or asks for, more than its limits allow."""

    code = "limit-exceeded"
    status = 409
    message = "Project {project} may have {limit}; this would make it {asked}."
    advice = "Wait until there is less, or let an admin run `karez projects limits {project} ...`."
    project: str
    limit: str
    asked: str


@dataclass(eq=False, kw_only=True)
class StorageFull(KarezError):
    """The disk or shared memory has no room; nothing was kept of the write."""

    code = "storage-full"
    status = 507
    message = "There is no room left under {path}; what was being written was removed."
    advice = "Free some space there, or start with `karez up --home` on a larger disk."
    path: str
    wanted_bytes: int = 0


@dataclass(eq=False, kw_only=True)
class BrokenArtifact(KarezError):
    """Bytes that are not what their name or digest says."""

    code = "broken-artifact"
    status = 422
    message = "{name} cannot be used: {problem}."
    advice = "Fetch or export it again, then import it anew."
    name: str
    problem: str


@dataclass(eq=False, kw_only=True)
class AccuracyLost(KarezError):
    """A model that was made smaller answers worse than was allowed."""

    code = "accuracy-lost"
    status = 422
    message = "{name} is not accepted: {problem}."
    advice = "{fix}"
    name: str
    problem: str
    fix: str


@dataclass(eq=False, kw_only=True)
class BadRow(KarezError):
    """A row of a data set that cannot be used."""

    code = "bad-row"
    status = 422
    message = "{place}: {problem}."
    advice = "{fix}"
    place: str
    """File, line and field."""
    problem: str
    fix: str


@dataclass(eq=False, kw_only=True)
class Unreachable(KarezError):
    """Nothing answers at an address."""

    code = "unreachable"
    status = 503
    message = "{what_is_it} does not answer at {address}."
    advice = "Start it with `karez up`, or point KAREZ_URL at a running one."
    what_is_it: str
    address: str


@dataclass(eq=False, kw_only=True)
class ProtocolMismatch(KarezError):
    """A node or the gateway runs another release of karez than control."""

    code = "protocol-mismatch"
    status = 409
    message = "Parts of this cloud run different releases of karez: {problem}."
    advice = "`karez --version` shows the release on each host."
    problem: str


@dataclass(eq=False, kw_only=True)
class PortTaken(KarezError):
    """Another program listens where karez wants to."""

    code = "port-taken"
    status = 409
    message = "Port {port} is taken by another program."
    advice = "Stop that program, or choose another with `karez up --port` or `--gateway-port`."
    port: int


@dataclass(eq=False, kw_only=True)
class AlreadyRunning(KarezError):
    """A cloud runs from this state folder."""

    code = "already-running"
    status = 409
    message = "A cloud already runs from {home} (pid {pid})."
    advice = "Use it as it is, or stop it with `karez down`."
    home: str
    pid: int


@dataclass(eq=False, kw_only=True)
class MissingPart(KarezError):
    """A program or package that this needs is not installed."""

    code = "missing-part"
    status = 501
    message = "{part} is not installed; {needed_for} needs it."
    advice = "Install it: {install}"
    part: str
    needed_for: str
    install: str


@dataclass(eq=False, kw_only=True)
class OtherSystem(KarezError):
    """The operating system is not one that this runs on."""

    code = "other-system"
    status = 501
    message = "{needed_for} needs Linux; this is {system}."
    advice = "Start it on a Linux machine; from here, use it through KAREZ_URL and KAREZ_KEY."
    needed_for: str
    system: str


@dataclass(eq=False, kw_only=True)
class DeviceUnavailable(KarezError):
    """A process was granted a device that it cannot open."""

    code = "device-unavailable"
    status = 503
    exit_code = DEVICE_FAULT
    message = "This process was granted {device} and cannot open it: {problem}."
    advice = "{fix}"
    device: str
    problem: str
    fix: str


@dataclass(eq=False, kw_only=True)
class DeviceLost(KarezError):
    """A device stopped working while a process computed on it."""

    code = "device-lost"
    status = 503
    exit_code = DEVICE_FAULT
    message = "{device} stopped working: {problem}."
    advice = "`karez doctor` on that node says what its driver reports."
    device: str
    problem: str


@dataclass(eq=False, kw_only=True)
class DeviceMemoryFull(KarezError):
    """A program needs more memory than its device has free."""

    code = "device-memory-full"
    status = 507
    message = "{device} has no memory for {wanted}: {free} of {total} are free."
    advice = "{fix}"
    device: str
    wanted: str
    free: str
    total: str
    fix: str = "Take a smaller batch, gradient checkpointing, or a device with more memory."


@dataclass(eq=False, kw_only=True)
class StartFailed(KarezError):
    """A part of the cloud did not come up."""

    code = "start-failed"
    status = 500
    message = "{part} did not start: {detail}"
    advice = "The files under `logs/` in the state folder say more; `karez doctor` checks the rest."
    part: str
    detail: str


@dataclass(eq=False, kw_only=True)
class EnvironmentFailed(KarezError):
    """A node could not make the Python environment of a job, or fetch its container image."""

    code = "environment-failed"
    status = 500
    message = "The {name} is not to be had: {detail}"
    advice = "{fix}"
    name: str
    """Such as `environment mine`."""
    detail: str
    fix: str = (
        "Correct its requirements; for a node without an index, give the packages as --wheels."
    )


@dataclass(eq=False, kw_only=True)
class NotIsolated(KarezError):
    """A node that cannot keep projects apart was to run jobs of a second one."""

    code = "not-isolated"
    status = 409
    message = "This node runs jobs of {other!r}, and cannot keep those of {project!r} apart: {why}."
    advice = (
        "Run the node agent as root, or set `shared_user = true` if their members trust each other."
    )
    project: str
    other: str
    why: str


@dataclass(eq=False, kw_only=True)
class Failed(KarezError):
    """A job or service that was waited for ended badly."""

    code = "failed"
    status = 500
    message = "The {noun} {name!r} failed: {reason}"
    advice = "Read its last words with `karez logs {name}`."
    noun: str
    name: str
    reason: str


@dataclass(eq=False, kw_only=True)
class Remote(KarezError):
    """An error that the API reported and this version does not know; it keeps the API's words."""

    code = "remote"
    status = 500
    message = "{problem}"
    advice = "{fix}"
    kind: str
    http_status: int
    problem: str
    fix: str
