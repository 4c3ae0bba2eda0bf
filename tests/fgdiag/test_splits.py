"""Splits are stratified, seeded, whole in their groups and blind to the order of files."""

import random
from collections import Counter

import pytest

from fgdiag.errors import ImagesNotUsable
from fgdiag.listing import ImageRow
from fgdiag.splits import (
    complete_split,
    exclude_thin_classes,
    leaks,
    limit_classes,
    split_name,
    stratified_split,
)


def row(name, fine="a", *, group=None, split="", status="ok"):
    return ImageRow(name, f"{name}.jpg", fine, fine, split, group or name, 9, 9, status)


def rows_of(**counts):
    return [row(f"{fine}{i}", fine) for fine, n in counts.items() for i in range(n)]


def sizes(rows):
    return Counter((row.fine, row.split) for row in rows)


def sides(rows):
    return {row.id: row.split for row in rows}


@pytest.mark.parametrize(
    ("name", "split"),
    {
        "train": "train",
        "Training": "train",
        "VALID": "val",
        "validation": "val",
        "dev": "val",
        "test": "test",
    }.items(),
)
def test_split_names(name, split):
    assert split_name(name) == split
    assert split_name(f"{name}s") is None


def test_each_class_gives_its_share():
    split = stratified_split(rows_of(a=40, b=8, c=2), test_share=0.25, seed=0)
    assert sizes(split) == {
        ("a", "test"): 10, ("a", "train"): 30,
        ("b", "test"): 2, ("b", "train"): 6,
        ("c", "test"): 1, ("c", "train"): 1,
    }  # fmt: skip


@pytest.mark.parametrize("test_share", [0.01, 0.99])
def test_an_extreme_share_leaves_something_on_both_sides(test_share):
    split = stratified_split(rows_of(a=5, b=2), test_share=test_share, seed=0)
    assert all(sizes(split)[fine, side] for fine in "ab" for side in ("train", "test"))


def test_the_order_of_the_files_does_not_matter_but_the_seed_does():
    rows = rows_of(a=30, b=30)
    shuffled = random.Random(0).sample(rows, len(rows))
    once = sides(stratified_split(rows, test_share=0.25, seed=0))
    assert sides(stratified_split(shuffled, test_share=0.25, seed=0)) == once
    assert sides(stratified_split(rows, test_share=0.25, seed=1)) != once


def test_groups_stay_whole():
    rows = [row(f"{fine}{i}", fine, group=f"{fine}{i // 5}") for fine in "abc" for i in range(40)]
    split = stratified_split(rows, test_share=0.25, seed=3)
    assert all(len({r.split for r in split if r.group == group}) == 1 for group in {r.group for r in rows})
    assert all(sizes(split)[fine, "test"] == 10 for fine in "abc")


def test_two_groups_of_a_class_go_to_either_side():
    rows = [row(f"{fine}{i}", fine, group=f"{fine}{i // 10}") for fine in "ab" for i in range(20)]
    for seed in range(10):
        assert set(sizes(stratified_split(rows, test_share=0.25, seed=seed)).values()) == {10}


def test_a_group_of_two_classes_stays_whole_and_robs_neither():
    shared = [row("x1", "a", group="x"), row("x2", "b", group="x")]
    for seed in range(10):
        split = stratified_split(rows_of(a=4, b=4) + shared, test_share=0.25, seed=seed)
        assert len({r.split for r in split if r.group == "x"}) == 1
        assert all(sizes(split)[fine, side] for fine in "ab" for side in ("train", "test"))


def test_unreadable_images_count_for_nothing():
    rows = rows_of(a=4, b=4) + [row(f"bad{i}", "a", status="truncated") for i in range(40)]
    split = [r for r in stratified_split(rows, test_share=0.25, seed=0) if r.readable]
    assert sizes(split)["a", "test"] == 1


def given(*splits):
    return [
        row(f"{fine}{split}{i}", fine, split=split) for split in splits for fine in "ab" for i in range(4)
    ]


def test_given_splits_are_kept():
    rows = given("train", "val", "test")
    assert complete_split(rows, test_share=0.25, seed=0) == (rows, [])


def test_val_is_test_where_there_is_none():
    split, warnings = complete_split(given("train", "val"), test_share=0.25, seed=0)
    assert {r.split for r in split} == {"train", "test"}
    assert warnings == ["no test split: val is used as test"]


def test_a_lone_train_split_is_divided():
    split, (warning,) = complete_split(given("train"), test_share=0.25, seed=0)
    assert sizes(split)["a", "test"] == 1
    assert warning.startswith("only a train split: 25% of it")


@pytest.mark.parametrize("splits", [("test",), ("val",), ("val", "test")])
def test_nothing_to_train_on_is_an_error(splits):
    with pytest.raises(ImagesNotUsable, match="none to train on"):
        complete_split(given(*splits), test_share=0.25, seed=0)


def test_thin_classes_are_set_aside_with_the_reason():
    rows = [
        *given("train", "test"),
        row("c1", "c", split="train"),
        row("d1", "d", split="train"),
        row("d2", "d", split="train"),
        row("e1", "e", split="test"),
        row("e2", "e", split="test"),
        row("f1", "f", split="train", group="f"),
        row("f2", "f", split="test", group="f"),
        row("g1", "g", split="train", status="an empty file"),
    ]
    kept, excluded = exclude_thin_classes(rows)
    assert excluded == {
        "c": "a single readable image",
        "d": "no image to test on",
        "e": "no image to train on",
        "f": "its 2 images are one group",
        "g": "no readable image",
    }
    assert {r.fine for r in kept if r.split != "excluded"} == {"a", "b"}
    assert [r.id for r in kept] == [r.id for r in rows]


def test_the_limit_holds_for_each_class_and_split_and_prefers_what_can_be_read():
    rows = [r._replace(status="truncated") if r.id.endswith("0") else r for r in given("train", "test")]
    kept = limit_classes(rows, 3, seed=0)
    assert set(sizes(kept).values()) == {3}
    assert all(r.readable for r in kept)
    assert kept == [r for r in rows if r in kept]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert sides(limit_classes(shuffled, 2, seed=0)) == sides(limit_classes(rows, 2, seed=0))


def test_duplicates_and_groups_over_two_splits_are_named():
    rows = [
        row("same", split="train")._replace(source="train/a/1.jpg"),
        row("same", split="test")._replace(source="test/a/7.jpg"),
        row("x", split="train"),
    ]
    assert leaks(rows) == [
        "exact duplicates in more than one split (1), such as train/a/1.jpg (train) and test/a/7.jpg (test)"
    ]
    grouped = [row("p", group="bird", split="train"), row("q", group="bird", split="test")]
    assert leaks(grouped) == ["groups in more than one split (1), such as p.jpg (train) and q.jpg (test)"]
    assert leaks(given("train", "test")) == []
