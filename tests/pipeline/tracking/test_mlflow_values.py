"""Configurations as MLflow parameters: names, texts, lengths."""

from dataclasses import dataclass

import pytest

from pipeline.infra.configs import flat
from pipeline.tracking.mlflow_values import PARAM_LENGTH, cut, parameters, valid_name


@dataclass
class Inner:
    rate: float = 0.1
    strides: tuple = (8, 16)


@dataclass
class Outer:
    inner: Inner
    note: str | None = None


def test_parameters_have_dotted_names_and_lists_as_json():
    wanted = {"train.inner.rate": "0.1", "train.inner.strides": "[8, 16]", "train.note": "None", "n": "3"}
    values = {"train": Outer(Inner()), "n": 3}
    assert parameters(values) == wanted
    assert parameters(flat(values)) == wanted  # a configuration that is flat already stays as it is


def test_long_values_are_cut_but_stay_different():
    a, b = "x" * 10_000 + "a", "x" * 10_000 + "b"
    found = parameters({"a": a, "b": b})
    assert found["a"] != found["b"] and all(len(text) == PARAM_LENGTH for text in found.values())
    assert found["a"].startswith("x" * 400) and "10001 characters, sha256" in found["a"]
    assert cut("x" * 500, 500) == "x" * 500


@pytest.mark.parametrize(
    ("name", "valid"), [("PCK@150", "PCK_150"), ("train/loss", "train/loss"), ("é", "_"), ("a b-c.d:e", "a b-c.d:e")]
)
def test_names_contain_the_characters_that_mlflow_allows(name, valid):
    assert valid_name(name) == valid
