"""An opened VLM that answers questions in this process.

Several questions about one picture share one pass of everything that stands before they part, the picture above all;
only what differs, and what the model says, is run for each of them.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgdiag.errors import ModelNotSupported
from fgdiag.family_table import quirk_of
from fgdiag.memory import no_memory
from fgdiag.progress import say
from fgdiag_probes.asking import Question, Reply

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

TEXT_TOKENS, LETTER_TOKENS = 32, 16
"""Most tokens that are generated, for free text and where a letter is expected."""
WORTH_SHARING = 3
"""Questions about one picture from which on they are run behind its cache."""
COMPARED = 4
"""Questions that are answered both ways before the cache is trusted."""
ROUNDING = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Nats by which letters read behind the cache may differ, in the median, and again for each 10 nats."""
BLANKS = "▁Ġ "
"""What tokenizers write before a token that begins a word."""
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
FAILURES = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)


class InProcess:
    """A `Respondent`: greedy text, and the log-probability of each letter as the first token.

    A letter counts with and without a blank before it, whichever tokens the model has for that.

    Parameters
    ----------
    vlm
        The opened model.
    batch_size
        Questions that run together.
    """

    def __init__(self, vlm: "VLM", *, batch_size: int = 16) -> None:
        self.vlm, self.batch_size = vlm, batch_size
        self.name = vlm.name
        self.keeps_replies = False

    def replies(self, questions: Sequence[Question]) -> Iterator[Reply]:
        """Answer in order. Questions with the same `picture` that stand together are answered together.

        Raises
        ------
        ModelNotSupported
            There are examples, and the model takes one image a prompt.
        """
        if any(question.examples for question in questions):
            self._check_several_images(next(q for q in questions if q.examples))
        for lot in _lots(questions, self.batch_size):
            yield from self._answer(lot)

    @torch.inference_mode()
    def _answer(self, lot: list[Question]) -> list[Reply]:
        try:
            if _share_a_picture(lot) and self._cache_is_sound(lot):
                return self._behind_one_prefix(lot)
            return [reply for part in _parts(lot, self.batch_size) for reply in self._whole(part)]
        except RuntimeError as error:
            if len(lot) == 1 or not no_memory(error):
                raise
        half = len(lot) // 2
        return self._answer(lot[:half]) + self._answer(lot[half:])

    # --- a whole pass for each question -----------------------------------------------------------------------------

    def _whole(self, lot: Sequence[Question]) -> list[Reply]:
        open_once = cache(lambda picture: picture())
        pictures = [[open_once(shown.picture) for shown in (*q.examples, q)] for q in lot]
        prompts = [self.vlm.chat(q.text, before=[(e.text, e.answer) for e in q.examples]) for q in lot]
        out = self.vlm.model.generate(  # pyright: ignore[reportCallIssue]
            **self.vlm.inputs(pictures, prompts, padding_side="right" if self._encodes else "left"),
            do_sample=False,
            num_beams=1,
            max_new_tokens=_most_tokens(lot),
            pad_token_id=self._padding,
            return_dict_in_generate=True,
            output_logits=True,
        )
        return self._read(lot, out.logits[0], out.sequences[:, -len(out.logits) :])

    def _read(self, lot: Sequence[Question], first: Tensor, said: Tensor) -> list[Reply]:
        logs = first.float().log_softmax(-1)
        texts = self._tokenizer.batch_decode(said, skip_special_tokens=True)
        return [
            Reply(text.strip(), self._letters_of(question, row) if question.letters else None)
            for question, row, text in zip(lot, logs, texts, strict=True)
        ]

    def _letters_of(self, question: Question, logs: Tensor) -> tuple[float, ...]:
        tokens = [self.letter_tokens.get(letter, []) for letter in question.letters]
        return tuple(float(logs[ids].logsumexp(0)) if ids else -torch.inf for ids in tokens)

    # --- questions behind the cache of their picture ----------------------------------------------------------------

    def _cache_is_sound(self, lot: Sequence[Question]) -> bool:
        """Whether replies behind the cache are those of whole passes; tried once, on the first such lot."""
        if self._sound is None:
            self._sound = self._shares_a_prefix and self._agrees(lot[:COMPARED])
            if not self._sound:
                say(f"{self.vlm.name} reads the picture anew for each question about it, which is slower")
        return self._sound

    _sound: bool | None = None

    @property
    def _shares_a_prefix(self) -> bool:
        """Whether tokens before the question are the same whatever the question is."""
        quirk = quirk_of(self.vlm.anatomy.model_type)
        return not (quirk.cross_attends or quirk.prefix_attention or self._encodes)

    @property
    def _encodes(self) -> bool:
        """Whether the prompt goes to an encoder, and the reply comes from a decoder."""
        return getattr(self.vlm.model.config.get_text_config(), "is_encoder_decoder", False)

    def _agrees(self, lot: Sequence[Question]) -> bool:
        whole = self._whole(lot)
        try:
            cached = self._behind_one_prefix(lot)
        except FAILURES as error:
            if no_memory(error):
                raise
            return False
        if not all(reply.letters for reply in whole):
            return cached == whole
        one, other = (
            torch.tensor([log for reply in replies for log in reply.letters or ()])
            for replies in (cached, whole)
        )
        known = other.isfinite()
        error = ((one - other).abs() / (1 + other.abs() / 10))[known]
        return not len(error) or float(error.median()) < ROUNDING.get(self.vlm.dtype, 0.3)

    def _behind_one_prefix(self, lot: Sequence[Question]) -> list[Reply]:
        prefix, tails = self._parted([self.vlm.chat(question.text) for question in lot], lot[0])
        seen = self.vlm.model(**prefix, use_cache=True, logits_to_keep=1).past_key_values
        replies: dict[int, Reply] = {}
        by_length = sorted(range(len(lot)), key=lambda i: len(tails[i]))
        for _, alike in groupby(by_length, key=lambda i: len(tails[i])):
            for part in _parts(list(alike), self.batch_size):
                some = [lot[i] for i in part]
                first, said = self._go_on(seen, [tails[i] for i in part], _most_tokens(lot))
                replies |= zip(part, self._read(some, first, said), strict=True)
        return [replies[i] for i in range(len(lot))]

    def _parted(self, prompts: Sequence[str], first: Question) -> tuple[dict[str, Any], list[list[int]]]:
        """Inputs up to where the prompts part, and each prompt's tokens from there; `ValueError` where it cannot be."""
        ids = [self._tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        shared = min(_common_start(ids), min(map(len, ids)) - 1)
        tails = [tokens[shared:] for tokens in ids]
        inputs = self.vlm.inputs([first.picture()], prompts[0])
        whole = inputs["input_ids"][0].tolist()
        if whole[-len(tails[0]) :] != tails[0]:
            raise ValueError("the processor changes what stands behind the image")
        end = len(whole) - len(tails[0])
        return {name: value[:, :end] if name in PER_TOKEN else value for name, value in inputs.items()}, tails

    def _go_on(self, seen: Any, tails: Sequence[list[int]], most: int) -> tuple[Tensor, Tensor]:
        """Logits (questions, vocabulary) of the first token, and the tokens (questions, steps) said greedily.

        One picture and tails of one length need no padding, so there is no attention mask, by which some families
        would count positions wrongly.
        """
        past = copy.deepcopy(seen)
        past.batch_repeat_interleave(len(tails))
        ids = torch.tensor(tails, device=self.vlm.device)
        ended = torch.zeros(len(tails), dtype=torch.bool, device=ids.device)
        ends = torch.tensor(self._ends, device=ids.device)
        logits, said = [], []
        while len(said) < most and not ended.all():
            out = self.vlm.model(input_ids=ids, past_key_values=past, use_cache=True)
            past, last = out.past_key_values, out.logits[:, -1]
            ids = last.argmax(-1, keepdim=True).masked_fill(ended[:, None], self._padding)
            ended = ended | torch.isin(ids[:, 0], ends)
            logits.append(last)
            said.append(ids)
        return logits[0], torch.cat(said, 1)

    # --- what the tokenizer knows -----------------------------------------------------------------------------------

    @property
    def _tokenizer(self) -> Any:
        return self.vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]

    @cached_property
    def letter_tokens(self) -> dict[str, list[int]]:
        """Tokens of each capital letter, as a word of its own and not."""
        tokens: dict[str, list[int]] = {}
        for token, index in self._tokenizer.get_vocab().items():
            letter = token.lstrip(BLANKS)
            if len(letter) == 1 and letter.isupper():
                tokens.setdefault(letter, []).append(index)
        return tokens

    @cached_property
    def _ends(self) -> list[int]:
        given = getattr(self.vlm.model.generation_config, "eos_token_id", None)
        if given is None:
            given = self._tokenizer.eos_token_id
        return [given] if isinstance(given, int) else list(given or [])

    @cached_property
    def _padding(self) -> int:
        known = (self._tokenizer.pad_token_id, *self._ends, 0)
        return next(index for index in known if index is not None)

    def _check_several_images(self, question: Question) -> None:
        try:
            with torch.inference_mode():
                self._whole([question])
        except FAILURES as error:
            if no_memory(error) or isinstance(error, ModelNotSupported):
                raise
            raise ModelNotSupported(
                f"{self.vlm.name} takes one image a prompt ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). Ask it without examples."
            ) from error


def _lots(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Part questions, in order, into those about one picture, and batches of the rest."""
    lot: list[Question] = []
    for kind, alike in groupby(questions, key=lambda q: (id(q.picture), *_kind(q))):
        same = list(alike)
        if _share_a_picture(same):
            yield from ([lot] if lot else [])
            yield same
            lot = []
            continue
        for question in same:
            if lot and (len(lot) == size or _kind(lot[0]) != kind[1:]):
                yield lot
                lot = []
            lot.append(question)
    if lot:
        yield lot


def _kind(question: Question) -> tuple[bool, int]:
    """What questions of one batch have in common: whether letters are expected, and how many examples there are."""
    return bool(question.letters), len(question.examples)


def _share_a_picture(lot: Sequence[Question]) -> bool:
    one = len({id(question.picture) for question in lot}) == 1
    return one and len(lot) >= WORTH_SHARING and not lot[0].examples


def _most_tokens(lot: Sequence[Question]) -> int:
    return LETTER_TOKENS if lot[0].letters else TEXT_TOKENS


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _common_start(lists: Sequence[list[int]]) -> int:
    """How many items all lists begin with alike."""
    same = 0
    for column in zip(*lists, strict=False):
        if len(set(column)) > 1:
            break
        same += 1
    return same
