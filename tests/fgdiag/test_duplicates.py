"""Planted copies are found, and what is only alike is not."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from fgdiag.duplicates import NearDuplicates, near_duplicates
from fgdiag.fieldguide import SPECIES, draw_bird
from fgdiag.images import ImageSet, open_images

SIDE = 240


def scene(seed: int) -> Image.Image:
    """A picture like a photograph: large and small shapes of all colours, differing with the seed."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (SIDE, SIDE))
    for cells in (4, 9, 20, 60):
        pixels = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture = Image.blend(layer, picture, 0.6 if cells > 4 else 0.0)
    return picture


def resized(picture: Image.Image) -> Image.Image:
    return picture.resize((SIDE // 2, SIDE // 3))


def encoded(picture: Image.Image) -> Image.Image:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def brightened(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.25)


def cropped(picture: Image.Image) -> Image.Image:
    edge = SIDE // 60
    return picture.crop((edge, edge, SIDE - edge, SIDE - edge))


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(2))


COPIES = (resized, encoded, brightened, cropped, blurred)


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=92)


def planted(root: Path, *, splits: tuple[str, str] = ("", "")) -> ImageSet:
    """Two classes of 12 scenes; of five scenes a copy, in the second split given."""
    taught, tested = splits
    for label, fine in enumerate(("ash", "oak")):
        for index in range(12):
            split = tested if index >= 8 else taught
            save(scene(100 * label + index), root / split / fine / f"{index:02d}.jpg")
    for seed, copy in enumerate(COPIES):
        save(copy(scene(seed)), root / tested / "ash" / f"{copy.__name__}.png")
    return open_images(root)


def names(found: NearDuplicates) -> set[tuple[str, ...]]:
    table = found.frame()
    pairs = zip(table["source"], table["other_source"], strict=True)
    return {tuple(sorted((Path(one).stem, Path(other).stem))) for one, other in pairs}


PLANTED = {(f"{seed:02d}", copy.__name__) for seed, copy in enumerate(COPIES)}


def test_planted_copies_are_found_and_nothing_else(tmp_path: Path):
    found = near_duplicates(planted(tmp_path))
    assert names(found) == PLANTED
    table = found.frame()
    assert table["correlation"].is_monotonic_decreasing
    assert table["correlation"].between(0.94, 1).all()
    assert table["distance"].between(0, 10).all()
    assert set(table["fine"]) == {"ash"}
    assert found.json()["pairs"][0]["distance"] == table["distance"][0]


def test_pairs_across_the_split_are_told_apart(tmp_path: Path):
    found = near_duplicates(planted(tmp_path, splits=("train", "test")))
    save(scene(8), tmp_path / "test" / "ash" / "again.jpg")  # both in test
    more = near_duplicates(open_images(tmp_path))
    assert names(more) == PLANTED | {("08", "again")}
    assert names(found) == names(found.across_split) == names(more.across_split) == PLANTED
    assert found.json()["across_split"] == len(COPIES)


def test_birds_that_differ_by_small_marks_are_no_duplicates(tmp_path: Path):
    for index, species in enumerate(SPECIES[:5]):
        for drawing in range(4):
            picture = draw_bird(species, seed=10 * index + drawing).image
            save(picture, tmp_path / species.name / f"{drawing}.jpg")
    assert len(near_duplicates(open_images(tmp_path))) == 0


def test_blank_and_broken_images_are_like_nothing(tmp_path: Path):
    for fine in ("ash", "oak"):
        for index in range(4):
            save(Image.new("RGB", (40, 40), (index * 20,) * 3), tmp_path / fine / f"{index}.png")
        save(scene(7), tmp_path / fine / "cut.png")
        (tmp_path / fine / "no.jpg").write_bytes(b"no image")
    cut = tmp_path / "oak" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    images = open_images(tmp_path)
    assert images.table["status"].tolist().count("ok") == 10
    assert len(near_duplicates(images)) == 0


def test_grouped_copies_stay_on_one_side(tmp_path: Path):
    plain = planted(tmp_path)
    sides = set()
    for seed in range(6):
        grouped = open_images(tmp_path, group_duplicates=True, seed=seed)
        table = grouped.table.set_index("source")
        for number, name in PLANTED:
            both = table.loc[[f"ash/{number}.jpg", f"ash/{name}.png"]]
            assert len(set(both["group"])) == len(set(both["split"])) == 1
            sides |= set(both["split"])
        assert len(set(table["group"])) == len(grouped) - len(PLANTED)
        assert len(near_duplicates(grouped).across_split) == 0
        assert "excluded" not in set(table["split"])
    assert sides == {"train", "test"}
    assert plain.digest != open_images(tmp_path, group_duplicates=True).digest


def test_without_near_duplicates_nothing_changes(tmp_path: Path):
    for label, fine in enumerate(("ash", "oak")):
        for index in range(4):
            save(scene(10 * label + index), tmp_path / fine / f"{index}.jpg")
    assert open_images(tmp_path, group_duplicates=True).digest == open_images(tmp_path).digest


def test_chains_and_given_groups_are_joined(tmp_path: Path):
    for fine, seeds in {"ash": range(6), "oak": range(50, 56)}.items():
        for seed in seeds:
            save(scene(seed), tmp_path / fine / f"{seed}.jpg")
    save(brightened(scene(0)), tmp_path / "ash" / "copy.jpg")
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(tmp_path.rglob("*.jpg"))]
    group = {"ash/copy.jpg": "tree", "ash/3.jpg": "tree"}
    lines = [f"{row},{group.get(row.split(',')[0], '')}" for row in rows]
    (tmp_path / "trees.csv").write_text("\n".join(["path,fine,group", *lines]))
    table = open_images(tmp_path / "trees.csv", group_duplicates=True).table.set_index("source")
    together = table.loc[["ash/0.jpg", "ash/copy.jpg", "ash/3.jpg"]]
    assert len(set(together["group"])) == len(set(together["split"])) == 1
    assert table["group"].tolist().count(together["group"].iloc[0]) == 3


def test_a_given_split_loses_the_training_copies_aloud(tmp_path: Path):
    planted(tmp_path, splits=("train", "test"))
    images = open_images(tmp_path, group_duplicates=True)
    excluded = images.table[images.table["split"] == "excluded"]["source"]
    assert set(excluded) == {f"train/ash/{seed:02d}.jpg" for seed in range(len(COPIES))}
    (line,) = images.warnings
    assert line.startswith(
        "training images excluded as near-duplicates of test images (5), such as train/ash/00"
    )
    assert "(of test/ash/resized.png)" in line
    others = images.table[images.table["split"] != "excluded"]
    assert [source.split("/")[0] for source in others["source"]] == others["split"].tolist()
    found = near_duplicates(images)
    assert names(found) == PLANTED
    assert len(found.across_split) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_groups_do_not_hang_on_the_order(tmp_path: Path, order: int):
    planted(tmp_path)
    files = sorted(tmp_path.rglob("*.*g"))[::order]
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in files]
    (tmp_path / "trees.csv").write_text("\n".join(["path,fine", *lines]))
    table = open_images(tmp_path / "trees.csv", group_duplicates=True).table
    by_folder = open_images(tmp_path, group_duplicates=True).table
    columns = ["id", "group", "split"]
    assert sorted(map(tuple, table[columns].to_numpy())) == sorted(map(tuple, by_folder[columns].to_numpy()))
