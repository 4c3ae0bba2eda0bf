"""Attention pooling: a readout that learns which of a site's image tokens to look at.

A mean over the tokens hides a mark that stands in a few of them. Here learned queries weigh the tokens by a
softmax (attention pooling of Ilse et al. 2018; queries without key or value maps as in Psomas et al. 2025), and
the mean and the weighted means together are what is read. A head trained along with the queries soon knows
the training images by heart and teaches the queries nothing more. So they are trained on images left out: the
head is a ridge classifier, solved anew on the images of each step (Bertinetto et al. 2019), and the loss is the
cross-entropy of its leave-one-out scores, which have a closed form (Allen 1974).

Every cross-validation fold has queries of its own, which never saw its images. All folds learn in the same pass.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Reading, Readings, choice_of, read

QUERIES = 4
STEPS, CHECK_EVERY, PATIENCE = 120, 20, 2
"""Steps at most, and checks without a gain on held-out images after which no more are made."""
RATE = 0.1
BATCH, PER_CLASS = 192, 5
"""Images of a step; so many of a class, or more where there are few classes."""
PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01)
"""Of the ridge classifier, on the mean square of the features; the queries learn with 1."""
TEMPERATURES = tuple(2.0**power for power in range(8))
"""Scores of a ridge classifier are near 0 and 1; this many times them are logits."""
SAMPLED_TOKENS = 8192
FLOOR = 0.01
"""Share of the mean variance added to every direction when tokens are whitened."""
MEMORY = 6 * 10**9
"""Bytes of tokens held in memory; more are read from disk at each step."""


class Tokens(Protocol):
    """Image tokens that are read image by image: what `Run.tokens` returns, or a numpy array."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __getitem__(self, row: int, /) -> Any: ...


def attend(
    tokens: Tokens, labels: Labels, folds: np.ndarray, *, seed: int, resolution: float = 0.0
) -> Readings:
    """Read a site through learned attention; the test images are touched here, once.

    Queries are learned for the fine classes; what they pool is read at every level. They stay at the steps that
    held-out training images like best, which may be none: then the ridge classifier reads the mean alone. At a
    level where all this does no better on them than the linear probe on the mean, that is what is returned.

    Peak memory is the tokens themselves, or 6 GB of them at most, and 4 bytes a number for those of 192 images.

    Parameters
    ----------
    tokens
        (images, tokens, width) float16 of the whole run; see `fgdiag.store.Run.tokens`.
    labels
        Who is trained and tested.
    folds
        (train,) fold of each training image.
    seed
        Of the first queries and of the order of the images.
    resolution
        Relative rounding of the tokens; see `fgdiag_probes.linear.Basis.of`.

    Returns
    -------
    Readings
        As of `fgdiag_probes.reading.read`. In `choice`, `penalty` is the ridge penalty, and `converged` says
        that more steps did not help on held-out images. Where the probe on the mean is returned, it is its own.
    """
    held = _Held(tokens, np.concatenate([labels.train, labels.test]))
    by_mean = read(held.means(len(labels.fine)), labels, folds, resolution=resolution)
    by_attention = _Attention(held, labels, folds, seed).readings()
    return {level: max(by_mean[level], by_attention[level], key=_held_out) for level in labels.levels}


def _held_out(reading: Reading) -> float:
    return reading.choice.accuracy if reading.choice else 0.0


