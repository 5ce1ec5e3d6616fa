"""`smallcnn demo` from end to end: minutes, so only with `-m long`."""

import json

import pytest

from smallcnn.demo import demo


@pytest.mark.long
def test_the_whole_way(tmp_path):
    lines = []
    result = demo(tmp_path, lines.append)
    assert result.evaluation.part == "test"
    assert result.evaluation.metrics.top1 >= 0.98
    assert len(result.predictions) == 5
    assert all(row.verified for row in result.times)
    assert result.report.stat().st_size > 100_000
    assert [line for line in lines if line.startswith("# smallcnn")]
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["epoch"] == len(log)
