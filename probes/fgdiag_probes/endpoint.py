"""A served model as one who answers questions: those of OpenAI, Anthropic and Google, vLLM, SGLang, llama.cpp."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from multiprocessing.pool import ThreadPool
from string import punctuation, whitespace
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from fgdiag.errors import EndpointFailed
from fgdiag.progress import say
from fgdiag_probes.asking import Question, Reply
from fgdiag_probes.chat import Chat, Refused
from fgdiag_probes.cost import Estimate, Prices, guess_tokens
from fgdiag_probes.responses import Asked, Response, Responses

REFUSED_IN_A_ROW = 20
"""So many refusals without an answer between them mean that the server refuses everything."""
MARKS = whitespace + punctuation
"""May stand around a letter within its token: ` A`, `(A`, `A.`."""


@dataclass(frozen=True)
class Spent:
    """What was asked by an `Endpoint` so far.

    Attributes
    ----------
    asked, kept
        Questions that the server answered, and those that had been answered before.
    refused, cut_off
        Questions that the server would not answer, and answers that ended only because no more tokens were allowed.
    requests
        HTTP requests, those that were tried again included.
    input_tokens, output_tokens
        As the server counts them.
    """

    asked: int
    kept: int
    refused: int
    cut_off: int
    requests: int
    input_tokens: int
    output_tokens: int

    def words(self, prices: Prices) -> str:
        """Say it in one line."""
        if not self.asked + self.requests:
            return "nothing was asked: all had been answered before"
        cost = prices.of(self.input_tokens, self.output_tokens)
        faults = f", {self.refused:,} refused" if self.refused else ""
        faults += f", {self.cut_off:,} cut off by --max-tokens" if self.cut_off else ""
        return (
            f"{self.asked:,} questions answered in {self.requests:,} requests, {self.kept:,} answered before{faults}: "
            f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out{f', cost {cost:,.4f}' if cost else ''}"
        )

    def json(self, prices: Prices) -> dict[str, Any]:
        """Return all numbers, and the cost in the currency of the prices."""
        return {**asdict(self), "cost": prices.of(self.input_tokens, self.output_tokens)}


class Endpoint:
    """A model behind an OpenAI-compatible chat endpoint.

    The key is read from FGDIAG_API_KEY, else OPENAI_API_KEY, and kept nowhere. Whatever was answered once, in this
    run or another, is taken from the kept responses and costs nothing.

    Parameters
    ----------
    url
        Address of the server, such as `http://localhost:8000/v1`.
    model
        Name under which it serves the model.
    max_tokens
        How long an answer may be. Models that reason before they answer need thousands.
    at_once
        How many questions may be on their way at the same time.
    timeout
        Seconds after which a server that says nothing is asked anew.
    responses
        Where responses are kept. Default: in the user's cache.

    Raises
    ------
    EndpointFailed
        The address is none, the key cannot be one, or the package `openai` is not installed.

    Examples
    --------
    >>> model = Endpoint("http://localhost:8000/v1", "llava")
    >>> [reply.text for reply in model.replies(questions)]
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        max_tokens: int = 64,
        at_once: int = 8,
        timeout: float = 120.0,
        responses: Responses | None = None,
    ):
        self._chat = Chat(url, model, max_tokens=max_tokens, timeout=timeout)
        self._responses = responses or Responses()
        self.name = f"{model} at {self._chat.endpoint}"
        self.keeps_replies = True
        self.model, self.max_tokens, self.at_once = model, max_tokens, at_once
        self._pictures: dict[Callable[[], Image.Image], tuple[str, tuple[int, int]]] = {}
        self._counts: Counter[str] = Counter()
        self._refused_in_a_row = 0
        self._lock = Lock()

    def __repr__(self) -> str:
        """Say who is asked."""
        return f"Endpoint({self.name})"

    @property
    def spent(self) -> Spent:
        """What was asked so far."""
        names = ("asked", "kept", "refused", "cut_off", "input_tokens", "output_tokens")
        return Spent(requests=self._chat.requests, **{name: self._counts[name] for name in names})

    def replies(self, questions: Sequence[Question]) -> Iterator[Reply]:
        """Answer every question, in order, each as soon as it is there.

        Questions are asked one by one until the server has answered once, so that a wrong key or name costs one
        request; then several at once. A question that it refuses has an empty reply.

        Raises
        ------
        EndpointFailed
            The server does not answer, in spite of all that was tried. What it did answer is kept.
        """
        left = iter(questions)
        with self._chat, ThreadPool(self.at_once) as pool:
            try:
                while not self._chat.answered and (question := next(left, None)):
                    yield self._reply(question)
                yield from pool.imap(self._reply_or_stop, left)
            except KeyboardInterrupt:
                say("waiting for the answers that are on their way; Ctrl-C again does not wait")
                raise
            finally:  # what is on its way is paid for, so it is waited for and kept
                self._chat.stop(EndpointFailed("Nobody waits for the answers any more."))
                pool.close()
                pool.join()

    def estimate(self, questions: Sequence[Question], prices: Prices | None = None) -> Estimate:
        """Say what asking would take, without asking."""
        new = [question for question in questions if self._responses.get(self._asked(question)) is None]
        mean = self._responses.mean_tokens(self._chat.endpoint, self._chat.model)
        if mean is None:
            tokens = sum(map(self._guess, new)), self.max_tokens * len(new)
        else:
            tokens = mean[0] * len(new), mean[1] * len(new)
        taken, given = map(round, tokens)
        cost = (prices or Prices()).of(taken, given)
        return Estimate(len(questions), len(questions) - len(new), taken, given, cost, mean is not None)

    def _guess(self, question: Question) -> float:
        shown = (*question.examples, question)
        return sum(guess_tokens(*self._look_at(one.picture)[1], one.text) for one in shown)

    def _reply_or_stop(self, question: Question) -> Reply:
        """Answer; where that fails, nothing more is asked, in no thread."""
        self._chat.check()
        try:
            return self._reply(question)
        except Exception as error:
            self._chat.stop(error)
            raise

    def _reply(self, question: Question) -> Reply:
        asked = self._asked(question)
        response = self._responses.get(asked)
        if response is not None:
            self._count(kept=1)
            return _as_reply(response, question.letters)
        try:
            response = self._chat.ask(question)
        except Refused as error:
            self._note_refusal(str(error))
            return Reply("", (-np.inf,) * len(question.letters) or None)
        self._responses.put(asked, response)
        self._refused_in_a_row = 0
        self._count(asked=1, cut_off=response.cut_off)
        self._count(input_tokens=response.input_tokens, output_tokens=response.output_tokens)
        return _as_reply(response, question.letters)

    def _asked(self, question: Question) -> Asked:
        def hashed(picture: Callable[[], Image.Image]) -> str:
            return self._look_at(picture)[0]

        return Asked(
            self._chat.endpoint,
            self._chat.model,
            question.text,
            hashed(question.picture),
            bool(question.letters),
            self.max_tokens,
            tuple((hashed(example.picture), example.text, example.answer) for example in question.examples),
        )

    def _look_at(self, picture: Callable[[], Image.Image]) -> tuple[str, tuple[int, int]]:
        """Hash and size of a picture; one that several questions are about is opened once."""
        if picture not in self._pictures:
            opened = picture()
            content = blake2b(opened.tobytes(), digest_size=16, key=f"{opened.mode} {opened.size}".encode())
            self._pictures[picture] = content.hexdigest(), opened.size
        return self._pictures[picture]

    def _note_refusal(self, why: str) -> None:
        self._count(refused=1)
        with self._lock:
            self._refused_in_a_row += 1
            if self._refused_in_a_row == REFUSED_IN_A_ROW:
                raise EndpointFailed(
                    f"{self.name} refused {REFUSED_IN_A_ROW} questions in a row ({why}). Check whether the model "
                    "takes pictures. What was answered is kept."
                )

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)


def _as_reply(response: Response, letters: tuple[str, ...]) -> Reply:
    asked_and_told = letters and response.first is not None
    return Reply(response.text, _letter_logs(response.first or (), letters) if asked_and_told else None)


def _letter_logs(first: Sequence[tuple[str, float]], letters: tuple[str, ...]) -> tuple[float, ...]:
    """Log-probability of each letter, over all tokens that are written as it."""
    logs = {letter: -np.inf for letter in letters}
    for token, logprob in first:
        letter = token.strip(MARKS)
        if letter in logs:
            logs[letter] = float(np.logaddexp(logs[letter], logprob))
    return tuple(logs.values())