class _Held:
    """Tokens of the images in use, in memory where they fit."""

    def __init__(self, tokens: Tokens, rows: np.ndarray):
        self.rows, (count, width) = rows, tokens.shape[1:]
        fits = 2 * len(rows) * count * width <= MEMORY
        self.source = {int(row): np.asarray(tokens[int(row)]) for row in rows} if fits else tokens

    def of(self, rows: np.ndarray) -> Tensor:
        """(rows, tokens, width) float32."""
        return torch.from_numpy(np.stack([self.source[int(row)] for row in rows])).float()

    def means(self, images: int) -> np.ndarray:
        """(images, width) float32: the mean over the tokens; NaN where an image is not in use."""
        found = {int(row): self.of(row[None])[0].mean(0).numpy() for row in self.rows}
        means = np.full((images, len(next(iter(found.values())))), np.nan, np.float32)
        means[self.rows] = [found[int(row)] for row in self.rows]
        return means

    def whitening(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """(width, width) float32 that turns tokens into uncorrelated numbers of variance 1, about."""
        some = rng.permutation(rows)[:256]
        each = -(-SAMPLED_TOKENS // len(some))
        drawn = [self.of(row[None])[0] for row in some]
        sample = torch.cat([image[rng.permutation(len(image))[:each]] for image in drawn]).double()
        variances, directions = torch.linalg.eigh(torch.cov(sample.T))
        return (directions / (variances.clamp_min(0) + FLOOR * variances.mean()).sqrt()).float()


@dataclass(frozen=True)
class _Check:
    """How the queries did after some steps, on training images that they had not seen."""

    queries: Tensor
    """(problems, queries, width); no queries before the first step."""
    last: bool
    """Whether there were no more steps to make."""
    bits: float
    scores: Tensor
    """(penalties, train, classes of both levels) float32."""


class _Attention:
    """The queries of one site: those of each fold, and last those that all training images taught."""

    def __init__(self, held: _Held, labels: Labels, folds: np.ndarray, seed: int):
        self.held, self.labels, self.train = held, labels, labels.train
        self.rng = np.random.default_rng(seed)
        self.fine = labels.fine[self.train]
        fold = torch.from_numpy(folds)
        self.fold = torch.unique(fold, return_inverse=True)[1]
        apart = [self.fold != each for each in range(int(self.fold.max()) + 1)]
        self.seen = torch.stack([*apart, torch.ones_like(apart[0])])
        self.whitening = held.whitening(self.train, self.rng)
        self.targets = torch.cat(
            [_one_hot(labels.codes(level)[self.train]) for level in ("fine", "coarse")], 1
        )

    def readings(self) -> Readings:
        """Learn the queries, stop where held-out images say so, and read the test images."""
        checks = self._learn()
        best = min(checks, key=lambda check: check.bits)
        train = self._pooled(best.queries[-1:], self.train)[0]
        test = self._pooled(best.queries[-1:], self.labels.test)[0]
        scores = _ridge(train, self.targets, test)
        return {level: self._reading(level, best, scores) for level in self.labels.levels}

    def _learn(self) -> list[_Check]:
        problems, width = len(self.seen), len(self.whitening)
        first = 0.5 * torch.from_numpy(self.rng.standard_normal((1, QUERIES, width))).float()
        queries = first.repeat(problems, 1, 1).requires_grad_()
        heat = torch.full((problems, 1, 1), np.log(8.0)).requires_grad_()
        optimiser = torch.optim.Adam([queries, heat], lr=RATE)
        checks = [self._check(queries.detach()[:, :0])]
        for step in range(1, STEPS + 1):
            optimiser.zero_grad()
            self._loss(queries, heat).backward()
            optimiser.step()
            if step % CHECK_EVERY == 0:
                checks.append(self._check(queries.detach().clone(), last=step == STEPS))
                if min(check.bits for check in checks) < min(check.bits for check in checks[-PATIENCE:]):
                    break
        return checks

    def _loss(self, queries: Tensor, heat: Tensor) -> Tensor:
        """Cross-entropy of leave-one-out scores on a few images of many classes, summed over the folds."""
        chosen = _balanced(self.fine, self.rng)
        seen = self.seen[:, chosen].float().unsqueeze(2)
        codes = torch.from_numpy(np.unique(self.fine[chosen], return_inverse=True)[1])
        features = _standardised(self._pool(queries, self.train[chosen]), seen).flatten(2) * seen
        targets = torch.nn.functional.one_hot(codes).float() * seen
        known = seen.sum(1, keepdim=True).clamp_min(1)
        targets = (targets - targets.sum(1, keepdim=True) / known) * seen
        logits = _left_out(features, targets) * heat.exp()
        surprise = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), codes.expand(len(queries), -1), reduction="none"
        )
        return ((surprise.unsqueeze(2) * seen).sum(1, keepdim=True) / known).sum()

    def _check(self, queries: Tensor, *, last: bool = False) -> _Check:
        scores = torch.empty(len(PENALTIES), len(self.train), self.targets.shape[1])
        pooled = self._pooled(queries[:-1], self.train)
        for features, seen in zip(pooled, self.seen[:-1], strict=True):
            scores[:, ~seen] = _ridge(features[seen], self.targets[seen], features[~seen])
        return _Check(queries, last, self._fit(scores, "fine")[0], scores)

    def _fit(self, scores: Tensor, level: Level) -> tuple[float, int, float]:
        """Least bits an image on held-out images, and the penalty (its place) and the temperature that give it."""
        codes = torch.from_numpy(self.labels.codes(level)[self.train])
        tried = [
            (float(torch.nn.functional.cross_entropy(heat * each, codes)) / np.log(2), place, heat)
            for place, each in enumerate(scores[..., self._columns(level)])
            for heat in TEMPERATURES
        ]
        return min(tried)

    def _reading(self, level: Level, best: _Check, scores: Tensor) -> Reading:
        _, place, heat = self._fit(best.scores, level)
        columns = self._columns(level)
        held_out, tested = (heat * found[place][:, columns].numpy() for found in (best.scores, scores))
        choice = choice_of(
            held_out,
            self.labels,
            level,
            penalty=PENALTIES[place],
            at_edge=place in (0, len(PENALTIES) - 1),
            converged=not best.last,
        )
        seen = Reading.of_logits(tested, self.labels, level, self.labels.test)
        return replace(seen, choice=choice)

    def _columns(self, level: Level) -> slice:
        fine = len(self.labels.fine_names)
        return slice(fine, None) if level == "coarse" else slice(fine)

    def _pool(self, queries: Tensor, rows: np.ndarray) -> Tensor:
        """(queries' problems, rows, 1 + queries, width): the mean of the tokens, and what each query makes of them."""
        tokens = self.held.of(rows)
        keys = (queries @ self.whitening.T / len(self.whitening) ** 0.5).flatten(0, 1)
        attention = (tokens @ keys.T).transpose(1, 2).softmax(2)
        pooled = (attention @ tokens).unflatten(1, queries.shape[:2]).transpose(0, 1)
        mean = tokens.mean(1).expand(len(queries), -1, -1).unsqueeze(2)
        return torch.cat([mean, pooled], 2)

    @torch.no_grad()
    def _pooled(self, queries: Tensor, rows: np.ndarray) -> Tensor:
        parts = [self._pool(queries, rows[at : at + 64]) for at in range(0, len(rows), 64)]
        return torch.cat(parts, 1)


