"""Whether the model picks the right class among a few, by its letters and by its words, and whether places sway it."""

import json
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.store import Run
from fgdiag_probes.asking import Reply, Respondent
from fgdiag_probes.choices import OPTIONS, choice_questions, chosen_in
from fgdiag_probes.intervals import Estimates, accuracies, clustered_means, holm
from fgdiag_probes.kept_replies import replies_of
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.miners import Distractors, Miner
from fgdiag_probes.said_figures import draw_accuracy, draw_positions

if TYPE_CHECKING:
    from fgdiag.images import ImageSet

By = Literal["letters", "rotated", "text"]
BY_WORDS: dict[By, str] = {
    "letters": "likeliest letter",
    "rotated": "likeliest letter, orders together",
    "text": "generated text",
}
UNTOLD = -30.0
"""Nats taken for a letter that a served model does not tell of."""


@dataclass(frozen=True)
class MultipleChoice:
    """What was chosen, question by question.

    Attributes
    ----------
    table
        The columns of `ChoiceQuestions.table`, with `text` as it was generated, `letters` (log-probabilities in nats,
        or None), and the positions chosen `by_letters` and `by_text`; -1 where none was.
    respondent
        Who was asked.
    distractors
        How the wrong classes were chosen.
    tested
        Test images of the run, of which those in the table were asked about.
    """

    table: pd.DataFrame
    respondent: str
    distractors: str
    tested: int

    @classmethod
    def read(cls, run: Run, folder: str = "") -> Self:
        """Read back what `multiple_choice` kept; `RunIncomplete` where it has not been asked."""
        return cls(run.read_table(f"{folder}choices"), **run.read_json(f"{folder}choices")["asked"])

    @property
    def levels(self) -> list[Level]:
        """Levels asked about."""
        return [level for level in get_args(Level) if (self.table["level"] == level).any()]

    @property
    def ways(self) -> list[By]:
        """Ways of scoring there are; without letters, by text alone."""
        told = all(logs is not None for logs in self.table["letters"])
        return ["letters", "rotated", "text"] if told else ["text"]

    def per_image(self, level: Level, by: By) -> pd.Series:
        """Share of the questions about an image answered rightly, in [0, 1], by row of the run.

        `rotated` is one answer an image and wording, by the mean log-probability of each option over all places that
        it stood at, which cancels a liking for a place (cyclic permutation; Zheng et al. 2024, arXiv 2309.03882).
        """
        return _per_image(self._at(level), by)

    def correct(self, rows: np.ndarray, level: Level, by: By = "rotated") -> np.ndarray:
        """(rows,) float, `per_image` of these rows of the run; NaN where an image was not asked about."""
        return self.per_image(level, by).reindex(rows).to_numpy(float)

    def frame(self) -> pd.DataFrame:
        """One row a level and way of scoring.

        `accuracy` in [0, 1] with its 95 % interval `low` to `high`, clustered by fine class; `chance`; `images`;
        `between_wordings` and `between_orders`, the standard deviation of the accuracy when only one wording, or one
        order of the options, had been asked (NaN where there is one; orders on images with as many options as there
        are at most, as the others were asked in fewer); `undecided`, the share of texts that choose
        no option.
        """
        return pd.DataFrame([self._row(level, by) for level in self.levels for by in self.ways])

    def sweep(self) -> pd.DataFrame:
        """Accuracy for each `level`, `by`, `wording` and `order` of the options had only that been asked.

        Of images with as many options as there are at most, for only they were asked in every order.
        """
        found = []
        for level in self.levels:
            rows = _full(self._at(level))
            for wording, order in product(np.unique(rows["wording"]), np.unique(rows["order"])):
                part = rows.query("wording == @wording and order == @order")
                one = {"level": level, "wording": int(wording), "order": int(order)}
                found += [
                    {**one, "by": by, "accuracy": _accuracy(part, by)} for by in self.ways if by != "rotated"
                ]
        return pd.DataFrame(found)

    def differences(self) -> pd.DataFrame:
        """Paired differences in points between ways of scoring, on the same images: `level`, `of`, `against`."""
        found = []
        for level in self.levels:
            for of, against in (("rotated", "letters"), ("text", "letters")):
                if of in self.ways and against in self.ways:
                    values = self.per_image(level, of) - self.per_image(level, against)
                    estimate = clustered_means(
                        100 * values.to_numpy()[None], self._clusters(values), step=100
                    )
                    found.append({"level": level, "of": of, "against": against, **_interval(estimate)})
        return pd.DataFrame(found)

    def positions(self) -> pd.DataFrame:
        """How places sway the choice: one row a level, way of scoring and `position`.

        `chosen`: share of the questions in which it was; without sway it is the share of questions in which the right
        option stood there, 1 / options. `prior`: mean probability of its letter among the letters. `accuracy` where
        the right option stood there, and `difference` in points to the mean over all places, paired, with `low`, `high`
        and a `p_value` that is Holm-corrected over the places of a level. Images with fewer options are left out.
        """
        ways: list[By] = [by for by in self.ways if by != "rotated"]
        tables = [_sway(self._at(level), by) for level in self.levels for by in ways]
        return pd.concat(tables, ignore_index=True)

    def figure(self) -> go.Figure:
        """Draw the accuracy by level and way of scoring, with intervals and chance."""
        words = {by: BY_WORDS[by] for by in self.ways}
        return draw_accuracy(self.frame(), words, "The right class is chosen among a few")

    def position_figure(self) -> go.Figure:
        """Draw how often each place is chosen."""
        return draw_positions(self.positions())

    def json(self) -> dict[str, Any]:
        """Return everything but the single questions as plain values."""
        tables = {
            "accuracy": self.frame(),
            "differences": self.differences(),
            "positions": self.positions(),
            "sweep": self.sweep(),
        }
        return {
            "asked": self._asked(),
            "images": len(np.unique(self.table["row"])),
            "questions": len(self.table),
            **{name: json.loads(str(table.to_json(orient="records"))) for name, table in tables.items()},
        }

    def _asked(self) -> dict[str, Any]:
        return {"respondent": self.respondent, "distractors": self.distractors, "tested": self.tested}

    def _at(self, level: Level) -> pd.DataFrame:
        return self.table.query("level == @level")

    def _clusters(self, values: pd.Series) -> np.ndarray:
        return self.table.drop_duplicates("row").set_index("row")["fine"].reindex(values.index).to_numpy(str)

    def _row(self, level: Level, by: By) -> dict[str, Any]:
        rows, values = self._at(level), self.per_image(level, by)
        shares = accuracies(values.to_numpy()[None], self._clusters(values))
        return {
            "level": level,
            "by": by,
            **{name: share[0] for name, share in shares.items()},
            "chance": float(np.mean(_mean_by(rows["row"].to_numpy(), 1 / _sizes(rows)))),
            "images": len(values),
            "between_wordings": _spread(rows, by, "wording"),
            "between_orders": np.nan if by == "rotated" else _spread(_full(rows), by, "order"),
            "undecided": float(np.mean(rows["by_text"] < 0)) if by == "text" else 0.0,
        }


