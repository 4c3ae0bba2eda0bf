"""Each known set, in the layout it is published in and as its copy on the hub, gives the labels that are known."""

import csv
import json
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fgdiag.errors import ImagesNotUsable
from fgdiag.images import ImageSet, open_images
from fgdiag.known_sets import KNOWN_SETS, facts
from fgdiag.known_sets.cub import clean as clean_bird
from fgdiag.known_sets.dogs import KINDS
from fgdiag.known_sets.flowers import NAMES as FLOWERS
from fgdiag.listing import Listed
from fgdiag.prompts import spoken
from tests.fgdiag.known_sets_page import PAGE, page

_COLOURS = count()


def draw(path: Path) -> None:
    """Write a small picture that no other is like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(_COLOURS)
    Image.new("RGB", (9, 8), (number % 256, number // 256, 7)).save(path, "PNG")  # which loses nothing


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def cell(values: list) -> np.ndarray:
    """Return a MATLAB cell of one column."""
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


def rows(images: ImageSet) -> set[tuple[str, str, str, str]]:
    columns = ("source", "fine", "coarse", "split")
    return set(zip(*(images.table[column] for column in columns), strict=True))


def labels(images: ImageSet) -> set[tuple[str, str]]:
    return {(fine, coarse) for _, fine, coarse, _ in rows(images)}


def message(source: str) -> str:
    with pytest.raises(ImagesNotUsable) as error:
        open_images(source)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestOriginalFolders:
    def test_flowers(self, tmp_path):
        for number in range(1, 9):
            draw(tmp_path / f"jpg/image_{number:05}.jpg")
        savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 63, 1, 63, 1, 63, 1, 63]], np.uint8)})
        splits = {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[8, 7, 6, 5]]}
        savemat(tmp_path / "setid.mat", {name: np.array(ids) for name, ids in splits.items()})
        images = open_images(f"flowers-102:{tmp_path}")
        assert images.name == "flowers-102"
        assert images.table["source"].tolist() == [f"jpg/image_0000{n}.jpg" for n in range(1, 9)]
        assert images.table["fine"].tolist() == ["pink primrose", "black-eyed susan"] * 4
        assert images.table["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 4
        assert images.synonyms == {"black-eyed susan": ("rudbeckia",)}
        assert images.source == f"flowers-102:{tmp_path}"

    def test_pets(self, tmp_path):
        known = {"Abyssinian": (1, 1), "german_shorthaired": (16, 2), "american_pit_bull_terrier": (3, 2)}
        for name, split in (("trainval", 100), ("test", 1)):
            lines = [f"{breed}_{split} {i} {species} 1" for breed, (i, species) in known.items()]
            write(tmp_path / f"annotations/{name}.txt", *lines)
            for breed in known:
                draw(tmp_path / f"images/{breed}_{split}.jpg")
        images = open_images(f"oxford-pets:{tmp_path}")
        assert rows(images) == {
            (f"images/{stem}_{number}.jpg", fine, coarse, split)
            for number, split in ((100, "train"), (1, "test"))
            for stem, fine, coarse in (
                ("Abyssinian", "Abyssinian", "cat"),
                ("german_shorthaired", "German Shorthaired Pointer", "dog"),
                ("american_pit_bull_terrier", "American Pit Bull Terrier", "dog"),
            )
        }

    def test_food(self, tmp_path):
        for split, number in (("train", 7), ("test", 8)):
            names = [f"{fine}/{number}" for fine in ("apple_pie", "donuts")]
            write(tmp_path / f"food-101/meta/{split}.txt", *names)
            for name in names:
                draw(tmp_path / f"food-101/images/{name}.jpg")
        images = open_images(f"food-101:{tmp_path}")
        assert ("images/apple_pie/8.jpg", "apple pie", "apple pie", "test") in rows(images)
        assert images.levels == ("fine",)
        assert images.synonyms == {"donuts": ("doughnuts",)}

    def test_cub(self, tmp_path):
        classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "118.House_Sparrow"]
        root = tmp_path / "CUB_200_2011"
        paths = [f"{of}/{of[4:]}_{n}.jpg" for of in classes for n in (1, 2)]
        for path in paths:
            draw(root / "images" / path)
        write(root / "classes.txt", *(f"{i} {name}" for i, name in enumerate(classes, 1)))
        write(root / "images.txt", *(f"{i} {path}" for i, path in enumerate(paths, 1)))
        write(root / "image_class_labels.txt", *(f"{i} {(i + 1) // 2}" for i in range(1, 7)))
        write(root / "train_test_split.txt", *(f"{i} {i % 2}" for i in range(1, 7)))
        images = open_images(f"cub-200:{tmp_path}")
        assert images.table["split"].tolist() == ["train", "test"] * 3
        assert labels(images) == {
            ("Black-footed Albatross", "Albatross"),
            ("Laysan Albatross", "Albatross"),
            ("House Sparrow", "Sparrow"),
        }

    @pytest.mark.parametrize("place", ["devkit", "."])
    def test_cars(self, tmp_path, place):
        names = ["Aston Martin Virage Coupe 2012", "Ram C/V Cargo Van Minivan 2012", "Audi S4 Sedan 2007"]
        (tmp_path / "devkit").mkdir()
        savemat(tmp_path / "devkit/cars_meta.mat", {"class_names": cell(names).T})
        lists = {"train": "devkit/cars_train_annos.mat", "test": f"{place}/cars_test_annos_withlabels.mat"}
        form = [("bbox_x1", object), ("class", object), ("fname", object)]
        for split, path in lists.items():
            annotations = np.array([[(1, i, f"0000{i}.jpg") for i in (1, 2, 3)]], dtype=form)
            savemat(tmp_path / path, {"annotations": annotations})
            for i in (1, 2, 3):
                draw(tmp_path / f"cars_{split}/0000{i}.jpg")
        images = open_images(f"cars-196:{tmp_path}")
        assert labels(images) == {
            (names[0], "Aston Martin"),
            (names[1], "Ram"),
            (names[2], "Audi"),
        }
        assert ("cars_test/00002.jpg", names[1], "Ram", "test") in rows(images)
        assert images.synonyms[names[2]] == ("Audi S4 Sedan",)
        assert spoken(names[1]) == names[1]

    def test_aircraft(self, tmp_path):
        known = [
            ("737-200", "Boeing 737", "Boeing"),
            ("737-300", "Boeing 737", "Boeing"),
            ("Cessna 172", "Cessna 172", "Cessna"),
            ("F/A-18", "F/A-18", "McDonnell Douglas"),
        ]
        root = tmp_path / "fgvc-aircraft-2013b/data"
        for of_split, split in enumerate(("train", "val", "test")):
            for level, column in (("variant", 0), ("family", 1), ("manufacturer", 2)):
                lines = [f"{10 * of_split + i:07} {one[column]}" for i, one in enumerate(known)]
                write(root / f"images_{level}_{split}.txt", *lines)
            for i in range(len(known)):
                draw(root / f"images/{10 * of_split + i:07}.jpg")
        images = open_images(f"fgvc-aircraft:{tmp_path}")
        assert ("images/0000020.jpg", "Boeing 737-200", "Boeing 737", "test") in rows(images)
        assert labels(images) == {
            ("Boeing 737-200", "Boeing 737"),
            ("Boeing 737-300", "Boeing 737"),
            ("Cessna 172", "Cessna 172"),
            ("McDonnell Douglas F/A-18", "F/A-18"),
        }
        assert images.synonyms["Boeing 737-200"] == ("737-200",)
        assert spoken("McDonnell Douglas F/A-18") == "McDonnell Douglas F/A-18"

    def test_dogs(self, tmp_path):
        breeds = ("n02088094-Afghan_hound", "n02110958-pug", "n02089078-black-and-tan_coonhound")
        for split, number in (("train", 1), ("test", 2)):
            paths = [f"{breed}/{breed[:9]}_{number}.jpg" for breed in breeds]
            savemat(tmp_path / f"{split}_list.mat", {"file_list": cell(paths), "labels": [[1], [2], [3]]})
            for path in paths:
                draw(tmp_path / "Images" / path)
        images = open_images(f"stanford-dogs:{tmp_path}")
        source = "Images/n02088094-Afghan_hound/n02088094_2.jpg"
        assert (source, "Afghan hound", "hound", "test") in rows(images)
        assert labels(images) == {
            ("Afghan hound", "hound"),
            ("pug", "pug"),
            ("black-and-tan coonhound", "hound"),
        }

    def test_caltech(self, tmp_path):
        for name in ("accordion", "car_side", "Faces_easy", "BACKGROUND_Google"):
            for number in range(1, 5):
                draw(tmp_path / f"101_ObjectCategories/{name}/image_000{number}.jpg")
        images = open_images(f"caltech-101:{tmp_path}")
        named = {"accordion", "side of a car", "close-up of the face of a person"}
        assert set(images.table["fine"]) == named
        assert images.table["split"].value_counts().to_dict() == {"train": 9, "test": 3}
        assert images.ignored == ("BACKGROUND_Google/",)

    def test_inat(self, tmp_path):
        species = [
            ("Turdus migratorius", "American Robin", "Turdidae"),
            ("Turdus merula", "Eurasian Blackbird", "Turdidae"),
            ("Quercus alba", "oak", "Fagaceae"),
            ("Quercus rubra", "Oak", "Fagaceae"),
        ]
        categories = [
            {"id": i, "name": name, "common_name": common, "family": family}
            for i, (name, common, family) in enumerate(species)
        ]
        for file in ("train_mini", "val"):
            paths = [f"{file}/{i:05}_{one[0]}/a.jpg" for i, one in enumerate(species)]
            held = {
                "images": [{"id": 100 + i, "file_name": path} for i, path in enumerate(paths)],
                "annotations": [{"id": i, "image_id": 100 + i, "category_id": i} for i in range(4)],
                "categories": categories,
            }
            write(tmp_path / f"{file}.json", json.dumps(held))
            for path in paths:
                draw(tmp_path / path)
        images = open_images(f"inat-2021-mini:{tmp_path}")
        assert labels(images) == {
            ("American Robin", "Turdidae"),
            ("Eurasian Blackbird", "Turdidae"),
            ("Quercus alba", "Fagaceae"),
            ("Quercus rubra", "Fagaceae"),
        }
        assert images.synonyms == {
            "American Robin": ("Turdus migratorius",),
            "Eurasian Blackbird": ("Turdus merula",),
        }
        assert images.warnings == ("no test split: val is used as test",)

    def test_grocery_with_its_lists_and_as_plain_folders(self, tmp_path):
        header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)"
        write(tmp_path / "dataset/classes.csv", header, "Granny-Smith,0,Apple,0", "Leek,1,Leek,1")
        for split in ("train", "val", "test"):
            paths = [f"{split}/Fruit/Apple/Granny-Smith/a.jpg", f"{split}/Vegetables/Leek/b.jpg"]
            write(tmp_path / f"dataset/{split}.txt", f"{paths[0]}, 0, 0", f"{paths[1]}, 1, 1")
            for path, plain in zip(paths, ("Apple/Granny-Smith", "Leek/Leek"), strict=True):
                draw(tmp_path / "dataset" / path)
                image = tmp_path / "plain" / split / plain / "c.jpg"
                image.parent.mkdir(parents=True)
                image.write_bytes((tmp_path / "dataset" / path).read_bytes())
        listed = open_images(f"grocery-store:{tmp_path}")
        plain = open_images(f"grocery-store:{tmp_path / 'plain'}")
        for images in (listed, plain):
            assert labels(images) == {("Granny-Smith", "Apple"), ("Leek", "Leek")}
        columns = ["id", "fine", "coarse", "split"]
        assert {*listed.table[columns].itertuples(index=False, name=None)} == {
            *plain.table[columns].itertuples(index=False, name=None)
        }

    @pytest.mark.parametrize("suffix", [".csv", ""])
    def test_ham10000_keeps_a_lesion_on_one_side(self, tmp_path, suffix):
        lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
        for lesion in range(24):
            for photo in range(2):
                image = f"ISIC_{lesion:03}{photo}"
                lines.append(f"HAM_{lesion},{image},{('nv', 'mel', 'bkl')[lesion % 3]},histo,50.0,male,back")
                draw(tmp_path / f"HAM10000_images_part_{photo + 1}/{image}.jpg")
        write(tmp_path / f"HAM10000_metadata{suffix}", *lines)
        images = open_images(f"ham10000:{tmp_path}")
        assert labels(images) == {
            ("melanocytic nevus", "benign skin lesion"),
            ("melanoma", "malignant skin lesion"),
            ("benign keratosis", "benign skin lesion"),
        }
        assert set(images.table["status"]) == {"ok"}
        assert len(set(images.table["group"])) == 24
        assert set(images.table.groupby("group")["split"].nunique()) == {1}
        assert images.table["split"].value_counts().to_dict() == {"train": 36, "test": 12}

    def test_elpv(self, tmp_path):
        grades = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")
        known = [(grade, kind) for grade in grades for kind in ("mono", "poly") for _ in range(2)]
        lines = [f"images/cell{i:04}.png  {grade}   {kind}" for i, (grade, kind) in enumerate(known)]
        write(tmp_path / "labels.csv", *lines)
        for line in lines:
            draw(tmp_path / line.split()[0])
        images = open_images(f"elpv:{tmp_path}")
        assert len(set(images.table["fine"])) == 8
        assert images.table["fine"].tolist()[-1] == "defective polycrystalline solar cell"
        assert set(images.table["coarse"]) == {"monocrystalline solar cell", "polycrystalline solar cell"}
        assert "probably functional monocrystalline solar cell" in set(images.table["fine"])


class TestImageNet:
    """It is found in three layouts."""

    WORDS = {  # noqa: RUF012
        "n01440764": "tench, Tinca tinca",
        "n02012849": "crane",
        "n03126707": "crane",
        "n02113186": "Cardigan, Cardigan Welsh corgi",
        "n02963159": "cardigan",
    }

    def train(self, root: Path) -> None:
        for synset in self.WORDS:
            draw(root / f"train/{synset}/{synset}_1.JPEG")

    def flat(self, root: Path) -> None:
        for number in range(1, 6):
            draw(root / f"val/ILSVRC2012_val_0000000{number}.JPEG")

    def check(self, images: ImageSet) -> None:
        known = ("tench", "crane bird", "construction crane", "Cardigan Welsh corgi", "cardigan")
        of_split = images.table.sort_values("source").groupby("split")["fine"].apply(list)
        assert sorted(of_split["train"]) == sorted(known)
        assert [*of_split.to_dict()["test"]] == list(known)
        assert images.synonyms == {"tench": ("Tinca tinca",)}
        assert images.levels == ("fine",)

    def test_folders_of_synsets_with_a_mapping(self, tmp_path):
        self.train(tmp_path)
        for synset in self.WORDS:
            draw(tmp_path / f"val/{synset}/ILSVRC2012_val_{list(self.WORDS).index(synset)}.JPEG")
        write(tmp_path / "LOC_synset_mapping.txt", *(f"{wnid} {words}" for wnid, words in self.WORDS.items()))
        images = open_images(f"imagenet-1k:{tmp_path}")
        assert len(images) == 10
        assert set(images.table["fine"]) == {
            "tench",
            "crane bird",
            "construction crane",
            "Cardigan Welsh corgi",
            "cardigan",
        }

    def test_as_kaggle_gives_it(self, tmp_path):
        root = tmp_path / "ILSVRC/Data/CLS-LOC"
        self.train(root)
        self.flat(root)
        write(tmp_path / "LOC_synset_mapping.txt", *(f"{wnid} {words}" for wnid, words in self.WORDS.items()))
        lines = [f"ILSVRC2012_val_0000000{i},{wnid} 1 2 3 4 " for i, wnid in enumerate(self.WORDS, 1)]
        write(tmp_path / "LOC_val_solution.csv", "ImageId,PredictionString", *lines)
        self.check(open_images(f"imagenet-1k:{tmp_path}"))

    def test_with_the_development_kit(self, tmp_path):
        self.train(tmp_path)
        self.flat(tmp_path)
        form = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
        synsets = [(9 - i, wnid, words, 0) for i, (wnid, words) in enumerate(self.WORDS.items())]
        synsets.append((1001, "n00001740", "entity", 2))
        kit = tmp_path / "ILSVRC2012_devkit_t12/data"
        kit.mkdir(parents=True)
        savemat(kit / "meta.mat", {"synsets": np.array(synsets, dtype=form)[:, None]})
        write(kit / "ILSVRC2012_validation_ground_truth.txt", *(str(9 - i) for i in range(5)))
        self.check(open_images(f"imagenet-1k:{tmp_path}"))
        (tmp_path / "val/ILSVRC2012_val_00000005.JPEG").unlink()
        assert "has 5 lines for the 4 images of val/" in message(f"imagenet-1k:{tmp_path}")

    def test_without_words_or_labels(self, tmp_path):
        self.train(tmp_path)
        self.flat(tmp_path)
        assert "does not say what its synsets are called" in message(f"imagenet-1k:{tmp_path}")
        write(tmp_path / "LOC_synset_mapping.txt", *(f"{wnid} {words}" for wnid, words in self.WORDS.items()))
        assert "no list says what its images show" in message(f"imagenet-1k:{tmp_path}")


class TestHubCopies:
    """A folder that `save_to_disk` wrote, with the columns and the label names of the copy on the hub."""

    def save(self, folder: Path, **parts: dict[str, list[str]]) -> str:
        datasets = pytest.importorskip("datasets")
        made = {}
        for part, columns in parts.items():
            paths = [folder.parent / f"{part}-{i}.png" for i in range(len(next(iter(columns.values()))))]
            for path in paths:
                draw(path)
            features = {name: datasets.Value("string") for name in columns}
            for name, values in columns.items():
                if "label" in name or name in ("variant", "family", "manufacturer"):
                    features[name] = datasets.ClassLabel(names=sorted(set(values)))
            features["image"] = datasets.Image()
            held = {**columns, "image": [str(path) for path in paths]}
            made[part] = datasets.Dataset.from_dict(held, features=datasets.Features(features))
        datasets.DatasetDict(made).save_to_disk(str(folder))
        return str(folder)

    @pytest.mark.parametrize(
        ("name", "raw", "known"),
        [
            ("flowers-102", ["globe-flower", "rose"], {("globe flower",) * 2, ("rose",) * 2}),
            ("food-101", ["apple_pie", "donuts"], {("apple pie",) * 2, ("donuts",) * 2}),
            (
                "cub-200",
                ["001.Black_footed_Albatross", "House_Sparrow"],
                {("Black-footed Albatross", "Albatross"), ("House Sparrow", "Sparrow")},
            ),
            (
                "cars-196",
                ["Audi S4 Sedan 2007", "Land Rover LR2 SUV 2012"],
                {("Audi S4 Sedan 2007", "Audi"), ("Land Rover LR2 SUV 2012", "Land Rover")},
            ),
            (
                "stanford-dogs",
                ["Afghan hound", "n02110958-pug"],
                {("Afghan hound", "hound"), ("pug", "pug")},
            ),
            ("caltech-101", ["airplanes", "yin_yang"], {("airplane",) * 2, ("yin and yang symbol",) * 2}),
            (
                "imagenet-1k",
                ["crane", "crane2", "tench, Tinca tinca"],
                {("crane bird",) * 2, ("construction crane",) * 2, ("tench",) * 2},
            ),
        ],
    )
    def test_one_column_of_labels(self, tmp_path, name, raw, known):
        folder = self.save(tmp_path / "saved", train={"label": raw}, validation={"label": raw})
        assert labels(open_images(f"{name}:{folder}")) == known

    def test_pets(self, tmp_path):
        columns = {"label": ["abyssinian", "german_shorthaired"], "label_cat_dog": ["cat", "dog"]}
        images = open_images(f"oxford-pets:{self.save(tmp_path / 'saved', train=columns, test=columns)}")
        assert labels(images) == {("Abyssinian", "cat"), ("German Shorthaired Pointer", "dog")}

    def test_aircraft(self, tmp_path):
        columns = {
            "variant": ["737-200", "Cessna 172"],
            "family": ["Boeing 737", "Cessna 172"],
            "manufacturer": ["Boeing", "Cessna"],
        }
        images = open_images(f"fgvc-aircraft:{self.save(tmp_path / 'saved', train=columns, test=columns)}")
        assert labels(images) == {("Boeing 737-200", "Boeing 737"), ("Cessna 172", "Cessna 172")}

    def test_ham10000_takes_each_photograph_once_and_its_own_split(self, tmp_path):
        def some(numbers):
            return {
                "image_id": [f"ISIC_{n}" for n in numbers],
                "lesion_id": [f"HAM_{n // 2}" for n in numbers],
                "dx": ["melanoma" if n // 2 % 2 else "melanocytic_Nevi" for n in numbers],
            }

        folder = self.save(tmp_path / "saved", train=some(range(16)), test=some(range(8, 20)))
        images = open_images(f"ham10000:{folder}")
        assert len(images) == 20
        assert set(images.table.groupby("group")["split"].nunique()) == {1}
        assert len(set(images.table["group"])) == 10
        assert labels(images) == {
            ("melanoma", "malignant skin lesion"),
            ("melanocytic nevus", "benign skin lesion"),
        }

    def test_a_missing_column_is_named(self, tmp_path):
        folder = self.save(tmp_path / "saved", train={"label": ["a", "b"]}, test={"label": ["a", "b"]})
        assert "expected label_cat_dog too" in message(f"oxford-pets:{folder}")

    def test_a_set_without_a_copy_says_where_to_get_it(self, tmp_path):
        said = message("grocery-store")
        assert "GroceryStoreDataset and give its folder: grocery-store:FOLDER" in said


class TestMistakes:
    def test_every_set_says_what_it_expects_of_an_empty_folder(self, tmp_path):
        for name in KNOWN_SETS:
            said = message(f"{name}:{tmp_path}")
            assert str(tmp_path) in said
            assert "expected" in said, said

    def test_no_such_folder(self, tmp_path):
        said = message(f"cub-200:{tmp_path}/birds")
        assert said.startswith(
            f"There is no folder {tmp_path}/birds; expected CUB-200-2011: images/<class>/*.jpg"
        )

    def test_a_name_that_is_nearly_right(self):
        assert message("flowers102").endswith(
            "did you mean the known set flowers-102? `fgdiag sets` lists them."
        )

    def test_a_folder_of_that_name_comes_first(self, tmp_path, monkeypatch):
        for of_class in ("a", "b"):
            for number in range(4):
                draw(tmp_path / f"elpv/{of_class}/{number}.png")
        monkeypatch.chdir(tmp_path)
        assert set(open_images("elpv").table["fine"]) == {"a", "b"}

    def test_broken_files(self, tmp_path):
        (tmp_path / "jpg").mkdir()
        write(tmp_path / "imagelabels.mat", "no MATLAB file")
        write(tmp_path / "setid.mat", "no MATLAB file")
        assert "imagelabels.mat cannot be read as a MATLAB file" in message(f"flowers-102:{tmp_path}")
        savemat(tmp_path / "imagelabels.mat", {"other": 1})
        assert "holds other; expected the variable labels" in message(f"flowers-102:{tmp_path}")
        write(tmp_path / "train_mini.json", "{")
        write(tmp_path / "val.json", "{")
        assert "cannot be read as iNaturalist 2021 mini" in message(f"inat-2021-mini:{tmp_path}")
        with (tmp_path / "HAM10000_metadata.csv").open("w") as table:
            csv.writer(table).writerow(["image", "dx"])
        (tmp_path / "HAM10000_images_part_1").mkdir()
        assert "has the columns image, dx; expected lesion_id, image_id too" in message(
            f"ham10000:{tmp_path}"
        )

    def test_a_relative_folder_is_found_again_from_elsewhere(self, tmp_path, monkeypatch):
        for of_class in ("accordion", "ant"):
            for number in range(4):
                draw(tmp_path / f"caltech/{of_class}/{number}.jpg")
        monkeypatch.chdir(tmp_path)
        images = open_images("caltech-101:caltech")
        monkeypatch.chdir("/")
        assert open_images(images.source).digest == images.digest


class TestFacts:
    def test_what_is_said_adds_up(self):
        for known in KNOWN_SETS.values():
            assert known.splits == {} or sum(known.splits.values()) == known.images, known.name
            assert known.homepage.startswith("http")
            assert known.coarse_source
            assert known.hub is None or known.hub.id.count("/") == 1
            json.dumps(known.json())

    def test_an_unknown_name(self):
        with pytest.raises(
            ImagesNotUsable, match="No image set 'flowers' is known; expected one of imagenet-1k"
        ):
            facts("flowers")

    def test_names_of_the_flowers(self):
        assert len(FLOWERS) == len(set(FLOWERS)) == 102
        assert (FLOWERS[0], FLOWERS[42], FLOWERS[-1]) == ("pink primrose", "sword lily", "blackberry lily")
        assert set(facts("flowers-102").synonyms) <= set(FLOWERS)

    def test_names_of_the_dogs(self):
        breeds = [breed for names in KINDS.values() for breed in names.split(", ")]
        assert len(breeds) == len(set(breeds))
        # 120 in all; the others are a kind of their own.
        alone = {"Rhodesian ridgeback", "basenji", "pug", "Leonberg", "Newfoundland", "Great Pyrenees"}
        assert len(breeds) + len(alone | {"Mexican hairless"}) == 120
        assert set(facts("stanford-dogs").synonyms) <= {*breeds, *alone, "Mexican hairless"}

    @pytest.mark.parametrize(
        ("label", "name"),
        [
            ("004.Groove_billed_Ani", "Groove-billed Ani"),
            ("009.Brewer_Blackbird", "Brewer's Blackbird"),
            ("022.Chuck_will_Widow", "Chuck-will's-widow"),
            ("038.Great_Crested_Flycatcher", "Great Crested Flycatcher"),
            ("124.Le_Conte_Sparrow", "Le Conte's Sparrow"),
            ("126.Nelson_Sharp_tailed_Sparrow", "Nelson's Sharp-tailed Sparrow"),
            ("141.Artic_Tern", "Arctic Tern"),
            ("187.American_Three_toed_Woodpecker", "American Three-toed Woodpecker"),
        ],
    )
    def test_hyphens_and_apostrophes_of_the_birds(self, label, name):
        assert clean_bird(Listed("", label)).fine == name
        assert spoken(name) == name or " " not in name


@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="pip install 'fgdiag[elpv]'")
def test_elpv_on_its_real_files():
    images = open_images("elpv")
    known = facts("elpv")
    assert len(images) == known.images
    assert set(images.table["status"]) == {"ok"}
    assert set(zip(images.table["width"], images.table["height"], strict=True)) == {(300, 300)}
    assert len(set(images.table["fine"])) == known.classes
    grades = images.table["fine"].str.rsplit(n=3).str[0].value_counts().to_dict()
    assert grades == {
        "functional": 1508,
        "probably functional": 295,
        "probably defective": 106,
        "defective": 715,
    }
    assert images.levels == ("fine", "coarse")


def test_the_page_says_what_the_facts_say():
    assert PAGE.read_text("utf-8") == page(), "run: python tests/fgdiag/known_sets_page.py"
