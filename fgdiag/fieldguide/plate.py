"""One plate of the field guide: a bird in its scene, with the masks and the values it was made from."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fgdiag.fieldguide.backdrop import BACKDROPS, paint_backdrop
from fgdiag.fieldguide.bird import paint_bird
from fgdiag.fieldguide.brush import cover, paint
from fgdiag.fieldguide.builds import BUILDS
from fgdiag.fieldguide.feathers import bill_outlines
from fgdiag.fieldguide.figure import Figure, Pose
from fgdiag.fieldguide.greenery import paint_occluders
from fgdiag.fieldguide.light import draw_light, through_the_lens
from fgdiag.fieldguide.species import PARTS, Species
from fgdiag.fieldguide.stand import paint_stand


@dataclass(frozen=True)
class Plate:
    """A picture and what is known about it."""

    image: Image.Image
    """RGB, (size, size)."""
    masks: dict[str, np.ndarray]
    """For each of `PARTS` what can be seen of it, bool (size, size); what hangs in front is left out."""
    attributes: dict[str, str | float]
    """How each part looks (`plain`, or the mark), then pose, scene and light."""


def draw_bird(species: Species, *, seed: int, size: int = 256) -> Plate:
    """Draw one bird. The scene, the pose and the light depend on `seed` alone, not on the species' marks.

    Two species of one genus drawn with one seed therefore differ only where their marks do.

    Parameters
    ----------
    species
        One of `SPECIES`.
    seed
        Not negative. The same seed gives the same picture, bit for bit.
    size
        Side of the picture in pixels.
    """
    pose_rng, scene_rng, stand_rng, front_rng, plume_rng, lens_rng = (
        np.random.default_rng((seed, k)) for k in range(6)
    )
    pose = Pose.draw(pose_rng)
    figure = Figure(BUILDS[species.genus], pose, size)
    background = str(scene_rng.choice(tuple(BACKDROPS)))
    light, blur = draw_light(scene_rng), float(scene_rng.uniform(0, 0.8)) * size / 256

    canvas = paint_backdrop(BACKDROPS[background], size, scene_rng)
    paint_stand(canvas, figure, background, stand_rng)
    bird = paint_bird(species, figure, light.towards, plume_rng)
    paint(canvas[figure.window], bird.cover, bird.colour)
    # The bill is guarded as its genus has it: what hangs in front must not depend on a species' mark.
    plain_bill = cover(bill_outlines(figure, "plain"), figure.shape)
    guarded = [plain_bill, *(bird.parts[part] for part in PARTS if part not in ("bird", "bill"))]
    front, hidden = paint_occluders(background, figure, guarded, front_rng)
    paint(canvas, hidden, front)

    seen = 1 - hidden[figure.window]
    masks = {part: _in_image(bird.parts[part] * seen > 0.5, figure) for part in PARTS}
    attributes: dict[str, str | float] = {
        **species.marks,
        "facing": "right" if pose.facing > 0 else "left",
        "tilt_degrees": pose.tilt,
        "head_degrees": pose.head,
        "fill": pose.fill,
        "x": pose.x,
        "y": pose.y,
        "background": background,
        "light": light.name,
        "blur_pixels": blur,
        "hidden_share": float(1 - (bird.cover * seen).sum() / bird.cover.sum()),
    }
    return Plate(through_the_lens(canvas, light, blur, lens_rng), masks, attributes)


def _in_image(mask: np.ndarray, figure: Figure) -> np.ndarray:
    whole = np.zeros((figure.size, figure.size), bool)
    whole[figure.window] = mask
    return whole
