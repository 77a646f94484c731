"""What all tests share: one thread, a quiet Lightning, and the published data where they are at hand."""

import logging
import os

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


def pytest_configure(config: pytest.Config) -> None:
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*is deprecated.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*GPU available but not used.*",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


@pytest.fixture(scope="session", autouse=True)
def quiet_lightning() -> None:
    """After collection, since importing Lightning sets its own levels."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder of the published data sets."""
    root = os.environ.get("ZOO_DATA")
    if not root:
        pytest.skip("needs the published data: set ZOO_DATA to the folder that holds MNIST/raw and the others")
    return root
