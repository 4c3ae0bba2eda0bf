"""A chat server on loopback that misbehaves as it is told to, and counts what it is asked."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Lock, Thread
from typing import Any

Behaviour = Callable[["Handler", dict[str, Any]], None]


class Server(ThreadingHTTPServer):
    """Answers every question as `behave` says, one after another; well, once there are no more."""

    daemon_threads = True

    def __init__(self, *behave: Behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.lock = list(behave), Lock()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def answered(self) -> Counter[str]:
        """How often each question was asked."""
        return Counter(text_of(body) for body in self.bodies)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no error here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.add(self.headers["Authorization"])
            behave = self.server.behave.pop(0) if self.server.behave else well
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            behave(self, body)
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def send(self, code: int, content: str, **headers: str) -> None:
        data = content.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def text_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"][1]["text"]


def well(handler: Handler, body: dict[str, Any]) -> None:
    handler.send(200, completion(f"{text_of(body)}!"))


def says(text: str, **more: Any) -> Behaviour:
    return lambda handler, body: handler.send(200, completion(text, **more))


def fails(code: int, message: str = "no", **headers: str) -> Behaviour:
    content = json.dumps({"error": {"message": message, "code": None, "param": None, "type": "x"}})
    return lambda handler, body: handler.send(code, content, **headers)


def nonsense(content: str) -> Behaviour:
    return lambda handler, body: handler.send(200, content)


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True
    handler.connection.shutdown(SHUT_RDWR)


def breaks_off(handler: Handler, body: dict[str, Any]) -> None:
    """Close in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def slowly(seconds: float) -> Behaviour:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        well(handler, body)

    return behave


def completion(text: str | None, *, finish: str = "stop", first: dict[str, float] | None = None) -> str:
    """The response of a server, with log-probabilities of the first token where they are given."""
    tops = [{"token": token, "logprob": log, "bytes": None} for token, log in (first or {}).items()]
    told = {"content": [{**tops[0], "top_logprobs": tops}]} if tops else None
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": finish, "message": message, "logprobs": told}
    usage = {"prompt_tokens": 300, "completion_tokens": 5, "total_tokens": 305}
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return json.dumps({**whole, "choices": [choice], "usage": usage})


@contextmanager
def serving(*behave: Behaviour) -> Iterator[Server]:
    server = Server(*behave)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
