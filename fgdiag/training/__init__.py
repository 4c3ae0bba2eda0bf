"""Train an assembled VLM on labelled images: its projector, its encoder, its LLM, one after the other or together.

The loss falls on the tokens of answers only, and the head is applied to those only. While the encoder stays as it is,
it sees each image once: what the projector is fed is kept on disk.
"""

from fgdiag.training.lessons import KINDS, Teaching, source_and_question
from fgdiag.training.plan import PARTS, Plan, Stage
from fgdiag.training.train import train

__all__ = ["KINDS", "PARTS", "Plan", "Stage", "Teaching", "source_and_question", "train"]
