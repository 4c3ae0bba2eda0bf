"""Attention pooling finds what a mean hides, and nothing where there is nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fgdiag_probes import attention_pooling
from fgdiag_probes.attention_pooling import BATCH, _balanced, _left_out, attend
from fgdiag_probes.labels import Labels
from fgdiag_probes.reading import Readings, read

from tests.probes.labelled import labelled

CLASSES, PER_KIND, EACH, TESTED, TOKENS, WIDTH = 12, 3, 60, 20, 64, 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def planted(*, marked: float = 0.0, everywhere: float = 0.0, seed: int = 0) -> tuple[np.ndarray, Labels]:
    """Noise of variance 1, with the class in one marked token at a random place, or in all tokens alike."""
    rng = np.random.default_rng(seed)
    fine = np.tile(np.arange(CLASSES), EACH)
    tokens = rng.standard_normal((len(fine), TOKENS, WIDTH))
    directions = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    code, mark = directions[:CLASSES], directions[-1]
    if marked:
        tokens[np.arange(len(fine)), rng.integers(TOKENS, size=len(fine))] += marked * (code[fine] + mark)
    tokens += everywhere * code[fine][:, None]
    test = np.repeat(np.arange(EACH) < TESTED, CLASSES)
    labels = labelled(fine, test, kind_of=np.arange(CLASSES) // PER_KIND)
    return (5.0 + 3.0 * tokens).astype(np.float16), labels


def by_mean(tokens: np.ndarray, labels: Labels, folds: np.ndarray) -> Readings:
    return read(tokens.astype(np.float32).mean(1), labels, folds, resolution=0.0)


def accuracy(readings: Readings, labels: Labels) -> dict[str, float]:
    return {level: float(found.correct(labels, level).mean()) for level, found in readings.items()}


@pytest.fixture(scope="module")
def marked() -> tuple[np.ndarray, Labels, np.ndarray, Readings]:
    tokens, labels = planted(marked=7.0)
    folds = labels.folds(folds=3, seed=0)
    return tokens, labels, folds, attend(tokens, labels, folds, seed=0)


def test_a_mark_in_one_token_of_many_is_found(marked) -> None:
    tokens, labels, folds, found = marked
    hidden = accuracy(by_mean(tokens, labels, folds), labels)
    assert hidden["fine"] < 0.5
    seen = accuracy(found, labels)
    assert seen["fine"] > 0.9
    assert seen["fine|coarse"] > 0.9
    assert seen["coarse"] > 0.9


def test_the_choice_is_what_images_it_has_not_seen_say(marked) -> None:
    _, labels, _, found = marked
    for level, score in accuracy(found, labels).items():
        choice = found[level].choice
        assert choice is not None
        assert choice.accuracy == pytest.approx(score, abs=0.06)
        assert choice.bits == pytest.approx(float(found[level].bits.mean()), abs=0.25)


def test_the_same_seed_gives_the_same(marked) -> None:
    tokens, labels, folds, found = marked
    again = attend(tokens, labels, folds, seed=0)
    for level, reading in found.items():
        np.testing.assert_array_equal(again[level].said, reading.said)
        np.testing.assert_array_equal(again[level].bits, reading.bits)


def test_what_does_not_fit_into_memory_is_read_from_disk_to_the_same_end(marked, monkeypatch) -> None:
    tokens, labels, folds, found = marked
    monkeypatch.setattr(attention_pooling, "MEMORY", 1000)
    again = attend(tokens, labels, folds, seed=0)
    np.testing.assert_array_equal(again["fine"].bits, found["fine"].bits)


def test_rows_in_neither_split_are_not_looked_at(marked) -> None:
    tokens, labels, folds, found = marked
    unused = np.full((1, TOKENS, WIDTH), np.nan, np.float16)
    one_more = {name: np.append(getattr(labels, name), -1) for name in ("fine", "coarse")}
    longer = replace(labels, **one_more, groups=np.append(labels.groups, "none"))
    again = attend(np.concatenate([tokens, unused]), longer, folds, seed=0)
    np.testing.assert_array_equal(again["fine"].said, found["fine"].said)


def test_where_the_mean_is_best_little_is_lost() -> None:
    tokens, labels = planted(everywhere=0.35)
    folds = labels.folds(folds=3, seed=0)
    mean = accuracy(by_mean(tokens, labels, folds), labels)
    found = accuracy(attend(tokens, labels, folds, seed=0), labels)
    assert 0.6 < mean["fine"] < 0.95
    for level, score in found.items():
        assert score > mean[level] - 0.05


def test_without_a_signal_it_is_at_chance() -> None:
    tokens, labels = planted()
    found = attend(tokens, labels, labels.folds(folds=3, seed=0), seed=0)
    deviation = (1 / CLASSES * (1 - 1 / CLASSES) / len(labels.test)) ** 0.5
    assert abs(accuracy(found, labels)["fine"] - 1 / CLASSES) < 4 * deviation
    choice = found["fine"].choice
    assert choice is not None
    assert choice.accuracy < 1 / CLASSES + 0.06


def test_left_out_scores_are_those_of_classifiers_solved_without_the_row() -> None:
    rng = np.random.default_rng(0)
    width = 7
    features = torch.from_numpy(rng.standard_normal((1, 30, (1 + attention_pooling.QUERIES) * width))).float()
    targets = torch.from_numpy(rng.standard_normal((1, 30, 3))).float()
    scores = _left_out(features, targets)
    for row in (0, 13, 29):
        others = torch.arange(30) != row
        X, Y = features[0, others] / width**0.5, targets[0, others]
        weights = torch.linalg.solve(X.T @ X + torch.eye(X.shape[1]), X.T @ Y)
        expected = features[0, row] / width**0.5 @ weights
        torch.testing.assert_close(scores[0, row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("classes", "each"), [(4, 100), (40, 14), (200, 30), (3, 5)])
def test_a_step_sees_several_images_of_many_classes(classes: int, each: int) -> None:
    labels = np.repeat(np.arange(classes), each)
    chosen = _balanced(labels, np.random.default_rng(0))
    counts = np.unique(labels[chosen], return_counts=True)[1]
    assert len(chosen) == len(np.unique(chosen)) == min(BATCH, classes * each)
    assert len(counts) == min(classes, -(-BATCH // 5))
    assert np.median(counts) >= min(5, each)
