"""One question put to a model about images, and what there is to record of it."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from fgdiag.batches import PIXELS_SIDE
from fgdiag.errors import FgdiagError
from fgdiag.hooks import capture, tokens_vary
from fgdiag.memory import no_memory
from fgdiag.progress import say
from fgdiag.readouts import TokensVary, checked_token_sites, fitting_together, telling_token_sites
from fgdiag.recording import Place
from fgdiag.sites import READOUTS, TOKENS, Readout, Site

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

PIXELS: Place = ("pixels", "image")
TOKEN_BYTES = 4 * 10**9
"""Most that the image tokens kept by `tokens="auto"` may take."""


class Refused(FgdiagError, ValueError):
    """The processor of the model cannot take these images, a very narrow one for instance."""


class Forward:
    """One question put to a model about a batch of images, with the sites it is watched at.

    Attributes
    ----------
    widths
        Length of the vectors at each place.
    grids
        (tokens, width) at each site whose image tokens are kept one by one.
    """

    def __init__(
        self,
        vlm: "VLM",
        prompt: str,
        sites: Sequence[str] | None,
        readouts: tuple[Readout, ...],
        tokens: Sequence[str] | None,
        images: int,
    ) -> None:
        """Find what there is to record; with `tokens=None`, of which sites the tokens are to be kept."""
        self.vlm, self.sites, self.readouts = vlm, sites, readouts
        self.text, self.images = vlm.chat(prompt), images
        self.tokens = self._choose_tokens(tokens)
        shapes = {place: values.shape[1:] for place, values in self([blank()]).items()}
        self.widths = {place: shape[0] for place, shape in shapes.items() if place[1] != TOKENS}
        self.grids = {site: shapes[site, TOKENS] for site in self.tokens}
        if tokens is None:
            self._leave_out_what_is_too_much()

    def __call__(self, pictures: Sequence[Image.Image]) -> dict[Place, np.ndarray]:
        """Return (pictures, width) float32 for each place, (pictures, tokens, width) float16 for tokens."""
        with torch.inference_mode():
            try:
                inputs = self.vlm.inputs(pictures, self.text)
            except Exception as error:
                if no_memory(error):
                    raise
                raise Refused(_one_line(error)) from error
            found = capture(self.vlm, inputs, sites=self.sites, readouts=self.readouts, tokens=self.tokens)
            return {place: values.cpu().numpy() for place, values in found.items()}

    def made_of(self) -> dict[str, Any]:
        """What of the manifest is decided by the question and the sites."""
        by_site: dict[str, list[str]] = {PIXELS[0]: [PIXELS[1]]}
        for site, readout in sorted(self.widths, key=lambda place: READOUTS.index(place[1])):  # pyright: ignore[reportArgumentType]
            by_site.setdefault(site, []).append(readout)
        widths = {site: width for (site, _), width in self.widths.items()} | {PIXELS[0]: 3 * PIXELS_SIDE**2}
        return {
            "text": self.text,
            "sites": [
                {"site": site, "width": widths[site], "readouts": by_site[site]}
                | ({TOKENS: self.grids[site][0]} if site in self.grids else {})
                for site in sorted(by_site, key=Site.parse)
            ],
        }

    def say_tokens(self) -> None:
        """Say how much room the tokens will take."""
        if self.grids:
            size = sum(map(self._token_bytes, self.grids))
            say(f"keeping every image token at {', '.join(self.grids)}: {size / 1e9:.2g} GB")

    def _choose_tokens(self, asked: Sequence[str] | None) -> list[str]:
        """Sites whose tokens are asked for; with None the most telling ones, where the model can give them."""
        anatomy = self.vlm.anatomy
        specs = [anatomy.site(name) for name in (anatomy.default_sites if self.sites is None else self.sites)]
        names = telling_token_sites(specs) if asked is None else checked_token_sites(asked, specs)
        if not names or not tokens_vary(self.vlm, self.text):
            return names
        words = (
            f"{self.vlm.name} has more image tokens for some images than for others, so they cannot be kept"
        )
        if asked is not None:
            raise TokensVary(f"{words}. Leave `tokens` out.")
        say(f"{words} one by one.")
        return []

    def _leave_out_what_is_too_much(self) -> None:
        """Keep the tokens of the most telling sites that fit together."""
        kept = fitting_together({site: self._token_bytes(site) for site in self.tokens}, most=TOKEN_BYTES)
        if left_out := [site for site in self.tokens if site not in kept]:
            limit = f"{TOKEN_BYTES / 1e9:.0f} GB"
            say(
                f"not keeping the image tokens at {', '.join(left_out)}: all of them would take more than {limit}"
            )
        self.tokens, self.grids = kept, {site: self.grids[site] for site in kept}

    def _token_bytes(self, site: str) -> int:
        return 2 * self.images * prod(self.grids[site])


def blank() -> Image.Image:
    """A grey image: enough to learn which sites fire, and how wide they are."""
    return Image.new("RGB", (224, 224), (127, 127, 127))


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
