"""Who the client is when proxies stand between: X-Forwarded-* of trusted peers, and of nobody else.

Room: streaming.wire. Contract: what is behind sees in ``client`` and ``scheme`` what is believed, and none of the
headers that it came from, whoever sent them. A second reader further in cannot believe what was refused here.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

# "*" in the setting: whoever connects is a proxy.
EVERYBODY: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_SCHEMES = {b"http": ("http", "ws"), b"ws": ("http", "ws"), b"https": ("https", "wss"), b"wss": ("https", "wss")}


def networks(items: Iterable[str]) -> tuple[Network, ...]:
    """Addresses, networks ("10.0.0.0/8", "fd00::/8") and "*"; raises ValueError with the one that is none of these."""
    found: list[Network] = []
    for item in items:
        if item == "*":
            found.extend(EVERYBODY)
            continue
        try:
            # Bits below the prefix ("10.1.2.3/8") are taken for what was meant.
            found.append(ipaddress.ip_network(item, strict=False))
        except ValueError:
            raise ValueError(f"{item!r} is neither an address nor a network") from None
    return tuple(found)


class ForwardedHeaders:
    """An ASGI application around another."""

    def __init__(self, application: Application, trusted: Sequence[Network]) -> None:
        """``trusted``: from where the headers are believed."""
        self._application = application
        self._trusted = trusted

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        if scope["type"] in ("http", "websocket"):
            self._judge(scope)
        await self._application(scope, receive, send)

    def _judge(self, scope: dict[str, Any]) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        told = [(name, value) for name, value in headers if _is_forwarding(name)]
        if not told:
            return
        scope["headers"] = [pair for pair in headers if not _is_forwarding(pair[0])]
        peer = scope.get("client")
        if peer is None or not self._trusts(_address(peer[0])):
            return
        # Several lines are one list (RFC 9110, 5.3), and each proxy writes behind those before it.
        hops = _items(told, b"x-forwarded-for")
        if (client := self._client(hops)) is not None:
            scope["client"] = client
        schemes = _items(told, b"x-forwarded-proto")
        if schemes and (pair := _SCHEMES.get(schemes[-1].lower())) is not None:
            scope["scheme"] = pair[scope["type"] == "websocket"]

    def _client(self, hops: list[bytes]) -> tuple[str, int] | None:
        """The nearest address that is no proxy of ours; the farthest one when all are. What stands before something
        that is no address is not looked at. None: nothing to believe."""
        client: tuple[str, int] | None = None
        for hop in reversed(hops):
            host, port = _host_and_port(hop.decode("latin-1"))
            address = _address(host)
            if address is None:
                break
            client = (str(address), port)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _is_forwarding(name: bytes) -> bool:
    # With an underscore it is the same name to whoever reads headers as CGI variables.
    plain = name.lower().replace(b"_", b"-")
    return plain.startswith(b"x-forwarded-") or plain in (b"forwarded", b"x-real-ip")


def _items(told: list[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    """The parts of all headers of exactly this name, in their order."""
    return [
        part for name, value in told if name.lower() == wanted for item in value.split(b",") if (part := item.strip())
    ]


def _host_and_port(text: str) -> tuple[str, int]:
    """Of "192.0.2.1", "192.0.2.1:443", "2001:db8::1" and "[2001:db8::1]:443"; port 0 for none."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
    return host, number if number <= 65_535 else 0


def _address(text: str) -> Address | None:
    """An IPv4 address that came over an IPv6 socket ("::ffff:192.0.2.1") is that IPv4 address. A zone ("fe80::1%eth0")
    means something to the host alone that wrote it, and may hold any text."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
