import json
import subprocess
import sys

import pytest


def test_one_table(smallcnn):
    code, out, _ = smallcnn("papers", "mobilenet_v1.t2")
    assert code == 0
    assert "1.19 %" in out
    assert "1.9056 %" in out
    assert "[1] wrong in the paper: digits swapped" in out
    assert "8 figures: 7 agree to the printed digits; the paper is wrong in 1, " in out.splitlines()[-1]


def test_accuracies_are_called_published(smallcnn):
    out = smallcnn("papers", "mobilenet_v1.t4")[1]
    assert "published ImageNet top-1, %" in out
    assert out.count("71.7") == 1, "on the row's first line only"


def test_a_paper_is_all_its_tables(smallcnn):
    out = smallcnn("papers", "squeezenet")[1]
    assert all(f"squeezenet.{table}  " in out for table in ("t1", "t2", "t3", "released"))
    assert "mobilenet" not in out


def test_json(smallcnn):
    code, out, _ = smallcnn("papers", "mobilenet_v1.t9", "--json")
    squeezenet = [row for row in json.loads(out) if row["row"] == "Squeezenet"]
    assert code == 0
    assert squeezenet[0] == {
        "table": "mobilenet_v1.t9", "row": "Squeezenet", "model": "squeezenet_1_0", "input_size": [224, 224, 3],
        "quantity": "Mult-Adds", "printed": "1700 M", "ours": 818924576, "agrees": False,
        "difference": pytest.approx(818924576 / 1.7e9 - 1), "note": squeezenet[0]["note"], "note_kind": "wrong",
        "published_accuracy": "57.5", "accuracy_of": "ImageNet top-1, %",
    }  # fmt: skip
    assert squeezenet[1]["ours"] == 1248424
    assert squeezenet[1]["agrees"] is True


def test_json_of_what_is_not_counted(smallcnn):
    first = json.loads(smallcnn("papers", "xception.t3", "--json")[1])[0]
    assert (first["row"], first["ours"], first["agrees"], first["model"]) == ("Inception V3", None, None, None)


def test_page_and_plot(smallcnn, tmp_path):
    page, plot = tmp_path / "papers.html", tmp_path / "papers.png"
    code, _, _ = smallcnn("papers", "nasnet", "--html", page, "--png", plot)
    text = page.read_text()
    assert code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in text
    assert "src=" not in text, "nothing is fetched"
    assert "NASNet-A (4 @ 1056)" in text
    assert "published ImageNet top-1, %" in text


@pytest.mark.parametrize(("args", "says"), [
    (["mobilenet_v1.t44"], "no table 'mobilenet_v1.t44'; closest: mobilenet_v1.t4"),
    (["nasnet", "--png", "papers.jpg"], "papers.jpg: a plot's name ends in .png, .svg or .pdf"),
    (["nasnet", "--html", "papers.txt"], "papers.txt: a page's name ends in .html"),
    (["nasnet", "--html", "missing/papers.html"], "cannot write missing/papers.html"),
])  # fmt: skip
def test_mistakes_are_one_line(smallcnn, monkeypatch, tmp_path, args, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = smallcnn("papers", *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"smallcnn: {says}")
    assert err.count("\n") == 1


def test_no_training_framework_is_imported(tmp_path):
    code = f"""
import sys
from smallcnn.cli.main import main
try:
    main(["papers", "--html", {str(tmp_path / "papers.html")!r}])
except SystemExit as exit:
    sys.exit(exit.code or ("torch" in sys.modules and "torch is imported") or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
