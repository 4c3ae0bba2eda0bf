"""An opened VLM answers the same one by one, in batches, and behind a shared picture."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from fgdiag_probes import in_process
from fgdiag_probes.asking import Example, Question, Reply
from fgdiag_probes.in_process import InProcess

from fgdiag.errors import ModelNotSupported
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

TEXTS = ("Is it A or B?", "Is it rather A or is it C?", "Is it A or C?", "Is it Z or B?")
LETTERS = ("A", "B", "é")


def opened(built: tiny.Built) -> VLM:
    model, processor = built
    return open_vlm(model, device="cpu", processor=processor)


def questions(letters: tuple[str, ...] = LETTERS) -> list[Question]:
    pictures = [partial(tiny.noise, 40, 30, seed) for seed in (1, 2)]
    return [Question(picture, text, letters) for picture in pictures for text in TEXTS]


def the_same(found: list[Reply], expected: list[Reply]) -> None:
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.letters or (), other.letters or (), atol=2e-4, rtol=1e-4)


def one_by_one(vlm: VLM, asked: list[Question]) -> list[Reply]:
    return [reply for question in asked for reply in InProcess(vlm).replies([question])]


@pytest.mark.parametrize(
    ("build", "shares"),
    [
        (tiny.llava, True),
        (tiny.idefics3, True),
        (tiny.gemma3, True),
        (tiny.qwen2_vl, True),
        (tiny.paligemma, False),
        (tiny.mllama, False),
        (tiny.blip2, False),
        (tiny.florence2, False),
    ],
)
def test_sharing_a_picture_changes_nothing(build: Callable[[], tiny.Built], shares: bool):
    vlm = opened(build())
    respondent = InProcess(vlm)
    found = list(respondent.replies(questions()))
    assert respondent._sound is shares
    the_same(found, one_by_one(vlm, questions()))


def test_letters_are_read_where_the_reply_begins():
    vlm = opened(tiny.llava())
    question = questions()[0]
    (reply,) = InProcess(vlm).replies([question])
    with torch.no_grad():
        inputs = vlm.inputs([question.picture()], vlm.chat(question.text))
        logs = vlm.model(**inputs).logits[0, -1].log_softmax(-1)
    vocabulary = vlm.processor.tokenizer.get_vocab()  # pyright: ignore[reportAttributeAccessIssue]
    expected = [float(logs[vocabulary[letter]]) for letter in "AB"]
    expected.append(-np.inf)  # no single token begins a reply with the third
    np.testing.assert_allclose(reply.letters or (), expected, atol=1e-4)


def test_a_letter_counts_with_and_without_a_blank(monkeypatch: pytest.MonkeyPatch):
    vlm = opened(tiny.llava())
    tokenizer = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    spoken = {"A": 10, "ĠA": 11, "▁B": 12, "Bob": 13, "a": 14}
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda _: spoken)
    respondent, logs = InProcess(vlm), torch.arange(20.0).log_softmax(0)
    found = respondent._letters_of(Question(lambda: tiny.noise(8, 8), "?", ("A", "B", "C")), logs)
    assert found == pytest.approx([float(logs[[10, 11]].logsumexp(0)), float(logs[12]), -np.inf])


def test_batches_of_unequal_length_change_nothing():
    vlm = opened(tiny.llava())
    mixed = questions()[::4] + questions(())[::3]
    the_same(list(InProcess(vlm, batch_size=2).replies(mixed)), one_by_one(vlm, mixed))


def test_questions_about_one_picture_may_have_more_or_fewer_letters():
    vlm = opened(tiny.llava())
    picture = partial(tiny.noise, 40, 30, 1)
    asked = [Question(picture, text, tuple("ABCD"[: 2 + i])) for i, text in enumerate(TEXTS[:3])]
    respondent = InProcess(vlm)
    the_same(list(respondent.replies(asked)), one_by_one(vlm, asked))
    assert respondent._sound


def test_an_unsound_cache_is_not_used(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    vlm = opened(tiny.llava())
    respondent = InProcess(vlm)
    wrong = [Reply("", (-1.0, -1.0, -1.0))] * in_process.COMPARED
    monkeypatch.setattr(respondent, "_behind_one_prefix", lambda lot: wrong[: len(lot)])
    the_same(list(respondent.replies(questions())), one_by_one(vlm, questions()))
    assert capsys.readouterr().err.count("reads the picture anew") == 1


def test_what_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch):
    vlm = opened(tiny.llava())
    expected, whole = one_by_one(vlm, questions()), InProcess._whole

    def small(self: InProcess, lot: list[Question]) -> list[Reply]:
        if len(lot) > 1:
            raise RuntimeError("CUDA out of memory")
        return whole(self, lot)

    monkeypatch.setattr(InProcess, "_whole", small)
    monkeypatch.setattr(InProcess, "_shares_a_prefix", False)
    respondent = InProcess(vlm)
    respondent._sound = False
    the_same(list(respondent.replies(questions())), expected)


def test_examples_are_earlier_turns_with_pictures_of_their_own():
    vlm = opened(tiny.llava())
    plain = questions()[0]
    shown = [Example(partial(tiny.noise, 20, 20, seed), "Is it B?", "B") for seed in (5, 6)]
    one, other = (Question(plain.picture, plain.text, LETTERS, tuple(e)) for e in (shown, shown[::-1]))
    first, second, bare = InProcess(vlm).replies([one, other, plain])
    assert first.letters != second.letters != bare.letters
    prompt = vlm.chat(plain.text, before=[("Is it B?", "B")])
    assert prompt.count("<image>") == 2
    assert prompt.index("Is it B?") < prompt.index("assistant: B") < prompt.index(plain.text)


@pytest.mark.parametrize("build", [tiny.blip2, tiny.florence2])
def test_a_model_of_one_image_says_so(build: Callable[[], tiny.Built]):
    plain = questions()[0]
    asked = Question(plain.picture, plain.text, LETTERS, (Example(plain.picture, "Is it B?", "B"),))
    with pytest.raises(ModelNotSupported, match=r"no chat template|one image a prompt"):
        list(InProcess(opened(build())).replies([asked]))


@pytest.mark.real
def test_the_demo_vlm_answers_behind_one_picture():
    vlm = open_vlm("demo", device="cpu")
    picture = partial(tiny.noise, 224, 224, 3)
    options = "\nA. Leek\nB. Lemon\nC. Barred Larkfinch\nAnswer with the letter."
    asked = [Question(picture, f"{text}{options}", tuple("ABC")) for text in TEXTS[:3]]
    respondent = InProcess(vlm)
    found = list(respondent.replies(asked))
    assert respondent._sound
    assert {letter: len(ids) for letter, ids in respondent.letter_tokens.items()}["A"] == 2
    assert all(reply.text and np.isfinite(reply.letters or ()).all() for reply in found)
