"""What counts as naming a class: whole words, plurals, synonyms, the longest name; never a part of a word."""

from pathlib import Path

import pytest
from fgdiag_probes.naming import ClassNames, SynonymsNotUsable, read_synonyms, refuses, words

from fgdiag.errors import ClassNotFound

KIND_OF = {
    "Anjou-Pear": "Pear",
    "Grape": "Grape",
    "Red-Grapefruit": "Grapefruit",
    "Green-Bell-Pepper": "Pepper",
    "Chili-Pepper": "Pepper",
    "Royal-Gala": "Apple",
    "Bravo-Apple-Juice": "Juice",
    "Zucchini": "Zucchini",
    "Vine-Tomato": "Tomato",
    "Grüner-Laubsänger": "warbler",
    "ミミズク": "owl",
}
NAMES = ClassNames.of(KIND_OF)


@pytest.mark.parametrize(
    ("text", "fine", "coarse"),
    [
        ("It appears to be fruit.", [], []),
        ("A grapefruit", [], ["Grapefruit"]),
        ("red grapefruits!", ["Red-Grapefruit"], []),
        ("GRAPES", ["Grape"], ["Grape"]),
        ("a green bell pepper", ["Green-Bell-Pepper"], []),
        ("a pepper", [], ["Pepper"]),
        ("green bell-peppers", ["Green-Bell-Pepper"], []),
        ("green capsicum", ["Green-Bell-Pepper"], []),
        ("A courgette.", ["Zucchini"], ["Zucchini"]),
        ("Vine tomatoes", ["Vine-Tomato"], []),
        ("Apple juice", [], ["Juice"]),
        ("Royal Gala apple", ["Royal-Gala"], ["Apple"]),
        ("apple, grape", ["Grape"], ["Apple", "Grape"]),
        ("royal-galas (apples)", ["Royal-Gala"], ["Apple"]),
        ("Gruner laubsanger", ["Grüner-Laubsänger"], []),
        ("これはミミズクです", ["ミミズク"], []),
        ("red grape fruit", ["Red-Grapefruit"], []),
        ("", [], []),
    ],
)
def test_what_a_text_names(text: str, fine: list[str], coarse: list[str]):
    found = NAMES.in_text(text)
    assert (found.fine, found.coarse) == (tuple(fine), tuple(coarse))


def test_the_longest_name_counts():
    names = ClassNames.of({"Pepper": "", "Bell-Pepper": "", "Bell": ""})
    assert names.in_text("a bell pepper").fine == ("Bell-Pepper",)
    assert names.in_text("a pepper").fine == ("Pepper",)


def test_a_mark_parts_what_a_blank_joins():
    assert words("pears, apples") == ("pear", ",", "apple")
    assert ClassNames.of({"Pear-Apple": ""}).in_text("pear, apple").fine == ()


@pytest.mark.parametrize("text", ["I'm sorry, but no.", "I can’t tell", "It is unclear", "I do not know."])
def test_refusals(text: str):
    assert refuses(text)
    assert not refuses("A cantaloupe, certainly")


def test_the_user_adds_synonyms(tmp_path: Path):
    file = tmp_path / "more.csv"
    file.write_text("name,synonym\nroyal gala,Tenroy\nPear,poire\n", encoding="utf-8")
    names = ClassNames.of(KIND_OF, read_synonyms(file))
    assert names.in_text("two Tenroys").fine == ("Royal-Gala",)
    assert names.in_text("une poire").coarse == ("Pear",)


@pytest.mark.parametrize("text", ["a,b\nx,y\n", "name,synonym\nGrape,\n"])
def test_a_table_that_is_none_says_where(text: str, tmp_path: Path):
    file = tmp_path / "more.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SynonymsNotUsable, match=r"line 2: got .* expected a name and a synonym"):
        read_synonyms(file)
    with pytest.raises(SynonymsNotUsable, match="cannot be read"):
        read_synonyms(tmp_path / "none.csv")


def test_synonyms_must_fit_the_classes():
    with pytest.raises(ClassNotFound, match="did you mean 'Royal Gala'"):
        ClassNames.of(KIND_OF, {"Royal Galla": ["Tenroy"]})
    with pytest.raises(SynonymsNotUsable, match="is the name of another class"):
        ClassNames.of(KIND_OF, {"Grape": ["chili pepper"]})


def test_a_built_in_synonym_gives_way_to_a_class_of_that_name():
    names = ClassNames.of({"Satsuma": "", "Mandarin": ""})
    assert names.in_text("mandarins").fine == ("Mandarin",)
    assert names.in_text("satsuma").fine == ("Satsuma",)


@pytest.mark.parametrize("text", ["A St. Bernard.", "st bernard", "It is a St. Bernard, I think"])
def test_a_mark_in_a_name_does_not_hide_it(text: str) -> None:
    names = ClassNames.of({"St. Bernard": "dog", "F-16A/B": "jet"})
    assert names.in_text(text).fine == ("St. Bernard",)
    assert names.in_text("an F-16A/B in flight").fine == ("F-16A/B",)


def test_what_is_named_first_is_told():
    assert NAMES.in_text("A pear. It may be sold next to Royal Gala apples.").kind_first
    assert not NAMES.in_text("Royal Gala apple").kind_first
    assert not NAMES.in_text("A Royal Gala, which is no pear").kind_first
    assert not NAMES.in_text("nothing").kind_first
