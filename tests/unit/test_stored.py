"""Results are put into files whole or not at all."""

import pytest

from lfiw_ope.core import write_text


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "results.json" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"results\.json"):
        write_text(tmp_path / "results.json", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert write_text(tmp_path / "other.json", "1").read_text() == "1"
