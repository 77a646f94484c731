"""The data layer: what the files hold, exact resumption, division among processes, every complaint."""

import gzip
import hashlib
import io
import os
import pickle
import socket
import sys
import tarfile
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import (
    CIFAR10,
    MNIST,
    Arrays,
    BinarizedMNIST,
    Digits,
    FashionMNIST,
    ImageFolder,
    Loader,
    Rivers,
    Split,
    Toy2D,
)
from zoo.data.base import DataModule, permutation
from zoo.data.cifar import unpickle
from zoo.data.files import Published, data_root, fetch, read
from zoo.errors import ConfigError, DataError, DownloadError, ZooError

SPLITS = ("train", "valid", "test")


def complaint(error: pytest.ExceptionInfo[BaseException], *parts: object) -> None:
    """Every error is one line that names what it is about."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


class Grey(MNIST):
    """MNIST of 23 random images of 2x2 pixels, without a file."""

    event_shape = (1, 2, 2)
    files = ()

    def load(self, which: str) -> Split:
        x = torch.randint(256, (23, 1, 2, 2), generator=torch.Generator().manual_seed(SPLITS.index(which)))
        return Split(x.to(torch.uint8), torch.arange(23) % 10)


def attached(data: DataModule, rank: int = 0, world: int = 1, **more: object) -> DataModule:
    """`data` as it is while a Trainer runs."""
    settings = {"num_training_batches": float("inf"), "training": False, "validating": False, "sanity_checking": False}
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, **{**settings, **more})
    return data


def seen(loader: Loader) -> list[list[int]]:
    return [batch.index.tolist() for batch in loader]


# published sets


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_holds_what_torchvision_reads(kind: type[DataModule], real_data: str) -> None:
    from torchvision import datasets

    data = kind()
    train, test = (getattr(datasets, kind.__name__)(real_data, train=train) for train in (True, False))
    for which, images, labels in (
        ("train", train.data[:50_000], train.targets[:50_000]),
        ("valid", train.data[50_000:], train.targets[50_000:]),
        ("test", test.data, test.targets),
    ):
        split = data.split(which)
        assert split.x.dtype == torch.uint8
        assert torch.equal(split.x[:, 0], images)
        assert torch.equal(split.labels, labels)
    batch = next(data.batches("test", index=torch.tensor([7, 3])))
    assert torch.equal(batch.x, test.data[[7, 3], None] / 255)
    assert batch.index.tolist() == [7, 3]


def test_cifar_holds_what_torchvision_reads(real_data: str) -> None:
    from torchvision import datasets

    data = CIFAR10()
    oracle = datasets.CIFAR10(real_data, train=True)
    whole = torch.cat([data.split("train").x, data.split("valid").x])
    assert torch.equal(whole, torch.from_numpy(oracle.data).permute(0, 3, 1, 2))
    assert torch.cat([data.split("train").labels, data.split("valid").labels]).tolist() == oracle.targets
    assert len(data.split("valid")) == 5_000
    assert len(data.split("test")) == 10_000


def test_binarized_mnist_holds_the_text_of_its_files(real_data: str) -> None:
    data = BinarizedMNIST()
    for which, size in zip(SPLITS, (50_000, 10_000, 10_000), strict=True):
        split = data.split(which)
        assert split.x.shape == (size, 1, 28, 28)
        assert split.x.unique().tolist() == [0, 1]
        assert split.labels is None
        text = np.loadtxt(Path(real_data, f"binarized_mnist/binarized_mnist_{which}.amat"), max_rows=50)
        assert np.array_equal(split.x[:50].flatten(1).numpy(), text)
    assert next(data.batches("test")).x.unique().tolist() == [0.0, 1.0]


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, digits = Digits(seed=3), load_digits()
    assert [len(data.split(which)) for which in SPLITS] == [1297, 200, 300]
    counts = torch.cat([data.split(which).labels for which in SPLITS]).bincount()
    assert counts.tolist() == np.bincount(digits.target).tolist()
    grey = torch.cat([next(data.batches(which, batch_size=2000)).x for which in SPLITS])
    assert 0 == grey.min() < grey.max() == 1
    assert grey.mean().item() == pytest.approx(digits.images.mean() / 16, abs=0.5 / 255)
    assert torch.equal(Digits(seed=3).split("test").x, data.split("test").x)
    assert not torch.equal(Digits(seed=4).split("test").x, data.split("test").x)


@pytest.mark.parametrize("kind", ["moons", "spirals", "gaussians", "rings", "checkerboard"])
def test_toys_are_standardised_and_come_from_the_seed(kind: str) -> None:
    data = Toy2D(kind, seed=1)
    x = data.split("train").x
    assert x.shape == (10_000, 2)
    assert torch.allclose(x.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(x.std(0), torch.ones(2), atol=1e-5)
    assert torch.equal(Toy2D(kind, seed=1).split("test").x, data.split("test").x)
    assert not torch.equal(Toy2D(kind, seed=2).split("test").x, data.split("test").x)
    test = data.split("test").x
    assert torch.allclose(test.mean(0), torch.zeros(2), atol=0.12)
    assert torch.allclose(test.std(0), torch.ones(2), atol=0.12)
    assert torch.equal(next(data.batches("test", batch_size=2000)).x, test)  # continuous: not divided by anything


# loaders


def test_training_sees_every_image_once_an_epoch_in_an_order_of_its_own() -> None:
    loader = Grey(batch_size=5, seed=7).train_dataloader()
    first, second = seen(loader), seen(loader)
    assert [len(batch) for batch in first] == [5] * len(loader) == [5, 5, 5, 5]
    assert len(set(chain(*first))) == 20
    assert first != second
    other = Grey(batch_size=5, seed=8).train_dataloader()
    assert seen(other) != first
    again = Grey(batch_size=5, seed=7).train_dataloader()
    assert [seen(again), seen(again)] == [first, second]


def test_evaluation_sees_everything_in_order() -> None:
    data = Grey(batch_size=5)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert len(loader) == 5
        next(iter(loader))  # what was left unfinished does not shift the next pass
        assert list(chain(*seen(loader))) == list(range(23))


def test_training_on_less_than_a_batch() -> None:
    loader = Grey(batch_size=100).train_dataloader()
    assert len(loader) == 1
    assert sorted(seen(loader)[0]) == list(range(23))


def test_a_loader_resumes_from_wherever_it_stood() -> None:
    loader = Grey(batch_size=5).train_dataloader()
    states, batches = [loader.state_dict()], []
    for _ in range(3):
        for batch in loader:
            states.append(loader.state_dict())  # what a checkpoint holds that is written after this batch
            batches.append(batch.index.tolist())
    assert states[4] == {"epoch": 1, "position": 0, "num": 23}  # rolled over before the last batch came
    for step, state in enumerate(states):
        resumed = Grey(batch_size=5).train_dataloader()
        resumed.load_state_dict(state)
        rest = list(chain(*(seen(resumed) for _ in range(3))))
        assert rest[: 12 - step] == batches[step:]


def test_a_state_of_another_batch_size_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        Grey(batch_size=10).train_dataloader().load_state_dict({"epoch": 0, "position": 2})
    complaint(error, "batch 2", "batch size")
    with pytest.raises(ConfigError, match=r"began with 7 examples for training, found \d+; resume with the data that"):
        Grey(batch_size=10).train_dataloader().load_state_dict({"epoch": 0, "position": 0, "num": 7})


class Recorder(lightning.LightningModule):
    """Learns nothing, remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[list[int], torch.Tensor]] = []

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        self.seen.append((batch.index.tolist(), batch.x))
        return self.weight * batch.x.mean()

    def validation_step(self, batch: tuple, batch_idx: int) -> None:
        assert batch.x.dtype == torch.float32

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_resumed_run_sees_the_batches_it_would_have_seen(stop: int, limit: int | None, tmp_path: Path) -> None:
    def run(steps: int, resume: Path | None = None) -> tuple[Recorder, lightning.Trainer]:
        model, data = Recorder(), Grey(batch_size=5, binarize="dynamic")
        trainer = lightning.Trainer(
            max_steps=steps,
            max_epochs=-1,
            limit_train_batches=limit,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data, ckpt_path=resume, weights_only=False if resume else None)
        return model, trainer

    whole, _ = run(10)
    part, trainer = run(stop)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    rest, _ = run(10, tmp_path / "run.ckpt")
    assert len(whole.seen) == 10
    found = part.seen + rest.seen
    assert [index for index, _ in found] == [index for index, _ in whole.seen]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, whole.seen, strict=True))
    if limit:  # an epoch cut short is over: the next one begins at its own first batch
        order = permutation(23, 0, epoch=1)[:5]
        assert whole.seen[limit][0] == order.tolist()


