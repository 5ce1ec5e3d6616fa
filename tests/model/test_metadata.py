"""Metadata of converted files that somebody changed: each is an error of one short line."""

import json

import pytest

from artifacts import artifact
from smallcnn.errors import FileError
from smallcnn.model import metadata
from smallcnn.model.probe import probe_answer


@pytest.fixture(scope="module")
def entries():
    made = artifact()
    entries = metadata.describe(made, answer=probe_answer(made.graph, made.weights, made.preprocessing))
    assert metadata.parse(entries).results["logits"].shape == (3,)
    return entries


def refused(entries) -> str:
    with pytest.raises(FileError) as caught:
        metadata.parse(entries)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    return str(caught.value)


ENTRIES = [
    ("layers", "[" * 100_000),
    ("layers", "{"),
    ("layers", "[1]"),
    ("layers", '{"stem": "many"}'),
    ("mult_adds", "true"),
    ("mult_adds", "-1"),
    ("model", "two\nlines"),
    ("model", "x" * 10**6),
    ("output", "odds"),
    ("format", "x" * 10**5),
    ("results", "{}"),
    ("results", "[3]"),
    ("results", "null"),
    ("results", "[" * 100_000),
    ("probe", "[1, 2, 3]"),
]


@pytest.mark.parametrize(("key", "text"), ENTRIES, ids=lambda value: value[:30])
def test_an_entry_that_is_not_right(entries, key, text):
    refused(entries | {f"smallcnn.{key}": text})


RESULTS = [
    *({"shape": shape} for shape in ([-1], [0], [3.0], ["3"], [True, 3], [[3]], 3, None, [2**62, 2**62], [1] * 10**6)),
    *({"number": number} for number in ("O", "float64", "complex64", "M8[s]", "f4,i4", 3, None, [])),
    *({"name": name} for name in (3, None, [], "other", "x" * 10**6)),
    *({"scale": scale, "zero": [0], "number": "uint8"} for scale in (3, [], [-1], ["a"], [0.1] * 10**6, [10**400])),
    {"scale": [0.1], "zero": [256], "number": "uint8"},
    {"scale": [0.1], "zero": [0.5], "number": "uint8"},
    {"scale": [0.1], "zero": [3]},
    {"scale": [0.1], "number": "uint8"},
]


@pytest.mark.parametrize("change", RESULTS, ids=lambda value: str(value)[:40])
def test_a_result_that_is_not_right(entries, change):
    (result,) = json.loads(entries["smallcnn.results"])
    refused(entries | {"smallcnn.results": json.dumps([result | change])})


def test_two_results_of_one_name(entries):
    refused(entries | {"smallcnn.results": json.dumps(json.loads(entries["smallcnn.results"]) * 2)})


ANSWERS = [[1, 2], [1, 2, "a"], ["1", "2", "3"], [True, False, True], [[1], [2], [3]], [1, 2, 10**400], "abc", {}, None]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda value: str(value)[:30])
def test_an_answer_that_is_not_right(entries, answer):
    refused(entries | {"smallcnn.probe": json.dumps({"logits": answer})})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_an_answer_that_is_not_finite(entries, number):
    refused(entries | {"smallcnn.probe": f'{{"logits": [1, 2, {number}]}}'})
