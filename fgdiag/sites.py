"""Names of the places in a VLM where fgdiag looks.

`vision`        what the projector is fed (whichever encoder layer that is in this model)
`vision.3`      the residual stream after encoder block 3 (0-based)
`projector`     the image embeddings as they enter the LLM
`projector.1`   the same, where a family injects image features at more than one depth
`llm.12`        the residual stream after decoder block 12 (0-based), before the final norm
`llm.norm`      after the final norm, as the language-model head reads it
`pixels`        the image itself, shrunk: a baseline every model must beat

The same string is used in code, on disk, on axes and on the command line.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from fgdiag.errors import SiteNotFound

Part = Literal["pixels", "vision", "projector", "llm"]
Readout = Literal["image", "last", "pre", "cls"]

READOUTS: tuple[Readout, ...] = ("image", "last", "pre", "cls")
TOKENS = "tokens"
"""Under this name a site's image tokens are kept one by one, beside its readouts."""
ATTENTION = "attn"
"""Readout that a probe learns on them: attention to stored tokens. No vectors of it are recorded."""
STAGE_OF_PART: dict[Part, str] = {
    "pixels": "pixels",
    "vision": "vision encoder",
    "projector": "projector",
    "llm": "language model",
}

_PATTERN = re.compile(r"(?:(pixels)|(vision|projector|llm)(?:\.(\d+))?|llm\.(norm))")


@dataclass(frozen=True)
class Site:
    """One place we can look at: `vision.3`, `projector`, `llm.12` or `llm.norm`.

    Examples
    --------
    >>> str(Site("llm", 12))
    'llm.12'
    >>> Site.parse("llm.norm")
    Site(part='llm', index='norm')
    >>> sorted(map(Site.parse, ["llm.norm", "llm.2", "vision", "llm.10", "vision.0"]))[0]
    Site(part='vision', index=0)
    """

    part: Part
    index: int | Literal["norm"] | None = None

    def __str__(self) -> str:
        return self.part if self.index is None else f"{self.part}.{self.index}"

    def __lt__(self, other: "Site") -> bool:
        return self.depth < other.depth

    @property
    def depth(self) -> tuple[int, float]:
        """Sort key along the forward pass; `vision` comes after the encoder blocks it is read from."""
        parts = list(STAGE_OF_PART)
        last = float("inf")
        return parts.index(self.part), last if self.index in (None, "norm") else float(self.index)

    @property
    def stage(self) -> str:
        """`vision encoder`, `projector` or `language model` (`pixels` for the baseline)."""
        return STAGE_OF_PART[self.part]

    @classmethod
    def parse(cls, name: str) -> "Site":
        """Read a site back from its name; `SiteNotFound` where it is none."""
        match = _PATTERN.fullmatch(name)
        if match is None:
            raise SiteNotFound(
                f"{name!r} is not the name of a site; expected `vision`, `projector`, `llm.norm`, "
                "or one of them with a number, such as `llm.12`."
            )
        pixels, part, index, norm = match.groups()
        if norm:
            return cls("llm", "norm")
        return cls(cast(Part, pixels or part), None if index is None else int(index))
