"""Serve the explorer from this machine."""

import logging
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fgdiag.errors import FgdiagError
from fgdiag_explorer.safety import TOKEN, is_loopback

HOST, PORT = "127.0.0.1", 8050
THREADS = 8
ANY = ("0.0.0.0", "::")
"""Every address of this machine."""


class PortTaken(FgdiagError, OSError):
    """Nothing can be served at an address."""


def address(host: str = HOST, port: int = PORT, prefix: str = "/", token: str | None = None) -> str:
    """Return the address at which a browser finds the explorer; of every address of this machine, that of its name.

    Examples
    --------
    >>> address()
    'http://127.0.0.1:8050/'
    """
    known = socket.gethostname() if host in ANY else host
    name = f"[{known}]" if ":" in known else known
    path = f"/{prefix.strip('/')}/" if prefix.strip("/") else "/"
    return f"http://{name}:{port}{path}" + (f"?{urlencode({TOKEN: token})}" if token else "")


def needed_token(host: str, token: str | None) -> str | None:
    """Return the token that a browser must show: the given one; a new one where others can reach the host."""
    return token or (None if is_loopback(host) else secrets.token_urlsafe(24))


def serve(
    runs: Iterable[str | Path],
    *,
    host: str = HOST,
    port: int | None = None,
    prefix: str = "/",
    token: str | None = None,
    device: str = "auto",
    told: Callable[[str], None] = print,
) -> None:
    """Show runs in a browser until it is interrupted.

    Parameters
    ----------
    runs
        Folders of runs.
    host, port
        Where to listen; without a port, at the first free one from 8050 on. The loopback address is reached from this
        machine only; any other asks for a token, and one is made where none is given.
    prefix, token, device
        See `fgdiag_explorer.create_app`.
    told
        Called with the address, as soon as it can be opened.

    Raises
    ------
    PortTaken
        Something else listens there, or the host is not one of this machine.
    """
    from fgdiag_explorer.app import create_app

    token = needed_token(host, token)
    app = create_app(runs, prefix=prefix, token=token, device=device)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that somebody waits is no news
    server, port = _listening(app.server, host, port)
    told(address(host, port, prefix, token))
    server.run()


def _listening(application: Any, host: str, port: int | None) -> tuple[Any, int]:
    from waitress.server import create_server

    reason = ""
    for tried in [port] if port is not None else range(PORT, PORT + 50):
        try:
            return create_server(application, host=host, port=tried, threads=THREADS, ident=None), tried
        except (OSError, ValueError) as error:  # waitress says ValueError of a host that has no address
            reason = getattr(error, "strerror", None) or str(error)
    raise PortTaken(
        f"Nothing can be served at {host}, port {port or PORT}: {reason}. Choose another with --port."
    )
