"""What asking a served model will cost, told before it is asked."""

from dataclasses import asdict, dataclass
from typing import Any

PIXELS_PER_TOKEN = 750
FEWEST_PICTURE_TOKENS = 258
CHARACTERS_PER_TOKEN = 4
FRAME_TOKENS = 12
"""Of the chat template around a question."""


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any one currency."""

    input: float = 0.0
    output: float = 0.0

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """Cost of so many tokens."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What asking will take.

    Attributes
    ----------
    questions
        How many there are.
    kept
        How many of them were answered before and cost nothing.
    input_tokens, output_tokens
        Of those that are still to be asked.
    cost
        Of those tokens, in the currency of the prices; 0 where no price was given.
    measured
        Whether the tokens are reckoned from responses of this model. If not, they are a rough guess, and the output
        tokens the most that are allowed.
    """

    questions: int
    kept: int
    input_tokens: int
    output_tokens: int
    cost: float
    measured: bool

    def __str__(self) -> str:
        """Say it in one line."""
        ask = self.questions - self.kept
        if not ask:
            return f"all {self.questions:,} questions were answered before; asking again costs nothing"
        kept = f" ({self.kept:,} more were answered before)" if self.kept else ""
        basis = (
            "as its earlier responses"
            if self.measured
            else "a rough guess: models count pictures differently"
        )
        cost = f", costs about {self.cost:,.2f}" if self.cost else ""
        return (
            f"{ask:,} questions to ask{kept}: about {self.input_tokens:,} tokens in and "
            f"{'' if self.measured else 'at most '}{self.output_tokens:,} out ({basis}){cost}"
        )

    def json(self) -> dict[str, Any]:
        """Return all numbers."""
        return asdict(self)


def guess_tokens(width: int, height: int, text: str) -> float:
    """Input tokens of a question about a picture of so many pixels.

    Notes
    -----
    Claude counts `width * height / 750`; Gemini counts 258 for a small picture and for each tile of 768 pixels of a
    larger one; GPT-4o counts 85 and 170 for each tile of 512 pixels. The larger of the first two is taken. Some models
    are far from it (GPT-4o mini counts 33 times as many, at a lower price).
    """
    picture = max(FEWEST_PICTURE_TOKENS, width * height / PIXELS_PER_TOKEN)
    return picture + len(text) / CHARACTERS_PER_TOKEN + FRAME_TOKENS
