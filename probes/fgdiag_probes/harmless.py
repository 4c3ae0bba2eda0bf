"""Changes that do no harm: what a verdict must never name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fgdiag.errors import SiteNotFound
from fgdiag.hooks import changing_output
from fgdiag.sites import Site
from fgdiag_probes.planting import Change, Fault, block_of
from fgdiag_probes.verdict import Stage

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

Basis = Literal["rotated", "rescaled", "permuted"]


@dataclass(frozen=True)
class ChangedBasis(Fault):
    """A site is recorded in another basis, and what reads it next is given the old one back."""

    site: str
    basis: Basis
    seed: int = 0
    strength: ClassVar[float] = 0.0
    stage: ClassVar[Stage] = "none"

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return f"basis {self.basis}"

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        there = self._matrix(vlm.anatomy.site(self.site).width)
        back = torch.linalg.inv(there)
        dtype = vlm.dtype

        def turn(hidden: Tensor) -> Tensor:
            nonlocal dtype
            dtype = hidden.dtype
            # In double precision on its way, so that it comes back to its very bits.
            return hidden.double() @ there.to(hidden.device)

        def turn_back(hidden: Tensor) -> Tensor:
            return (hidden @ back.to(hidden.device)).to(dtype)

        yield changing_output(block_of(vlm, self.site), turn)
        yield _changing_input(_reader(vlm, self.site), turn_back)

    def _matrix(self, width: int) -> Tensor:
        """(width, width) float64, invertible."""
        rng = np.random.default_rng(self.seed)
        if self.basis == "rotated":
            return torch.from_numpy(np.linalg.qr(rng.normal(size=(width, width)))[0])
        if self.basis == "permuted":
            return torch.eye(width, dtype=torch.float64)[rng.permutation(width)]
        return torch.diag(torch.from_numpy(2.0 ** rng.integers(-3, 4, width)))


def _changing_input(module: nn.Module, change: Change) -> RemovableHandle:
    def hook(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _reader(vlm: "VLM", site: str) -> nn.Module:
    """What is given the residual stream next: the following block, or the final norm."""
    layers = [spec for spec in vlm.anatomy.sites if spec.site.part == "llm"]
    following = [spec.path for spec in layers if Site.parse(site) < spec.site]
    if not following:
        raise SiteNotFound(
            f"Nothing that can be hooked reads {site!r}; give an earlier layer, such as `llm.0`."
        )
    return vlm.model.get_submodule(following[0])
