"""Checks of configuration fields: every refusal names the field, the value found and the value wanted."""

import json
from dataclasses import dataclass
from typing import Literal

import pytest

from das.fields import (
    NAME,
    at_least,
    check_fields,
    check_json,
    check_name,
    check_threshold,
    check_types,
    check_values,
    json_kind,
)


@dataclass(frozen=True)
class Shop:
    name: str = "corner"
    open: bool = True
    shelves: int = 3
    rent: float = 1.5
    kind: Literal["books", "tea"] = "tea"
    sizes: tuple[int, ...] = (1, 2)
    place: tuple[float, float] = (0.0, 1.0)
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_types(self)


def test_values_of_the_declared_types_pass_and_lists_become_tuples():
    shop = Shop(sizes=[4, 5, 6], place=[1, 2.5], rent=2, threshold=0.5)
    assert shop.sizes == (4, 5, 6) and shop.place == (1, 2.5)
    assert Shop(sizes=()).sizes == ()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("name", 3, "str"),
        ("open", 1, "bool"),
        ("shelves", True, "int"),
        ("shelves", 2.0, "int"),
        ("rent", "1.5", "float"),
        ("rent", False, "float"),
        ("rent", float("nan"), "float"),
        ("rent", float("inf"), "float"),
        ("kind", "coffee", "Literal['books', 'tea']"),
        ("sizes", (1, 2.5), "tuple[int, ...]"),
        ("sizes", 4, "tuple[int, ...]"),
        ("place", (1.0,), "tuple[float, float]"),
        ("place", (1.0, 2.0, 3.0), "tuple[float, float]"),
        ("threshold", "high", "float | None"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, wanted):
    with pytest.raises(ValueError) as caught:
        Shop(**{name: value})
    assert str(caught.value) == f"{name} = {value!r}, wanted {wanted}"


def test_the_first_bad_value_is_named():
    shop = Shop(shelves=-1, rent=-2.0)
    check_values(shop, ("shelves", True, "at least 0"))
    with pytest.raises(ValueError, match=r"^shelves = -1, wanted at least 0$"):
        check_values(shop, ("name", True, "a name"), ("shelves", False, "at least 0"), ("rent", False, "at least 0"))
    with pytest.raises(ValueError, match=r"^the shop: rent = -2.0, wanted at least 0$"):
        check_values(shop, ("rent", False, "at least 0"), what="the shop")


def test_numbers_below_their_bound_are_refused_and_none_passes():
    at_least(Shop(), shelves=3, rent=1.5, threshold=0)
    with pytest.raises(ValueError, match=r"^shelves = 3, wanted at least 4$"):
        at_least(Shop(), rent=0, shelves=4)
    with pytest.raises(ValueError, match=r"^rent = 1.5, wanted at least 1.75$"):
        at_least(Shop(), rent=1.75)


@pytest.mark.parametrize("value", [None, 0.0, 0.5, 0.999])
def test_thresholds_from_0_up_to_1_pass(value):
    check_threshold(Shop(threshold=value))


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0])
def test_other_thresholds_are_refused(value):
    with pytest.raises(ValueError, match=rf"^threshold = {value}, wanted 0 <= x < 1$"):
        check_threshold(Shop(threshold=value))
    with pytest.raises(ValueError, match=rf"^rent = {value}, wanted 0 <= x < 1$"):
        check_threshold(Shop(rent=value), "rent")


@pytest.mark.parametrize("value", ["a-b.c", "das-panoptic", "sweep: 3", "_x", "a" * 200])
def test_names_of_folders_pass(value):
    check_name(Shop(name=value))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a/b",
        "/",
        ".",
        "..",
        "../x",
        "~",
        "~root",
        ".hidden",
        " a",
        "a\\b",
        "a\nb",
        "a\x00",
        "a?b",
        "a%2fb",
        "ü",
        "a\n",
    ]
    + ["a" * 201],
)
def test_names_that_could_lead_elsewhere_are_refused(value):
    with pytest.raises(ValueError) as caught:
        check_name(Shop(name=value))
    assert str(caught.value) == f"name = {value!r}, wanted {NAME}"


def test_unknown_and_missing_fields_are_named_in_order():
    check_fields(["b", "a"], ["a", "b"])
    check_fields(["a", "c"], ["a"], optional=["b", "c"])
    with pytest.raises(ValueError, match=r"^unknown fields \['x', 'y'\], missing fields \['b'\]$"):
        check_fields(["y", "a", "x"], ["a", "b"])
    with pytest.raises(ValueError, match=r"^some.json: unknown fields \[\], missing fields \['a'\]$"):
        check_fields([], ["a"], what="some.json", optional=["b"])


def test_a_json_object_needs_exactly_the_fields_of_its_dataclass():
    value = dict(name="a", open=True, shelves=1, rent=1.0, kind="tea", sizes=[], place=[0, 0], threshold=None)
    check_json(Shop, value)
    with pytest.raises(ValueError, match=r"^a shop: unknown fields \['colour'\], missing fields \['rent'\]$"):
        check_json(Shop, {"colour": 1, **{k: v for k, v in value.items() if k != "rent"}}, "a shop")


def test_a_value_of_a_json_file_is_named_in_the_words_of_json():
    values = json.loads('[{}, [], "x", true, 3, 0.5, null]')
    wanted = ["an object", "a list", "a text", "true or false", "a number", "a number", "null"]
    assert [json_kind(value) for value in values] == wanted
