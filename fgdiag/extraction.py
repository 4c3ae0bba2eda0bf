"""Send every image of a set through a VLM once, and record what flows through it."""

import platform
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import transformers
from PIL import Image

from fgdiag.batches import PIXELS_SIDE, Decoded, decode_one, decoding, plan, to_extract
from fgdiag.errors import FgdiagError, ImagesNotUsable, SiteNeverRan, SiteNotFound
from fgdiag.family_table import quirk_of
from fgdiag.hooks import capture, tokens_vary
from fgdiag.image_set import ImageSet
from fgdiag.memory import keep_freed_memory
from fgdiag.progress import say, track
from fgdiag.prompts import FINE_QUESTION
from fgdiag.readouts import (
    LARGEST_FLOAT16,
    TokensVary,
    checked_token_sites,
    fitting_together,
    telling_token_sites,
)
from fgdiag.recording import Block, Place, Recording, manifest_in
from fgdiag.sites import READOUTS, Readout, Site
from fgdiag.store import TOKENS, Run, locked

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

CPU_BATCH = 16
FIRST_GPU_BATCH, LARGEST_GPU_BATCH = 8, 64
PIXELS: Place = ("pixels", "image")
TOKEN_BYTES = 4 * 10**9
"""Most that the image tokens kept by `tokens="auto"` may take."""

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class OutOfMemory(FgdiagError, MemoryError):
    """Not even one image fits into memory."""


def extract(
    vlm: "VLM",
    images: ImageSet,
    out: str | Path,
    *,
    prompt: str | None = None,
    readouts: Sequence[Readout] = READOUTS,
    sites: Sequence[str] | None = None,
    tokens: Sequence[str] | Literal["auto"] = (),
    batch_size: int | Literal["auto"] = "auto",
    block: int = 256,
    seed: int = 0,
) -> Run:
    """Record a run: the readouts of every site for every image, in a folder.

    It may be stopped or killed at any time; the same call goes on with it, and ends with the same bytes as a
    run that was never stopped. A finished run is opened and returned.

    Parameters
    ----------
    vlm
        An opened model.
    images
        Images whose split is `excluded` keep their row and are not looked at.
    out
        Folder of the run: new, empty, or the run to go on with.
    prompt
        What the model is asked about every image; by default "What exactly is this?".
    readouts
        Which of `image`, `last`, `pre`, `cls` to record where a site has them.
    sites
        Names of sites; by default all but the blocks of the vision encoder.
    tokens
        Those of the sites at which every image token is kept besides, in float16, so that a probe can learn
        which of them to look at. `"auto"`: what the projector is fed and gives, the last and the middle LLM
        block, as far as all of it takes at most 4 GB; a run gone on with keeps its own.
    batch_size
        Images in one forward. `"auto"`: 16 on a CPU; on a GPU the largest of 8, 16, 32... that fits. When
        memory runs out the batch is halved and nothing is lost. A run gone on with keeps its batch size.
    block
        Images written at once, which is also the most that a kill can lose. A run gone on with keeps it.
    seed
        Of the model's own randomness, should it have any.

    Returns
    -------
    Run
        With the additional site `pixels`: the image shrunk to 16x16, the baseline every model must beat.

    Raises
    ------
    RunBusy
        Another process is writing this run.
    RunMismatch
        `out` is no run, or one of another model, prompt, dtype, image set, sites, readouts or seed.
    ImagesNotUsable
        Not one image can be read.
    SiteNeverRan
        The model computed something that is not finite.
    TokensVary
        Tokens are asked for, and the model has more of them for some images than for others.
    OutOfMemory
        Not even one image fits into memory.
    NoSpace
        The disk is full; what was written is kept.
    """
    _check(readouts, tokens, batch_size, block)
    path, table = Path(out), images.table
    if not to_extract(table).any():
        raise ImagesNotUsable(f"{images.name} has no image to extract; expected some that are not excluded.")
    known = asked_for(images, prompt=prompt, readouts=readouts, seed=seed)
    known |= _made_of(vlm)
    whole = _recorded_tokens(path, known) if tokens == "auto" else tokens
    forward = _Forward(vlm, known["prompt"], sites, tuple(known["readouts"]), whole, len(table))
    with locked(path):
        asked = {**known, **forward.made_of()}
        recording = Recording.resume(path, asked, table)
        if recording is None:
            forward.say_tokens()
            fitting = _fitting_batch(forward, images, most=block) if batch_size == "auto" else batch_size
            asked |= {"batch_size": min(fitting, block), "block": block}
            recording = Recording.start(path, asked, table)
        if recording.manifest["finished"]:
            return Run.open(path)
        if vlm.device.type == "cpu":
            keep_freed_memory()
        _Extraction(forward, images, recording).run()
        return recording.finish()


