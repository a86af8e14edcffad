"""Where a call comes from, and whether that is where its key may be used. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


@lru_cache(maxsize=4096)
def is_within(address: str, ranges: Sequence[str]) -> bool:
    """Whether an address is in one of the ranges, such as 10.0.0.0/8; of no address nothing is."""
    found = _read(address)
    return found is not None and any(found in ip_network(one) for one in ranges)


def caller_address(peer: str, forwarded: str, proxies: Sequence[str]) -> str:
    """The address of who sent a request.

    Args:
        peer: Who holds the connection, as `plain_address` has it.
        forwarded: `x-forwarded-for` of the request: addresses with commas, to each of which the
            proxy behind it adds one. What comes before the last one that is no proxy, anyone may
            have written.
        proxies: Ranges of addresses whose word counts.
    """
    for said in reversed(forwarded.split(",") if forwarded else ()):
        if not proxies or not is_within(peer, proxies):
            break
        peer = plain_address(said.strip())
    return peer


def plain_address(text: str) -> str:
    """An address in its usual form, without its zone; empty: it is none."""
    found = _read(text)
    return "" if found is None else str(found)


def _read(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
