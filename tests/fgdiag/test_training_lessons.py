"""The tokens that are learnt are those by which a name is scored, whatever the tokenizer does to a text."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fgdiag_probes.likelihood import answer_ids
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace, Sequence
from transformers import PreTrainedTokenizerFast

from fgdiag.training.lessons import Tokenized
from fgdiag.vlm import VLM
from tests.fgdiag import tiny

PROMPTS = {
    "blank before the answer": "USER: <image>\nWhich? ASSISTANT:",
    "none": "<s>user <image>Which?\nassistant\n",
}


def like_llama_2() -> PreTrainedTokenizerFast:
    """A token a letter, and one for an R that begins a word; a blank is put before every text."""
    special = ["<s>", "</s>", "<image>"]
    letters = sorted({*"".join(PROMPTS.values()), *"Ruby", "▁"} - {" "})
    base = Tokenizer(BPE({token: k for k, token in enumerate([*special, *letters, "▁R"])}, [("▁", "R")]))
    base.normalizer = Sequence([Prepend("▁"), Replace(" ", "▁")])
    base.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>")


def processor(words: PreTrainedTokenizerFast, prompt: str) -> Any:
    return SimpleNamespace(
        tokenizer=words, image_token="<image>", apply_chat_template=lambda *_args, **_kwargs: prompt
    )


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("words", [like_llama_2(), tiny.tokenizer("<image>")], ids=["llama 2", "bytes"])
def test_what_is_learnt_is_what_is_scored(words: PreTrainedTokenizerFast, prompt: str):
    asked = processor(words, prompt)
    lesson = Tokenized(asked).lesson("Which?", "Ruby")
    assert lesson.answer[:-1] == answer_ids(cast("VLM", SimpleNamespace(processor=asked)), prompt, "Ruby")
    assert lesson.answer[-1] == words.eos_token_id
    image = tiny.token_id(words, "<image>")
    assert [*lesson.before, image, *lesson.question] == words(prompt, add_special_tokens=False)["input_ids"]


def test_a_blank_is_learnt_once():
    words = like_llama_2()
    lesson = Tokenized(processor(words, PROMPTS["blank before the answer"])).lesson("Which?", "Ruby")
    assert words.convert_ids_to_tokens(list(lesson.answer)) == ["▁R", "u", "b", "y", "</s>"]


def test_byte_tokens_are_those_of_the_answer_alone():
    words = tiny.tokenizer("<image>")
    lesson = Tokenized(processor(words, PROMPTS["blank before the answer"])).lesson("Which?", "Ruby")
    assert list(lesson.answer) == words(" Ruby</s>", add_special_tokens=False)["input_ids"]
    assert list(lesson.question) == words("\nWhich? ASSISTANT:", add_special_tokens=False)["input_ids"]
