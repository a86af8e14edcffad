"""Options of the commands that deploy and update services, and what is asked for by them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from karez.cli.client_options import ProjectName, ServiceName
from karez.core.call_limits import MinuteLimits
from karez.core.engines import AUTO, Adapter, Preference, Task
from karez.core.errors import BadRequest
from karez.core.probes import Probe
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request
from karez.core.service_schedules import parse_schedule
from karez.core.servicefile import parse_replicas
from karez.core.services import ServiceSpec
from karez.core.units import parse_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Options of `karez services deploy`."""

    model: Annotated[
        str,
        typer.Argument(help="Id or name of a model artifact in a format that the engine loads."),
    ]
    name: Annotated[str, typer.Option(help="Name of the service at the gateway.")]
    engine: Annotated[
        str, typer.Option(help="Inference engine; auto chooses one: `karez services fit` says why.")
    ] = AUTO
    prefer: Annotated[
        Preference, typer.Option(help="What counts where several engines load the model.")
    ] = Preference.MEMORY
    environment: Annotated[
        str, typer.Option(help="Python packages that the engine runs with, as jobs have them.")
    ] = ""
    task: Annotated[Task, typer.Option(help="What the service answers.")] = Task.GENERATE
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="A LoRA adapter beside the model, as NAME=MODEL. Repeat for more."),
    ] = None
    replicas: Annotated[
        str,
        typer.Option(help="Number of replicas, or 0..4 for as many as the requests need."),
    ] = "1"
    schedule: Annotated[
        list[str] | None,
        typer.Option(help="Hours (UTC) with other replicas: 'mon-fri 08:00-18:00 3..10'. Repeat."),
    ] = None
    idle: Annotated[
        str, typer.Option(help="With 0..N: time without a request until the last one ends.")
    ] = "5m"
    each: Annotated[
        list[str] | None,
        typer.Option(help="Resources of one replica, such as cpu=1. Repeat for alternatives."),
    ] = None
    context: Annotated[int, typer.Option(help="Context length in tokens per request.")] = 2048
    parallel: Annotated[int, typer.Option(help="Requests that a replica answers at once.")] = 4
    probe: Annotated[
        str, typer.Option(help="A question that each replica has to answer before it gets others.")
    ] = ""
    expect: Annotated[str, typer.Option(help="What the answer to the probe contains.")] = ""
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="A service that is asked what this one cannot answer. Repeat for more."),
    ] = None
    hedge: Annotated[
        str, typer.Option(help="Time without an answer until another replica is asked too.")
    ] = ""
    first_token: Annotated[
        str, typer.Option(help="Target: 95 of 100 answers begin within this time, such as 500ms.")
    ] = ""
    requests_per_minute: Annotated[
        int, typer.Option(min=0, help="Calls of it by all keys together; 0: any.")
    ] = 0
    tokens_per_minute: Annotated[
        int, typer.Option(min=0, help="Tokens of these calls; 0: any.")
    ] = 0
    project: ProjectName = "default"
    wait: Annotated[bool, typer.Option(help="Wait until the service is ready.")] = True


def spec_of(options: DeployOptions) -> ServiceSpec:
    """The service that is asked for. Raises BadRequest."""
    with refused():
        return ServiceSpec(
            name=options.name,
            model=options.model,
            project=options.project,
            engine=options.engine,
            prefer=options.prefer,
            task=options.task,
            environment=options.environment,
            adapters=adapters_of(options.adapter or ()),
            each=tuple(parse_resource_request(text) for text in options.each or ("cpu=1",)),
            context_tokens=options.context,
            parallel=options.parallel,
            schedules=tuple(map(parse_schedule, options.schedule or ())),
            idle_s=parse_seconds(options.idle),
            probe=_probe(options.probe, options.expect),
            fallbacks=tuple(options.fallback or ()),
            hedge_s=_seconds_or_none(options.hedge or "none"),
            first_token_s=_seconds_or_none(options.first_token or "none"),
            calls=MinuteLimits(
                requests_per_minute=options.requests_per_minute,
                tokens_per_minute=options.tokens_per_minute,
            ),
            **parse_replicas(options.replicas),
        )


