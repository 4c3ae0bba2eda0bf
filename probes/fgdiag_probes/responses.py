"""What served models responded, kept on disk, so that no question is ever paid for twice.

One SQLite file in the cache of the user, shared by all runs. A response is found by the content of what was asked:
endpoint, model, question, pixels of the picture, examples before it, and how it was asked. Each is on disk before it
is used, and a process that is killed leaves every one of them readable.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fgdiag.cache import cache_folder
from fgdiag.errors import NoSpace, RunMismatch
from fgdiag.store import writing_to

EDITION = 1
"""Raised when the same question is sent in another way, so that older responses no longer stand for it."""

_TABLE = """
create table if not exists responses (
    key text primary key, endpoint text, model text, question text, picture text,
    response text, input_tokens integer, output_tokens integer, at text default current_timestamp
)
"""


@dataclass(frozen=True)
class Response:
    """What a server said to one question.

    Attributes
    ----------
    text
        The generated text; empty where the model said nothing.
    first
        Log-probabilities in nats of the likeliest first tokens, as pairs (token, log-probability); None where the
        server tells none.
    input_tokens, output_tokens
        As the server counts them, the picture among the input; 0 where it does not count.
    cut_off
        Whether the text ends because no more tokens were allowed.
    """

    text: str
    first: tuple[tuple[str, float], ...] | None
    input_tokens: int
    output_tokens: int
    cut_off: bool


@dataclass(frozen=True)
class Asked:
    """What a response is kept under.

    Attributes
    ----------
    endpoint, model
        Who was asked.
    question
        The text.
    picture
        Hash of size and pixels.
    wants_letters
        Whether log-probabilities of the first token were asked for.
    max_tokens
        How long the response may be.
    examples
        Hash of the picture, text and answer of each question that is shown with its answer before.
    """

    endpoint: str
    model: str
    question: str
    picture: str
    wants_letters: bool
    max_tokens: int
    examples: tuple[tuple[str, str, str], ...] = ()

    @property
    def key(self) -> str:
        """Hash over all of it: 128 bits in hex."""
        content = json.dumps([EDITION, asdict(self)], sort_keys=True)
        return blake2b(content.encode(), digest_size=16).hexdigest()


class Responses:
    """Responses by what was asked. Threads and processes may use the same file at once.

    Parameters
    ----------
    path
        The SQLite file; it is made where there is none. Default: `responses.sqlite` in the user's cache.

    Raises
    ------
    NoSpace
        The file cannot be written, now or later.
    RunMismatch
        The file is something else.
    """

    def __init__(self, path: Path | None = None):
        self.path = path or cache_folder() / "responses.sqlite"
        with writing_to(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._run(_TABLE)

    def get(self, asked: Asked) -> Response | None:
        """Return what was responded, or None where it has not been asked."""
        found = self._run("select response from responses where key = ?", asked.key)
        return _read(found[0][0]) if found else None

    def put(self, asked: Asked, response: Response) -> None:
        """Keep a response; it is on disk when this returns."""
        self._run(
            "insert or replace into responses (key, endpoint, model, question, picture, response, "
            "input_tokens, output_tokens) values (?, ?, ?, ?, ?, ?, ?, ?)",
            asked.key,
            *(asked.endpoint, asked.model, asked.question, asked.picture),
            *(json.dumps(asdict(response)), response.input_tokens, response.output_tokens),
        )

    def mean_tokens(self, endpoint: str, model: str) -> tuple[float, float] | None:
        """Input and output tokens of a response of this model, on average; None where it has counted none yet."""
        mean = self._run(
            "select avg(input_tokens), avg(output_tokens) from responses "
            "where endpoint = ? and model = ? and input_tokens > 0",
            *(endpoint, model),
        )[0]
        return None if mean[0] is None else mean

    def _run(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement in a connection of its own, for connections are not shared between threads."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as file, file:
                return file.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:  # full, read-only, locked for a minute...
            raise NoSpace(
                f"Responses cannot be kept in {self.path} ({error}). Free some space, or point FGDIAG_CACHE at "
                "another folder; what was kept is still there."
            ) from error
        except sqlite3.DatabaseError as error:
            raise RunMismatch(
                f"{self.path} is no file of responses ({error}); move it away and run the same command again."
            ) from error


def _read(text: str) -> Response:
    said = json.loads(text)
    first = said["first"] and tuple((token, logprob) for token, logprob in said["first"])
    return Response(**{**said, "first": first})
