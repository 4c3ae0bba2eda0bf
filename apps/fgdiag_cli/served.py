"""`fgdiag answer --endpoint`: a model that is served elsewhere is asked, about the images of a run or any others."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from fgdiag.errors import EndpointFailed, RunMismatch
from fgdiag.progress import say

if TYPE_CHECKING:
    from fgdiag_probes.asking import Question
    from fgdiag_probes.cost import Estimate, Prices
    from fgdiag_probes.endpoint import Endpoint

    from fgdiag.images import ImageSet
    from fgdiag.store import Run

SERVED = "A model that is served elsewhere"
"""Panel of the help."""


def _served(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=SERVED, **more)


Url = Annotated[
    str | None,
    _served(
        "--endpoint",
        metavar="URL",
        help="Ask the model behind this OpenAI-compatible address, such as http://localhost:8000/v1. Its key is read "
        "from $FGDIAG_API_KEY, else $OPENAI_API_KEY.",
    ),
]
Model = Annotated[str | None, _served("--model", metavar="NAME", help="Name under which it is served.")]
Out = Annotated[
    Path | None,
    _served("--out", "-o", metavar="RUN", help="Where the first argument is IMAGES: folder for the answers."),
]
DryRun = Annotated[
    bool, _served("--dry-run", metavar="", help="Only say how many tokens it will take, and the cost.")
]
PriceIn = Annotated[
    float, _served("--price-in", metavar="PRICE", min=0, help="Price of a million tokens of input.")
]
PriceOut = Annotated[
    float, _served("--price-out", metavar="PRICE", min=0, help="Price of a million tokens of output.")
]
MaxTokens = Annotated[
    int,
    _served(
        "--max-tokens",
        metavar="N",
        min=1,
        help="Longest answer. Models that reason before they answer need thousands.",
    ),
]
AtOnce = Annotated[
    int, _served("--at-once", metavar="N", min=1, max=256, help="Questions on their way at the same time.")
]
Timeout = Annotated[
    float,
    _served(
        "--timeout", metavar="SECONDS", min=0.1, help="How long to wait for an answer before asking anew."
    ),
]


def answer(
    served: "Served",
    ways: tuple[str, ...],
    how: dict[str, Any],
    *,
    synonyms: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do what `fgdiag answer --endpoint` does; `how` as of `multiple_choice`."""
    from fgdiag_probes.said_folds import choice_folds, text_folds

    from fgdiag_cli.screen import print_folds, print_json

    ways = tuple(way for way in ways if way != "likelihood")
    if not ways:
        raise EndpointFailed(
            "A served model does not tell how likely class names are; ask it by choice or text."
        )
    if dry_run:
        plan = served.estimate(ways, **how)
        return print_json(plan.json()) if as_json else print(plan)
    found = served.ask(ways, synonyms=synonyms, **how)
    spent = served.endpoint.spent
    if as_json:
        results = {way: result.json() for way, result in found.items()}
        return print_json({**results, "spent": spent.json(served.prices)})
    for way, folds in (("choice", choice_folds), ("text", text_folds)):
        if way in found:
            print_folds(folds(found[way]))
    print(spent.words(served.prices))