def test_overfitting_sees_the_same_batches_again() -> None:
    loader = attached(Grey(batch_size=5), num_training_batches=2, overfit_batches=2).train_dataloader()
    assert seen(loader) == seen(loader) == [list(rows) for rows in permutation(23, 0)[:10].view(2, 5).tolist()]


@pytest.mark.parametrize("which", SPLITS)
def test_processes_together_see_what_one_sees(which: str) -> None:
    alone = list(Loader(Grey(batch_size=6, seed=5), which))
    ranks = [list(Loader(attached(Grey(batch_size=6, seed=5), rank, 2), which)) for rank in range(2)]
    assert len(alone) == len(ranks[0]) == len(ranks[1])
    for whole, even, odd in zip(alone, *ranks, strict=True):
        for joint, one, two in zip(whole, even, odd, strict=True):
            assert torch.equal(joint[0::2], one)
            assert torch.equal(joint[1::2], two)


def test_processes_share_small_training_sets_evenly() -> None:
    ranks = [list(attached(Grey(batch_size=100), rank, 4).train_dataloader()) for rank in range(4)]
    assert [len(batch.x) for (batch,) in ranks] == [5, 5, 5, 5]


def test_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(ConfigError) as error:
        next(iter(attached(Grey(batch_size=5), 0, 2).train_dataloader()))
    complaint(error, "2 processes", "found 5")