def _balanced(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw places of images: some of each of many classes."""
    codes, order = np.unique(classes, return_inverse=True)[1], rng.permutation(len(classes))
    count = codes.max() + 1
    by_class = order[np.argsort(codes[order], kind="stable")]
    nth_of_its_class = np.arange(len(codes)) - np.searchsorted(codes[by_class], codes[by_class])
    few = by_class[nth_of_its_class < max(PER_CLASS, BATCH // count)]
    turn = rng.permutation(count)[codes[few]]
    return np.sort(few[np.argsort(turn, kind="stable")][:BATCH])


def _one_hot(codes: np.ndarray) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(codes)).float()


def _standardised(features: Tensor, seen: Tensor) -> Tensor:
    """Give each feature mean 0 and variance 1 over the rows seen (problems, rows, 1)."""
    share = (seen / seen.sum(1, keepdim=True).clamp_min(1)).unsqueeze(3)
    centred = features - (features * share).sum(1, keepdim=True)
    spread = (centred.square() * share).sum(1, keepdim=True).sqrt()
    return centred / (spread + 1e-3 * spread.mean(3, keepdim=True)).clamp_min(1e-12)


def _left_out(features: Tensor, targets: Tensor) -> Tensor:
    """(problems, rows, classes) scores of each row by the ridge classifier that was solved without it."""
    per_query = features.shape[2] / (1 + QUERIES)
    gram = features @ features.transpose(1, 2) / per_query
    inverse = torch.linalg.inv(gram + torch.eye(gram.shape[1]))
    return targets - inverse @ targets / inverse.diagonal(dim1=1, dim2=2).unsqueeze(2)


def _ridge(features: Tensor, targets: Tensor, others: Tensor) -> Tensor:
    """Solve the ridge classifier and score other rows.

    Parameters
    ----------
    features, others
        (rows, 1 + queries, width) as pooled.
    targets
        (rows, classes) 1 for the right class.

    Returns
    -------
    (penalties, others, classes) float32
    """
    both = torch.cat([features, others]).unsqueeze(0)
    seen = torch.zeros(1, both.shape[1], 1)
    seen[:, : len(features)] = 1.0
    standard = _standardised(both, seen)[0].flatten(1) / features.shape[2] ** 0.5
    known, asked = standard[: len(features)], standard[len(features) :]
    share = targets.mean(0)
    gram, across = known @ known.T, asked @ known.T
    eye = torch.eye(len(gram))
    solutions = [torch.linalg.solve(gram + penalty * eye, targets - share) for penalty in PENALTIES]
    return torch.stack([across @ solution + share for solution in solutions])
