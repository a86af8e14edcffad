"""`karez prices`: what tokens of models and hours of devices cost."""

from dataclasses import dataclass
from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.device_prices import DevicePrice
from karez.core.errors import BadRequest
from karez.core.prices import ANY_MODEL, MICRO, PERCENT, Price

prices_app = typer.Typer(
    no_args_is_help=True, help="Set and list the prices of models and devices."
)
OffPeak = Annotated[str, typer.Option(help="Hours in UTC with another rate, such as 22:00-06:00.")]
OffPeakPercent = Annotated[int, typer.Option(help="Part of the price that is charged then.")]
DeviceName = Annotated[
    str, typer.Argument(metavar="DEVICE", help="A kind, such as npu, or a model, such as npu:910b.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOptions:
    """Options of `karez prices set`; amounts are for a million tokens."""

    model: Annotated[str, typer.Argument(help="Name of the service; * for all others.")]
    prompt: Annotated[float, typer.Option(help="Price of a million tokens of prompts.")] = 0.0
    cached: Annotated[
        float | None,
        typer.Option(help="The same of those that were computed before; else as the others."),
    ] = None
    completion: Annotated[float, typer.Option(help="Price of a million tokens of answers.")] = 0.0
    off_peak: OffPeak = ""
    off_peak_percent: OffPeakPercent = PERCENT


@prices_app.command("set")
@takes(PriceOptions)
def set_price(options: PriceOptions) -> None:
    """Set the price of a model, for calls that are recorded from now on.

    Example: karez prices set support --prompt 0.15 --cached 0.03 --completion 0.6
    """
    try:
        price = Price(
            model=options.model,
            prompt=_micro(options.prompt),
            cached=None if options.cached is None else _micro(options.cached),
            completion=_micro(options.completion),
            off_peak=options.off_peak,
            off_peak_percent=options.off_peak_percent,
        )
    except (ValueError, OverflowError) as error:
        raise BadRequest(problem=str(error)) from error
    client().put_price(price)
    what = "all models without a price" if price.model == ANY_MODEL else price.model
    say(f"the price of {what} holds from now on")


def _micro(amount: float) -> int:
    return round(amount * MICRO)


@prices_app.command("list")
def list_prices(as_json: Json = False) -> None:
    """List the prices of models, for a million tokens."""
    found = client().prices()
    if as_json:
        json_out(found)
        return
    rows = [
        (
            price.model,
            *(f"{amount / MICRO:g}" for amount in (price.prompt, _cached(price), price.completion)),
            _off_peak(price),
        )
        for price in found
    ]
    heads = ("model", "prompt", "cached", "completion", "off-peak")
    table(heads, rows, empty="no prices; set one with `karez prices set`")


def _off_peak(price: Price | DevicePrice) -> str:
    return f"{price.off_peak_percent}% at {price.off_peak}" if price.off_peak else ""


def _cached(price: Price) -> int:
    return price.prompt if price.cached is None else price.cached


@prices_app.command("remove")
def remove_price(
    model: Annotated[str, typer.Argument(help="Name of the service; * for all others.")],
) -> None:
    """Remove the price of a model."""
    client().drop_price(model)
    say(f"the price of {model} is removed")


@prices_app.command("set-device")
def set_device_price(
    device: DeviceName,
    *,
    hour: Annotated[float, typer.Option(help="Price of one whole device for an hour.")],
    off_peak: OffPeak = "",
    off_peak_percent: OffPeakPercent = PERCENT,
    services: Annotated[
        bool, typer.Option("--services", help="Bill the devices of services too, beside tokens.")
    ] = False,
) -> None:
    """Set the price of devices that jobs hold, from now on.

    Example: karez prices set-device npu:910b --hour 1.8 --off-peak 22:00-06:00
    """
    try:
        price = DevicePrice(
            device=device,
            hour=_micro(hour),
            off_peak=off_peak,
            off_peak_percent=off_peak_percent,
            services=services,
        )
    except (ValueError, OverflowError) as error:
        raise BadRequest(problem=str(error)) from error
    client().put_device_price(price)
    say(f"the price of {device} holds for what is held from now on")


@prices_app.command("devices")
def list_device_prices(as_json: Json = False) -> None:
    """List the prices of devices, for an hour."""
    found = client().device_prices()
    if as_json:
        json_out(found)
        return
    rows = [
        (
            price.device,
            f"{price.hour / MICRO:g}",
            _off_peak(price),
            "jobs and services" if price.services else "jobs",
        )
        for price in found
    ]
    heads = ("device", "hour", "off-peak", "billed")
    table(heads, rows, empty="no prices; set one with `karez prices set-device`")


@prices_app.command("remove-device")
def remove_device_price(device: DeviceName) -> None:
    """Remove the price of devices; what was held until now is billed by it."""
    client().drop_device_price(device)
    say(f"the price of {device} is removed")


APPS = {"prices": prices_app}
