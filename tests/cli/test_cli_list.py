import pytest

from smallcnn import zoo
from smallcnn.cli.main import main


@pytest.fixture
def listed(capsys):
    """What `smallcnn list` prints to a pipe."""
    with pytest.raises(SystemExit) as caught:
        main(["list"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_every_network_is_listed_within_120_columns(listed):
    assert max(map(len, listed.splitlines())) <= 120
    assert {line.split()[0] for line in listed.splitlines()[1:] if not line.startswith(" ")} == set(zoo.names())


def test_cost_is_that_of_the_networks_own_size(listed):
    (xception,) = [line for line in listed.splitlines() if line.startswith("xception")]
    assert xception.split()[1:6] == ["299x299x3", "8,357.40", "M", "22.86", "M"]  # 8,357,403,496 and 22,855,952


def test_values_stand_as_they_are_typed_with_the_default_first(listed):
    assert "bypass=none|simple|complex small_input=false|true" in listed
    assert "block=effnet|baseline|mobilenet|shufflenet|revised" in listed
    assert "groups=3 scale=1 " in listed
    assert "epsilon=0.001" in listed


@pytest.mark.parametrize("name", zoo.names())
def test_every_value_shown_is_accepted(name, listed):
    start = listed.index(f"\n{name} ") + 1
    lines = listed[start:].split("\n")
    own = [lines[0], *[line for line in lines[1:4] if line.startswith(" ")]]
    shown = [word for line in own for word in line.split() if "=" in word]
    assert {word.partition("=")[0] for word in shown} >= set(zoo.options(name))
    for word in shown[: len(zoo.options(name))]:
        key, _, values = word.partition("=")
        for value in values.split("|"):
            assert zoo.parse(f"{name}:{key}={value}").options[key] is not None
        assert str(zoo.parse(f"{name}:{key}={values.split('|')[0]}")) == name, "the first is the default"


def test_json_and_markdown_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["list", "--json", "--markdown"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "smallcnn: --markdown cannot be combined with --json or --resolution\n"


def test_another_resolution_leaves_out_what_is_too_large_for_it(smallcnn):
    code, out, err = smallcnn("list", "--resolution", "24")
    listed = {line.split()[0] for line in out.splitlines()[1:] if not line.startswith(" ")}
    assert code == 0
    assert set(zoo.names()) - listed == {"alexnet", "googlenet", "vgg16"}
    assert "vgg16: pool5: a 2x2 window does not fit" in err
    (v1,) = [line for line in out.splitlines() if line.startswith("mobilenet_v1 ")]
    assert v1.split()[1:4] == ["24x24x3", "10.80", "M"]


def test_in_a_narrow_terminal_the_options_stand_below(smallcnn, monkeypatch):
    monkeypatch.setattr("smallcnn.cli.list.sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = smallcnn("list")
    lines = out.splitlines()[1:]
    assert max(map(len, lines)) <= 80
    place = next(i for i, line in enumerate(lines) if line.startswith("squeezenet_1_0 "))
    assert lines[place + 1] == "    bypass=none|simple|complex small_input=false|true"
