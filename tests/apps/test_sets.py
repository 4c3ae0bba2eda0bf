"""`fgdiag sets` lists what can be named, and what is named is opened."""

from fgdiag.known_sets import KNOWN_SETS
from tests.apps.conftest import type_in


def test_all_sets_are_listed():
    shown = type_in("sets").out
    assert all(name in shown for name in KNOWN_SETS)
    assert [one["name"] for one in type_in("sets", "--json").json()] == list(KNOWN_SETS)


def test_one_set_is_told_of_in_full():
    shown = type_in("sets", "ham10000").out
    assert "kept on one side: photographs of one lesion" in shown
    assert type_in("sets", "oxford-pets", "--json").json()["synonyms"]["Shiba Inu"] == ["Shiba"]


def test_an_unknown_set_is_one_line():
    ended = type_in("sets", "cats")
    assert ended.code == 1
    assert "No image set 'cats' is known; expected one of imagenet-1k, flowers-102" in ended.err
