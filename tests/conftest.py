"""What all tests share: one thread, an own Hub, a checkpoint to damage, and the published data if they are at hand."""

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import pytest
import torch

# The real Hub client reads its environment once, when it is imported: no test reaches the network, and this server
# answers while a test has it running.
HUB = Path(tempfile.mkdtemp(prefix="zoo-hub-"))
PORT = hub_server.free_port()
os.environ["ZOO_CACHE"] = str(HUB / "zoo")  # of reference statistics
for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(key, None)
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{PORT}",
    "HF_HOME": str(HUB),
    "HF_HUB_CACHE": str(HUB / "cache"),
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_ETAG_TIMEOUT": "3",
    "HF_HUB_DOWNLOAD_TIMEOUT": "3",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

from harm import World  # noqa: E402 - imports the client

NO_DATA = "needs the published data: set ZOO_DATA to the folder that holds MNIST/raw and the others"

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


def pytest_configure(config: pytest.Config) -> None:
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*is deprecated.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*GPU available but not used.*",
        "Use 'content=<...>' to upload raw bytes",  # how the Hub client uploads
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says which tests were left out for want of the published data."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_DATA in str(report.longrepr)]
    if skipped:
        files = Counter(report.nodeid.partition("::")[0] for report in skipped)
        terminalreporter.write_line(f"{len(skipped)} tests were left out: {NO_DATA}")
        for file, number in sorted(files.items()):
            terminalreporter.write_line(f"  {number:4} of {file}")


@pytest.fixture(scope="session", autouse=True)
def quiet_lightning() -> None:
    """After collection, since importing Lightning sets its own levels."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def pytest_unconfigure() -> None:
    shutil.rmtree(HUB, ignore_errors=True)


@pytest.fixture
def hub_cache() -> Iterator[Path]:
    """The client's cache, empty."""
    cache = HUB / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    yield cache
    shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture
def hub(hub_cache: Path) -> Iterator[hub_server.Hub]:
    """A Hub without a repository, and an empty cache."""
    running = hub_server.Hub(PORT)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with 3 KB of weights; not to be changed."""
    from zoo import Zoo
    from zoo.autoregressive.made import MADE

    model = MADE(event_shape=[1, 3, 3], hidden=16, num_masks=2, mask_seed=3)
    return Zoo.save(model, tmp_path_factory.mktemp("tiny") / "made-tiny", recipe={"seed": 0})


@pytest.fixture(scope="session")
def tiny_files(tiny_checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder of the published data sets."""
    root = os.environ.get("ZOO_DATA")
    if not root:
        pytest.skip(NO_DATA)
    return root


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A checkpoint folder to do harm to."""
    torch.manual_seed(0)
    return World(tmp_path, monkeypatch)
