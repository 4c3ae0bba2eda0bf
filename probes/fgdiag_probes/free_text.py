"""What the model says in its own words: the right class, only its kind, another one, or nothing that is a class."""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.prompts import spoken
from fgdiag.store import Run
from fgdiag_probes.asking import Reply, Respondent
from fgdiag_probes.free_questions import free_questions
from fgdiag_probes.intervals import accuracies
from fgdiag_probes.kept_replies import replies_of
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.naming import ClassNames, Named, Synonyms, refuses
from fgdiag_probes.said_figures import draw_accuracy, draw_grain

if TYPE_CHECKING:
    from fgdiag.images import ImageSet

Grain = Literal["fine", "coarse", "wrong fine", "wrong kind", "refusal", "none"]
GRAIN_WORDS: dict[Grain, str] = {
    "fine": "right fine class",
    "coarse": "right kind, no more",
    "wrong fine": "other fine class of that kind",
    "wrong kind": "another kind",
    "refusal": "says it cannot tell",
    "none": "names no class",
}
OF_KIND = ("fine", "coarse", "wrong fine")
"""Answers that get the kind right."""
By = Literal["words", "substring"]
BY_WORDS: dict[By, str] = {
    "words": "whole words and synonyms",
    "substring": "raw substring (arXiv 2405.18415)",
}


@dataclass(frozen=True)
class FreeText:
    """What was said, question by question.

    Attributes
    ----------
    table
        One row a question: `row`, `fine`, `coarse`, `level`, `wording`, `prompt`, `text` as it was generated; `said`,
        the class it names first, fine or else coarse, or ""; `named`, how many fine classes it names; `grain`, see
        `GRAIN_WORDS`; whether it is right by `words`, and by `substring`: whether the raw name is anywhere in it.
        `substrings` and `false_substrings` count the class names of the level that are substrings of the text, and
        those of them that no word of it names.
    respondent
        Who was asked.
    tested
        Test images of the run, of which those in the table were asked about.

    Notes
    -----
    At the level `fine|coarse` the question tells the kind, so that the same is asked as of a probe there. The first
    class named counts, so naming many does not help. A coarse question may be answered by any class of the kind.
    """

    table: pd.DataFrame
    respondent: str
    tested: int

    @classmethod
    def read(cls, run: Run, folder: str = "") -> Self:
        """Read back what `free_text` kept; `RunIncomplete` where it has not been asked."""
        return cls(run.read_table(f"{folder}free_text"), **run.read_json(f"{folder}free_text")["asked"])

    @property
    def levels(self) -> list[Level]:
        """Levels asked about."""
        return [level for level in get_args(Level) if (self.table["level"] == level).any()]

    def per_image(self, level: Level, by: By = "words") -> pd.Series:
        """Share of the wordings in which an image is named rightly, in [0, 1], by row of the run."""
        rows = self._at(level)
        images, codes = np.unique(rows["row"], return_inverse=True)
        return pd.Series(np.bincount(codes, rows[by].to_numpy(float)) / np.bincount(codes), index=images)

    def correct(self, rows: np.ndarray, level: Level, by: By = "words") -> np.ndarray:
        """(rows,) float, `per_image` of these rows of the run; NaN where an image was not asked about."""
        return self.per_image(level, by).reindex(rows).to_numpy(float)

    def frame(self) -> pd.DataFrame:
        """One row a level and way of matching.

        `accuracy` in [0, 1] with its 95 % interval `low` to `high`, clustered by fine class; `images`;
        `between_wordings`, the standard deviation between wordings (NaN where there is one); `false_positives`, how
        many answers only this rule counts as right, and `false_negatives`, how many only the other one does: for the
        substring rule, its errors.
        """
        return pd.DataFrame([self._row(level, by) for level in self.levels for by in get_args(By)])

    def grain(self) -> pd.DataFrame:
        """Shares in [0, 1] of each kind of answer, a row a level."""
        found = []
        for level in self.levels:
            grains = self._at(level)["grain"].to_numpy(str)
            found.append(
                {"level": level, **{grain: float(np.mean(grains == grain)) for grain in GRAIN_WORDS}}
            )
        return pd.DataFrame(found)

    def substrings(self) -> pd.DataFrame:
        """How many class names the substring rule finds in the answers, and how many no word names, by level."""
        tables = {level: self._at(level) for level in self.levels}
        return pd.DataFrame(
            [
                {
                    "level": level,
                    "found": int(np.sum(rows["substrings"])),
                    "false": int(np.sum(rows["false_substrings"])),
                    "answers": len(rows),
                }
                for level, rows in tables.items()
            ]
        )

    def sweep(self) -> pd.DataFrame:
        """Accuracy for each `level`, `by` and `wording`, with the question as it was asked first."""
        found = []
        for level in self.levels:
            for wording in np.unique(self._at(level)["wording"]):
                rows = self._at(level).query("wording == @wording")
                one = {"level": level, "wording": int(wording), "prompt": rows["prompt"].iloc[0]}
                found += [{**one, "by": by, "accuracy": float(np.mean(rows[by]))} for by in get_args(By)]
        return pd.DataFrame(found)

    def figure(self) -> go.Figure:
        """Draw how exact the answers are."""
        return draw_grain(self.grain(), GRAIN_WORDS)

    def accuracy_figure(self) -> go.Figure:
        """Draw the accuracy by level and way of matching, with intervals."""
        return draw_accuracy(self.frame(), BY_WORDS, "The class is named in free text")

    def json(self) -> dict[str, Any]:
        """Return everything but the single answers as plain values."""
        tables = {
            "accuracy": self.frame(),
            "grain": self.grain(),
            "substrings": self.substrings(),
            "sweep": self.sweep(),
        }
        return {
            "asked": {"respondent": self.respondent, "tested": self.tested},
            "images": len(np.unique(self.table["row"])),
            "questions": len(self.table),
            **{name: json.loads(str(table.to_json(orient="records"))) for name, table in tables.items()},
        }

    def _at(self, level: Level) -> pd.DataFrame:
        return self.table.query("level == @level")

    def _row(self, level: Level, by: By) -> dict[str, Any]:
        rows, values = self._at(level), self.per_image(level, by)
        clusters = rows.drop_duplicates("row").set_index("row")["fine"].reindex(values.index).to_numpy(str)
        shares = accuracies(values.to_numpy()[None], clusters)
        wordings = [np.mean(rows.query("wording == @one")[by]) for one in np.unique(rows["wording"])]
        one, other = (rows[rule].to_numpy(bool) for rule in (by, "substring" if by == "words" else "words"))
        return {
            "level": level,
            "by": by,
            **{name: share[0] for name, share in shares.items()},
            "images": len(values),
            "between_wordings": float(np.std(wordings, ddof=1)) if len(wordings) > 1 else np.nan,
            "false_positives": int((one & ~other).sum()),
            "false_negatives": int((other & ~one).sum()),
        }