def multiple_choice(
    run: Run,
    respondent: Respondent,
    images: "ImageSet",
    *,
    options: int = OPTIONS,
    distractors: Distractors = "text",
    features: np.ndarray | None = None,
    features_of: str = "",
    wordings: int = 1,
    examples: int = 0,
    sample: int | None = None,
    seed: int = 0,
    folder: str = "",
) -> MultipleChoice:
    """Ask about test images which of a few classes they show; write `results/choices.parquet` and `.json`.

    Parameters
    ----------
    respondent
        Who answers.
    images
        The images of the run.
    options, wordings, examples, sample, seed
        See `choice_questions`.
    distractors
        How wrong classes are chosen, see `fgdiag_probes.miners.MINED`.
    features
        (images, width) for the distractors `image`. Default: raw pixels, as the run has recorded them.
    features_of
        What these features are, in words.
    folder
        Put before the name of the result, where another than the run's model is asked: `gpt/`.
    """
    labels = Labels.of(run, seed=seed)
    if distractors == "image" and features is None:
        features, features_of = run.activations("pixels", "image"), "raw pixels"
    miner = Miner.of(distractors, labels, features, features_of)
    asked = choice_questions(
        run,
        images,
        labels,
        miner,
        options=options,
        wordings=wordings,
        examples=examples,
        sample=sample,
        seed=seed,
    )
    replies = replies_of(run, respondent, asked.questions, asked.pictures, doing="asking to choose")
    found = MultipleChoice(chosen(asked.table, replies), respondent.name, miner.how, len(labels.test))
    run.write_table(f"{folder}choices", found.table)
    run.write_json(f"{folder}choices", found.json())
    return found


