"""Every source of labelled images gives the same table; what cannot be used is named in one line."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fgdiag.errors import ImagesNotUsable, ImageUnreadable
from fgdiag.images import ImageSet, open_images

COLUMNS = ["id", "source", "fine", "coarse", "split", "group", "width", "height", "status"]


def draw(path: Path, value: int, size=(12, 10)) -> Path:
    """Write a small picture that differs for every value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, value // 256, 7)).save(path)
    return path


def tree(root: Path, *folders: str, n: int = 4) -> Path:
    """Write `n` different pictures into each folder."""
    for k, folder in enumerate(folders):
        for i in range(n):
            draw(root / folder / f"{i}.png", 100 * k + i)
    return root


def message(source, **options) -> str:
    with pytest.raises(ImagesNotUsable) as error:
        open_images(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(images: ImageSet) -> set[tuple[str, str]]:
    return set(zip(images.table["coarse"], images.table["fine"], strict=True))


class TestFolder:
    def test_fine_folders(self, tmp_path):
        images = open_images(tree(tmp_path / "flowers", "rose", "tulip"))
        assert list(images.table.columns) == COLUMNS
        assert images.name == "flowers"
        assert len(images) == 8
        assert labels(images) == {("rose", "rose"), ("tulip", "tulip")}
        assert images.levels == ("fine",)
        assert images.table["split"].value_counts().to_dict() == {"train": 6, "test": 2}
        assert images.table["source"].tolist()[0] == "rose/0.png"
        assert (images.table["width"].tolist()[0], images.table["height"].tolist()[0]) == (12, 10)
        assert images.table["group"].tolist() == images.table["id"].tolist()
        assert images.warnings == images.ignored == ()

    def test_coarse_and_fine_folders_under_given_splits(self, tmp_path):
        for split in ("train", "validation", "Test"):
            tree(tmp_path / split, "bird/robin", "bird/wren", "fish/carp", n=2)
        for i, path in enumerate(sorted(tmp_path.rglob("*.png"))):
            draw(path, i)
        images = open_images(str(tmp_path))
        assert labels(images) == {("bird", "robin"), ("bird", "wren"), ("fish", "carp")}
        assert images.levels == ("fine", "coarse")
        assert images.table["split"].value_counts().to_dict() == {"train": 6, "val": 6, "test": 6}

    def test_a_coarse_class_of_everything_is_no_level(self, tmp_path):
        assert open_images(tree(tmp_path, "bird/robin", "bird/wren")).levels == ("fine",)

    def test_a_fine_label_under_two_coarse_ones_is_qualified(self, tmp_path):
        images = open_images(tree(tmp_path, "apple/red", "pear/red", "pear/green"))
        assert labels(images) == {("apple", "apple/red"), ("pear", "pear/red"), ("pear", "green")}

    def test_hidden_things_and_tables_are_no_images(self, tmp_path):
        tree(tmp_path, "rose", "tulip", ".masks/rose")
        (tmp_path / "rose" / ".DS_Store").write_text("x")
        (tmp_path / "rose" / "Thumbs.db").write_text("x")
        (tmp_path / "table.parquet").write_text("x")
        (tmp_path / "lily").mkdir()
        images = open_images(tmp_path)
        assert len(images) == 8
        assert images.ignored == ("lily/", "rose/Thumbs.db", "table.parquet")

    def test_broken_images_are_rows_with_a_reason(self, tmp_path):
        tree(tmp_path, "rose", "tulip")
        (tmp_path / "rose" / "page.jpg").write_text("<html></html>")
        (tmp_path / "rose" / "none.JPG").write_bytes(b"")
        (tmp_path / "rose" / "folder.jpg").mkdir()
        (tmp_path / "rose" / "gone.jpg").symlink_to(tmp_path / "nowhere")
        draw(tmp_path / "rose" / "dot.png", 3, size=(1, 1))
        table = open_images(tmp_path).table.set_index("source")
        assert len(table) == 13
        assert table.loc["rose/page.jpg", "status"] == "an HTML page, not an image"
        assert table.loc["rose/none.JPG", "status"] == "an empty file (0 bytes)"
        assert table.loc["rose/folder.jpg", "status"] == "a folder, not a file"
        assert table.loc["rose/gone.jpg", "status"] == "no such file"
        assert table.loc["rose/dot.png", "status"] == "1x1 pixels: smaller than 8 pixels on a side"
        assert table.loc["rose/dot.png", "width"] == 0
        assert set(table.loc[table["status"] != "ok", "split"]) <= {"train", "test"}
        assert table.index.is_unique
        assert table["id"].is_unique

    def test_a_name_that_is_not_utf8_is_ignored_by_name(self, tmp_path):
        tree(tmp_path, "rose", "tulip")
        odd = (str(tmp_path / "rose" / "caf").encode() + b"\xe9.png").decode("utf-8", "surrogateescape")
        draw(tmp_path / "rose" / "0.png", 9).rename(odd)
        assert open_images(tmp_path).ignored == ("rose/caf\\udce9.png",)

    def test_a_link_upwards_ends(self, tmp_path):
        tree(tmp_path, "rose", "tulip")
        (tmp_path / "rose" / "up").symlink_to(tmp_path, target_is_directory=True)
        assert "Images at different depths" in message(tmp_path)

    def test_train_is_a_vehicle_beside_other_vehicles(self, tmp_path):
        images = open_images(tree(tmp_path, "train", "plane", "car"))
        assert {fine for _, fine in labels(images)} == {"train", "plane", "car"}

    def test_images_beside_the_splits_are_left_out_aloud(self, tmp_path):
        tree(tmp_path, "train/rose", "train/tulip", "test/rose", "test/tulip", "masks/rose")
        images = open_images(tmp_path)
        assert len(images) == 16
        assert images.warnings == ("images beside the split folders, left out (4): masks",)

    def test_mixed_depths_name_two_paths(self, tmp_path):
        text = message(tree(tmp_path, "rose", "bird/robin"))
        assert "bird/robin/0.png" in text
        assert "rose/0.png" in text

    def test_images_without_a_class_folder(self, tmp_path):
        tree(tmp_path / "flat", "")
        assert "No labels can be read off 0.png" in message(tmp_path / "flat")
        (tmp_path / "flat" / "labels.csv").write_text("x")
        assert "for the labels of labels.csv, give that file" in message(tmp_path / "flat")
        tree(tmp_path / "splits", "train", "test")
        assert "No labels can be read off t" in message(tmp_path / "splits")
        tree(tmp_path / "deep", "a/b/c/d", "a/b/c/e")
        assert "No labels can be read off a/b/c/d/0.png" in message(tmp_path / "deep")
        assert message(tmp_path / "deep").endswith(f"Did you mean {tmp_path}/deep/a?")

    def test_folders_that_hold_nothing(self, tmp_path):
        assert message(tmp_path).startswith(f"No image in {tmp_path}; expected <fine>/*.jpg")
        (tmp_path / "notes.txt").write_text("x")
        assert "other files and folders: 1, such as notes.txt" in message(tmp_path)

    def test_all_images_broken(self, tmp_path):
        for name in ("rose", "tulip"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.jpg").write_bytes(b"")
        assert "None of the 2 images" in message(tmp_path)
        assert "rose/a.jpg: an empty file" in message(tmp_path)


class TestTable:
    def write(self, path: Path, frame: pd.DataFrame) -> Path:
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        return path

    @pytest.fixture
    def frame(self, tmp_path):
        paths = [draw(tmp_path / "pictures" / f"{i}.png", i) for i in range(8)]
        shown = [str(p if i % 2 else p.relative_to(tmp_path)) for i, p in enumerate(paths)]
        return pd.DataFrame({"path": shown, "fine": ["007"] * 4 + ["NA"] * 4})

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_all_columns(self, tmp_path, frame, suffix):
        frame["coarse"] = ["agent", "agent", "agent", "agent", "none", "none", "none", "none"]
        frame["split"] = ["train", "train", "dev", "test"] * 2
        frame["group"] = [f"g{i}" for i in range(8)]
        images = open_images(self.write(tmp_path / f"spies{suffix}", frame))
        assert images.name == "spies"
        assert labels(images) == {("agent", "007"), ("none", "NA")}
        assert images.table["split"].tolist() == ["train", "train", "val", "test"] * 2
        assert images.table["group"].tolist() == frame["group"].tolist()
        assert images.table["source"].tolist() == frame["path"].tolist()
        assert images.open(1).size == (12, 10)

    def test_labels_need_not_be_text(self, tmp_path, frame):
        frame["fine"] = [3] * 4 + [7] * 4
        images = open_images(self.write(tmp_path / "t.parquet", frame))
        assert set(images.table["fine"]) == {"3", "7"}
        assert images.table["group"].tolist() == images.table["id"].tolist()

    def test_a_missing_file_is_a_row(self, tmp_path, frame):
        frame.loc[0, "path"] = "pictures/gone.png"
        table = open_images(self.write(tmp_path / "t.csv", frame)).table
        assert table["status"].tolist() == ["no such file"] + ["ok"] * 7

    def test_all_files_missing(self, tmp_path, frame):
        frame["path"] = [f"gone/{i}.png" for i in range(8)]
        assert "None of the 8 files" in message(self.write(tmp_path / "t.csv", frame))

    def test_missing_columns(self, tmp_path, frame):
        text = message(self.write(tmp_path / "t.csv", frame.rename(columns={"fine": "label"})))
        assert "has the columns path, label; expected `path` and `fine`" in text

    def test_empty_labels_and_unknown_splits(self, tmp_path, frame):
        path = tmp_path / "t.csv"
        assert "has no fine in 1 of 8 rows, first in row 3" in message(
            self.write(path, frame.assign(fine=frame["fine"].mask(frame.index == 2)))
        )
        assert "has the split 'fold1' in row 1" in message(self.write(path, frame.assign(split="fold1")))
        splits = ["train"] * 7 + [None]
        assert "has the split '' in row 8" in message(self.write(path, frame.assign(split=splits)))

    def test_files_that_are_no_table(self, tmp_path):
        (tmp_path / "empty.csv").write_text("")
        (tmp_path / "header.csv").write_text("path,fine\n")
        (tmp_path / "ragged.csv").write_text("path,fine\na,b\na,b,c,d\n")
        (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
        (tmp_path / "text.parquet").write_text("hello")
        (tmp_path / "notes.txt").write_text("hello")
        assert "cannot be read as a table" in message(tmp_path / "empty.csv")
        assert "has no rows" in message(tmp_path / "header.csv")
        assert "cannot be read as a table" in message(tmp_path / "binary.csv")
        assert "cannot be read as a table" in message(tmp_path / "text.parquet")
        assert "is no folder and no table" in message(tmp_path / "notes.txt")
        assert "cannot be read as a table" in message(tmp_path / "ragged.csv")


class TestDataset:
    datasets = pytest.importorskip("datasets")

    def dataset(self, root: Path, *, column="image", fine="label", coarse=None, first=0):
        datasets = self.datasets
        paths = [str(draw(root / "raw" / f"{first + i}.png", first + i)) for i in range(8)]
        rows = {column: paths, fine: [0] * 4 + [1] * 4}
        features = {column: datasets.Image(), fine: datasets.ClassLabel(names=["rose", "tulip"])}
        if coarse:
            rows[coarse] = [0] * 8
            features[coarse] = datasets.ClassLabel(names=["flower"])
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    def test_one_dataset(self, tmp_path):
        self.dataset(tmp_path).save_to_disk(tmp_path / "garden")
        images = open_images(tmp_path / "garden")
        assert images.name == "garden"
        assert labels(images) == {("rose", "rose"), ("tulip", "tulip")}
        assert images.table["source"].tolist()[3] == "row 3"
        assert images.table["split"].value_counts().to_dict() == {"train": 6, "test": 2}
        assert images.open(3).getpixel((0, 0)) == (3, 0, 7)

    def test_ids_are_those_of_the_files(self, tmp_path):
        self.dataset(tmp_path).save_to_disk(tmp_path / "garden")
        tree(tmp_path / "files", "a", "b", n=1)
        table = pd.DataFrame({"path": [f"raw/{i}.png" for i in range(8)], "fine": ["a"] * 4 + ["b"] * 4})
        table.to_csv(tmp_path / "t.csv")
        assert (
            open_images(tmp_path / "garden").table["id"].tolist()
            == open_images(tmp_path / "t.csv").table["id"].tolist()
        )

    def test_a_dictionary_with_splits_and_cifar_columns(self, tmp_path):
        kinds = {"column": "img", "fine": "fine_label", "coarse": "coarse_label"}
        parts = {
            part: self.dataset(tmp_path, first=10 * i, **kinds) for i, part in enumerate(("train", "test"))
        }
        parts["extra"] = parts["train"]
        self.datasets.DatasetDict(parts).save_to_disk(tmp_path / "garden")
        images = open_images(tmp_path / "garden")
        assert labels(images) == {("flower", "rose"), ("flower", "tulip")}
        assert images.table["split"].value_counts().to_dict() == {"train": 8, "test": 8}
        assert images.table["source"].tolist()[8] == "test row 0"
        assert images.open(8).getpixel((0, 0)) == (10, 0, 7)
        assert images.warnings == ("the split extra is left out: not train, val or test",)

    def test_rows_without_label_or_image(self, tmp_path):
        datasets = self.datasets
        paths = [str(draw(tmp_path / f"{i}.png", i)) for i in range(8)]
        rows = {"image": [*paths[:7], None], "fine": ["a"] * 4 + ["b"] * 2 + [None, "b"]}
        features = datasets.Features({"image": datasets.Image(), "fine": datasets.Value("string")})
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "garden")
        images = open_images(tmp_path / "garden")
        assert images.warnings == ("rows without a label, left out (1)",)
        assert images.table.set_index("source").loc["row 7", "status"] == "no image in this row"

    def test_columns_that_cannot_be_told(self, tmp_path):
        datasets = self.datasets
        only_numbers = datasets.Dataset.from_dict({"x": [1, 2], "label": ["a", "b"]})
        only_numbers.save_to_disk(tmp_path / "numbers")
        assert "has the columns x, label, none of them of images" in message(tmp_path / "numbers")
        self.dataset(tmp_path, fine="what").rename_column("what", "label").remove_columns(
            "label"
        ).save_to_disk(tmp_path / "bare")
        assert "No fine label among the columns image" in message(tmp_path / "bare")

    def test_a_broken_folder(self, tmp_path):
        (tmp_path / "state.json").write_text("{}")
        assert "cannot be read as a saved dataset" in message(tmp_path)

    def test_the_hub(self, monkeypatch, tmp_path):
        asked = []

        def load(name, config):
            asked.append((name, config))
            return self.dataset(tmp_path)

        monkeypatch.setattr(self.datasets, "load_dataset", load)
        assert open_images("owner/garden:small").name == "garden"
        assert asked == [("owner/garden", "small")]

    def test_the_hub_out_of_reach(self, monkeypatch):
        def load(name, config):
            raise ConnectionError("Couldn't reach\nthe hub")

        monkeypatch.setattr(self.datasets, "load_dataset", load)
        text = message("owner/garden")
        assert "'owner/garden' is no folder or table here and cannot be loaded from the hub: Couldn't" in text

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        assert "pip install 'fgdiag[datasets]'" in message("owner/garden")


class TestSource:
    def test_a_path_that_is_not_there(self, tmp_path, monkeypatch):
        tree(tmp_path / "flowers", "rose", "tulip")
        assert f"did you mean {tmp_path}/flowers?" in message(tmp_path / "flower")
        assert f"did you mean {tmp_path}/flowers?" in message(tmp_path / "flowrs" / "train")
        assert f"{tmp_path} holds flowers" in message(tmp_path / "zzz")
        monkeypatch.chdir(tmp_path)
        assert "did you mean flowers/rose?" in message("flowers/rosse")
        assert "holds flowers" in message("zzz")

    def test_options_out_of_range(self, tmp_path):
        assert "test share is 1.5" in message(tmp_path, test_share=1.5)
        assert "limit is 0" in message(tmp_path, limit=0)
        assert "source of the images is empty" in message("")

    def test_an_image_set_is_returned_as_it_is(self, tmp_path):
        images = open_images(tree(tmp_path, "rose", "tulip"))
        assert open_images(images) is images

    def test_one_class_only(self, tmp_path):
        tree(tmp_path, "rose")
        assert f"{tmp_path} has 1 usable class (rose); expected at least two." in message(tmp_path)
        draw(tmp_path / "lily" / "0.png", 99)
        assert "expected at least two. Not usable: lily (a single readable image)." in message(tmp_path)

    def test_a_thin_class_is_excluded_aloud(self, tmp_path):
        tree(tmp_path, "rose", "tulip")
        draw(tmp_path / "lily" / "0.png", 999)
        images = open_images(tmp_path)
        assert images.excluded == {"lily": "a single readable image"}
        assert images.warnings == ("1 class is excluded: lily (a single readable image)",)
        assert images.table.set_index("source").loc["lily/0.png", "split"] == "excluded"

    def test_duplicates_share_id_and_group_and_side(self, tmp_path):
        tree(tmp_path, "rose", "tulip", n=6)
        for i in range(3):
            draw(tmp_path / "rose" / f"copy{i}.png", 1)
        table = open_images(tmp_path).table.set_index("source")
        copies = table.loc[["rose/1.png", "rose/copy0.png", "rose/copy1.png", "rose/copy2.png"]]
        assert copies["id"].nunique() == copies["group"].nunique() == copies["split"].nunique() == 1

    def test_duplicates_over_given_splits_and_classes_are_named(self, tmp_path):
        tree(tmp_path, "train/rose", "train/tulip", "test/rose", "test/tulip")
        draw(tmp_path / "test" / "tulip" / "copy.png", 0)
        assert open_images(tmp_path).warnings == (
            "exact duplicates in more than one split (1), such as test/tulip/copy.png (test) "
            "and train/rose/0.png (train)",
            "images under two classes (1), such as test/tulip/copy.png and train/rose/0.png",
        )

    def test_classes_spoken_alike_are_named(self, tmp_path):
        tree(tmp_path, "red-tulip", "red_tulip", "rose")
        assert open_images(tmp_path).warnings == (
            "classes spoken alike (1), such as red-tulip and red_tulip: no answer can tell them apart",
        )

    def test_the_source_opens_the_same_images_from_anywhere(self, tmp_path, monkeypatch):
        tree(tmp_path / "flowers", "rose", "tulip")
        monkeypatch.chdir(tmp_path)
        images = open_images("flowers")
        monkeypatch.chdir(tmp_path / "flowers")
        assert open_images(images.source).digest == images.digest

    def test_the_limit(self, tmp_path):
        images = open_images(tree(tmp_path, "rose", "tulip", n=20), limit=3)
        assert images.table["split"].value_counts().to_dict() == {"train": 6, "test": 6}
        assert images.table["source"].is_monotonic_increasing


class TestImageSet:
    def test_open_is_upright_and_refuses_with_the_reason(self, tmp_path):
        tree(tmp_path, "rose", "tulip")
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (30, 20)).save(tmp_path / "rose" / "0.jpg", exif=exif)
        (tmp_path / "rose" / "1.jpg").write_bytes(b"")
        images = open_images(tmp_path)
        rows = {source: row for row, source in enumerate(images.table["source"])}
        upright = images.open(rows["rose/0.jpg"])
        assert upright.size == (20, 30) == tuple(images.table.loc[rows["rose/0.jpg"], ["width", "height"]])
        with pytest.raises(ImageUnreadable, match=r"^an empty file \(0 bytes\)$"):
            images.open(rows["rose/1.jpg"])

    def test_a_file_cut_off_after_its_header_fails_when_opened(self, tmp_path):
        tree(tmp_path, "rose", "tulip")
        noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
        path = tmp_path / "rose" / "0.png"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:3000])
        images = open_images(tmp_path)
        assert set(images.table["status"]) == {"ok"}
        with pytest.raises(ImageUnreadable, match=r"^truncated: "):
            images.open(0)

    def test_subset_by_position_and_by_mask(self, tmp_path):
        images = open_images(tree(tmp_path, "rose", "tulip"))
        picked = images.subset([6, 1])
        assert picked.table["source"].tolist() == ["tulip/2.png", "rose/1.png"]
        assert picked.table.index.tolist() == [0, 1]
        assert picked.open(0).getpixel((0, 0)) == images.open(6).getpixel((0, 0))
        test = images.subset(images.table["split"] == "test")
        assert set(test.table["split"]) == {"test"}

    def test_the_digest_tells_sets_apart(self, tmp_path):
        images = open_images(tree(tmp_path / "one", "rose", "tulip"))
        same = open_images(tree(tmp_path / "two", "rose", "tulip"))
        assert images.digest == same.digest
        assert len(images.digest) == 32
        others = [open_images(tmp_path / "one", seed=1), images.subset(range(7)), images.subset([1, 0])]
        assert len({images.digest, *(other.digest for other in others)}) == 4

    def test_it_prints_what_it_is(self, tmp_path):
        tree(tmp_path / "zoo", "bird/robin", "bird/wren", "fish/carp")
        draw(tmp_path / "zoo" / "fish" / "eel" / "0.png", 999)
        (tmp_path / "zoo" / "fish" / "carp" / "bad.jpg").write_bytes(b"")
        (tmp_path / "zoo" / "README.md").write_text("x")
        assert str(open_images(tmp_path / "zoo")).splitlines() == [
            "zoo: 14 images of 3 classes in 2 coarse classes",
            "  train 10, test 3, excluded 1",
            "  1 unreadable, such as fish/carp/bad.jpg: an empty file (0 bytes)",
            "  1 ignored as no image, such as README.md",
            "  note: 1 class is excluded: eel (a single readable image)",
        ]

    def test_it_travels_to_another_process(self, tmp_path):
        images = open_images(tree(tmp_path, "rose", "tulip"))
        there = pickle.loads(pickle.dumps(images))
        assert there.digest == images.digest
        assert there.open(0).size == (12, 10)

    def test_the_table_goes_through_parquet(self, tmp_path):
        images = open_images(tree(tmp_path / "in", "rose", "tulip"))
        images.table.to_parquet(tmp_path / "images.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "images.parquet"), images.table)
