"""One question to a server that speaks the chat interface of OpenAI, and what it said.

The client library alone retries: cut connections, timeouts, 408, 409, 429 and 5xx, with backoff from 0.5 to 8 s, or as
long as the server's own Retry-After says (two minutes at most). What is no chat completion is made to look like a cut
connection to it, so that it is retried too. Nothing here tries again by itself, but without an option that the server
does not take.
"""

import base64
import json
import os
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from PIL import Image

from fgdiag.errors import EndpointFailed
from fgdiag_probes.asking import Example, Question
from fgdiag_probes.responses import Response

if TYPE_CHECKING:
    import openai

KEYS = ("FGDIAG_API_KEY", "OPENAI_API_KEY")
"""Environment variables in which the key is looked for."""
NO_KEY = "none"
"""What is sent where there is no key; servers at home take any."""
RETRIES_AT_FIRST, RETRIES = 3, 12
"""Until the server has answered once, and from then on: about 4 s, and about 70 s, which outlasts a limit by the
minute."""
CONNECT_SECONDS = 10.0

LONGEST_SIDE = 2048
"""Pixels. Larger pictures are shrunk: GPT models see no more, Claude models less."""
LOSSLESS_PIXELS = 1_500_000
"""Pictures up to here are sent as PNG. Above, that could be more than the 5 MB that Claude models take."""

_LETTERS = "letters"


REFUSALS = (400, 403, 413, 422)
"""Status codes that say something about the one question. All others that stay would meet every question."""


class Refused(Exception):
    """The server will not answer this question, and the message says why. It may answer others."""