def adapters_of(texts: Sequence[str]) -> tuple[Adapter, ...]:
    """Read NAME=MODEL, each. Raises ValueError."""
    found = []
    for text in texts:
        name, separator, model = text.partition("=")
        if not separator or not name or not model:
            raise ValueError(f"adapter {text!r} should be NAME=MODEL")
        found.append(Adapter(name=name, model=model))
    return tuple(found)


def _probe(prompt: str, expect: str) -> Probe | None:
    return Probe(prompt=prompt, expect=expect) if prompt or expect else None


@contextmanager
def refused() -> Iterator[None]:
    """A value that cannot be read is a bad request."""
    try:
        yield
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """Options of `karez services update`; what is not given stays as it is."""

    service: ServiceName
    model: Annotated[str | None, typer.Option(help="Another model artifact.")] = None
    engine: Annotated[
        str | None, typer.Option(help="Another engine; auto keeps this one if it can serve it.")
    ] = None
    replicas: Annotated[
        str | None, typer.Option(help="Number of replicas, or 0..4 for as many as needed.")
    ] = None
    schedule: Annotated[
        list[str] | None,
        typer.Option(help="The hours with other replicas, in UTC; `none` for none."),
    ] = None
    idle: Annotated[
        str | None, typer.Option(help="Time without a request until the last one ends.")
    ] = None
    each: Annotated[
        list[str] | None, typer.Option(help="Resources of one replica. Repeat for alternatives.")
    ] = None
    context: Annotated[int | None, typer.Option(help="Context length in tokens.")] = None
    parallel: Annotated[
        int | None, typer.Option(help="Requests that a replica answers at once.")
    ] = None
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="The adapters beside the model, as NAME=MODEL each; `none` for none."),
    ] = None
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="The services that are asked instead; `none` for none."),
    ] = None
    hedge: Annotated[
        str | None,
        typer.Option(help="Time until another replica is asked too; `none`: never."),
    ] = None
    first_token: Annotated[
        str | None,
        typer.Option(help="Target: 95 of 100 answers begin within this time; `none`: no target."),
    ] = None
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Calls of it by all keys together; 0: any.")
    ] = None
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Tokens of these calls; 0: any.")
    ] = None
    probe: Annotated[str | None, typer.Option(help="A question that each replica is asked.")] = None
    expect: Annotated[str | None, typer.Option(help="What the answer to it contains.")] = None


def _each(texts: Sequence[str]) -> tuple[ResourceRequest, ...]:
    return tuple(map(parse_resource_request, texts))


def _seconds_or_none(text: str) -> float | None:
    return None if text == "none" else parse_seconds(text)


def _but_none(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if text != "none")


_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "model": ("model", str),
    "engine": ("engine", str),
    "idle": ("idle_s", parse_seconds),
    "each": ("each", _each),
    "parallel": ("parallel", int),
    "context": ("context_tokens", int),
    "adapter": ("adapters", lambda texts: adapters_of(_but_none(texts))),
    "fallback": ("fallbacks", _but_none),
    "schedule": ("schedules", lambda texts: tuple(map(parse_schedule, _but_none(texts)))),
    "hedge": ("hedge_s", _seconds_or_none),
    "first_token": ("first_token_s", _seconds_or_none),
}
"""Option of an update -> the field that it changes, and how it is read."""


_LIMITS = ("requests_per_minute", "tokens_per_minute")


def changes_of(options: UpdateOptions, spec: ServiceSpec) -> dict[str, Any]:
    """The fields of a service that are to change. Raises ValueError."""
    given = {name: getattr(options, name) for name in _FIELDS}
    fields = {
        field: read(given[name])
        for name, (field, read) in _FIELDS.items()
        if given[name] is not None
    }
    if options.replicas is not None:
        fields |= parse_replicas(options.replicas)
    limits = {name: getattr(options, name) for name in _LIMITS}
    if told := {name: value for name, value in limits.items() if value is not None}:
        fields["calls"] = replace(spec.calls, **told)
    if options.probe is not None or options.expect is not None:
        old = spec.probe
        prompt = options.probe if options.probe is not None else old.prompt if old else ""
        expect = options.expect if options.expect is not None else old.expect if old else ""
        fields["probe"] = _probe(prompt, expect)
    return fields
