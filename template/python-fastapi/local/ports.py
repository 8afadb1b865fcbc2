"""Sockets of this machine: the gateway's own, and free ports for functions."""

from __future__ import annotations

import socket

ADDRESS = "127.0.0.1"


class PortTakenError(Exception):
    """The gateway's port is taken; the message says how to choose another."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(
            f"port {port} is taken on {ADDRESS}: choose another with --port {port + 1}"
            f" (make up PORT={port + 1}), or --port 0 for any free one"
        )


def bind_gateway(port: int) -> socket.socket:
    """Bind the gateway's port, or raise `PortTakenError`; the socket does not listen yet."""
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer is 40 ms late.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Lets a restart take the port back while connections of the last run linger in TIME_WAIT.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((ADDRESS, port))
    except OSError as error:
        bound.close()
        raise PortTakenError(port) from error
    return bound


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, all different."""
    # All are held until the last is known, else the system could name one twice.
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for held in sockets:
            held.bind((ADDRESS, 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()