def asked_for(
    images: ImageSet, *, prompt: str | None = None, readouts: Sequence[str] = READOUTS, seed: int = 0
) -> dict[str, Any]:
    """Return what of the manifest of a run is known before the model is opened; arguments as of `extract`."""
    return {
        "prompt": prompt or FINE_QUESTION,
        "readouts": [name for name in READOUTS if name in readouts],
        "seed": seed,
        "images": {
            "name": images.name,
            "source": images.source or images.name,
            "digest": images.digest,
            "count": len(images),
            "levels": list(images.levels),
        },
    }


class _Refused(FgdiagError, ValueError):
    """The processor of the model cannot take these images, a very narrow one for instance."""


class _Forward:
    """One question put to a model about a batch of images, with the sites it is watched at.

    Attributes
    ----------
    widths
        Length of the vectors at each place.
    grids
        (tokens, width) at each site whose image tokens are kept one by one.
    """

    def __init__(
        self,
        vlm: "VLM",
        prompt: str,
        sites: Sequence[str] | None,
        readouts: tuple[Readout, ...],
        tokens: Sequence[str] | None,
        images: int,
    ) -> None:
        """Find what there is to record; with `tokens=None`, of which sites the tokens are to be kept."""
        self.vlm, self.sites, self.readouts = vlm, sites, readouts
        self.text, self.images = vlm.chat(prompt), images
        self.tokens = self._choose_tokens(tokens)
        shapes = {place: values.shape[1:] for place, values in self([_blank()]).items()}
        self.widths = {place: shape[0] for place, shape in shapes.items() if place[1] != TOKENS}
        self.grids = {site: shapes[site, TOKENS] for site in self.tokens}
        if tokens is None:
            self._leave_out_what_is_too_much()

    def __call__(self, pictures: Sequence[Image.Image]) -> dict[Place, np.ndarray]:
        """Return (pictures, width) float32 for each place, (pictures, tokens, width) float16 for tokens."""
        with torch.inference_mode():
            try:
                inputs = self.vlm.inputs(pictures, self.text)
            except Exception as error:
                if no_memory(error):
                    raise
                raise _Refused(_one_line(error)) from error
            found = capture(self.vlm, inputs, sites=self.sites, readouts=self.readouts, tokens=self.tokens)
            return {place: values.cpu().numpy() for place, values in found.items()}

    def made_of(self) -> dict[str, Any]:
        """What of the manifest is decided by the question and the sites."""
        by_site: dict[str, list[str]] = {PIXELS[0]: [PIXELS[1]]}
        for site, readout in sorted(self.widths, key=lambda place: READOUTS.index(place[1])):  # pyright: ignore[reportArgumentType]
            by_site.setdefault(site, []).append(readout)
        widths = {site: width for (site, _), width in self.widths.items()} | {PIXELS[0]: 3 * PIXELS_SIDE**2}
        return {
            "text": self.text,
            "sites": [
                {"site": site, "width": widths[site], "readouts": by_site[site]}
                | ({TOKENS: self.grids[site][0]} if site in self.grids else {})
                for site in sorted(by_site, key=Site.parse)
            ],
        }

    def say_tokens(self) -> None:
        """Say how much room the tokens will take."""
        if self.grids:
            size = sum(map(self._token_bytes, self.grids))
            say(f"keeping every image token at {', '.join(self.grids)}: {size / 1e9:.2g} GB")

    def _choose_tokens(self, asked: Sequence[str] | None) -> list[str]:
        """Sites whose tokens are asked for; with None the most telling ones, where the model can give them."""
        anatomy = self.vlm.anatomy
        specs = [anatomy.site(name) for name in (anatomy.default_sites if self.sites is None else self.sites)]
        names = telling_token_sites(specs) if asked is None else checked_token_sites(asked, specs)
        if not names or not tokens_vary(self.vlm, self.text):
            return names
        words = (
            f"{self.vlm.name} has more image tokens for some images than for others, so they cannot be kept"
        )
        if asked is not None:
            raise TokensVary(f"{words}. Leave `tokens` out.")
        say(f"{words} one by one.")
        return []

    def _leave_out_what_is_too_much(self) -> None:
        """Keep the tokens of the most telling sites that fit together."""
        kept = fitting_together({site: self._token_bytes(site) for site in self.tokens}, most=TOKEN_BYTES)
        if left_out := [site for site in self.tokens if site not in kept]:
            limit = f"{TOKEN_BYTES / 1e9:.0f} GB"
            say(
                f"not keeping the image tokens at {', '.join(left_out)}: all of them would take more than {limit}"
            )
        self.tokens, self.grids = kept, {site: self.grids[site] for site in kept}

    def _token_bytes(self, site: str) -> int:
        return 2 * self.images * prod(self.grids[site])


