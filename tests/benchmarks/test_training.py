import json

import pytest
import torch
from click.testing import CliRunner

import training
from smallcnn.module import to_module
from smallcnn.train.ranks import Ranks

NETWORK = "effnet_cifar at 16, batch 8"


def test_the_record_has_every_way_and_what_auto_takes(tmp_path):
    record = tmp_path / "record.json"
    words = ["--network", NETWORK, "--threads", str(torch.get_num_threads()), "--seconds", "0", "--json", str(record)]
    done = CliRunner().invoke(training.main, words)
    assert done.exit_code == 0, done.output
    found = json.loads(record.read_text())
    (row,) = found["rows"]
    assert found["benchmark"] == "training"
    assert (row["network"], row["processes"], row["steps"]) == (NETWORK, 1, 5)
    assert list(row["images_per_second"]) == ["torch float32, NCHW", "torch float32", "torch bfloat16", "kernels"]
    for rates in row["images_per_second"].values():
        assert 0 < rates["lowest"] <= rates["median"] <= rates["highest"]
    assert row["auto"] in ("kernels in float32", "torch in float32", "torch in bfloat16")
    assert row["why"].startswith("images/s in trial steps: ")
    assert f"| {NETWORK} |" in done.output


def test_a_table_has_median_and_range():
    rates = {"torch float32, NCHW": {"median": 20.4, "lowest": 10.0, "highest": 31.0}}
    row = {"network": NETWORK, "images_per_second": rates, "auto": "torch in float32"}
    assert training.table([row]).splitlines()[-1] == f"| {NETWORK} | 20 (10 to 31) | torch in float32 |"


@pytest.mark.parametrize("name", ["kernels", "torch bfloat16"])
def test_a_wrong_gradient_is_never_timed(name):
    module = to_module(training.build("effnet_cifar", 16))
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    ways = {one: training.WAYS[one] for one in (training.EAGER, name)}
    made = {one: training.Trainee(module, way, images, labels, Ranks()) for one, way in ways.items()}
    assert "gradient off by" in training.check(made)
    made[name].gradient = made[name].gradient.roll(1)  # as long, but of other weights
    with pytest.raises(SystemExit, match=f"^{name}: .* gradient off by"):
        training.check(made)


def test_a_misspelt_network_is_refused():
    done = CliRunner().invoke(training.main, ["--network", "effnet_cifar"])
    assert done.exit_code == 2
    assert "'effnet_cifar' is not like 'mobilenet_v2 at 160, batch 64'" in done.output
