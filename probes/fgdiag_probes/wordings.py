"""The same question in other words: one wording is one draw, and what a model says may hang on it."""

from collections.abc import Sequence
from string import ascii_uppercase

from fgdiag.prompts import COARSE_QUESTION, spoken
from fgdiag_probes.labels import Level

CHOICE = (
    "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
    "Look at the picture and choose the option that fits best.\n{question}\n{options}\nReply with one letter.",
    "Question: {question}\nOptions:\n{options}\nWhich option is right? Say only its letter.",
    "{options}\n{question} Give the letter of the right answer.",
)
"""The first is that of LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744)."""

FREE: dict[Level, tuple[str, ...]] = {
    "fine": (
        "{prompt}",
        "What type of object is in this photo?",
        "Name exactly what is shown in this picture.",
        "Which one is this? Be as precise as you can.",
    ),
    "coarse": (
        COARSE_QUESTION,
        "What sort of thing is shown here?",
        "Name the kind of thing in this picture.",
        "In one word or two, what is this?",
    ),
    "fine|coarse": (
        "Which {kind} exactly is this?",
        "This is a kind of {kind}. {prompt}",
        "Name exactly the {kind} shown in this picture.",
        "The picture shows {kind}. Which one is it? Be as precise as you can.",
    ),
}
"""Free text; among look-alikes the model is told the kind. "What type of object..." is that of arXiv 2405.18415."""
MOST = len(CHOICE)
"""Wordings there are of every question."""


def choice_text(question: str, names: Sequence[str], wording: int) -> str:
    """Write a question with lettered options.

    Examples
    --------
    >>> print(choice_text("What is this?", ["Barn-Owl", "Tit"], 3))
    A. Barn Owl
    B. Tit
    What is this? Give the letter of the right answer.
    """
    lines = [f"{letter}. {spoken(name)}" for letter, name in zip(ascii_uppercase, names, strict=False)]
    return CHOICE[wording].format(question=question, options="\n".join(lines))


def free_text(level: Level, prompt: str, kind: str, wording: int) -> str:
    """Write a question that any words may answer.

    Parameters
    ----------
    prompt
        The run's own question.
    kind
        Coarse class of the image, told where the question is which of its kind it is.
    """
    return FREE[level][wording].format(prompt=prompt, kind=spoken(kind).lower())