# dynamic binarisation


def test_photographs_are_mirrored_every_second_time_in_training_alone() -> None:
    x, index = torch.arange(3 * 32 * 32 * 400, dtype=torch.int64).remainder(251).view(400, 3, 32, 32), torch.arange(400)
    data = CIFAR10(seed=3, mirror=True)

    def mirrored(step: int, index: torch.Tensor = index, seed: int = 3) -> list[bool]:
        found = CIFAR10(seed=seed, mirror=True).convert(x[index], index, step)
        plain = x[index] / 255
        flipped = (found == plain.flip(-1)).flatten(1).all(1)
        assert torch.equal(flipped, ~(found == plain).flatten(1).all(1))
        return flipped.tolist()

    first = mirrored(0)
    assert 150 < sum(first) < 250 and first == mirrored(0)
    assert first != mirrored(1) and first != mirrored(0, seed=4)
    assert [first[i] for i in (9, 2, 7)] == mirrored(0, torch.tensor([9, 2, 7])), "the image decides, not the batch"
    for passed in (-1, -2, -3):
        assert torch.equal(data.convert(x, index, passed), x / 255)
    assert torch.equal(CIFAR10(seed=3).convert(x, index, 0), x / 255)


def test_dynamic_binarisation_depends_on_the_image_and_the_pass_alone() -> None:
    data = Grey(binarize="dynamic", seed=3)
    assert (data.name, data.levels) == ("dynamic-mnist", 2)
    draw = {size: torch.cat([batch.x for batch in data.batches("test", batch_size=size)]) for size in (1, 4, 23)}
    assert torch.equal(draw[1], draw[23])
    assert torch.equal(draw[4], draw[23])
    assert draw[23].unique().tolist() == [0.0, 1.0]
    assert torch.equal(next(data.batches("test", index=torch.tensor([9, 2]))).x, draw[23][[9, 2]])

    def epochs(seed: int, rank: int = 0, world: int = 1) -> list[dict[int, torch.Tensor]]:
        """What training gets in two epochs: example -> pixels."""
        data = attached(Grey(batch_size=22, binarize="dynamic", seed=seed), rank, world, training=True)
        loader = data.train_dataloader()
        passes = [[data.on_after_batch_transfer(batch, 0) for batch in loader] for _ in range(2)]
        return [dict(zip(batch.index.tolist(), batch.x, strict=True)) for (batch,) in passes]

    first, second = epochs(seed=3)
    changed = [not torch.equal(first[key], second[key]) for key in first.keys() & second.keys()]
    assert sum(changed) > 10
    other = epochs(seed=4)[0]
    assert sum(not torch.equal(first[key], other[key]) for key in first.keys() & other.keys()) > 10
    for rank in range(2):
        part = epochs(3, rank, 2)[1]
        assert len(part) == 11
        assert all(torch.equal(second[key], x) for key, x in part.items())
    for stage, which in (("validating", "valid"), ("sanity_checking", "valid"), ("testing", "test")):
        batch = attached(data, **{stage: True}).on_after_batch_transfer(data.rows(which, torch.arange(23)), 0)
        assert torch.equal(batch.x, next(data.batches(which)).x)


