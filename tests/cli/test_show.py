"""Tables in a pipe: no wider than 100 columns, nothing cut off, names and figures whole."""

import pytest

from smallcnn.cli.show import WIDTH, table

NAMES = [["mobilenet_v2_1.0_224_torchvision_v2", "shufflenet_v2:scale=0.5", "224", "71.9", "BSD-3-Clause"]]
TABLES = [["pull"], ["recipes"], ["recipes", "photos"], ["study"], ["study", "shuffle"], ["papers"], ["list"],
          ["cost", "nasnet_a_mobile", "--by", "layer"]]  # fmt: skip


@pytest.mark.parametrize("args", TABLES, ids=" ".join)
def test_every_table_fits(smallcnn, args):
    code, printed, _ = smallcnn(*args)
    rules = [line for line in printed.splitlines() if line.strip(" ─") == "" and "─" in line]
    assert code == 0
    assert all(len(line) <= WIDTH for line in rules)
    if args != ["list"]:
        assert rules


def test_nothing_is_cut_off_and_names_stay_whole(capsys):
    table(["NAME", "model", "input", "published top-1 %", "licence"], NAMES)
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in NAMES[0])
    long = "x" * 250
    table(["name", "what it says"], [[long, "one two"]])
    printed = capsys.readouterr().out
    assert printed.count("x") == 250
    assert max(map(len, printed.splitlines())) <= WIDTH


def test_words_stand_left_and_figures_right(capsys):
    table(["file", "for", "ms"], [["a", "some words", "1.25"], ["b", "more", "100.5"], ["c", "words", "-"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]
    assert len({len(line) for line in lines}) == 1  # all end with the figure
    assert [line.index(word) for line, word in zip(lines[1:], ("some", "more", "words"), strict=True)] == [7, 7, 7]