def free_text(
    run: Run,
    respondent: Respondent,
    images: "ImageSet",
    *,
    synonyms: Synonyms | None = None,
    wordings: int = 1,
    examples: int = 0,
    sample: int | None = None,
    seed: int = 0,
    folder: str = "",
) -> FreeText:
    """Ask about test images what they show, in free text; write `results/free_text.parquet` and `.json`.

    Parameters
    ----------
    respondent
        Who answers.
    images
        The images of the run.
    synonyms
        Further names of classes, see `fgdiag_probes.naming.read_synonyms`.
    wordings, examples, sample, seed
        See `fgdiag_probes.choices.choice_questions`.
    folder
        Put before the name of the result, where another than the run's model is asked: `gpt/`.
    """
    labels = Labels.of(run, seed=seed)
    names = ClassNames.of(kinds_of(labels), synonyms)
    asked = free_questions(
        run, images, labels, wordings=wordings, examples=examples, sample=sample, seed=seed
    )
    replies = replies_of(run, respondent, asked.questions, asked.pictures, doing="asking in free text")
    found = FreeText(matched(asked.table, replies, names), respondent.name, len(labels.test))
    run.write_table(f"{folder}free_text", found.table)
    run.write_json(f"{folder}free_text", found.json())
    return found


def kinds_of(labels: Labels) -> dict[str, str]:
    """Coarse class by fine class; "" where there is no such level."""
    levelled = "coarse" in labels.levels
    kinds = labels.coarse_names[labels.siblings.argmax(0)].tolist()
    return {
        str(fine): str(kind) if levelled else "" for fine, kind in zip(labels.fine_names, kinds, strict=True)
    }


def matched(table: pd.DataFrame, replies: list[Reply], names: ClassNames) -> pd.DataFrame:
    """Add what was replied to a table of questions, and what it says."""
    columns = (table[name] for name in ("fine", "coarse", "level"))
    told = [
        _told(reply.text, fine, coarse, level, names)
        for reply, fine, coarse, level in zip(replies, *columns, strict=True)
    ]
    return pd.concat([table, pd.DataFrame(told, index=table.index)], axis=1)


def _told(text: str, fine: str, coarse: str, level: Level, names: ClassNames) -> dict[str, Any]:
    named = names.in_text(text)
    if level == "coarse" and named.kind_first:
        named = replace(named, fine=())  # what is said behind the kind is no answer to the question for it
    said = (*named.fine, *named.coarse, "")[0]
    grain = _grain(text, named, fine, coarse, names)
    truth = coarse if level == "coarse" else fine
    known = set(names.kind_of.values()) if level == "coarse" else names.kind_of
    inside = {name for name in known if is_substring(name, text)}
    return {
        "text": text,
        "said": said,
        "named": len(named.fine),
        "grain": grain,
        "words": grain in OF_KIND if level == "coarse" else grain == "fine",
        "substring": truth in inside,
        "substrings": len(inside),
        "false_substrings": len(inside - {*(named.coarse if level == "coarse" else named.fine)}),
    }


def _grain(text: str, named: Named, fine: str, coarse: str, names: ClassNames) -> Grain:
    if named.fine:
        if named.fine[0] == fine:
            return "fine"
        kind = names.kind_of[named.fine[0]]
        return "wrong fine" if not kind or kind == coarse else "wrong kind"
    if named.coarse:
        return "coarse" if named.coarse[0] == coarse else "wrong kind"
    return "refusal" if refuses(text) else "none"


def is_substring(name: str, text: str) -> bool:
    """The rule of Zhang et al. (2024, arXiv 2405.18415): the lower-cased name anywhere in the lower-cased answer."""
    return spoken(name).lower() in text.lower()
