"""The English of the command: every help text stands alone, and no message uses a word that STYLE.md replaces."""

import ast
import re
from pathlib import Path
from typing import get_args

import click
import pytest

import smallcnn
from smallcnn.cli.main import COMMANDS, SYNONYMS, root
from smallcnn.image.fit import Fit, Order
from smallcnn.tasks.kinds import TASKS

SOURCES = sorted(Path(smallcnn.__file__).parent.rglob("*.py"))

# A help text starts with a noun or a verb: never with a preposition, a pronoun, a conjunction or an article.
NO_START = (
    "a", "an", "and", "as", "at", "beside", "by", "everything", "for", "how", "if", "in", "it", "its", "left", "of",
    "on", "only", "or", "than", "that", "the", "these", "they", "this", "those", "to", "what", "when", "where", "which",
    "who", "whose", "why", "with", "without",
)  # fmt: skip

# Words of translated English, which have a plain one.
STILTED = re.compile(
    r"\b(?:pictures?|beside|anew|whereof|left out|taken for|go(?:es|ing)? on|went on|one after the other|at first use|"
    r"that of|those of|of it|what is done|what there is|as asked for|the most that|(?<!standard )deviations?)\b"
    r"|\bwhich \w+\?",
    re.IGNORECASE,
)

# A genitive without its head: "of the random weights", "the file's" in place of "the file's own".
HEADLESS = re.compile(r"(?:^|[.;:(\[])\s*of \w|\w's(?: with\b[^\]]*)?\s*(?:[\];)]|$)", re.IGNORECASE)

# A split of a data set was once called a part; parts of other things are parts.
PART_FOR_SPLIT = re.compile(r"\b(?:train\w*|val\w*|test|held-out|each|every|which) parts?\b")

MOST_WORDS = 36
"""In one sentence of a help text. STYLE asks for about 25; a list of options may be longer."""

# As above, in any message of the library. Shorter, as a file may well "go on" after a layer.
STILTED_MESSAGE = re.compile(
    r"\bpictures?\b|\bleft out: |\bof it private\b|(?<!standard )\bdeviations?\b|\bwhich [A-Z]+\?", re.IGNORECASE
)


def command(name):
    found = root.get_command(None, name)
    assert found is not None
    return found


def options(name):
    return [each for each in command(name).params if isinstance(each, click.Option)]


def printed(name):
    """What `smallcnn NAME --help` prints, in one line."""
    context = click.Context(root if name == "smallcnn" else command(name), info_name=name)
    return " ".join(context.command.get_help(context).split())


OPTIONS = [pytest.param(option.help, id=f"{name} {option.opts[0]}") for name in COMMANDS for option in options(name)]


@pytest.mark.parametrize("help_", OPTIONS)
def test_a_help_text_stands_alone(help_):
    assert help_, "no help"
    first = re.match(r"[\w'-]+", help_)
    assert first, "starts with no word"
    assert first[0].lower() not in NO_START
    assert first[0] == first[0].lower() or first[0].isupper(), "starts with a capital"
    assert not help_.endswith("."), "ends in a full stop"
    assert not HEADLESS.search(help_), "a genitive without its head"
    assert not PART_FOR_SPLIT.search(help_), "a split, not a part"


@pytest.mark.parametrize(
    ("name", "option", "known"),
    [("train", "task", TASKS), ("train", "fit", get_args(Fit)), ("import", "order", get_args(Order))],
)
def test_choices_are_those_of_the_library(name, option, known):
    """They are written out in the command, which imports nothing for its help."""
    (found,) = [each for each in options(name) if each.name == option]
    assert isinstance(found.type, click.Choice)
    assert set(found.type.choices) == set(known)


@pytest.mark.parametrize("name", ["smallcnn", *COMMANDS])
def test_help_is_plain_english(name):
    assert not STILTED.search(printed(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sentence_of_help_is_short(name):
    texts = [command(name).help, *(option.help or "" for option in options(name))]
    for text in texts:
        for sentence in re.split(r"(?<=[.;:])\s|\n\n|  \[default", text):
            assert len(sentence.split()) <= MOST_WORDS, sentence


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("of the random weights", True),
        ("seed; of the random weights", True),
        ("side of the input in pixels  [default: the file's]", True),
        ("side of the input  [default: the file's with --from; else 224]", True),
        ("side of the input  [default: the file's own with --from; else 224]", False),
        ("share of the image's shorter side", False),
    ],
)
def test_a_headless_genitive_is_found(text, wrong):
    assert bool(HEADLESS.search(text)) == wrong


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name):
    """One line in the list of commands, and a first sentence of its own; both start with a verb."""
    for text in (COMMANDS[name], command(name).help):
        first, *_ = text.split()
        assert first.istitle()
        assert first.lower() not in NO_START
        assert text.strip().endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained(name):
    """By its name in the command's text, or for MODEL, SOURCE and FILE in that of `smallcnn`."""
    for argument in command(name).params:
        if isinstance(argument, click.Argument):
            word = (argument.metavar or argument.name).strip("[].").upper()
            assert re.search(rf"\b{word}\b", command(name).help), f"{name} does not explain {word}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_synonym_is_of_a_command(name):
    assert name not in SYNONYMS, "a command needs no synonym"
    assert {answer.split()[0] for answer in SYNONYMS.values()} <= {*COMMANDS, "--help", "--version"}


def test_split_is_what_part_was():
    for name in ("evaluate", "analyze"):
        (option,) = (each for each in options(name) if each.name == "part")
        assert option.opts == ["--split", "--part"]
        assert option.help == "split to use  [default: the one the model was not trained on]"


def strings(path):
    """Every text in a source file that people may read: all strings of several words but docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in silent and " " in str(node.value):
            yield node.lineno, str(node.value)


def test_messages_are_plain_english():
    stilted = [
        f"{path.name}:{line}: {text}"
        for path in SOURCES
        for line, text in strings(path)
        if STILTED_MESSAGE.search(text) or PART_FOR_SPLIT.search(text)
    ]
    assert stilted == []
