from typing import Annotated, Literal

import pytest
from pydantic import Field

from pipeline.config import (
    Options,
    apply_overrides,
    expand_environment,
    read_yaml,
    validated,
    write_yaml,
)
from pipeline.types import InputError


class Small(Options):
    kind: Literal["small"] = "small"
    depth: int = 2


class Large(Options):
    kind: Literal["large"] = "large"
    width: int = 5


class Schema(Options):
    model: Annotated[Small | Large, Field(discriminator="kind")]
    size: int = 3


def test_an_unknown_key_is_named_with_its_path_and_the_closest_known_one():
    with pytest.raises(InputError, match=r"model\.dpeth: unknown key\. Did you mean 'depth'\?"):
        validated(Schema, {"model": {"kind": "small", "dpeth": 3}}, "config.yaml")


def test_a_wrong_type_is_named_with_its_path_and_value():
    with pytest.raises(InputError, match=r"size: .*\(found 'many'\)"):
        validated(Schema, {"model": {"kind": "small"}, "size": "many"}, "config.yaml")


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(InputError, match=r"model\.kind: expected one of .*small.*large"):
        validated(Schema, {"model": {"kind": "medium"}}, "config.yaml")


def test_the_alternatives_of_one_value_share_a_line_under_its_own_path():
    class Workers(Options):
        workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"

    with pytest.raises(InputError) as caught:
        validated(Workers, {"workers": 0}, "config.yaml")
    [_, line] = str(caught.value).split("\n")
    assert line.strip().startswith("workers: ")
    assert "expected 'auto' or a number ≥ 1 (found 0)." in line


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "size cannot be true"),
        (float("nan"), "size: .*found nan"),
        (1.5, r"size: expected a whole number \(found 1\.5\)\."),
        ([1], "size: expected a whole number"),
    ],
)
def test_a_number_is_neither_true_nor_nan_nor_a_list(value, message):
    with pytest.raises(InputError, match=message):
        validated(Schema, {"model": {"kind": "small"}, "size": value}, "config.yaml")


def test_infinity_is_no_value():
    class Rate(Options):
        rate: float

    with pytest.raises(InputError, match=r"rate: expected a finite number \(found inf\)\."):
        validated(Rate, {"rate": float("inf")}, "config.yaml")


def test_a_group_without_kind_lists_the_known_ones():
    with pytest.raises(InputError, match=r"model\.kind: this key is required, .*small.*large"):
        validated(Schema, {"model": {}}, "config.yaml")


def test_a_value_in_a_groups_place_is_explained():
    with pytest.raises(InputError, match=r"model: expected a mapping of keys.*found 'small'"):
        validated(Schema, {"model": "small"}, "config.yaml")


def test_a_bad_value_in_a_mapping_keeps_its_key():
    class Limited(Options):
        limit: dict[str, int]

    with pytest.raises(InputError, match=r"limit\.train: .*found 'many'"):
        validated(Limited, {"limit": {"train": "many"}}, "config.yaml")


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="model: this key is required"):
        validated(Schema, {}, "config.yaml")


def test_refused_entries_do_not_make_a_list_too_short():
    class Counts(Options):
        counts: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

    with pytest.raises(InputError) as refused:
        validated(Counts, {"counts": [0]}, "config")
    assert "counts.0: expected a number ≥ 1 (found 0)" in str(refused.value)
    assert "or more" not in str(refused.value)
    with pytest.raises(InputError, match=r"counts: expected 1 value\(s\) or more"):
        validated(Counts, {"counts": []}, "config")


def test_every_mistake_is_listed_at_once():
    with pytest.raises(InputError) as caught:
        validated(Schema, {"model": {"kind": "small", "x": 1}, "y": 2}, "config.yaml")
    assert "model.x" in str(caught.value)
    assert "y: unknown key" in str(caught.value)


def test_overrides_reach_nested_keys_and_leave_the_original_alone():
    values = {"model": {"kind": "small"}}
    changed = apply_overrides(values, ["model.depth=7", "solver.tol=1e-8"])
    assert changed == {"model": {"kind": "small", "depth": 7}, "solver": {"tol": 1e-8}}
    assert values == {"model": {"kind": "small"}}


@pytest.mark.parametrize("override", ["model.depth", "=3", ".depth=3", "model.=3", "a..b=3"])
def test_an_override_without_key_or_value_is_refused(override):
    with pytest.raises(InputError, match="key=value"):
        apply_overrides({}, [override])


def test_an_override_below_a_value_is_refused():
    with pytest.raises(InputError, match="size is a value"):
        apply_overrides({"size": 3}, ["size.deep=1"])


def test_environment_variables_are_expanded_in_nested_strings(monkeypatch):
    monkeypatch.setenv("ENTK_DATA", "/data")
    values = {"a": {"path": "${ENTK_DATA}/cifar"}, "b": ["${ENTK_DATA}"], "c": 3}
    assert expand_environment(values) == {"a": {"path": "/data/cifar"}, "b": ["/data"], "c": 3}


def test_an_unset_environment_variable_is_an_error_that_names_the_key(monkeypatch):
    monkeypatch.delenv("ENTK_DATA", raising=False)
    with pytest.raises(InputError, match=r"benchmark\.path: .*ENTK_DATA is not set.*README"):
        expand_environment({"benchmark": {"path": "${ENTK_DATA}/cifar"}})


def test_yaml_keeps_numbers_in_exponent_form_and_refuses_duplicate_keys(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("tol: 1e-6\n")
    assert read_yaml(path) == {"tol": 1e-6}
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(InputError, match="duplicate"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["- 1\n", "", "a: [1\n", "\tb: 1\n"])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        read_yaml(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no config file"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_written_config_reads_back_equal(tmp_path):
    values = {"name": "a", "nested": {"b": [1, 2.5, None, True], "c": "1e-6"}}
    write_yaml(tmp_path / "config.yaml", values)
    assert read_yaml(tmp_path / "config.yaml") == values


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD"])
def test_a_secret_never_gets_into_a_config(name, monkeypatch):
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(InputError, match=name) as refusal:
        expand_environment({"store": {"root": f"s3://bucket/${{{name}}}"}})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "value", ["s3://AKIA:pass/word@bucket", "hf_" + "a1B2" * 8, "-----BEGIN RSA PRIVATE KEY-----"]
)
def test_a_secret_is_refused_wherever_it_comes_from(value, monkeypatch):
    monkeypatch.setenv("HARMLESS", value)
    for text in (value, "${HARMLESS}"):
        with pytest.raises(InputError, match=r"store\.root: .* must hold none") as refusal:
            expand_environment({"store": {"root": text}})
        assert value not in str(refusal.value)


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(InputError, match=r"store\.root: an address holds a password") as refusal:
        expand_environment({"store": {"root": "https://user:hunter2@host/bucket"}})
    assert "hunter2" not in str(refusal.value)
    plain = {"store": {"root": "s3://bucket/a:b@c"}, "executor": {"address": "ray://host:10001"}}
    plain["benchmark"] = {"path": "http://host:8080/repository@commit"}
    assert expand_environment(plain) == plain
