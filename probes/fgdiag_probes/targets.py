"""What a map explains: one number that a VLM computes about a picture, through which gradients flow.

The log-likelihood of a class name, or its log-odds against another; the logit of a linear probe at any site, or the
difference of two; the log-probability of the letter of a multiple-choice answer. A target of two classes is a contrast:
what speaks for the first is positive, what speaks for the second negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Protocol, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from fgdiag.errors import ClassNotFound, RunIncomplete, SiteNotFound
from fgdiag.hooks import capture
from fgdiag.prompts import FINE_QUESTION, spoken
from fgdiag.sites import ATTENTION
from fgdiag.store import Run
from fgdiag_probes.curves import FOLDS, resolution_of
from fgdiag_probes.in_process import InProcess
from fgdiag_probes.labels import Labels
from fgdiag_probes.likelihood import answer_ids
from fgdiag_probes.linear import LinearProbe, fit_at, fit_probe
from fgdiag_probes.name_scoring import logits_behind_prompt, logits_of_decoder
from fgdiag_probes.wordings import choice_text

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


class Target(Protocol):
    """One number about a picture."""

    @property
    def question(self) -> str:
        """What the model is asked, without chat template."""
        ...

    @property
    def words(self) -> str:
        """What the number is, to be read."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The class it speaks for and, in a contrast, the one it speaks against; as they are spoken."""
        ...

    @property
    def key(self) -> str:
        """Differs between any two targets that differ."""
        ...

    def scores(self, vlm: "VLM", inputs: Mapping[str, Any]) -> Tensor:
        """(pictures,) float32 for a batch as `vlm.inputs` prepares it, without padding."""
        ...


@dataclass(frozen=True)
class NameTarget:
    """Log-likelihood of a class name as the answer, in nats, summed over its tokens; or how much it exceeds another's.

    Attributes
    ----------
    name, against
        Class names as they are spoken; `against` None for the likelihood of `name` alone.
    question
        What is asked.
    """

    name: str
    against: str | None = None
    question: str = FINE_QUESTION

    @property
    def classes(self) -> tuple[str, ...]:
        """See `Target`."""
        return (self.name,) if self.against is None else (self.name, self.against)

    @property
    def words(self) -> str:
        """See `Target`."""
        if self.against is None:
            return f"log-likelihood of “{self.name}” (nats)"
        return f"log-odds of “{self.name}” against “{self.against}” (nats)"

    @property
    def key(self) -> str:
        """See `Target`."""
        return f"{self.words} {self.question}"

    def scores(self, vlm: "VLM", inputs: Mapping[str, Any]) -> Tensor:
        """See `Target`."""
        first = _log_likelihood(vlm, inputs, self.question, self.name)
        return (
            first
            if self.against is None
            else first - _log_likelihood(vlm, inputs, self.question, self.against)
        )


def _log_likelihood(vlm: "VLM", inputs: Mapping[str, Any], question: str, name: str) -> Tensor:
    ids = answer_ids(vlm, vlm.chat(question), name)
    decodes = getattr(vlm.model.config.get_text_config(), "is_encoder_decoder", False)
    logits = (logits_of_decoder if decodes else logits_behind_prompt)(vlm, inputs, ids)[:, -len(ids) :]
    at = torch.tensor(ids, device=logits.device)[None, :, None].expand(len(logits), -1, 1)
    return logits.float().log_softmax(-1).gather(2, at).sum((1, 2))


@dataclass(frozen=True, eq=False)
class ProbeTarget:
    """Logit of a class in a linear probe, or how much it exceeds that of another class.

    Attributes
    ----------
    site, readout
        Where the probe reads.
    classes
        See `Target`.
    weights, bias
        (width,) float32 and a number: the logit is `vector @ weights + bias`.
    question
        What is asked.
    """

    site: str
    readout: str
    classes: tuple[str, ...]
    weights: Tensor
    bias: float
    question: str = FINE_QUESTION

    @classmethod
    def of(
        cls,
        probe: LinearProbe,
        site: str,
        readout: str,
        name: str,
        against: str | None = None,
        *,
        question: str = FINE_QUESTION,
    ) -> Self:
        """Take the logit of a class out of a fitted probe.

        Parameters
        ----------
        name, against
            Classes of the probe.

        Raises
        ------
        ClassNotFound
            The probe does not know such a class.
        """
        known = [str(one) for one in probe.classes]
        for asked in filter(None, (name, against)):
            if asked not in known:
                raise ClassNotFound(
                    f"The probe at {site} knows no class {asked!r}; it has {', '.join(known[:5])}, ..."
                )
        row = probe.weights[known.index(name)].double()
        if against is not None:
            row = row - probe.weights[known.index(against)].double()
        scale = torch.from_numpy(1 / probe.basis.scale)
        weights = scale * (probe.basis.rotation @ row[:-1])
        bias = float(row[-1] - weights @ torch.from_numpy(probe.basis.mean))
        classes = tuple(spoken(one) for one in (name, against) if one is not None)
        return cls(site, readout, classes, weights.float(), bias, question)

    @property
    def words(self) -> str:
        """See `Target`."""
        first, *others = self.classes
        against = f" against “{others[0]}”" if others else ""
        return f"logit of “{first}”{against} in the probe at {self.site} ({self.readout})"

    @property
    def key(self) -> str:
        """See `Target`."""
        weights = blake2b(self.weights.numpy().tobytes(), digest_size=8).hexdigest()
        return f"{self.words} {self.question} {weights}"

    def scores(self, vlm: "VLM", inputs: Mapping[str, Any]) -> Tensor:
        """See `Target`."""
        place = (self.site, self.readout)
        found = capture(vlm, inputs, sites=[self.site], readouts=[self.readout], gradients=True)
        if place not in found:
            raise SiteNotFound(f"No readout {self.readout!r} at {self.site} of {vlm.name}.")
        return found[place] @ self.weights.to(found[place].device) + self.bias


