"""API requests as values: prices, usage by the minute, and the ledger."""

from karez.client.calls import Call
from karez.client.paths import in_path
from karez.core.codec import to_json
from karez.core.device_prices import DevicePrice
from karez.core.ledger import LedgerLine
from karez.core.prices import Price
from karez.core.settlement import Settlement
from karez.core.usage import MinuteUsage


def prices() -> Call[list[Price]]:
    """List the prices of models."""
    return Call(answer=list[Price], method="GET", path="/prices")


def put_price(price: Price) -> Call[Price]:
    """Set the price of a model, for calls that are recorded from now on."""
    path = f"/prices/{in_path(price.model)}"
    return Call(answer=Price, method="PUT", path=path, body=to_json(price), once="same")


def drop_price(model: str) -> Call[None]:
    """Remove the price of a model."""
    return Call(answer=None, method="DELETE", path=f"/prices/{in_path(model)}")


def device_prices() -> Call[list[DevicePrice]]:
    """List the prices of devices by the hour."""
    return Call(answer=list[DevicePrice], method="GET", path="/device-prices")


def put_device_price(price: DevicePrice) -> Call[DevicePrice]:
    """Set the price of a kind or a model of devices, for what is held from now on."""
    path = f"/device-prices/{in_path(price.device)}"
    return Call(answer=DevicePrice, method="PUT", path=path, body=to_json(price), once="same")


def drop_device_price(device: str) -> Call[None]:
    """Remove a price of devices; what was held until now is billed by it."""
    return Call(answer=None, method="DELETE", path=f"/device-prices/{in_path(device)}")


def usage_minutes(last_s: float, until: float | None = None) -> Call[list[MinuteUsage]]:
    """List usage by minute, project, key and service, in the last seconds until now or `until`.

    `until` is in UTC epoch seconds.
    """
    params = {"last_s": last_s} if until is None else {"last_s": last_s, "until": until}
    return Call(answer=list[MinuteUsage], method="GET", path="/usage/minutes", params=params)


def settlement(last_s: float, until: float | None = None) -> Call[Settlement]:
    """What training and services gave each other, in the last seconds until now or `until`.

    `until` is in UTC epoch seconds.
    """
    params = {"last_s": last_s} if until is None else {"last_s": last_s, "until": until}
    return Call(answer=Settlement, method="GET", path="/usage/settlement", params=params)


def ledger(project: str, after: int = 0) -> Call[list[LedgerLine]]:
    """List a thousand lines of a project's ledger, those after a number."""
    path = f"/usage/ledger/{in_path(project)}"
    return Call(answer=list[LedgerLine], method="GET", path=path, params={"after": after})
