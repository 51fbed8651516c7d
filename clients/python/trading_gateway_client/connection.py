"""One WebSocket connection to the gateway, on picows: frames out, answers in, how it ended."""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSInvalidStatusError,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from trading_gateway_client.errors import HandshakeRefused, is_problem, seconds_of
from trading_gateway_client.forms import Form

_ABNORMAL = 1006
_CONNECT_TIMEOUT = 20.0
_HANDSHAKE_TIMEOUT = 10.0
# Seconds in which a peer that is gone for good may still take our last bytes.
_FLUSH_TIMEOUT = 2.0
# picows logs each connect at INFO and each refusal as an error; whoever uses this library is told by exceptions.
_QUIET = "trading_gateway_client"
logging.getLogger(f"picows.{_QUIET}").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended: close code and reason, 1006 when it broke without a close frame."""

    code: int
    reason: str


class Connection(WSListener):
    """Gives every message to ``on_message`` as bytes, in the order of arrival."""

    def __init__(self, on_message: Callable[[bytes], None], *, is_text: bool) -> None:
        super().__init__()
        self._on_message = on_message
        self._sends = WSMsgType.TEXT if is_text else WSMsgType.BINARY
        self._takes = (WSMsgType.TEXT, WSMsgType.BINARY)
        self._parts: list[bytes] = []
        self._end = End(_ABNORMAL, "")
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[End] = self._loop.create_future()
        self.is_open = False
        # Loop time of the last message from the other side.
        self.heard_at = self._loop.time()
        self._transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.is_open = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        self.heard_at = self._loop.time()
        if kind in self._takes or kind is WSMsgType.CONTINUATION:
            data = frame.get_payload_as_bytes()
            if frame.fin and not self._parts:
                self._on_message(data)
                return
            self._parts.append(data)
            if frame.fin:
                data, self._parts = b"".join(self._parts), []
                self._on_message(data)
        elif kind is WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self._end = End(code, payload[2:].decode(errors="replace"))
            self._leave(1000)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.is_open = False
        if not self.ended.done():
            self.ended.set_result(self._end)

    def send(self, frame: bytes) -> None:
        """Writes one message; the caller bounds how many are on the way."""
        self._transport.send(self._sends, frame)

    def close(self, code: int = 1000, reason: str = "closed by this client") -> None:
        """Ends the connection; ``ended`` follows soon, whether the other side still answers or not."""
        if self.is_open:
            self._end = End(code, reason)
            self._leave(code)

    def _leave(self, code: int) -> None:
        self.is_open = False
        self._transport.send_close(WSCloseCode(code))
        self._transport.disconnect()
        # A peer that takes no more bytes would keep a graceful end waiting until TCP gives up.
        self._loop.call_later(_FLUSH_TIMEOUT, self._transport.disconnect, False)


def address_of(url: str, *, stream: str, writer: str, heard: int | None, account: str) -> str:
    """``url`` with what the gateway is told at connect; ``heard`` None and ``account`` "" are left out."""
    query = {"stream": stream, "writer": writer}
    if heard is not None:
        query["heard"] = str(heard)
    if account:
        query["account"] = account
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


async def open_connection(
    url: str, token: str, form: Form, on_message: Callable[[bytes], None], *, tls: ssl.SSLContext | None = None
) -> Connection:
    """Raises HandshakeRefused for an HTTP refusal, OSError or TimeoutError when the gateway cannot be reached.

    Raises ValueError for a URL that is none.
    """
    headers = [("Authorization", f"Bearer {token}"), ("Sec-WebSocket-Protocol", form.subprotocol)]
    made: list[Connection] = []
    abandoned = False
    listener: object = None

    def make() -> Connection:
        if abandoned:
            raise ConnectionError("nobody waits for this connection any more")
        made.append(Connection(on_message, is_text=form.is_text))
        return made[0]

    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _, listener = await ws_connect(
                make,
                url,
                ssl_context=tls,
                extra_headers=headers,
                websocket_handshake_timeout=_HANDSHAKE_TIMEOUT,
                max_redirects=0,
                logger_name=_QUIET,
            )
    except WSInvalidStatusError as error:
        raise _refusal(error) from None
    except WSInvalidURL as error:
        raise ValueError(str(error)) from None
    except WSError as error:
        raise ConnectionError(str(error)) from None
    finally:
        # picows goes on with a handshake whose waiter was cancelled: what comes of it must not stay open unseen.
        abandoned = True
        if made and listener is None:
            made[0].close()
    if not isinstance(listener, Connection):
        raise ConnectionError("the connection was closed before the handshake was answered")
    return listener


def _refusal(error: WSInvalidStatusError) -> HandshakeRefused:
    status = int(error.response.status) if error.response is not None else 0
    retry_after = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    code, detail = "", f"HTTP {status}"
    if error.response is not None and is_problem(error.response.headers.get("Content-Type", "")):
        try:
            problem = json.loads(error.raw_body or b"")
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
    return HandshakeRefused(status, code, detail, seconds_of(retry_after))
