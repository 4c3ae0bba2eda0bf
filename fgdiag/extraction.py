"""Send every image of a set through a VLM once, and record what flows through it."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from fgdiag.batch_size import fitting_batch
from fgdiag.batches import PIXELS_SIDE, Decoded, decoding, plan, to_extract
from fgdiag.errors import FgdiagError, ImagesNotUsable, SiteNeverRan, SiteNotFound
from fgdiag.forward import PIXELS, Forward, Refused
from fgdiag.image_set import ImageSet
from fgdiag.manifest import asked_for, made_of, recorded_tokens
from fgdiag.memory import keep_freed_memory, no_memory
from fgdiag.progress import say, track
from fgdiag.readouts import LARGEST_FLOAT16, TokensVary
from fgdiag.recording import Block, Place, Recording
from fgdiag.sites import READOUTS, TOKENS, Readout
from fgdiag.store import Run, locked

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


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
    known |= made_of(vlm)
    whole = recorded_tokens(path, known, sites) if tokens == "auto" else tokens
    forward = Forward(vlm, known["prompt"], sites, tuple(known["readouts"]), whole, len(table))
    with locked(path):
        asked = {**known, **forward.made_of()}
        recording = Recording.resume(path, asked, table)
        if recording is None:
            forward.say_tokens()
            fitting = fitting_batch(forward, images, most=block) if batch_size == "auto" else batch_size
            asked |= {"batch_size": min(fitting, block), "block": block}
            recording = Recording.start(path, asked, table)
        if recording.manifest["finished"]:
            return Run.open(path)
        if vlm.device.type == "cpu":
            keep_freed_memory()
        _Extraction(forward, images, recording).run()
        return recording.finish()


class _Extraction:
    """The loop over blocks and batches."""

    def __init__(self, forward: Forward, images: ImageSet, recording: Recording) -> None:
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
            except Refused as error:
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
