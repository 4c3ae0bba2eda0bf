"""The field guide: its taxonomy, its masks and the folder it writes."""

import errno
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from fgdiag import fieldguide
from fgdiag.errors import ImagesNotUsable, NoSpace
from fgdiag.fieldguide import (
    GENERA,
    MARKS,
    PARTS,
    SPECIES,
    differing_parts,
    draw_bird,
    load_masks,
    write_fieldguide,
)
from fgdiag.fieldguide import plate as plate_room
from fgdiag.fieldguide import species_named as named
from fgdiag.fieldguide import write as write_room

SMALL = {"per_class": 1, "test_per_class": 1, "size": 64}


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def grown(mask: np.ndarray, by: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * by + 1))) > 0


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fieldguide(tmp_path_factory.mktemp("written") / "birds", **SMALL, workers=1)


def test_the_public_names_are_there():
    assert all(hasattr(fieldguide, name) for name in fieldguide.__all__)


def test_eight_genera_of_five_species_with_names_of_two_words():
    assert len({species.name for species in SPECIES}) == len(SPECIES) == 40
    assert [sum(species.genus == genus for species in SPECIES) for genus in GENERA] == [5] * 8
    assert all(species.name.split()[1] == species.genus for species in SPECIES)


@pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.name)
def test_a_name_says_the_only_mark(species: fieldguide.Species):
    part, look = MARKS[species.name.split()[0]]
    assert {key: value for key, value in species.marks.items() if value != "plain"} == {part: look}


@pytest.mark.parametrize(
    ("one", "other", "parts"),
    [
        ("Ringed Larkfinch", "Barred Larkfinch", ("eye_ring", "wing")),
        ("Capped Larkfinch", "Ruby Larkfinch", ("crown",)),
        ("Spotted Mossthrush", "Streaked Mossthrush", ("breast",)),
        ("Lance Sandplover", "Coral Sandplover", ("bill",)),
        ("Amber Sandplover", "Capped Sandplover", ("crown", "legs")),
        ("Rusty Brookjay", "Tipped Brookjay", ("tail",)),
        ("Barred Reedwren", "Patched Reedwren", ("wing",)),
        ("Barred Reedwren", "Barred Reedwren", ()),
        ("Barred Reedwren", "Barred Brookjay", PARTS),
    ],
)
def test_differing_parts(one: str, other: str, parts: tuple[str, ...]):
    assert differing_parts(named(one), named(other)) == parts
    assert differing_parts(named(other), named(one)) == parts


def test_a_species_is_found_by_its_folder_name():
    assert named("Ringed-Larkfinch") is named("Ringed Larkfinch")


def test_a_seed_gives_one_picture_and_another_seed_another():
    first, again, other = (draw_bird(SPECIES[3], seed=seed, size=96) for seed in (5, 5, 6))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.attributes == again.attributes
    assert all((first.masks[part] == again.masks[part]).all() for part in PARTS)
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("genus", GENERA)
def test_every_part_is_seen_and_lies_on_the_bird(genus: str):
    species = next(species for species in SPECIES if species.genus == genus)
    plate = draw_bird(species, seed=11, size=128)
    assert tuple(plate.masks) == PARTS
    assert plate.image.size == (128, 128)
    for mask in plate.masks.values():
        assert mask.dtype == bool
        assert mask.shape == (128, 128)
        assert mask.any()
        assert not (mask & ~grown(plate.masks["bird"], 1)).any()
    marked = sum(plate.masks[part].sum() for part in PARTS[1:])
    assert marked < 0.75 * plate.masks["bird"].sum()


@pytest.mark.parametrize("genus", GENERA)
def test_two_species_differ_where_their_marks_are_and_hardly_elsewhere(genus: str):
    plates = {species: draw_bird(species, seed=2, size=128) for species in SPECIES if species.genus == genus}
    for one, other in combinations(plates, 2):
        change = np.abs(pixels(plates[one].image) - pixels(plates[other].image)).sum(axis=-1)
        parts = [plates[bird].masks[part] for bird in (one, other) for part in differing_parts(one, other)]
        truth = np.any(parts, axis=0)
        # Blur and the soft edges of marks carry a little of the change past the mask: two pixels are allowed.
        assert change[~grown(truth, 2)].sum() < 0.05 * change.sum(), (one.name, other.name)
        assert all(change[mask].max() > 60 for mask in parts), (one.name, other.name)