def test_dynamic_binarisation_has_the_grey_values_as_probabilities() -> None:
    data = Grey(binarize="dynamic")
    grey = data.rows("train", torch.arange(23))
    num = 4000
    mean = sum(data.convert(grey.x, grey.index, epoch) for epoch in range(num)) / num
    p = grey.x / 255
    error = (mean - p) / (p * (1 - p) / num).sqrt().clamp(min=1e-9)
    assert error.abs().max() < 4.5  # of 92 pixels
    assert mean[grey.x == 0].eq(0).all()
    assert mean[grey.x == 255].eq(1).all()


def test_the_noise_of_the_data_is_not_the_noise_of_a_model_of_the_same_seed() -> None:
    from zoo.random import Streams, rand

    data = Grey(binarize="dynamic", seed=0)
    x = torch.full((50, 1, 2, 2), 128, dtype=torch.uint8)
    ours = data.convert(x, torch.arange(50), 0)
    models = (rand((50, 1, 2, 2), Streams(0, range(50), 0)) < x / 255).float()
    assert 0.3 < (ours == models).float().mean() < 0.7


def test_binarize_knows_one_word() -> None:
    with pytest.raises(ConfigError) as error:
        MNIST(binarize="static")
    complaint(error, "'static'", "BinarizedMNIST")


# the interface


def test_subsets_are_drawn_without_replacement_from_a_seed() -> None:
    data = Grey()
    index = data.subset("test", 10, seed=1)
    assert len(set(index.tolist())) == 10
    assert index.tolist() != list(range(10))
    assert torch.equal(data.subset("test", 4, seed=1), index[:4])
    assert not torch.equal(data.subset("test", 10, seed=2), index)
    with pytest.raises(ConfigError) as error:
        data.subset("test", 24, seed=0)
    complaint(error, "0 to 23", "found 24")


def test_arguments_out_of_range() -> None:
    with pytest.raises(ConfigError) as error:
        Digits(batch_size=0)
    complaint(error, "batch_size", "found 0")
    with pytest.raises(ConfigError) as error:
        Digits().split("validation")
    complaint(error, "train, valid, test", "'validation'")
    with pytest.raises(ConfigError) as error:
        Toy2D("circles")
    complaint(error, "moons", "'circles'")


def test_splits_are_read_once() -> None:
    data = Digits()
    assert data.split("train") is data.split("train")


