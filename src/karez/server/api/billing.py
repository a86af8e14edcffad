"""Prices and the ledger over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from karez.core.device_prices import DevicePrice
from karez.core.identity import Role
from karez.core.ledger import LedgerLine
from karez.core.prices import Price
from karez.core.settlement import Settlement
from karez.core.usage import MinuteUsage
from karez.server.api.authorization import CloudDep, Who, allow

router = APIRouter(tags=["billing"])
_LATEST = 1e11


@router.get("/prices", **allow(Role.VIEWER))
def list_prices(cloud: CloudDep) -> Sequence[Price]:
    """The prices of models."""
    return cloud.store.usage.prices()


@router.put("/prices/{model}", **allow(Role.ADMIN))
def put_price(model: str, price: Price, cloud: CloudDep, who: Who) -> Price:
    """Set the price of a model, for calls that are recorded from now on; `*` is all others."""
    if model != price.model:
        raise ValueError(f"the path says {model}, the body {price.model}")
    return cloud.billing.put_price(who, price)


@router.delete("/prices/{model}", status_code=204, **allow(Role.ADMIN))
def drop_price(model: str, cloud: CloudDep, who: Who) -> None:
    """Remove a price."""
    cloud.billing.drop_price(who, model)


@router.get("/device-prices", **allow(Role.VIEWER))
def list_device_prices(cloud: CloudDep) -> Sequence[DevicePrice]:
    """The prices of devices by the hour."""
    return cloud.store.usage.device_prices()


@router.put("/device-prices/{device}", **allow(Role.ADMIN))
def put_device_price(device: str, price: DevicePrice, cloud: CloudDep, who: Who) -> DevicePrice:
    """Set the price of a kind or a model of devices, for what is held from now on."""
    if device != price.device:
        raise ValueError(f"the path says {device}, the body {price.device}")
    return cloud.billing.put_device_price(who, price)


@router.delete("/device-prices/{device}", status_code=204, **allow(Role.ADMIN))
def drop_device_price(device: str, cloud: CloudDep, who: Who) -> None:
    """Remove a price of devices; what was held until now is billed by it."""
    cloud.billing.drop_device_price(who, device)


@router.get("/usage/minutes", **allow(Role.VIEWER))
def usage_by_minute(
    cloud: CloudDep,
    who: Who,
    last_s: Annotated[float, Query(ge=0, le=_LATEST)] = 3600.0,
    until: Annotated[float | None, Query(ge=0, le=_LATEST)] = None,
) -> Sequence[MinuteUsage]:
    """Usage by minute, project, key and service, in the last seconds until now or an instant.

    `until` is in UTC epoch seconds.
    """
    return cloud.billing.minutes(who, last_s, until)


@router.get("/usage/settlement", **allow(Role.VIEWER))
def usage_settlement(
    cloud: CloudDep,
    who: Who,
    last_s: Annotated[float, Query(ge=0, le=_LATEST)] = 86_400.0,
    until: Annotated[float | None, Query(ge=0, le=_LATEST)] = None,
) -> Settlement:
    """What training and services gave each other, in the last seconds until now or an instant.

    Projects that the key does not see have no names. `until` is in UTC epoch seconds.
    """
    return cloud.billing.settlement(who, last_s, until)


@router.get("/usage/ledger/{project}", **allow(Role.VIEWER))
def usage_ledger(
    project: str, cloud: CloudDep, who: Who, after: Annotated[int, Query(ge=0, le=2**62)] = 0
) -> Sequence[LedgerLine]:
    """A thousand lines of a project's ledger, those after a number."""
    return cloud.billing.ledger(who, project, after=after)
