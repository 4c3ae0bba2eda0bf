"""The questions fgdiag asks, class names as a person says them, and prompts for models without a chat template."""

import re
from typing import Any

FINE_QUESTION = "What exactly is this?"
COARSE_QUESTION = "What kind of thing is this?"

# Prompts as each model's authors give them, for checkpoints whose processor has no chat template.
# `{question}` is filled in; the first form is asked with an image, the second without.
_PLAIN_PROMPTS = {
    "llava": ("USER: <image>\n{question} ASSISTANT:", "USER: {question} ASSISTANT:"),
    "vipllava": ("USER: <image>\n{question} ASSISTANT:", "USER: {question} ASSISTANT:"),
    "llava_next": ("[INST] <image>\n{question} [/INST]", "[INST] {question} [/INST]"),
    "blip-2": ("Question: {question} Answer:", "Question: {question} Answer:"),
    "instructblip": ("{question}", "{question}"),
    "paligemma": ("<image>answer en {question}\n", "answer en {question}\n"),
    "florence2": ("{question}", "{question}"),
    "mllama": ("<|image|>{question}", "{question}"),
}


def spoken(label: str) -> str:
    """Class name as a person says it; the label itself where it has no word in it.

    In a label of one piece hyphens, underscores and slashes join words. Where there are blanks, words are parted
    already: a hyphen then belongs to a word, and so does a slash beside a single letter.

    Examples
    --------
    >>> spoken("Arla-Ecological-Milk")
    'Arla Ecological Milk'
    >>> spoken("black-eyed susan"), spoken("Lockheed F-16A/B"), spoken("Pepper/Red Bell")
    ('black-eyed susan', 'Lockheed F-16A/B', 'Pepper Red Bell')
    """
    joints = r"[_\s]+|(?<=\w\w)/(?=\w\w)" if re.search(r"\s", label.strip()) else r"[-_/\s]+"
    return " ".join(re.split(joints, label)).strip() or label


def plain_prompt(model_type: str, question: str, image_token: str | None, *, image: bool) -> str:
    """Prompt for a model whose processor has no chat template, the image first.

    A family that is not in the table gets its image token, a line break and the question.
    """
    marker = f"{image_token}\n" if image_token else ""
    with_image, without = _PLAIN_PROMPTS.get(model_type, (marker + "{question}", "{question}"))
    return (with_image if image else without).format(question=question)


def with_answer(prompt: str, answer: str) -> str:
    """Append an answer, behind a blank unless the prompt ends in white space or in a tag such as `<|assistant|>`."""
    blank = "" if not prompt or prompt[-1].isspace() or prompt[-1] == ">" else " "
    return prompt + blank + answer


def answer_tokens(tokenizer: Any, prompt: str, answer: str) -> tuple[int, ...]:
    """Token ids of an answer where it stands behind the prompt, as `with_answer` puts it.

    Alone it may be other tokens: tokenizers such as Llama 2's put a blank before every text.
    """
    answered = with_answer(prompt, answer)
    before, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answered))
    if whole[: len(before)] == before:
        return tuple(whole[len(before) :])
    return tuple(tokenizer(answered.removeprefix(prompt), add_special_tokens=False)["input_ids"])
