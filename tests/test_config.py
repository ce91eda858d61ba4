"""Settings: `--set` in, checked and frozen values out, and a hash that identifies them."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from ssl_inpaint import catalog, config
from ssl_inpaint.config import Settings, hash_of, override, parse_settings
from ssl_inpaint.errors import UsageError


class Inner(Settings):
    width: int = 2


class Sample(Settings):
    steps: int = Field(10, ge=1)
    rate: float = Field(0.1, gt=0, le=1)
    limit: float | None = None
    is_fast: bool = True
    name: str = "plain"
    kind: Literal["adam", "sgd", "none"] = "adam"
    sizes: tuple[int, ...] = (1, 2)
    names: tuple[str, ...] = ()
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _in_order(self) -> Sample:
        if self.limit is not None and self.limit < self.rate:
            raise ValueError(f"limit {self.limit} is below rate {self.rate}: Raise it")
        return self


def test_assignments_are_sorted_by_part() -> None:
    assert parse_settings(["train.steps=10", "crops.size=96", "train.path=a=b.c"]) == {
        "train": {"steps": "10", "path": "a=b.c"},
        "crops": {"size": "96"},
    }
    assert parse_settings([]) == {}


def test_the_last_of_two_assignments_counts() -> None:
    assert parse_settings(["a.b=1", "a.b=2"]) == {"a": {"b": "2"}}


@pytest.mark.parametrize("wrong", ["steps=3", "train.steps", ".steps=3", "train.=3", "", "="])
def test_another_form_is_refused_with_the_right_one(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"is not a setting: write --set part\.field=value"):
        parse_settings([wrong])


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("steps", "7", 7),
        ("steps", "1e3", 1000),
        ("rate", "1e-3", 0.001),
        ("rate", "1", 1.0),
        ("limit", "0.5", 0.5),
        ("limit", "null", None),
        ("is_fast", "false", False),
        ("is_fast", "False", False),
        ("is_fast", "no", False),
        ("name", "x y", "x y"),
        ("name", "2024", "2024"),  # text that looks like a number stays text
        ("name", "null", "null"),
        ("kind", "sgd", "sgd"),
        ("kind", "none", "none"),
        ("sizes", "3,4,5", (3, 4, 5)),
        ("sizes", "[3, 4]", (3, 4)),
        ("sizes", "3", (3,)),
        ("sizes", "", ()),
        ("names", "a,b", ("a", "b")),
        ("names", '["a,b"]', ("a,b",)),
    ],
)
def test_text_becomes_the_value_of_its_field(field: str, text: str, expected: object) -> None:
    changed = override(Sample(), "train", {field: text})
    assert getattr(changed, field) == expected and type(getattr(changed, field)) is type(expected)
    assert changed == Sample(**{field: expected})


def test_what_is_not_changed_stays() -> None:
    start = Sample(steps=3, name="own")
    assert override(start, "train", {"rate": "0.2"}) == Sample(steps=3, name="own", rate=0.2)
    assert override(start, "train", {}) == start


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        ("steps", "0", "train.steps = 0: input should be greater than or equal to 1"),
        ("steps", "1.5", "train.steps = 1.5: input should be a valid integer"),
        ("steps", "many", "train.steps = 'many': input should be a valid integer"),
        ("rate", "nan", "train.rate = 'nan': input should be a finite number"),
        ("rate", "NaN", "train.rate = nan: input should be a finite number"),
        ("rate", "1e999", "train.rate = inf: input should be a finite number"),
        ("rate", "2", "train.rate = 2: input should be less than or equal to 1"),
        ("limit", "-inf", "train.limit = '-inf': input should be a finite number"),
        ("kind", "adma", "train.kind = 'adma': input should be 'adam', 'sgd' or 'none'"),
        ("sizes", "1,x", "train.sizes.1 = 'x': input should be a valid integer"),
        ("is_fast", "2", "train.is_fast = 2: input should be a valid boolean"),
        ("limit", "0.05", "Not allowed: train: limit 0.05 is below rate 0.1: Raise it."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(field: str, text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(Sample(), "train", {field: text})
    assert str(caught.value).startswith("Not allowed: ") and sentence in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"train\.steps = 0: .*; train\.rate = 'x': .*; train\.kind = 1: "):
        override(Sample(), "train", {"rate": "x", "steps": "0", "kind": "1"})
    with pytest.raises(UsageError, match=r"setting 'stepz'.*mean 'steps'\? There is no train setting 'xyz'"):
        override(Sample(), "train", {"stepz": "1", "xyz": "1", "rate": "7"})


@pytest.mark.parametrize(("name", "near"), [("stepz", "steps"), ("is_fats", "is_fast"), ("limits", "limit")])
def test_an_unknown_setting_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"no train setting '{name}': known are .*steps.* Did you mean '{near}'\?"):
        override(Sample(), "train", {name: "1"})


def test_a_nested_setting_is_not_reached_by_a_dot() -> None:
    with pytest.raises(UsageError, match=r"no train setting 'inner\.width'.*Did you mean 'inner'"):
        override(Sample(), "train", {"inner.width": "3"})


def test_an_unknown_part_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'trian': known are crops, train\. Did you mean 'train'"):
        config.refuse_unknown_parts(["crops", "trian"], ("train", "crops"))
    config.refuse_unknown_parts(["crops"], ("train", "crops"))


def test_missing_and_superfluous_fields_are_named_without_the_whole_input() -> None:
    class Needy(Settings):
        first: int
        second: int

    with pytest.raises(UsageError) as caught:
        config.check(Needy, "plan", {"second": 1, "third": 2})
    assert str(caught.value) == (
        "Not allowed: plan.first: field required; plan.third = 2: extra inputs are not permitted."
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sample().steps = 3  # type: ignore[misc]


def test_the_hash_is_the_same_in_every_process() -> None:
    code = (
        "from ssl_inpaint.config import Settings, hash_of\n"
        "class C(Settings):\n    b: float = 0.1\n    a: tuple[int, ...] = (1, 2)\n"
        "print(hash_of(C(), {'z': 1, 'a': 'é'}, 7))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0dfe50c47351"


def test_equal_settings_have_equal_hashes_and_others_do_not() -> None:
    assert hash_of(Sample()) == hash_of(Sample(steps=10)) == hash_of(override(Sample(), "train", {"steps": "10.0"}))
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    changes = [{"steps": 11}, {"rate": 0.1000001}, {"limit": 0.5}, {"sizes": (2, 1)}, {"inner": Inner(width=3)}]
    hashes = {hash_of(Sample(**change)) for change in [{}, *changes]}
    assert len(hashes) == 6 and all(len(h) == 12 and int(h, 16) >= 0 for h in hashes)
    assert len({hash_of(Sample()), hash_of(Sample(), 0), hash_of(Sample(), 1), hash_of(0, Sample())}) == 4


@pytest.mark.parametrize("kind", list(catalog.KINDS))
def test_every_part_is_listed_with_a_sentence_and_loads(kind: str) -> None:
    found = catalog.parts(kind)
    assert found and all(description.endswith(".") for description in found.values())
    for name in found:
        assert callable(catalog.load(kind, name).build)


def test_an_unknown_part_of_a_kind_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no encoder 'alexnt': known are .*Did you mean 'alexnet'"):
        catalog.load("encoders", "alexnt")


def test_listing_does_not_import_torch() -> None:
    code = "import sys; from ssl_inpaint import catalog; [catalog.parts(k) for k in catalog.KINDS]; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in run.stdout.split()


@pytest.mark.parametrize(("spec", "halves"), [("a", ("a", "")), ("a:b", ("a", "b")), ("a:b:c", ("a", "b:c"))])
def test_a_spec_is_split_at_its_first_colon(spec: str, halves: tuple[str, str]) -> None:
    assert catalog.split_argument(spec) == halves


def test_a_spec_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="write NAME or NAME:ARGUMENT"):
        catalog.split_argument(":b")