class _Extraction:
    """The loop over blocks and batches."""

    def __init__(self, forward: _Forward, images: ImageSet, recording: Recording) -> None:
        self.forward, self.images, self.recording = forward, images, recording
        self.wanted = to_extract(images.table)
        self.clipped: set[str] = set()

    def run(self) -> None:
        """Write every block that is missing."""
        missing = self.recording.missing()
        blocks = self.recording.blocks
        total = int(self.wanted.sum())
        done = total - sum(int(self.wanted[blocks[i].start : blocks[i].stop].sum()) for i in missing)
        for _ in track(self._work(missing), description="extracting", total=total, done=done):
            pass
        self._refuse_nothing_read()

    def _work(self, missing: list[int]) -> Iterator[int]:
        """Yield each row once it has been through the model or has failed."""
        size = self.recording.manifest["batch_size"]
        plans = {i: plan(self.images.table, self.recording.blocks[i], size) for i in missing}
        batches = [batch for batches in plans.values() for batch in batches]
        with decoding(self.images, batches) as decoded:
            for index, planned in plans.items():
                started = time.monotonic()
                block = self._empty_block(index)
                torch.manual_seed(self.recording.manifest["seed"] + index)
                for _ in planned:
                    yield from self._take(next(decoded), block)
                block.seconds = time.monotonic() - started
                self.recording.write(block)

    def _empty_block(self, index: int) -> Block:
        rows = self.recording.blocks[index]
        widths = {**self.forward.widths, PIXELS: 3 * PIXELS_SIDE**2}
        empty = {place: np.full((len(rows), width), np.nan, np.float32) for place, width in widths.items()}
        return Block(index, rows, empty, {}, {})

    def _take(self, batch: list[Decoded], block: Block) -> list[int]:
        """Put what one batch gives at its places in the block."""
        block.failures |= {one.row: one.failure for one in batch if one.picture is None}
        for members, found in self._through([one for one in batch if one.picture is not None], block):
            self._refuse_not_finite(found, members)
            at = [one.row - block.rows.start for one in members]
            for site in self.forward.tokens:
                self._keep_tokens(site, [one.row for one in members], found.pop((site, TOKENS)))
            for place, values in found.items():
                block.activations[place][at] = values
            for one in members:
                block.activations[PIXELS][one.row - block.rows.start] = one.pixels
                block.thumbnails[one.row] = one.thumbnail
        return [one.row for one in batch]

    def _through(
        self, batch: list[Decoded], block: Block
    ) -> Iterator[tuple[list[Decoded], dict[Place, np.ndarray]]]:
        """Send a batch through the model, in smaller parts where memory or the processor asks for it."""
        parts = deque([batch] if batch else [])
        while parts:
            part, size = parts.popleft(), self.recording.manifest["batch_size"]
            if len(part) > size:  # memory has run out since this batch was planned
                parts.extendleft(reversed([part[at : at + size] for at in range(0, len(part), size)]))
                continue
            try:
                found = self.forward([one.picture for one in part if one.picture is not None])
            except _Refused as error:
                if len(part) == 1:
                    block.failures[part[0].row] = f"the model's processor refuses it: {error}"
                else:
                    parts.extendleft([one] for one in reversed(part))
                continue
            except (RuntimeError, MemoryError) as error:
                if not no_memory(error):
                    raise
                found = None
            # Out of the handler, which keeps the tensors of the failed forward alive.
            if found is None:
                parts.extendleft(reversed(self._halves(part)))
            else:
                yield part, found

    def _halves(self, part: list[Decoded]) -> list[list[Decoded]]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(part) == 1:
            image = self.images.table.iloc[part[0].row]
            raise OutOfMemory(
                f"Memory of {self.forward.vlm.device} ran out on one image, {image['source']} "
                f"({image['width']}x{image['height']} pixels). Use a smaller dtype or a `device_map`, or exclude it."
            )
        half = (len(part) + 1) // 2
        if len(part) == self.recording.manifest["batch_size"]:
            say(f"Memory ran out with {len(part)} images at once; going on with {half}.")
            self.recording.lower_batch_size(half)
        return [part[:half], part[half:]]

    def _refuse_not_finite(self, found: dict[Place, np.ndarray], members: list[Decoded]) -> None:
        for (site, readout), values in found.items():
            finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            if not finite.all():
                image = self.images.table["source"].iloc[members[int(finite.argmin())].row]
                dtype = str(self.forward.vlm.dtype).removeprefix("torch.")
                raise SiteNeverRan(
                    f"The activations at {site} ({readout}) are not finite for {image}: the model overflows "
                    f"in {dtype}. Open it with dtype bfloat16 or float32 and give another folder."
                )

    def _keep_tokens(self, site: str, rows: list[int], grids: np.ndarray) -> None:
        if grids.shape[1:] != self.forward.grids[site]:
            image, expected = self.images.table["source"].iloc[rows[0]], self.forward.grids[site][0]
            raise TokensVary(
                f"{image} has {grids.shape[1]} tokens at {site}, expected {expected}, so they cannot be kept. "
                "Leave `tokens` out."
            )
        if site not in self.clipped and np.abs(grids).max() == LARGEST_FLOAT16:
            self.clipped.add(site)
            say(f"Some tokens at {site} are beyond float16; they are kept as {LARGEST_FLOAT16:.0f}.")
        self.recording.write_tokens(site, rows, grids)

    def _refuse_nothing_read(self) -> None:
        failures = self.recording.failures()
        if len(failures) == self.wanted.sum():
            row, reason = next(iter(sorted(failures.items())))
            raise ImagesNotUsable(
                f"None of the {len(failures)} images could be read, such as "
                f"{self.images.table['source'].iloc[row]}: {reason}."
            )


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def _fitting_batch(forward: _Forward, images: ImageSet, *, most: int) -> int:
    """Largest batch of the largest image that fits, tried by doubling; 16 where there is no CUDA device."""
    device = forward.vlm.device
    if device.type != "cuda":
        return CPU_BATCH
    picture, size = _largest(images), FIRST_GPU_BATCH
    while True:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        free, before = torch.cuda.mem_get_info(device)[0], torch.cuda.memory_allocated(device)
        if not _fits(forward, picture, size):
            return max(1, size // 2)
        used = torch.cuda.max_memory_allocated(device) - before
        # Twice the batch takes twice the memory; a tenth is left to fragmentation and to other processes.
        if 2 * used > 0.9 * free or 2 * size > min(most, LARGEST_GPU_BATCH):
            return size
        size *= 2


def _fits(forward: _Forward, picture: Image.Image, size: int) -> bool:
    try:
        forward([picture] * size)
    except (RuntimeError, MemoryError) as error:
        if not no_memory(error):
            raise
        return False
    return True


def _largest(images: ImageSet) -> Image.Image:
    """Decode the image of most pixels that can be decoded."""
    area = (images.table["width"] * images.table["height"]).to_numpy()
    for row in np.argsort(-area, kind="stable"):
        picture = decode_one(images, int(row)).picture if to_extract(images.table)[row] else None
        if picture is not None:
            return picture
    return _blank()


def _blank() -> Image.Image:
    """A grey image: enough to learn which sites fire, and how wide they are."""
    return Image.new("RGB", (224, 224), (127, 127, 127))


def _is_causal(vlm: "VLM") -> bool:
    """Whether tokens before the image cannot see it, so that `pre` is a control."""
    text = vlm.model.config.get_text_config()
    sees_ahead = quirk_of(vlm.anatomy.model_type).prefix_attention
    return not sees_ahead and not getattr(text, "is_encoder_decoder", False)


def _made_of(vlm: "VLM") -> dict[str, Any]:
    """What of the manifest is decided by the model."""
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "fingerprint": vlm.fingerprint,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "device": str(vlm.device),
        "model_type": vlm.anatomy.model_type,
        "processor": type(vlm.processor).__name__,
        "image_tokens": vlm.anatomy.image_tokens,
        "parts": {part: asdict(size) for part, size in vlm.anatomy.parts.items()},
        "causal": _is_causal(vlm),
        "class_token_fed": vlm.anatomy.site("vision").class_path is None,
        "versions": {
            "fgdiag": version("fgdiag"),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def _recorded_tokens(path: Path, asked: dict[str, Any]) -> list[str] | None:
    """Sites at which the run at `path` keeps tokens; None where there is no run, errors as `manifest_in`."""
    manifest = manifest_in(path, asked)
    return None if manifest is None else [site["site"] for site in manifest["sites"] if TOKENS in site]


def _check(readouts: Sequence[str], tokens: Sequence[str] | str, batch_size: int | str, block: int) -> None:
    for readout in readouts:
        if readout not in READOUTS:
            raise SiteNotFound(f"No readout {readout!r}; expected some of {', '.join(READOUTS)}.")
    if isinstance(tokens, str) and tokens != "auto":
        raise SiteNotFound(
            f"The tokens are {tokens!r}; expected `auto` or a list of sites, such as [{tokens!r}]."
        )
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise FgdiagError(f"The batch size is {batch_size!r}; expected `auto` or a number from 1 on.")
    if block < 1:
        raise FgdiagError(f"The block is {block} images; expected at least 1.")


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
