"""Tells systemd how far a unit of Type=notify is. Room: gateway_project."""

import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"


def tell_service_manager(state: str) -> bool:
    """Whether somebody was told: nobody is where NOTIFY_SOCKET is not set, and a socket that is gone is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # The abstract namespace begins with a zero byte, which the environment cannot hold.
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            notifier.setblocking(False)
            notifier.connect(name)
            notifier.send(state.encode())
    except OSError:
        return False
    return True