def chosen(table: pd.DataFrame, replies: list[Reply]) -> pd.DataFrame:
    """Add what was replied to a table of questions, and which positions that chooses."""
    letters = [None if reply.letters is None else list(reply.letters) for reply in replies]
    by_text = [chosen_in(reply.text, of) for reply, of in zip(replies, table["options"], strict=True)]
    by_letters = [-1 if logs is None or np.isneginf(logs).all() else int(np.argmax(logs)) for logs in letters]
    texts = [reply.text for reply in replies]
    return table.assign(text=texts, letters=letters, by_letters=by_letters, by_text=by_text)


def _per_image(rows: pd.DataFrame, by: By) -> pd.Series:
    if by == "rotated":
        return _together(rows)
    return _mean_by(rows["row"].to_numpy(), rows[f"by_{by}"].to_numpy() == rows["right"].to_numpy())


def _together(rows: pd.DataFrame) -> pd.Series:
    """Whether the option likeliest over all orders is the right one; the mean over wordings, by image."""
    evidence: dict[tuple[int, int], dict[str, float]] = {}
    right: dict[tuple[int, int], str] = {}
    columns = (rows[name] for name in ("row", "wording", "options", "letters", "right"))
    for row, wording, options, logs, place in zip(*columns, strict=True):
        total = evidence.setdefault((row, wording), {})
        right.setdefault((row, wording), options[place])
        for name, log in zip(options, among(logs), strict=True):
            total[name] = total.get(name, 0.0) + log
    hits = [max(total, key=lambda name: total[name]) == right[key] for key, total in evidence.items()]
    return _mean_by(np.array([row for row, _ in evidence]), np.array(hits))


def _mean_by(rows: np.ndarray, hits: np.ndarray) -> pd.Series:
    images, codes = np.unique(rows, return_inverse=True)
    return pd.Series(np.bincount(codes, hits) / np.bincount(codes), index=images)


def _accuracy(rows: pd.DataFrame, by: By) -> float:
    return float(np.mean(_per_image(rows, by)))


def _spread(rows: pd.DataFrame, by: By, over: str) -> float:
    """Standard deviation of the accuracy between the values of a column; NaN where there is one."""
    values = np.unique(rows[over])
    found = [_accuracy(rows.query(f"{over} == @value"), by) for value in values]
    return float(np.std(found, ddof=1)) if len(found) > 1 else np.nan


def _full(rows: pd.DataFrame) -> pd.DataFrame:
    """Questions of as many options as there are at most: only their images were asked in every order."""
    sizes = _sizes(rows)
    return rows.iloc[np.flatnonzero(sizes == sizes.max())]


def _sizes(rows: pd.DataFrame) -> np.ndarray:
    """Options of each question."""
    return np.array([len(options) for options in rows["options"]])


def among(logs: Any) -> np.ndarray:
    """Log-probabilities in nats of the letters among each other; a letter that was not told of has a tiny one."""
    logs = np.maximum(np.asarray(logs, float), UNTOLD)
    return logs - np.logaddexp.reduce(logs)


def _sway(rows: pd.DataFrame, by: By) -> pd.DataFrame:
    rows = _full(rows)
    most = len(rows["options"].iloc[0])
    picked, right = rows[f"by_{by}"].to_numpy(), rows["right"].to_numpy()
    by_place = rows.assign(hit=(picked == right).astype(float)).pivot_table("hit", "row", "right")
    clusters = rows.sort_values("row").drop_duplicates("row")["fine"].to_numpy(str)
    off = 100 * (by_place.to_numpy(float) - by_place.to_numpy(float).mean(1, keepdims=True))
    estimate = clustered_means(off.T, clusters, step=100)
    prior = np.exp([among(logs) for logs in rows["letters"]]).mean(0) if by == "letters" else np.nan
    return pd.DataFrame(
        {
            "level": rows["level"].iloc[0],
            "by": by,
            "position": list(ascii_uppercase[:most]),
            "chosen": [float(np.mean(picked == place)) for place in range(most)],
            "prior": prior,
            "accuracy": by_place.to_numpy(float).mean(0),
            "difference": estimate.mean,
            "low": estimate.low,
            "high": estimate.high,
            "p_value": holm(estimate.p_value),
        }
    )


def _interval(estimate: Estimates) -> dict[str, float]:
    return {
        "difference": float(estimate.mean[0]),
        "low": float(estimate.low[0]),
        "high": float(estimate.high[0]),
        "p_value": float(estimate.p_value[0]),
    }
