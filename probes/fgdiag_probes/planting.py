"""How something is planted in an opened model: by hooks, which are taken out however the work under them ends.

No weight is touched: once the hooks are off, the model is bit for bit what it was. `fgdiag.capture` hangs its own
later, so it records the change at the planted site and behind it, never before.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fgdiag.errors import FgdiagError, SiteNotFound
from fgdiag.sites import Site
from fgdiag_probes.verdict import Stage

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

Change = Callable[[Tensor], Tensor]


class CannotPlant(FgdiagError, ValueError):
    """This fault has no place in this model, or with these class names."""


class Fault(ABC):
    """Something to plant in an opened model.

    Attributes
    ----------
    kind
        What it is, in words.
    stage
        The stage that a verdict must name; `none` for what does no harm.
    site
        The first site that shows it; None where no recorded site does.
    strength
        How strong it is, in the unit of its kind.
    """

    kind: str
    stage: ClassVar[Stage]
    site: str | None
    strength: float

    @property
    def name(self) -> str:
        """Kind, site and strength: one name for one fault, fit for a folder."""
        where = f"-{self.site}" if self.site else ""
        return f"{self.kind.replace(' ', '-')}{where}-{self.strength:g}"

    @contextmanager
    def planted(self, vlm: "VLM") -> Iterator[None]:
        """Have the fault in the model while the block runs, and take it out however the block ends.

        Raises
        ------
        CannotPlant
            The model is built so that this fault has no place in it; from the first forward pass at the latest.
        SiteNotFound
            The fault's site is none of the model's or of the run that the fault is fitted to.
        """
        with ExitStack() as hooks:
            for handle in self._hang(vlm):
                hooks.enter_context(handle)
            yield

    @abstractmethod
    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        """Hang the hooks, one after the other."""


def block_of(vlm: "VLM", site: str) -> nn.Module:
    """Return the block of the language model that gives a site; `SiteNotFound` where the site is no layer of it."""
    if Site.parse(site).part != "llm":
        raise SiteNotFound(f"{site!r} is no layer of the language model; give one such as `llm.12`.")
    return vlm.model.get_submodule(vlm.anatomy.site(site).path)
