"""Published files: downloads, checksums, and what goes wrong with them."""

import gzip
import hashlib
import io
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_data import complaint
from torchvision import datasets

from zoo.data import CIFAR10, MNIST, BinarizedMNIST, Digits, FashionMNIST
from zoo.data.files import Published, data_root, fetch, read
from zoo.errors import DataError, DownloadError, ZooError


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
    """A web server for the files in `folder`, with a record of the requests."""
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
    return Published(path, hashlib.sha256(content).hexdigest(), address)


def idx(images: np.ndarray) -> bytes:
    """`images` or labels in the format of MNIST."""
    sizes = b"".join(size.to_bytes(4, "big") for size in images.shape)
    return bytes([0, 0, 8, images.ndim]) + sizes + images.astype(np.uint8).tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def mnist(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An MNIST of 10,003 + 4 random images on the server; returns the training images."""
    train = np.random.default_rng(0).integers(256, size=(10_003, 28, 28))
    contents = [idx(train), idx(train[:, 0, 0] % 10), idx(train[:4]), idx(train[:4, 0, 0] % 10)]
    files, resources = [], []
    for file, content in zip(MNIST.files, contents, strict=True):
        name, packed = Path(file.address).name, gzip.compress(content, 1)
        (server.folder / name).write_bytes(packed)
        files.append(published(file.path, content, f"{server.address}/{name}"))
        resources.append((name, md5(packed)))
    monkeypatch.setattr(MNIST, "files", tuple(files))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.address}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return train


def test_mnist_is_downloaded_once(mnist: np.ndarray, server: SimpleNamespace, tmp_path: Path) -> None:
    root = tmp_path / "root"
    data = MNIST(root=str(root))
    assert torch.equal(data.split("train").x[:, 0], torch.from_numpy(mnist[:3].astype(np.uint8)))
    assert set(server.requests) == {f"/{Path(file.address).name}" for file in MNIST.files}
    server.requests.clear()
    data.prepare_data()
    assert torch.equal(data.split("test").labels, torch.from_numpy(mnist[:4, 0, 0] % 10))
    MNIST(root=str(root)).split("valid")
    assert not server.requests
    assert sorted(path.name for path in (root / "MNIST/raw").iterdir()) == sorted(
        Path(file.path).name for file in MNIST.files
    )


def test_a_damaged_archive_leaves_nothing(mnist: np.ndarray, server: SimpleNamespace, tmp_path: Path) -> None:
    path = server.folder / Path(MNIST.files[2].address).name  # the third of four
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DownloadError) as error:
        MNIST(root=str(tmp_path)).prepare_data()
    complaint(error, "corrupted", server.address, f"put the file at {tmp_path / MNIST.files[0].path}")
    assert list((tmp_path / "MNIST/raw").iterdir()) == []


def test_cifar_is_downloaded_as_one_archive(
    server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    images = [draw.integers(256, size=(20, 3072)).astype(np.uint8) for _ in range(2)]
    contents = {
        name: pickle.dumps({"data": x, "labels": x[:, 0].tolist()}, protocol=2)
        for name, x in zip(("data_batch_1", "test_batch"), images, strict=True)
    }
    contents["batches.meta"] = pickle.dumps({"label_names": []}, protocol=2)
    with tarfile.open(server.folder / "set.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    address = f"{server.address}/set.tar.gz"
    names = ("data_batch_1", "test_batch")
    monkeypatch.setattr(datasets.CIFAR10, "url", address)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5((server.folder / "set.tar.gz").read_bytes()))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[names[0], md5(contents[names[0]])]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[1], md5(contents[names[1]])]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5(contents["batches.meta"])})
    files = [published(f"cifar-10-batches-py/{name}", contents[name], address) for name in names]
    fetch(tmp_path / "root", files, datasets.CIFAR10)
    assert [read(tmp_path / "root", file) for file in files] == [contents[name] for name in names]
    assert set(server.requests) == {"/set.tar.gz"}
    assert {path.name for path in (tmp_path / "root/cifar-10-batches-py").iterdir()} == set(names)


def test_downloads_are_checked_before_they_are_kept(server: SimpleNamespace, tmp_path: Path) -> None:
    (server.folder / "plain").write_bytes(b"something else")
    for name, reason in (("plain", "invalid hash"), ("short", "invalid hash"), ("nowhere", "File not found")):
        file = published("set/file", b"the right thing", f"{server.address}/{name}")
        with pytest.raises(DownloadError) as error:
            read(tmp_path, file)
        complaint(error, file.address, reason, f"put the file at {tmp_path / 'set/file'}, or set ZOO_DATA")
        assert list((tmp_path / "set").iterdir()) == []
    (server.folder / "plain").write_bytes(b"the right thing")
    assert read(tmp_path, published("set/file", b"the right thing", f"{server.address}/plain")) == b"the right thing"
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["file"]


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for kind, address in (
        (MNIST, "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz"),
        (FashionMNIST, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz"),
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
    complaint(error, path, file.sha256[:16], "27", "remove the file")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError) as error:
        read(tmp_path, file)
    complaint(error, path, "cannot be read")