def test_what_hangs_in_front_is_left_out_of_the_masks(monkeypatch: pytest.MonkeyPatch):
    species = named("Spotted Mossthrush")
    drawn = ((seed, draw_bird(species, seed=seed, size=96)) for seed in range(50))
    seed, hidden = next(pair for pair in drawn if float(pair[1].attributes["hidden_share"]) > 0.04)

    def nothing_in_front(name: str, figure: plate_room.Figure, *_: object) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((figure.size, figure.size, 3), np.float32), np.zeros((figure.size,) * 2, np.float32)

    monkeypatch.setattr(plate_room, "paint_occluders", nothing_in_front)
    bare = draw_bird(species, seed=seed, size=96)
    lost = bare.masks["bird"] & ~hidden.masks["bird"]
    assert bare.attributes["hidden_share"] == 0
    assert not (hidden.masks["bird"] & ~bare.masks["bird"]).any()
    assert lost.sum() / bare.masks["bird"].sum() == pytest.approx(hidden.attributes["hidden_share"], abs=0.03)
    assert (np.abs(pixels(bare.image) - pixels(hidden.image)).sum(axis=-1)[lost] > 0).mean() > 0.9


def test_the_folder_and_its_table_say_the_same(guide: Path):
    table = pd.read_parquet(guide / "table.parquet")
    images = {str(path.relative_to(guide)) for path in guide.glob("t*/*/*/*.jpg")}
    assert set(table["path"]) == images
    assert len(table) == 80
    assert table.groupby("split").size().to_dict() == {"test": 40, "train": 40}
    assert table["seed"].is_unique
    row = table.set_index("path").loc["test/Brookjay/Rusty-Brookjay/000.jpg"]
    assert (row["fine"], row["coarse"], row["tail"], row["crown"]) == (
        "Rusty Brookjay",
        "Brookjay",
        "rufous",
        "plain",
    )


def test_a_row_of_the_table_gives_the_picture_and_its_masks_again(guide: Path):
    row = pd.read_parquet(guide / "table.parquet").iloc[17]
    plate = draw_bird(named(row["fine"]), seed=int(row["seed"]), size=64)
    masks = load_masks(guide, row["path"])
    assert tuple(masks) == PARTS
    assert all((masks[part] == plate.masks[part]).all() for part in PARTS)
    with Image.open(guide / row["path"]) as image:
        assert np.abs(pixels(image) - pixels(plate.image)).mean() < 6


def test_many_workers_write_the_same_bytes(guide: Path, tmp_path: Path):
    other = write_fieldguide(tmp_path / "birds", **SMALL, workers=2)
    files = sorted(path.relative_to(guide) for path in guide.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all((guide / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_more_pictures_keep_the_first_ones():
    seeds = [write_room.image_seed(0, "Ringed Larkfinch", "train", index) for index in range(3)]
    assert len(set(seeds)) == 3
    assert write_room.image_seed(0, "Ringed Larkfinch", "test", 0) not in seeds
    assert write_room.image_seed(1, "Ringed Larkfinch", "train", 0) not in seeds


def test_what_is_written_already_is_not_drawn_again(guide: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(write_room, "_draw_all", lambda *_: pytest.fail("drawn again"))
    assert write_fieldguide(guide, **SMALL) == guide


def test_other_settings_are_refused_by_name(guide: Path):
    with pytest.raises(ImagesNotUsable, match=r"per_class 1 \(asked: 3\)"):
        write_fieldguide(guide, **{**SMALL, "per_class": 3})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ImagesNotUsable, match="is no field guide"):
        write_fieldguide(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"test_per_class": -1}, {"seed": -1}, {"size": 8}])
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, int]):
    with pytest.raises(ImagesNotUsable, match=next(iter(wrong))):
        write_fieldguide(tmp_path / "birds", **{**SMALL, **wrong})


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write_room, "_draw_one", full)
    with pytest.raises(NoSpace, match="No space left on device"):
        write_fieldguide(tmp_path / "birds", **SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NoSpace, match="Cannot write the field guide"):
        write_fieldguide(tmp_path / "file" / "birds", **SMALL, workers=1)


def test_masks_of_what_is_not_there(guide: Path, tmp_path: Path):
    with pytest.raises(ImagesNotUsable, match="No masks"):
        load_masks(guide, "train/Brookjay/Rusty-Brookjay/999.jpg")
    with pytest.raises(ImagesNotUsable, match="No masks"):
        load_masks(tmp_path, "000.jpg")


def test_the_order_of_the_bits_is_on_disk(guide: Path):
    assert tuple(json.loads((guide / "parts.json").read_text())) == PARTS