# files and downloads


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_the_root_is_the_argument_or_the_variable_or_the_cache(no_root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert data_root() == Path("/home/somebody/.cache/zoo/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_root() == Path("/cache/zoo/data")
    monkeypatch.setenv("ZOO_DATA", "/data")
    assert data_root() == Path("/data") == Digits().root
    assert data_root("~/mine") == Path("/home/somebody/mine")


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A web server of the files in `folder`, and a record of what was asked of it."""
    folder = tmp_path / "published"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder)) as http:
        http.requests = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield SimpleNamespace(
            folder=folder,
            requests=http.requests,  # type: ignore[attr-defined]
            address=f"http://127.0.0.1:{http.server_port}",
        )
        http.shutdown()
        thread.join()


def published(path: str, content: bytes, address: str) -> Published:
    return Published(path, len(content), hashlib.sha256(content).hexdigest(), address)


def idx(images: np.ndarray) -> bytes:
    """`images` or labels in the format of MNIST."""
    sizes = b"".join(size.to_bytes(4, "big") for size in images.shape)
    return bytes([0, 0, 8, images.ndim]) + sizes + images.astype(np.uint8).tobytes()


def test_mnist_comes_from_its_address_when_it_is_absent(
    server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    train = draw.integers(256, size=(10_003, 28, 28))
    contents = [idx(train), idx(train[:, 0, 0] % 10), idx(train[:4]), idx(train[:4, 0, 0] % 10)]
    files = []
    for file, content in zip(MNIST.files, contents, strict=True):
        name = Path(file.address).name
        (server.folder / name).write_bytes(gzip.compress(content, 1))
        files.append(published(file.path, content, f"{server.address}/{name}"))
    monkeypatch.setattr(MNIST, "files", tuple(files))
    root = tmp_path / "root"
    data = MNIST(root=str(root))
    assert torch.equal(data.split("train").x[:, 0], torch.from_numpy(train[:3].astype(np.uint8)))
    assert len(server.requests) == 2  # what training needs
    data.prepare_data()
    assert torch.equal(data.split("test").labels, torch.from_numpy(train[:4, 0, 0] % 10))
    MNIST(root=str(root)).split("valid")
    assert len(server.requests) == 4  # and nothing twice
    assert sorted(path.name for path in (root / "MNIST/raw").iterdir()) == sorted(Path(f.path).name for f in files)


def test_an_archive_is_downloaded_once_for_all_its_files(server: SimpleNamespace, tmp_path: Path) -> None:
    contents = {f"set/part_{k}": bytes([k]) * 100 for k in range(3)}
    with tarfile.open(server.folder / "set.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    files = [published(name, content, f"{server.address}/set.tar.gz") for name, content in contents.items()]
    assert [read(tmp_path, file) for file in (fetch(tmp_path, files), *files)[1:]] == list(contents.values())
    assert server.requests == ["/set.tar.gz"]


def test_what_comes_is_checked_before_it_is_kept(server: SimpleNamespace, tmp_path: Path) -> None:
    (server.folder / "plain").write_bytes(b"something else")
    (server.folder / "bad.gz").write_bytes(b"no gzip")
    (server.folder / "bad.tar.gz").write_bytes(gzip.compress(b"no tar"))
    with tarfile.open(server.folder / "other.tar.gz", "w:gz"):
        pass
    for name, reason in (
        ("plain", "sha256"),
        ("bad.gz", "gzip"),
        ("bad.tar.gz", "tar"),
        ("other.tar.gz", "not found"),
        ("short", "9 of 1000 bytes"),
        ("nowhere", "File not found"),
    ):
        file = published("set/file", b"the right thing", f"{server.address}/{name}")
        with pytest.raises(DownloadError) as error:
            read(tmp_path, file)
        complaint(error, file.address, reason, f"put the file at {tmp_path / 'set/file'} or set ZOO_DATA")
        assert list((tmp_path / "set").iterdir()) == []


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for kind, address in (
        (MNIST, "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz"),
        (FashionMNIST, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz"),
        (BinarizedMNIST, BinarizedMNIST.files[2].address),
        (CIFAR10, "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
    ):
        with pytest.raises(DownloadError) as error:
            kind(root=str(tmp_path)).split("test")
        complaint(error, address, "Name or service not known", tmp_path, "set ZOO_DATA")


def test_a_root_that_cannot_be_written(tmp_path: Path, server: SimpleNamespace) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ZooError) as error:
        read(tmp_path / "file", published("set/file", b"x", f"{server.address}/x"))
    complaint(error, tmp_path / "file", "set ZOO_DATA")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = published("set/file", b"the right thing", "http://nowhere.invalid/file")
    path = tmp_path / file.path
    path.parent.mkdir()
    path.write_bytes(b"the right thing")
    path.chmod(0o400)
    assert read(tmp_path, file) == read(tmp_path, file) == b"the right thing"
    path.chmod(0o600)
    path.write_bytes(b"the wrong thing, and longer")
    with pytest.raises(DataError) as error:
        read(tmp_path, file)
    complaint(error, path, file.sha256[:16], "27", "remove it")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError) as error:
        read(tmp_path, file)
    complaint(error, path, "cannot be read")


def test_a_pickle_that_names_anything_else_is_refused() -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return print, ("executed",)

    with pytest.raises(pickle.UnpicklingError, match=r"print is not allowed"):
        unpickle(pickle.dumps(Attack(), protocol=2))
    assert unpickle(pickle.dumps({"labels": [1, 2]}, protocol=2)) == {"labels": [1, 2]}


# own data: folders of images


def paint(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", value: object = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)
    return path


def test_a_folder_of_images_with_labels(tmp_path: Path) -> None:
    for number in range(30):
        paint(tmp_path / ("cats" if number % 3 else "birds/small") / f"{number:02}.png", value=number)
    (tmp_path / "cats/notes.txt").write_text("no image")
    paint(tmp_path / ".thumbnails/x.png", size=(1, 1))
    data = ImageFolder(str(tmp_path))
    assert (data.event_shape, data.num_classes, data.levels) == ((3, 4, 6), 2, 256)
    assert (data.classes, data.name) == (["birds", "cats"], tmp_path.name)
    assert [len(data.split(which)) for which in SPLITS] == [25, 3, 2]
    values = []
    for which in SPLITS:
        split = data.split(which)
        value = split.x[:, 0, 0, 0].long()
        assert torch.equal(split.x, value.to(torch.uint8).view(-1, 1, 1, 1).expand_as(split.x))
        assert torch.equal(split.labels, (value % 3 != 0).long())
        values += value.tolist()
    assert sorted(values) == list(range(30))
    assert torch.equal(ImageFolder(str(tmp_path)).split("test").x, data.split("test").x)


def test_images_are_converted_as_told(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (6, 4), "L", 50)
    paint(tmp_path / "b.jpg", (9, 12), "RGB", 50)
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half.save(tmp_path / "c.png")
    data = ImageFolder(str(tmp_path), size=4, channels=1)
    x = torch.cat([data.split(which).x for which in SPLITS])
    assert data.event_shape == (1, 4, 4)
    assert data.num_classes is None
    assert sorted(x.flatten(1).float().mean(1).round().int().tolist()) == [50, 50, 255]  # what is transparent is white
    assert ImageFolder(str(tmp_path), size=5, channels=3).event_shape == (3, 5, 5)


def test_cameras_turn_their_images(tmp_path: Path) -> None:
    for number in range(3):
        image = Image.new("L", (6, 4), number)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / f"{number}.jpg", exif=exif)
    assert ImageFolder(str(tmp_path)).event_shape == (1, 6, 4)


def test_corrupt_images_are_named_or_left_out_when_asked(tmp_path: Path) -> None:
    for number in range(4):
        paint(tmp_path / f"{number}.png", value=number)
    (tmp_path / "2a.jpg").write_bytes(b"no image")
    truncated = paint(tmp_path / "2b.png", (60, 60))
    truncated.write_bytes(truncated.read_bytes()[:70])
    (tmp_path / "2c.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, tmp_path / "2a.jpg", "skip_corrupt", "--skip-corrupt")
    data = ImageFolder(str(tmp_path), skip_corrupt=True)
    with pytest.warns(UserWarning, match=r"left out 3 of 7 images.*2a\.jpg"):
        data.prepare_data(), data.split("train")
    assert [path.name for path in data.skipped] == ["2a.jpg", "2b.png", "2c.png"]
    assert sum(len(data.split(which)) for which in SPLITS) == 4


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    empty, mixed, few, spoilt, deep = (tmp_path / name for name in ("empty", "mixed", "few", "spoilt", "deep"))
    empty.mkdir()
    paint(mixed / "a.png")
    paint(few / "a.png"), paint(few / "b.png")
    spoilt.mkdir()
    (spoilt / "a.png").write_bytes(b"")
    for number in range(3):
        paint(deep / f"{number}.png", mode="I;16")
    for folder, *parts in (
        (tmp_path / "nowhere", "expected a folder of images", "nothing"),
        (mixed / "a.png", "expected a folder of images", "a file"),
        (empty, "expected images", "found none"),
        (few, "at least 3 examples", "found 2"),
        (deep, "0.png", "8 bits"),
    ):
        with pytest.raises(DataError) as error:
            ImageFolder(str(folder)).split("train")
        complaint(error, folder, *parts)
    with pytest.raises(DataError) as error:
        ImageFolder(str(spoilt), skip_corrupt=True).split("train")
    complaint(error, spoilt, "none of which can be decoded")


@pytest.mark.parametrize(
    ("other", "found"),
    [({"size": (5, 4)}, "4x5 pixels in 3 channels"), ({"mode": "L"}, "4x6 pixels in 1 channel")],
)
def test_images_that_disagree(other: dict, found: str, tmp_path: Path) -> None:
    paint(tmp_path / "a.png"), paint(tmp_path / "b.png")
    odd = paint(tmp_path / "c.png", **other)
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, odd, "4x6 pixels in 3 channels as in a.png", f"found {found}", "pass size= and channels=")


def test_images_beside_folders_of_labels(tmp_path: Path) -> None:
    paint(tmp_path / "cats/a.png")
    loose = paint(tmp_path / "b.png")
    with pytest.raises(DataError) as error:
        ImageFolder(str(tmp_path)).split("train")
    complaint(error, loose, "cats/", "move it")


def test_impossible_conversions(tmp_path: Path) -> None:
    for argument, value in (("size", 0), ("channels", 2)):
        with pytest.raises(ConfigError) as error:
            ImageFolder(str(tmp_path), **{argument: value})
        complaint(error, argument, f"found {value}")


# own data: arrays


def test_arrays_of_every_kind(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(256, size=(20, 3, 4, 5)).astype(np.uint8)
    labels = np.arange(20) % 4
    np.savez(tmp_path / "images.npz", x=images, labels=labels)
    data = Arrays(str(tmp_path / "images.npz"), seed=1)
    assert (data.name, data.event_shape, data.levels, data.num_classes) == ("images", (3, 4, 5), 256, 4)
    assert [len(data.split(which)) for which in SPLITS] == [16, 3, 1]
    rows = {bytes(image): label for image, label in zip(images, labels, strict=True)}
    together = [(bytes(x.numpy()), int(y)) for s in map(data.split, SPLITS) for x, y in zip(s.x, s.labels, strict=True)]
    assert dict(together) == rows
    assert next(data.batches("train")).x.max() <= 1

    binary = Arrays.from_array(torch.from_numpy(images[:, :1] > 127), name="bits")
    assert (binary.name, binary.levels, binary.num_classes) == ("bits", 2, None)
    assert next(binary.batches("train")).x.unique().tolist() == [0.0, 1.0]

    points = draw.normal(size=(9, 2)) * 100
    np.save(tmp_path / "points.npy", points)
    plane = Arrays(str(tmp_path / "points.npy"))
    assert (plane.levels, plane.event_shape) == (None, (2,))
    found = torch.cat([next(plane.batches(which)).x for which in SPLITS])
    assert found.dtype == torch.float32
    assert torch.equal(found.sort(0).values, torch.from_numpy(points).float().sort(0).values)


IMAGES = np.linspace(0, 1, 5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)


@pytest.mark.parametrize(
    ("x", "labels", "parts"),
    [
        (IMAGES[:, 0], None, ["[N, C, H, W]", "(5, 4, 4)"]),
        (IMAGES[:, :0], None, ["(5, 0, 4, 4)"]),
        (np.zeros((5, 32, 32, 3), np.uint8), None, ["channels first", "(0, 3, 1, 2)"]),
        (IMAGES * 255, None, ["in [0, 1]", "0 to 255", "uint8"]),
        (IMAGES - 0.5, None, ["in [0, 1]", "-0.5 to 0.5"]),
        (np.where(IMAGES > 0.9, np.nan, IMAGES), None, ["NaN", "1 of 5", "first at 4"]),
        (np.where(IMAGES < 0.3, np.inf, IMAGES), None, ["infinity", "2 of 5", "first at 0"]),
        (np.full((5, 2), 1e300), None, ["infinity", "5 of 5"]),
        ((IMAGES > 0.5).astype(np.uint8), None, ["at most 1", "bool"]),
        (IMAGES.astype(np.int64), None, ["found int64", "convert"]),
        (IMAGES.astype(np.complex64), None, ["found complex64"]),
        (IMAGES, np.zeros(4, np.int64), ["labels", "5 integers", "(4,)"]),
        (IMAGES, np.zeros(5), ["labels", "5 integers", "float64"]),
        (IMAGES, np.arange(5) - 1, ["labels", "found -1"]),
    ],
)
def test_arrays_that_cannot_be_used(x: np.ndarray, labels: np.ndarray | None, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x=x, **({} if labels is None else {"labels": labels}))
    with pytest.raises(DataError) as error:
        Arrays(str(path))
    complaint(error, path, *parts)
    with pytest.raises(DataError) as error:
        Arrays.from_array(x, labels, name="mine")
    complaint(error, "mine: ", *parts)


def test_few_examples_have_no_splits() -> None:
    for num in range(6):
        data = Arrays.from_array(IMAGES[:num], np.arange(num), name="few")
        if num:
            whole = data.everything()
            assert torch.equal(whole.x, torch.from_numpy(IMAGES[:num]))
            assert whole.labels is not None and torch.equal(whole.labels, torch.arange(num))
        if num >= 3:
            assert len(data.split("train")) and len(data.split("valid")) and len(data.split("test"))
            continue
        for use in (lambda data=data: data.split("valid"), lambda data=data: data.event_shape):
            with pytest.raises(DataError) as error:
                use()
            complaint(error, "few: ", "at least 3 examples", f"found {num}")
    with pytest.raises(DataError) as error:
        Arrays.from_array(IMAGES[:0]).everything()
    complaint(error, "at least 1 example", "found none")


def test_examples_stay_in_their_split_when_others_join(tmp_path: Path) -> None:
    def splits(data: DataModule) -> list[set[int]]:
        return [set(data.split(which).x.flatten(1).sum(1).tolist()) for which in SPLITS]

    points = np.arange(1.0, 2001.0, dtype=np.float32)[:, None]
    few, many = (splits(Arrays.from_array(points[:num])) for num in (1000, 2000))
    assert all(a < b for a, b in zip(few, many, strict=True))
    assert sum(map(len, many)) == 2000
    assert all(abs(len(part) - 200) < 60 for part in many[1:]), "a tenth each, within 4.5 deviations"
    assert splits(Arrays.from_array(points, seed=1)) != many

    for num in range(1, 41):
        Image.fromarray(np.full((1, 1), num, np.uint8)).save(tmp_path / f"{num:02}.png")
    before = splits(ImageFolder(str(tmp_path)))
    for num in range(41, 81):  # in between by name, one of which is no text
        name = f"{num - 40:02}-new.png" if num < 80 or sys.platform != "linux" else os.fsdecode(b"\xff.png")
        Image.fromarray(np.full((1, 1), num, np.uint8)).save(tmp_path / name)
    after = splits(ImageFolder(str(tmp_path)))
    assert all(a < b for a, b in zip(before, after, strict=True))


def test_files_that_hold_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.npy"
    for content, *parts in (
        (None, "found nothing"),
        (b"", "cannot be read"),
        (b"no array", "cannot be read"),
        (b"PK\x03\x04 no archive", "cannot be read"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as error:
            Arrays(str(path))
        complaint(error, path, *parts)
        assert "pickle" not in str(error.value)
    np.save(path, np.array([print, "object"]), allow_pickle=True)
    with pytest.raises(DataError) as error:
        Arrays(str(path))
    complaint(error, path, "cannot be read (it is another file, or holds objects in place of numbers)")
    np.savez_compressed(tmp_path / "damaged.npz", x=IMAGES)
    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: zlib.decompress(b"no such stream"))
        Arrays(str(tmp_path / "damaged.npz"))
    complaint(error, "damaged.npz", "cannot be read (Error -3 while decompressing data")
    np.savez(tmp_path / "own.npz", images=IMAGES, y=np.arange(5))
    with pytest.raises(DataError) as error:
        Arrays(str(tmp_path / "own.npz"))
    complaint(error, "an array called x", "found images, y")


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, BinarizedMNIST, CIFAR10, Digits, Rivers])
def test_own_data_never_have_the_name_of_published_ones(kind: type[DataModule], tmp_path: Path) -> None:
    published = [kind(), kind(binarize="dynamic")] if issubclass(kind, MNIST) else [kind()]
    for name in {data.name for data in published}:
        np.save(tmp_path / f"{name}.npy", IMAGES)
        assert Arrays(str(tmp_path / f"{name}.npy")).name == f"own-{name}"
    np.save(tmp_path / "mine.npy", IMAGES)
    assert Arrays(str(tmp_path / "mine.npy")).name == "mine"


def test_published_sizes_are_those_of_the_files(real_data: str) -> None:
    for kind in (MNIST, FashionMNIST, BinarizedMNIST, CIFAR10):
        for file in kind.files:
            assert Path(real_data, file.path).stat().st_size == file.size