class Chat:
    """Asks a served model, within a `with` block, which opens and closes the connections.

    Parameters
    ----------
    endpoint
        Address of the server, with the version at its end: `http://localhost:8000/v1`.
    model
        Name under which the model is served.
    max_tokens
        How long a response may be.
    timeout
        Seconds after which a server that says nothing is asked anew.

    Raises
    ------
    EndpointFailed
        The address is none, the key cannot be one, or the package `openai` is not installed.
    """

    def __init__(self, endpoint: str, model: str, *, max_tokens: int, timeout: float):
        self.endpoint, self.model, self.timeout = _address(endpoint), model, timeout
        self.requests = 0
        self.answered = False
        self._stopped: Exception | None = None
        self._ways: dict[str, list[dict[str, Any]]] = {
            "sampling": [{"temperature": 0}, {}],  # reasoning models take no temperature
            "length": [{"max_completion_tokens": max_tokens}, {"max_tokens": max_tokens}, {}],
            _LETTERS: [{"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 5}, {}],
        }
        self._lock = Lock()
        self._key = api_key()
        _check_installed()

    def __enter__(self) -> Self:
        """Open connections."""
        self._client, self._stopped = self._new_client(), None
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._client.close()

    def stop(self, why: Exception) -> None:
        """Send nothing more, not even again: `why` is raised instead. What is on its way may still come back."""
        self._stopped = self._stopped or why

    def check(self) -> None:
        """Raise why it was stopped, if it was."""
        if self._stopped:
            raise self._stopped

    def ask(self, question: Question) -> Response:
        """Ask one question; threads may ask at once.

        Raises
        ------
        EndpointFailed
            There is no answer, and asking something else would not help.
        Refused
            This question is refused; whether others are too is not known.
        """
        messages: list[Any] = []
        for example in question.examples:
            messages += [_turn(example), {"role": "assistant", "content": example.answer}]
        response = self._respond([*messages, _turn(question)], bool(question.letters))
        if not self.answered and response.cut_off and not response.text.strip():
            raise EndpointFailed(
                f"{self.model} used up all {response.output_tokens} tokens it may without a word of an answer, as "
                "models do that reason first; allow more with --max-tokens."
            )
        self.answered = True
        return response

    def _respond(self, messages: list[Any], wants_letters: bool) -> Response:
        import openai

        while True:
            ways = {purpose: ways[0] for purpose, ways in self._ways.items()}
            if not wants_letters:
                del ways[_LETTERS]
            try:
                return _read(self._send(messages, ways))
            except (
                openai.BadRequestError,
                openai.UnprocessableEntityError,
                openai.PermissionDeniedError,
            ) as error:
                if not self._ask_otherwise(error, ways):
                    raise self._failure(error) from None
            except openai.OpenAIError as error:
                raise self._failure(error) from None

    def _send(self, messages: list[Any], ways: dict[str, dict[str, Any]]) -> Any:
        client = self._client.with_options(max_retries=RETRIES if self.answered else RETRIES_AT_FIRST)
        options = {name: value for way in ways.values() for name, value in way.items()}
        return client.chat.completions.create(model=self.model, messages=messages, **options)

    def _ask_otherwise(self, error: "openai.APIStatusError", ways: dict[str, dict[str, Any]]) -> bool:
        """Give up the options that the server complains of; whether it did complain of one."""
        complaint = f"{error.param} {self._told(error)}"
        unwelcome = [purpose for purpose, way in ways.items() if any(name in complaint for name in way)]
        with self._lock:
            for purpose in unwelcome:
                if self._ways[purpose][0] is ways[purpose]:  # no other thread has done so meanwhile
                    self._ways[purpose] = self._ways[purpose][1:]
        return bool(unwelcome)

    def _new_client(self) -> "openai.OpenAI":
        import httpx2
        import openai

        timeout = httpx2.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        http = openai.DefaultHttpxClient(
            timeout=timeout, event_hooks={"request": [self._count], "response": [_refuse_nonsense]}
        )
        return openai.OpenAI(
            base_url=self.endpoint, api_key=self._key or NO_KEY, timeout=timeout, http_client=http
        )

    def _count(self, _request: object) -> None:
        self.check()
        with self._lock:
            self.requests += 1

    def _failure(self, error: "openai.OpenAIError") -> Exception:
        """What went wrong, in one line; never with the key in it."""
        import openai

        if isinstance(error, openai.AuthenticationError):
            return EndpointFailed(self._about_key())
        if isinstance(error, openai.NotFoundError):
            return EndpointFailed(
                f"{self.endpoint} has no model {self.model!r}, or is not the address of its interface, which often "
                f"ends in /v1 (404: {self._told(error)}). Check --model and --endpoint."
            )
        if isinstance(error, openai.RateLimitError):
            return EndpointFailed(
                f"{self.endpoint} lets no more questions through for now (429: {self._told(error)}). Try later, or "
                "with a smaller --at-once. What was answered is kept."
            )
        if isinstance(error, openai.APITimeoutError):
            return EndpointFailed(
                f"{self.endpoint} did not answer within {self.timeout:g} s, several times. Give it longer with "
                "--timeout, or ask less with --at-once. What was answered is kept."
            )
        if isinstance(error, openai.APIStatusError):
            said = f"{error.status_code}: {self._told(error)}"
            if error.status_code in REFUSALS:
                return Refused(said)
            return EndpointFailed(f"{self.endpoint} does not answer ({said}). What was answered is kept.")
        return EndpointFailed(
            f"{self.endpoint} does not answer ({self._clean(str(error.__cause__ or error))}). Check --endpoint, and "
            "whether the server runs. What was answered is kept."
        )

    def _about_key(self) -> str:
        name = next((name for name in KEYS if os.environ.get(name)), None)
        if name is None:
            return f"{self.endpoint} asks for a key, and {KEYS[0]} is not set; set it in the environment."
        return f"{self.endpoint} refuses the key in {name}; set {KEYS[0]} to one that it takes."

    def _told(self, error: "openai.APIStatusError") -> str:
        body = error.body
        if isinstance(body, dict):
            body = body.get("message") or body.get("detail") or body
        return self._clean(str(body or error.message))

    def _clean(self, message: str) -> str:
        if self._key:
            message = message.replace(self._key, "***")
        return " ".join(message.split())[:200]


def _check_installed() -> None:
    try:
        import openai  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise EndpointFailed(
            "Asking an endpoint needs the package `openai`; install it with: pip install 'fgdiag[endpoint]'"
        ) from error


def api_key() -> str | None:
    """Key from the environment; None where none is set.

    Raises
    ------
    EndpointFailed
        What is set has characters that no key has. An HTTP library would repeat it in its complaint.
    """
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not key.isascii() or not key.isprintable() or " " in key:
                raise EndpointFailed(f"{name} holds characters that no key has, such as blanks; set it anew.")
            return key
    return None


def _address(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointFailed("The endpoint is no address; expected one such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query:  # may be a key, so it is not repeated
        raise EndpointFailed(
            f"The address of the endpoint must not hold a name, a password or a query; give the key in {KEYS[0]}."
        )
    return endpoint.rstrip("/")


def _turn(asked: Question | Example) -> dict[str, Any]:
    content = [_as_content(asked.picture()), {"type": "text", "text": asked.text}]
    return {"role": "user", "content": content}


def _as_content(picture: Image.Image) -> dict[str, Any]:
    """Encode a picture as it is sent: whole where that is possible, for fine detail is what is asked about."""
    picture = picture.copy()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    lossless = picture.width * picture.height <= LOSSLESS_PIXELS
    if lossless:
        picture.save(file, "PNG")
    else:
        picture.save(file, "JPEG", quality=95, subsampling=0)
    kind, data = "png" if lossless else "jpeg", base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}", "detail": "high"}}


def _refuse_nonsense(response: Any) -> None:
    import httpx2

    if not response.is_success:
        return
    response.read()
    try:
        message = json.loads(response.content)["choices"][0]["message"]
        understood = isinstance(message.get("content"), str | None)
    except (ValueError, LookupError, TypeError, AttributeError):
        understood = False
    if not understood:
        beginning = response.content[:80].decode(errors="replace")
        raise httpx2.RemoteProtocolError(f"it sent no chat completion but {beginning!r}")


def _read(completion: Any) -> Response:
    choice, usage = completion.choices[0], completion.usage
    told = choice.logprobs.content if choice.logprobs else None
    first = tuple((top.token, top.logprob) for top in told[0].top_logprobs) if told else None
    return Response(
        choice.message.content or "",
        first or None,
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
        choice.finish_reason == "length",
    )
