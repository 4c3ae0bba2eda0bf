"""The command `fgdiag answer`: what the model says of the test images, asked in three ways."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fgdiag_cli import options, served

if TYPE_CHECKING:
    from fgdiag_probes.asking import Question, Reply
    from fgdiag_probes.free_text import FreeText
    from fgdiag_probes.in_process import InProcess
    from fgdiag_probes.multiple_choice import MultipleChoice
    from PIL.Image import Image

    from fgdiag.images import ImageSet
    from fgdiag.store import Run
    from fgdiag.vlm import VLM

WAYS = ("likelihood", "choice", "text")
ALL_WAYS = ",".join(WAYS)
SAMPLE = 100
"""Test images that are asked to choose and in free text, where nobody says: a question takes a pass of its own."""


def _check_ways(text: str) -> str:
    if not options.names(text) or not set(options.names(text)) <= set(WAYS):
        raise typer.BadParameter(f"got {text!r}, expected some of {', '.join(WAYS)}")
    return text


CHOICES, BOTH = "Multiple choice", "Multiple choice and free text"
Ask = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        callback=_check_ways,
        help="likelihood: which of all class names is likeliest as the answer; choice: which of a few options is "
        "chosen; text: what is said in free text.",
    ),
]
Choices = Annotated[
    int, typer.Option(min=2, max=26, metavar="K", help="Options a question.", rich_help_panel=CHOICES)
]
Wrong = Annotated[
    Literal["text", "image", "siblings", "random"],
    typer.Option(
        "--distractors",
        metavar="NAME",
        help="Wrong options. text: classes with the most similar names; image: with the most similar pixels; "
        "siblings: of the same coarse class; random: any.",
        rich_help_panel=CHOICES,
    ),
]
Synonyms = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Further names that count as right: a CSV file with the columns name and synonym.",
        rich_help_panel="Free text",
    ),
]
Sample = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Ask about N test images, drawn evenly over the classes; a large N asks about all. The likelihood is "
        "always of all.",
        rich_help_panel=BOTH,
    ),
]
Wordings = Annotated[
    int,
    typer.Option(
        min=1,
        max=4,
        metavar="N",
        help="Ask the same in N ways (1 to 4), and tell the spread.",
        rich_help_panel=BOTH,
    ),
]
Examples = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Show N training images with their answers first, to a model that takes several images.",
        rich_help_panel=BOTH,
    ),
]


Source = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Folder that `fgdiag extract` or `fgdiag diagnose` wrote. With --endpoint, also labelled images, see "
        "`fgdiag extract --help`.",
    ),
]


def answer(
    run: Source,
    ask: Ask = ALL_WAYS,
    choices: Choices = 5,
    distractors: Wrong = "text",
    synonyms: Synonyms = None,
    sample: Sample = SAMPLE,
    wordings: Wordings = 1,
    examples: Examples = 0,
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    endpoint: served.Url = None,
    model_name: served.Model = None,
    out: served.Out = None,
    dry_run: served.DryRun = False,
    price_in: served.PriceIn = 0.0,
    price_out: served.PriceOut = 0.0,
    max_tokens: served.MaxTokens = 64,
    at_once: served.AtOnce = 8,
    timeout: served.Timeout = 120.0,
    as_json: options.Json = False,
) -> None:
    """Ask the model which class each test image shows.

    By the class name it finds likeliest; by the option it chooses of a few,
    turned through all places; and in its own words. What was answered once
    is not asked again. The model and the images are opened again from where
    they were, if there is anything to ask.

    With --endpoint another model is asked, one that is served elsewhere, by
    choice and text: about the images of a run, or about any in a run of their
    own. Its responses are kept in the cache of the user and never paid twice.

    For example:
      fgdiag answer runs/flowers
      fgdiag answer runs/flowers --ask choice --choices 10 --distractors siblings
      fgdiag answer runs/flowers --ask text --synonyms synonyms.csv --wordings 4
      fgdiag answer flowers/ --endpoint https://api.openai.com/v1 --model gpt-4.1-mini -o runs/gpt --dry-run
    """
    if endpoint is not None:
        limits = {"max_tokens": max_tokens, "at_once": at_once, "timeout": timeout}
        asked = served.Served.behind(endpoint, model_name, run, out, (price_in, price_out), **limits)
        many = {"sample": sample, "wordings": wordings, "examples": examples, "options": choices}
        ways, shown = options.names(ask), {"dry_run": dry_run, "as_json": as_json}
        return served.answer(asked, ways, {**many, "distractors": distractors}, synonyms=synonyms, **shown)
    if dry_run or out is not None or model_name is not None:
        raise typer.BadParameter(
            "--dry-run, --out and --model are for a served model; give --endpoint URL too."
        )

    from fgdiag_probes.naming import read_synonyms
    from fgdiag_probes.said_folds import choice_folds, text_folds

    from fgdiag.reopening import open_run, reopen_images, reopen_model
    from fgdiag_cli import diagnose as steps
    from fgdiag_cli.screen import print_folds, print_json
    from fgdiag_cli.tables import print_answers

    recorded, ways = open_run(run), options.names(ask)
    opening = {"device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
    model = Reopened(recorded, lambda: reopen_model(recorded, **opening), lambda: reopen_images(recorded))
    how = {"sample": sample, "wordings": wordings, "examples": examples}
    known = None if synonyms is None else read_synonyms(synonyms)
    found: dict[str, Any] = {}

    def show(result: Any, as_table: Callable[[Any], None]) -> None:
        if not as_json:
            as_table(result)

    with recorded.lock():
        if "likelihood" in ways:
            likeliest = steps.ask(recorded, lambda: model.vlm, lambda: model.images)
            found |= likeliest.json()
            show(likeliest, print_answers)
        if "choice" in ways:
            picked = choose(model, options=choices, distractors=distractors, **how)
            found["choice"] = picked.json()
            show(picked, lambda found: print_folds(choice_folds(found)))
        if "text" in ways:
            said = speak(model, synonyms=known, **how)
            found["text"] = said.json()
            show(said, lambda found: print_folds(text_folds(found)))
    if as_json:
        print_json(found)


@dataclass(frozen=True)
class Reopened:
    """The model and the images of a run, opened when something is really asked."""

    run: "Run"
    open_vlm: Callable[[], "VLM"]
    open_images: Callable[[], "ImageSet"]

    @property
    def name(self) -> str:
        """Of the model, as the run has it."""
        return self.run.manifest["model"]

    @property
    def keeps_replies(self) -> bool:
        """Not by itself: the run keeps them."""
        return False

    @cached_property
    def vlm(self) -> "VLM":
        """The model."""
        return self.open_vlm()

    @cached_property
    def images(self) -> "ImageSet":
        """The images."""
        return self.open_images()

    def open(self, row: int) -> "Image":
        """Open one image."""
        return self.images.open(row)

    def replies(self, questions: Sequence["Question"]) -> "Iterator[Reply]":
        """Let the model answer."""
        return self._respondent.replies(questions)

    @cached_property
    def _respondent(self) -> "InProcess":
        from fgdiag_probes.in_process import InProcess

        return InProcess(self.vlm)


def choose(model: Reopened, **how: Any) -> "MultipleChoice":
    """Ask to choose; see `fgdiag_probes.multiple_choice.multiple_choice`."""
    from fgdiag_probes.multiple_choice import multiple_choice

    seed = model.run.manifest["seed"]
    return multiple_choice(model.run, model, model, seed=seed, **({"sample": SAMPLE} | how))  # pyright: ignore[reportArgumentType]


def speak(model: Reopened, **how: Any) -> "FreeText":
    """Ask in free text; see `fgdiag_probes.free_text.free_text`."""
    from fgdiag_probes.free_text import free_text

    seed = model.run.manifest["seed"]
    return free_text(model.run, model, model, seed=seed, **({"sample": SAMPLE} | how))  # pyright: ignore[reportArgumentType]