def probe_of(run: Run, site: str, readout: str, *, seed: int = 0) -> LinearProbe:
    """Fit the probe of a run at one place for its fine classes, with the penalty that `probe_layers` chose there.

    Where the run has not been probed, the penalty is chosen by cross-validation.
    """
    labels = Labels.of(run, seed=seed)
    vectors = run.activations(site, readout)[labels.train]
    names, resolution = labels.fine_names[labels.fine[labels.train]], resolution_of(run, site)
    chosen = [row["penalty"] for row in _probed(run, site) if row["readout"] == readout]
    if chosen:
        return fit_at(vectors, names, chosen[0], resolution=resolution)
    return fit_probe(vectors, names, folds=labels.folds(folds=FOLDS, seed=seed), resolution=resolution)


def best_readout(run: Run, site: str) -> str:
    """Readout of a site that names fine classes best on held-out training images; the first where none was probed.

    Tokens before the image see nothing of it, and a class token that the projector is not fed is a dead end.
    """
    mute = {"pre", ATTENTION, *([] if run.manifest.get("class_token_fed", True) else ["cls"])}
    probed = [row for row in _probed(run, site) if row["readout"] not in mute]
    if probed:
        return max(probed, key=lambda row: row["cv_accuracy"])["readout"]
    return next(readout for readout in run.readouts(site) if readout not in mute)


def _probed(run: Run, site: str) -> list[dict[str, Any]]:
    try:
        table = run.read_table("probes")
    except RunIncomplete:
        return []
    return table.query("level == 'fine' and site == @site").to_dict("records")


_letter_tokens: "WeakKeyDictionary[VLM, dict[str, list[int]]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class LetterTarget:
    """Log-probability of a letter as the answer to a multiple-choice question, or how much it exceeds another's.

    Attributes
    ----------
    options
        Class names as they are spoken, in the order of their letters.
    chosen, other
        Positions in `options`; `other` None for the letter alone.
    asked
        The question without its options.
    """

    options: tuple[str, ...]
    chosen: int = 0
    other: int | None = None
    asked: str = FINE_QUESTION

    @property
    def question(self) -> str:
        """See `Target`."""
        return choice_text(self.asked, self.options, 0)

    @property
    def classes(self) -> tuple[str, ...]:
        """See `Target`."""
        return tuple(self.options[at] for at in (self.chosen, self.other) if at is not None)

    @property
    def words(self) -> str:
        """See `Target`."""
        first, *others = (f"{ascii_uppercase[self.options.index(name)]} ({name})" for name in self.classes)
        against = f", against {others[0]}" if others else ""
        return f"log-probability of the letter {first}{against} (nats)"

    @property
    def key(self) -> str:
        """See `Target`."""
        return f"{self.words} {self.question}"

    def scores(self, vlm: "VLM", inputs: Mapping[str, Any]) -> Tensor:
        """See `Target`."""
        first = self._log_probabilities(vlm, inputs)
        return first[:, self.chosen] if self.other is None else first[:, self.chosen] - first[:, self.other]

    def _log_probabilities(self, vlm: "VLM", inputs: Mapping[str, Any]) -> Tensor:
        """(pictures, options)."""
        decodes = getattr(vlm.model.config.get_text_config(), "is_encoder_decoder", False)
        ask = logits_of_decoder if decodes else _last_logits
        logs = ask(vlm, inputs, (0,))[:, -1].float().log_softmax(-1)
        if vlm not in _letter_tokens:
            _letter_tokens[vlm] = InProcess(vlm).letter_tokens
        tokens = _letter_tokens[vlm]
        letters = ascii_uppercase[: len(self.options)]
        return torch.stack([logs[:, tokens[letter]].logsumexp(-1) for letter in letters], 1)


def _last_logits(vlm: "VLM", inputs: Mapping[str, Any], _name: Sequence[int]) -> Tensor:
    return vlm.model(**inputs, use_cache=False, logits_to_keep=1).logits


def chosen_letter(vlm: "VLM", inputs: Mapping[str, Any], options: Sequence[str], asked: str) -> LetterTarget:
    """Target of the letter that the model itself finds likeliest, against the second likeliest.

    Parameters
    ----------
    inputs
        The picture with the question of a `LetterTarget` of these options.
    """
    with torch.no_grad():
        logs = LetterTarget(tuple(options), asked=asked)._log_probabilities(vlm, inputs)[0]
    first, second = np.argsort(-logs.cpu().numpy())[:2].tolist()
    return LetterTarget(tuple(options), first, second, asked)