@dataclass(frozen=True)
class Served:
    """A served model, and the images that it is asked about.

    Attributes
    ----------
    endpoint
        Who is asked.
    prices
        Of its tokens.
    source, out
        A run, to whose results the answers are added, and None; or images, and the folder of a run for the answers.
    """

    endpoint: "Endpoint"
    prices: "Prices"
    source: str
    out: Path | None = None

    @classmethod
    def behind(
        cls,
        url: str,
        model: str | None,
        source: Path,
        out: Path | None,
        prices: tuple[float, float],
        **limits: Any,
    ) -> Self:
        """Open an endpoint; `limits` as of `fgdiag_probes.endpoint.Endpoint`."""
        from fgdiag_probes.cost import Prices
        from fgdiag_probes.endpoint import Endpoint

        if not model:
            raise EndpointFailed("Say with --model NAME which model is asked.")
        return cls(Endpoint(url, model, **limits), Prices(*prices), str(source), out)

    def estimate(self, ways: tuple[str, ...], **how: Any) -> "Estimate":
        """Say what asking in these ways would take. Nothing is asked, and nothing written."""
        with TemporaryDirectory() as scratch:
            planned = self if _is_run(self.source) else replace(self, out=Path(scratch) / "run")
            run, images = planned.about()
            return self.endpoint.estimate(_questions(run, images, ways, **how), self.prices)

    def ask(self, ways: tuple[str, ...], *, synonyms: Path | None = None, **how: Any) -> dict[str, Any]:
        """Ask in these ways; return the results of `multiple_choice` and `free_text` as `choice` and `text`."""
        from fgdiag_probes.free_text import free_text
        from fgdiag_probes.multiple_choice import multiple_choice
        from fgdiag_probes.naming import read_synonyms

        known = None if synonyms is None else read_synonyms(synonyms)
        run, images = self.about()
        say(str(self.endpoint.estimate(_questions(run, images, ways, **how), self.prices)))
        choosing, speaking = _arguments(run, **how)
        folder, found = self.folder(run), {}
        with run.lock():
            if "choice" in ways:
                found["choice"] = multiple_choice(run, self.endpoint, images, folder=folder, **choosing)
            if "text" in ways:
                speaking["synonyms"] = known
                found["text"] = free_text(run, self.endpoint, images, folder=folder, **speaking)
        return found

    def about(self) -> tuple["Run", "ImageSet"]:
        """Return the run that the answers belong to, and its images."""
        from fgdiag.image_run import image_run
        from fgdiag.reopening import open_run, reopen_images
        from fgdiag_cli.diagnose import labelled_images

        if _is_run(self.source):
            if self.out is not None:
                raise RunMismatch(
                    f"{self.source} is a run, and the answers are kept in it; leave out -o {self.out}."
                )
            run = open_run(Path(self.source))
            return run, reopen_images(run)
        if self.out is None:
            raise RunMismatch(
                f"{self.source} is no run. If it is images, say with -o RUN where the answers are to be kept."
            )
        images = labelled_images(self.source)
        run = image_run(images, self.out, model=self.endpoint.name)
        return run, replace(images, table=run.images)

    def folder(self, run: "Run") -> str:
        """Where in the results of the run the answers stand, beside those of the run's own model."""
        if run.manifest["model"] == self.endpoint.name:
            return ""
        return f"served/{re.sub('[^A-Za-z0-9.]+', '-', self.endpoint.model).strip('-')}/"


def _questions(run: "Run", images: "ImageSet", ways: tuple[str, ...], **how: Any) -> list["Question"]:
    from fgdiag_probes.choices import choice_questions
    from fgdiag_probes.free_questions import free_questions
    from fgdiag_probes.labels import Labels
    from fgdiag_probes.miners import Miner

    labels, (choosing, speaking) = Labels.of(run, seed=run.manifest["seed"]), _arguments(run, **how)
    asked: list[Question] = []
    if "choice" in ways:
        distractors = choosing.pop("distractors")
        features = run.activations("pixels", "image") if distractors == "image" else None
        miner = Miner.of(distractors, labels, features)
        asked += choice_questions(run, images, labels, miner, **choosing).questions
    if "text" in ways:
        asked += free_questions(run, images, labels, **speaking).questions
    return asked


def _arguments(run: "Run", **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `multiple_choice` and those of `free_text`, which knows no options."""
    how["seed"] = run.manifest["seed"]
    return how, {name: value for name, value in how.items() if name not in ("options", "distractors")}


def _is_run(source: str) -> bool:
    from fgdiag.store import MANIFEST

    return (Path(source) / MANIFEST).exists()
