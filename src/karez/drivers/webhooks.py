"""Sends alerts to webhooks: JSON by POST, signed with a secret, to no address of this host."""

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
from typing_extensions import override

from karez.core.alerts import Alert, AlertSender, NotDelivered

TIMEOUT_S = 10.0
SIGNATURE = "karez-signature"
"""Header with `sha256=` and the HMAC-SHA256 of the body in hex, keyed by the rule's secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks(AlertSender):
    """Sends to http and https URLs. Redirects are not followed."""

    allowed: Collection[str] = ()
    """Hosts that may be addressed, this one and private ones too; empty: any but this host and
    addresses of its link."""

    @override
    def send(self, alert: Alert, to: str, secret: str) -> None:
        parts = urlsplit(to)
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        body = json.dumps(alert.payload()).encode()
        headers = {"content-type": "application/json", "user-agent": "karez"}
        if secret:
            digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE] = f"sha256={digest}"
        kind = _Tls if is_tls else _Plain
        try:
            connection = kind(host, parts.port, timeout=TIMEOUT_S)
            connection.address = self._address(host, parts.port or (443 if is_tls else 80))
            too_late = threading.Timer(TIMEOUT_S, connection.break_off)  # a slow answer never ends
            too_late.daemon = True
            too_late.start()
            try:
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", path, body=body, headers=headers)
                status = connection.getresponse().status
            finally:
                too_late.cancel()
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotDelivered(f"{host}: {error or type(error).__name__}") from error
        if not 200 <= status < 300:
            raise NotDelivered(f"{host} answered {status}")

    def _address(self, host: str, port: int) -> tuple[str, int]:
        """The address to connect to, resolved once: a name cannot lead elsewhere afterwards."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if self.allowed and host not in self.allowed:
            raise NotDelivered(f"{host} is not among the hosts that alert_hosts allows")
        for *_, place in found:
            if not self.allowed and _is_own(str(place[0]).partition("%")[0]):
                raise NotDelivered(f"{host} is this host or its link; alert_hosts may allow it")
        return str(found[0][-1][0]), port


def _is_own(address: str) -> bool:
    """Whether an address is of this host, or of what only its link reaches."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or _nat64(ip) or ip
    if ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast:
        return True
    own = (entry.address for entries in psutil.net_if_addrs().values() for entry in entries)
    return str(ip) in {name.partition("%")[0] for name in own}


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address behind the well-known prefix 64:ff9b::/96 (RFC 6052)."""
    is_one = ip in ipaddress.IPv6Network("64:ff9b::/96")
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if is_one else None


class _Plain(http.client.HTTPConnection):
    """A connection to an address that was checked."""

    address: tuple[str, int]

    def break_off(self) -> None:
        """End what is under way: the time is over."""
        stream = self.sock
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    @override
    def connect(self) -> None:
        self.sock = socket.create_connection(self.address, TIMEOUT_S)


class _Tls(_Plain):
    """The same with TLS, whose certificate must be that of the host."""

    default_port = http.client.HTTPS_PORT

    @override
    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
