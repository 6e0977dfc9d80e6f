import os
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def zoo():
    """The folder of real agents that LFIW_OPE_TEST_DATA names."""
    folder = os.environ.get("LFIW_OPE_TEST_DATA")
    if not folder:
        pytest.skip("LFIW_OPE_TEST_DATA names no folder of agents")
    return Path(folder) / "sb3_zoo"
