"""Attributes: what a network with independent sigmoids says about an image, and how it is stored."""

import json
import math
import time

import numpy as np
import pytest

from smallcnn.errors import DataError, FileError, GraphError
from smallcnn.ir.builder import Builder
from smallcnn.tasks import kinds
from smallcnn.tasks.attributes import Attributes

TASK = Attributes(
    ("smiling", "hat", "colour: blue", "colour: green", "colour: red"),
    {"colour": ("colour: blue", "colour: green", "colour: red")},
)
SAID = np.array([[1, 0, 0, 0, 1], [np.nan, 1, np.nan, np.nan, np.nan]], np.float32)


def with_outputs(count):
    g = Builder(input=(8, 8, 3))
    x = g.global_pool(g.input)
    return g.graph(g.dense(x, count), features=x, name="small")


class TestAnswer:
    def test_one_choice_per_question_and_what_is_likely(self):
        answer = TASK.answer({"logits": np.array([0.0, -0.1, -3.0, -1.0, -2.0], np.float32)})
        assert answer.chosen == {"colour": ("colour: green", pytest.approx(1 / (1 + math.e)))}
        assert answer.present == (("smiling", 0.5), answer.chosen["colour"])
        assert [label for label, _ in answer.ranked] == [
            "smiling",
            "hat",
            "colour: green",
            "colour: red",
            "colour: blue",
        ]
        assert dict(answer.ranked)["hat"] == pytest.approx(1 / (1 + math.exp(0.1)))

    def test_a_second_choice_is_not_present_however_likely(self):
        answer = TASK.answer({"logits": np.array([-9, -9, 5, 6, -9], np.float32)})
        assert [label for label, _ in answer.present] == ["colour: green"]


def test_a_hundred_thousand_labels_take_no_time():
    labels = [f"label {i}" for i in range(100_000)]
    started = time.process_time()
    assert len(Attributes(tuple(labels), {"which": tuple(labels[1:])}).labels) == 100_000
    with pytest.raises(FileError, match=r"choices that are no labels: label 99999$"):
        Attributes(tuple(labels[:-1]), {"which": tuple(labels[1:])})
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "fields", [{"kind": "x" * 10**6}, {"kind": "attributes", "labels": [], "choices": {}, "x" * 10**6: 1}]
)
def test_messages_stay_short(fields):
    with pytest.raises(FileError) as caught:
        kinds.from_json(json.dumps(fields))
    assert len(str(caught.value)) < 300


class TestCheck:
    def test_one_logit_per_label(self):
        TASK.check(with_outputs(5).results)
        with pytest.raises(GraphError, match=r"5 labels for an output of shape \(4,\)"):
            TASK.check(with_outputs(4).results)


class TestJson:
    def test_there_and_back(self):
        assert kinds.from_json(kinds.to_json(TASK)) == TASK
        assert json.loads(kinds.to_json(TASK)) == {
            "kind": "attributes",
            "labels": ["smiling", "hat", "colour: blue", "colour: green", "colour: red"],
            "choices": {"colour": ["colour: blue", "colour: green", "colour: red"]},
        }

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"labels": ["a"]}, "attributes have labels and choices, not labels"),
            ({"labels": ["a"], "choices": []}, "attributes have labels and choices"),
            ({"labels": ["a", "a"], "choices": {}}, "the same label twice: a"),
            ({"labels": ["a"], "choices": {"q": ["a", "b"]}}, "choices that are no labels: b"),
            ({"labels": ["a"], "choices": {"q": ["a"], "r": ["a"]}}, "the same choice twice: a"),
            ({"labels": ["a"], "choices": {"q": []}}, "questions without choices: q"),
            ({"labels": ["a"], "choices": {"q": [1]}}, "its labels are not a list of names"),
            ({"labels": [], "choices": {}, "x": 1}, "attributes have labels and choices, not labels, choices, x"),
        ],
    )
    def test_refused(self, fields, message):
        with pytest.raises(FileError) as caught:
            kinds.from_json(json.dumps({"kind": "attributes"} | fields))
        assert message in str(caught.value)


class TestTargetsOfOtherData:
    def test_the_same_labels(self):
        np.testing.assert_array_equal(TASK.present(TASK, SAID), SAID)

    def test_other_order_other_questions_and_choices_that_do_not_occur(self):
        known = Attributes(("colour: red", "tall", "hat", "colour: blue"), {"colour": ("colour: red", "colour: blue")})
        said = np.array([[1, 1, 0, 0], [np.nan, 0, 1, np.nan]], np.float32)
        nan = np.nan
        want = [[nan, 0, 0, 0, 1], [nan, 1, nan, nan, nan]]  # green is known to be absent where the colour is known
        np.testing.assert_array_equal(TASK.present(known, said), want)

    @pytest.mark.parametrize(
        ("known", "message"),
        [
            (Attributes(("colour: pink",), {"colour": ("colour: pink",)}), "the network does not know colour: pink"),
            (Attributes(("tall",)), "colour: blue, colour: green, colour: red; the data has tall"),
            (Attributes(("hat", "colour")), "'colour' is a yes/no question in the data, and a choice for the network"),
            (
                Attributes(("hat: felt", "smiling"), {"hat": ("hat: felt",)}),
                "'hat' is a choice in the data, and a yes/no question for the network",
            ),
        ],
    )  # fmt: skip
    def test_labels_that_do_not_match(self, known, message):
        with pytest.raises(DataError) as caught:
            TASK.present(known, np.zeros((1, len(known.labels)), np.float32))
        assert message in str(caught.value)


def test_questions_in_the_order_of_their_labels():
    assert TASK.questions == ("smiling", "hat", "colour")
