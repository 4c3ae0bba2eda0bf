"""Who may look, and what a page may do.

Loopback alone is open, and only under its own names, so that no foreign page can reach it through a name of its own
(DNS rebinding). Any other address asks for a token. Scripts are those of the server; none may be made from text.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlencode

from dash import Dash
from flask import Response, abort, redirect, request
from werkzeug.wrappers import Response as BaseResponse

TOKEN = "token"
A_MONTH = 30 * 86_400


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secure(app: Dash, prefix: str, token: str | None) -> None:
    """Ask for the token, or for a name of this machine, and send a strict content security policy with every answer.

    Call it when all callbacks are there: their inline scripts are allowed one by one.
    """
    policy = content_policy(app.csp_hashes())
    proof = _proof(token) if token else ""
    cookie = f"fgdiag-{proof[:8]}"

    @app.server.before_request
    def _let_in() -> BaseResponse | None:
        if not token:
            return (
                None
                if is_loopback(_host().strip("[]"))
                else abort(403, "Start `fgdiag app` with --token to open it under this name.")
            )
        if hmac.compare_digest(request.cookies.get(cookie, "").encode(), proof.encode()):
            return None
        if not hmac.compare_digest(request.args.get(TOKEN, "").encode(), token.encode()):
            abort(401, "Open the explorer with the address that `fgdiag app` printed: it holds the token.")
        rest = urlencode([pair for pair in request.args.items(multi=True) if pair[0] != TOKEN])
        answer = redirect(prefix.rstrip("/") + request.path + (f"?{rest}" if rest else ""))
        answer.set_cookie(
            cookie,
            proof,
            max_age=A_MONTH,
            path=prefix,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )
        return answer

    @app.server.after_request
    def _guard(answer: Response) -> Response:
        answer.headers.update(
            {
                "Content-Security-Policy": policy,
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
            }
        )
        return answer

    app.server.wsgi_app = _below(app.server.wsgi_app, prefix)  # pyright: ignore[reportAttributeAccessIssue]


def content_policy(hashes: Sequence[str]) -> str:
    """Return the content security policy: nothing from elsewhere, no script made from text.

    Inline styles are allowed: plotly, AG Grid and Mantine place and colour what they draw with them.
    """
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *hashes]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _proof(token: str) -> str:
    """What a browser keeps in place of the token."""
    return hmac.new(token.encode(), b"fgdiag explorer", hashlib.sha256).hexdigest()


def _host() -> str:
    """The name under which the server was asked, without the port."""
    name = request.host
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]


def _below(application, prefix: str):
    """Take the prefix off the path, whether or not the proxy has done so."""

    def called(environ, start_response):
        path = environ.get("PATH_INFO", "")
        if prefix != "/" and (path + "/").startswith(prefix):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", "/" + path[len(prefix) :]
        return application(environ, start_response)

    return called
