"""Replies kept on disk by the content of what was asked, so that nothing is asked twice and a stop costs little."""

from collections.abc import Sequence
from hashlib import blake2b

import pandas as pd

from fgdiag.progress import track
from fgdiag.store import Run, write_table
from fgdiag_probes.asking import Question, Reply, Respondent

METHOD = "1"
"""Changed when the same question is asked otherwise, so that older replies are not taken for those to it."""
QUESTIONS_A_PART = 120
FOLDER = "replies"


def replies_of(
    run: Run, respondent: Respondent, questions: Sequence[Question], pictures: Sequence[str], *, doing: str
) -> list[Reply]:
    """Let every question be answered, unless it has been in this run.

    Parameters
    ----------
    questions
        Those about one picture should stand together.
    pictures
        What tells the pictures of each question apart, such as the ids of the images.
    doing
        What is shown while it takes.

    Returns
    -------
    list of Reply
        One for each question. All are kept in `results/replies/`, in parts of 120, unless the respondent keeps them:
        it knows which ones to ask again, such as those that a server refused.
    """
    if respondent.keeps_replies:
        asked = respondent.replies(questions)
        return list(track(asked, description=doing, total=len(questions), unit="questions"))
    who = f"{METHOD} {respondent.name} {run.manifest['fingerprint']}"
    keys = [_key(who, question, picture) for question, picture in zip(questions, pictures, strict=True)]
    kept = _read(run)
    todo = list({key: i for i, key in reversed(list(enumerate(keys))) if key not in kept}.items())[::-1]
    parts = [todo[start : start + QUESTIONS_A_PART] for start in range(0, len(todo), QUESTIONS_A_PART)]
    for part in track(
        parts,
        description=doing,
        total=len(keys),
        unit="questions",
        done=len(keys) - len(todo),
        size=QUESTIONS_A_PART,
    ):
        found = list(respondent.replies([questions[i] for _, i in part]))
        new = {key: reply for (key, _), reply in zip(part, found, strict=True)}
        _write(run, new)
        kept |= new
    return [kept[key] for key in keys]


def _key(who: str, question: Question, picture: str) -> str:
    said = [text for example in question.examples for text in (example.text, example.answer)]
    parts = (who, picture, question.text, "".join(question.letters), *said)
    return blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def _write(run: Run, replies: dict[str, Reply]) -> None:
    name = blake2b("".join(replies).encode(), digest_size=8).hexdigest()
    table = pd.DataFrame(
        {
            "key": list(replies),
            "text": [reply.text for reply in replies.values()],
            "letters": [None if r.letters is None else list(r.letters) for r in replies.values()],
        }
    )
    write_table(run.result_path(f"{FOLDER}/{name}.parquet"), table)


def _read(run: Run) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}
    for file in sorted(run.result_path(f"{FOLDER}/0").parent.glob("*.parquet")):
        part = pd.read_parquet(file)
        for key, text, letters in zip(part["key"], part["text"], part["letters"], strict=True):
            replies[key] = Reply(text, None if letters is None else tuple(letters.tolist()))
    return replies
