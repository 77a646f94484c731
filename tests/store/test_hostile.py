"""Foreign checkpoints that mean harm are refused in one sentence: no code runs, nothing is written, little is spent.

Besides: what breaks around the zoo (packages, a long life, threads) does not break it.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plugins
import pytest
import torch
from harm import Action, Row, Table, World, refuse, tree

from zoo import Zoo
from zoo.autoregressive.made import MADE
from zoo.classifier.lenet import LeNet
from zoo.density.gaussian import Gaussian
from zoo.errors import CheckpointError, ConfigError
from zoo.flows.maf import MAF
from zoo.gan.gan import GAN
from zoo.store.checkpoint import Checkpoint
from zoo.store.names import find_class
from zoo.vae.vae import VAE

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MB = 10**6


# ---------------------------------------------------------------------------------------------------------------- cost


@contextmanager
def address_space(more: int) -> Iterator[None]:
    """No more than this many bytes besides what the process has, whoever allocates them, used or not."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def refused_cheaply(row: Row, world: World, *, seconds: float, memory: int) -> None:
    """The row is refused within so much time of the processor, and so many bytes; and leaves every file as it was."""
    assert world.load()  # imports and caches come first
    action = row.case(world)
    before = tree(world.root)
    gc.freeze()  # a refusal is not charged for walking through what the tests before it left behind
    try:
        start = time.process_time()
        with address_space(memory):
            refuse(row, action)
        assert time.process_time() - start < seconds
    finally:
        gc.unfreeze()
    assert tree(world.root) == before


@pytest.mark.parametrize("hungry", [lambda: bytes(900 * MB), lambda: torch.empty(900 * MB, dtype=torch.uint8)])
def test_the_limit_of_memory_is_one(hungry: Callable[[], object]) -> None:
    """The limit that the tables below set would stop them: 50 MB, and what the tests before left to be used again."""
    hungry()
    with address_space(50 * MB), pytest.raises((MemoryError, RuntimeError)):
        hungry()


# --------------------------------------------------------------------------------------- folders that hold other things

FOLDERS = Table()


class _Payload:
    """Leaves a folder behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_the_payload_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Payload(tmp_path / "pwned")))
    assert (tmp_path / "pwned").is_dir()


for suffix in (".bin", ".pt", ".ckpt", ".pkl"):

    @FOLDERS.row(CheckpointError, "has no model.safetensors", f"weights{suffix}' is a pickle", "never opened")
    def only_a_pickle_beside_the_config(world: World, suffix: str = suffix) -> Action:
        world.weights.unlink()
        torch.save({"state_dict": _Payload(world.root / "pwned")}, world.folder / f"weights{suffix}")
        return world.load


@FOLDERS.row(CheckpointError, "has no config.json", "'model.pkl' is a pickle")
def only_a_pickle(world: World) -> Action:
    for path in world.folder.iterdir():
        path.unlink()
    (world.folder / "model.pkl").write_bytes(pickle.dumps(_Payload(world.root / "pwned")))
    return world.load


@FOLDERS.row(CheckpointError, "model.safetensors", "safetensors header")
def pickle_in_place_of_weights(world: World) -> Action:
    world.weights.write_bytes(pickle.dumps(_Payload(world.root / "pwned")))
    world.seal()
    return world.load


@FOLDERS.row(CheckpointError, "model.safetensors", "safetensors header")
def torch_file_in_place_of_weights(world: World) -> Action:
    torch.save({"state_dict": _Payload(world.root / "pwned")}, world.weights)
    world.seal()
    return world.load


for member in ("config.json", "metrics.json"):

    @FOLDERS.row(ConfigError, member, "expected UTF-8 text")
    def pickle_in_place_of_json(world: World, member: str = member) -> Action:
        (world.folder / member).write_bytes(pickle.dumps(_Payload(world.root / "pwned")))
        return world.load


@FOLDERS.row(CheckpointError, "has no model.safetensors")
def only_weights_in_shards(world: World) -> Action:
    world.weights.rename(world.folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"decoder.0.bias": "../../../etc/passwd"}}
    (world.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return world.load


@FOLDERS.row(CheckpointError, "model.safetensors: expected at most 1073741824 bytes, found 10000000000")
def weights_of_ten_gigabytes(world: World) -> Action:
    with world.weights.open("r+b") as file:
        file.truncate(10**10)  # without a byte on the disk
    return world.load


@FOLDERS.row(CheckpointError, "metrics.json: expected at most 131072 bytes")
def endless_numbers(world: World) -> Action:
    with (world.folder / "metrics.json").open("r+b") as file:
        file.truncate(10**10)
    return world.load


@FOLDERS.row(CheckpointError, "config.json: expected a file, found something else")
def pipe_in_place_of_the_config(world: World) -> Action:
    """Whoever opens it waits for ever."""
    world.config.unlink()
    os.mkfifo(world.config)
    return world.load


@FOLDERS.row(CheckpointError, "model.safetensors: expected a file, found something else")
def pipe_in_place_of_weights(world: World) -> Action:
    world.weights.unlink()
    os.mkfifo(world.weights)
    return world.load


for member in ("config.json", "metrics.json", "model.safetensors"):

    @FOLDERS.row(CheckpointError, member, "link that leads out")
    def link_out_of_the_folder(world: World, member: str = member) -> Action:
        (world.folder / member).rename(world.root / "secret")
        (world.folder / member).symlink_to(world.root / "secret")
        return world.load


@FOLDERS.row(CheckpointError, "recipe.yaml", "link that leads out")
def link_to_a_secret_in_place_of_the_recipe(world: World) -> Action:
    (world.root / "secret").write_text("password: x")
    (world.folder / "recipe.yaml").unlink()
    (world.folder / "recipe.yaml").symlink_to("../../secret")
    return lambda: Zoo.info(f"local-dir:{world.folder}")


@FOLDERS.row(CheckpointError, "model.safetensors", "link that leads out")
def link_to_measure_a_secret(world: World) -> Action:
    world.weights.unlink()
    world.weights.symlink_to("/etc/passwd")
    return lambda: Zoo.info(f"local-dir:{world.folder}")


@FOLDERS.row(CheckpointError, "config.json", "link that leads out")
def link_to_a_device(world: World) -> Action:
    world.config.unlink()
    world.config.symlink_to("/dev/zero")
    return world.load


@FOLDERS.row(CheckpointError, "has no config.json")
def link_to_itself(world: World) -> Action:
    world.config.unlink()
    world.config.symlink_to("config.json")
    return world.load


def downloaded(world: World) -> Path:
    """The folder of the world as the Hub's client leaves it: a snapshot of links to blobs."""
    repo = world.root / "cache" / "models--user--vae"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for path in world.folder.iterdir():
        path.rename(repo / "blobs" / path.name)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    world.folder.rmdir()
    world.folder.symlink_to(snapshot)
    return snapshot


def load_downloaded(snapshot: Path) -> Action:
    return lambda: Checkpoint("hf-hub:user/vae", snapshot, snapshot.parents[1]).load()


for target in ("/etc/passwd", "../../../../secret", "../../../models--user--other/blobs/secret"):

    @FOLDERS.row(CheckpointError, f"{COMMIT}/model.safetensors", "link that leads out")
    def download_that_links_out_of_its_repository(world: World, target: str = target) -> Action:
        snapshot = downloaded(world)
        (world.root / "cache" / "models--user--other" / "blobs").mkdir(parents=True)
        for secret in (world.root / "secret", world.root / "cache" / "models--user--other" / "blobs" / "secret"):
            secret.write_bytes((snapshot / "model.safetensors").read_bytes())
        (snapshot / "model.safetensors").unlink()
        (snapshot / "model.safetensors").symlink_to(target)
        return load_downloaded(snapshot)


@FOLDERS.row(CheckpointError, f"{COMMIT}/model.safetensors", "safetensors header")
def download_of_a_pickle(world: World) -> Action:
    torch.save({"state_dict": _Payload(world.root / "pwned")}, world.weights)
    world.seal()
    return load_downloaded(downloaded(world))


@FOLDERS.row(CheckpointError, "no use for tensor 'extra' and 1 more")
def extra_tensors(world: World) -> Action:
    return world.change_tensors(lambda tensors: tensors.update(extra=torch.zeros(1), more=torch.zeros(1)))


@FOLDERS.row(CheckpointError, "the file has no tensor 'decoder.0.bias'")
def missing_tensor(world: World) -> Action:
    return world.change_tensors(lambda tensors: tensors.pop("decoder.0.bias"))


@FOLDERS.row(CheckpointError, "decoder.0.bias must be float32 [8], found F32 [2, 4]")
def tensor_of_the_wrong_shape(world: World) -> Action:
    return world.change_tensors(lambda tensors: tensors.update({"decoder.0.bias": torch.zeros(2, 4)}))


@FOLDERS.row(CheckpointError, "decoder.0.bias must be float32 [8], found I64 [8]")
def tensor_of_the_wrong_type(world: World) -> Action:
    return world.change_tensors(lambda tensors: tensors.update({"decoder.0.bias": torch.zeros(8, dtype=torch.int64)}))


@FOLDERS.parametrize()
def test_hostile_folders(row: Row, world: World) -> None:
    refused_cheaply(row, world, seconds=0.5, memory=50 * MB)


def test_sound_folders_load(world: World) -> None:
    """Without the harm, every way of the tables leads to a model; what else lies in the folder is never opened."""
    (world.folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Payload(world.root / "pwned")))
    before = tree(world.root)
    world.load()
    with address_space(50 * MB):
        assert isinstance(world.load(), VAE)
    assert tree(world.root) == before
    assert isinstance(world.configure(arguments={"hidden": 8})(), VAE)
    assert isinstance(world.change_tensors(lambda tensors: None)(), VAE)
    header = world.weights.read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert isinstance(world.forge(header[8 : 8 + length], header[8 + length :])(), VAE)
    assert isinstance(load_downloaded(downloaded(world))(), VAE)


# -------------------------------------------------------------------------------------------------------------- configs

CONFIGS = Table()
config = CONFIGS.row

for name in (
    "os.system",
    "zoo.os.system",
    "torch.nn.Linear",
    "zoo.vae.vae.VAE.__init__",
    "zoo..vae.VAE",
    "zoo/vae/vae.VAE",
    "../../evil.VAE",
    "zoo.__main__.VAE",
    "zoo.vae.vae.VAE\n",
    "VAE",
    "",
):

    @config(ConfigError, "config.json", "expected a class of the zoo", repr(name))
    def class_outside_the_zoo(world: World, name: str = name) -> Action:
        return world.configure(**{"class": name})


for name in ("vae.Vae", "vae.vae", "vae.lazy_loader", "vae.__getattr__", "vae.torch", "gan.Generator", "flows.Flow"):

    @config(ConfigError, "config.json", "this version of the zoo has no class", name)
    def class_that_the_zoo_has_not(world: World, name: str = name) -> Action:
        return world.configure(**{"class": name})


for name in ("os:system", "torch:load", "their-package:Model"):

    @config(ConfigError, "config.json", "if you trust that package", name.split(":")[0])
    def class_of_a_package_that_nobody_named(world: World, name: str = name) -> Action:
        return world.configure(**{"class": name})


@config(ConfigError, "config.json", "expected a class of the zoo", "zoo.a.a.a")
def class_of_endless_name(world: World) -> Action:
    return world.configure(**{"class": "zoo" + ".a" * 5_000 + ".B"})


@config(ConfigError, "config.json", "class must be str, found ['os', 'system']")
def class_that_is_a_list(world: World) -> Action:
    return world.configure(**{"class": ["os", "system"]})


for number in (3, 0, True, "1", None, 1.0):

    @config(ConfigError, "config.json", "format_version", f"found {number!r}")
    def format_of_no_version(world: World, number: object = number) -> Action:
        return world.configure(format_version=number)


for key in ("_target_", "class_path", "auto_map", "_instantiator", "init_args", "__class__", "\x1b[2J\n", "k" * 10_000):

    @config(ConfigError, "config.json: unknown key", repr(key[:20])[:-1])
    def key_that_others_execute(world: World, key: str = key) -> Action:
        return world.configure(**{key: "os.system"})

    @config(ConfigError, "config.json: arguments: unknown key", repr(key[:20])[:-1])
    def argument_that_others_execute(world: World, key: str = key) -> Action:
        return world.configure(arguments={key: {"_target_": "os.system", "args": ["touch pwned"]}})


@config(ConfigError, "config.json: arguments", "unknown key 'hiden'", "did you mean 'hidden'?")
def unknown_argument(world: World) -> Action:
    return world.configure(arguments={"hiden": 8})


@config(ConfigError, "config.json: arguments", "unknown key 'a0'")
def thousands_of_arguments(world: World) -> Action:
    return world.configure(arguments={f"a{i}": 0 for i in range(900)})


for key, value, words in (
    ("hidden", "8", "must be int between 1 and 100000, found '8'"),
    ("hidden", True, "found True"),
    ("hidden", 8.0, "found 8.0"),
    ("hidden", None, "found None"),
    ("hidden", {"_target_": "os.system"}, "found {'_target_'"),
    ("hidden", 10**9, "must be int between 1 and 100000, found 1000000000"),
    ("hidden", -8, "must be int between 1 and 100000, found -8"),
    ("channels", 0, "must be int between 1 and 100000, found 0"),
    ("latent_dim", -(2**62), "must be int between 1 and 100000"),
    ("min_scale", -1.0, "must be float between 1e-09 and 1000.0, found -1.0"),
    ("min_scale", 1e308, "must be float between 1e-09 and 1000.0, found 1e+308"),
    ("event_shape", [1, 8, "8"], "event_shape[2] must be int between 1 and 100000, found '8'"),
    ("event_shape", [1, 0, 8], "event_shape[1] must be int between 1 and 100000, found 0"),
    ("event_shape", [1, 10**9, 8], "event_shape[1] must be int between 1 and 100000, found 1000000000"),
    ("event_shape", [8, 8], "with 3 entries, found [8, 8]"),
    ("event_shape", [], "with 3 entries, found []"),
    ("event_shape", "888", "found '888'"),
    ("event_shape", [1] * 3_000, "with 3 entries, found a list of 3000 entries"),
    ("event_shape", [1, [[[[8]]]], 8], "event_shape[1] must be int between 1 and 100000, found [[[[8]]]]"),
    (
        "likelihood",
        "gaussian",
        "must be one of 'bernoulli', 'discretized-gaussian', 'discretized-logistic'",
    ),
    ("likelihood", ["bernoulli"], "found ['bernoulli']"),
):

    @config(ConfigError, f"config.json: arguments: {key}", words)
    def argument_out_of_its_type_or_range(world: World, key: str = key, value: Any = value) -> Action:
        return world.configure(arguments={key: value})


for make, key, value, words in (
    (lambda: Gaussian([1, 2, 2], levels=256), "levels", 1, "between 2 and 65536 or null, found 1"),
    (lambda: Gaussian([1, 2, 2], logit=1e-6), "logit", 0.5, "between 1e-12 and 0.499 or null, found 0.5"),
    (lambda: Gaussian([1, 2, 2]), "jitter", -1.0, "found -1.0"),
    (lambda: GAN([1, 8, 8], latent_dim=2, channels=8), "penalty", -1, "found -1"),
    (lambda: GAN([1, 8, 8], latent_dim=2, channels=8), "channels", 7, "channels: expected a multiple of 8, found 7"),
    (lambda: LeNet([1, 16, 16], channels=2), "num_classes", 0, "found 0"),
    (lambda: MADE([1, 2, 2], hidden=4, num_masks=2), "num_masks", -1, "found -1"),
    (lambda: MADE([1, 2, 2], hidden=4, num_masks=2), "mask_seed", 10**9, "found 1000000000"),
    (lambda: MADE([1, 2, 2], hidden=4, num_masks=2), "event_shape", [2] * 4_000, "MADE cannot have the arguments"),
    (lambda: MADE([1, 2, 2], hidden=4, num_masks=2), "num_masks", 10**5, "found hidden 4 and num_masks 100000"),
):

    @config(ConfigError, "config.json", key, words)
    def argument_of_another_model(world: World, make: Any = make, key: str = key, value: Any = value) -> Action:
        world.replace(make())
        return world.configure(arguments={key: value})


@config(ConfigError, "config.json", "VAE cannot have the arguments", "'channels': 99999")
def widths_that_fill_the_memory(world: World) -> Action:
    return world.configure(arguments={"channels": 99_999, "hidden": 100_000, "event_shape": [1, 100_000, 100_000]})


@config(CheckpointError, "decoder.0.bias must be float32 [100000], found F32 [8]")
def widths_beyond_the_file(world: World) -> Action:
    return world.configure(arguments={"hidden": 100_000, "latent_dim": 100_000})


@config(CheckpointError, "biases.first must be float32 [100000], found F32 [4]")
def degrees_beyond_the_file(world: World) -> Action:
    world.replace(MADE([1, 2, 2], hidden=4, num_masks=2, spread=1))
    return world.configure(arguments={"hidden": 100_000})


@config(ConfigError, "would need 53338133344 bytes of buffers")
def connections_beyond_the_file(world: World) -> Action:
    world.replace(MAF([1, 2, 2], num_layers=1, hidden=4))
    return world.configure(arguments={"hidden": 100_000})


@config(ConfigError, "expected up to 262144 values and hidden units, found 10000000000 and 4; use fewer")
def pixels_that_fill_the_memory(world: World) -> Action:
    world.replace(MAF([1, 2, 2], num_layers=1, hidden=4))
    return world.configure(arguments={"event_shape": [1, 100_000, 100_000]})


def towers(world: World, num_layers: int) -> Action:
    """A model whose depth is an argument, of a package that the user trusts."""
    source = (
        "import torch\nfrom zoo.capabilities import GenerativeModel\n\n\n"
        "class Tower(GenerativeModel):\n"
        "    def __init__(self, num_layers: int = 2):\n"
        "        super().__init__()\n"
        "        self.save_hyperparameters()\n"
        "        self.layers = torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(num_layers)])\n\n"
        "    def draw(self, streams):\n"
        "        return torch.zeros(len(streams), 1)\n"
    )
    name = plugins.install(world.root, world.patch, "Tower", source)
    world.plugins = (plugins.PACKAGE,)
    world.replace(find_class(name, "here", world.plugins)())
    assert world.load()
    return world.configure(arguments={"num_layers": num_layers})


@config(ConfigError, "config.json: Tower cannot have the arguments {'num_layers': 1000000}: more layers than any model")
def million_layers(world: World) -> Action:
    return towers(world, 10**6)


@config(ConfigError, "config.json: Tower cannot have the arguments {'num_layers': 100000}: more layers than any model")
def hundred_thousand_layers(world: World) -> Action:
    return towers(world, 10**5)


for text, words in (
    (b'{"format_version": 1, "format_version": 1}', "key 'format_version' occurs twice"),
    (b'{"arguments": {"hidden": 8, "hidden": 9}}', "key 'hidden' occurs twice"),
    (b'{"format_version": NaN}', "expected finite numbers, found 'NaN'"),
    (b'{"format_version": -Infinity}', "expected finite numbers, found '-Infinity'"),
    (b'{"format_version": 1e999}', "expected finite numbers, found '1e999'"),
    (b'{"format_version": ' + b"1" * 10_000 + b"}", "at most 64 bits, found one of 10000 digits"),
    (b'{"format_version": 1.' + b"1" * 10_000 + b"}", "format_version must be int, found 1.1111111111111112"),
    (b'{"arguments": ' + b"[" * 10_000, "nested too deeply"),
    (b'{"arguments": ' * 1_100, "nested too deeply"),
    (b'{"arguments": {"hidden": ' + b"[" * 400 + b"]" * 400 + b"}}", "arguments must be dict[str, Any], nested too"),
    (b"[" * 988 + b"]" * 988, "config.json: "),
    (b'{"x": [' + b"[]," * 5_000 + b"[]]}", "unknown key 'x'"),
    (b'{"\\ud800\\u0000": 1}', r"unknown key '\ud800\x00'"),
    (b'{"format_version": 1}', "missing key 'class'"),
    (b'{"format_version": 1, "class": "vae.VAE"}', "missing key 'arguments'"),
    (b'{"format_version": 1, "class": "vae.VAE", "arguments": [1]}', "arguments must be dict[str, Any]"),
    (b"[]", "expected a JSON object, found []"),
    (b"", "expected JSON"),
    (b"{'class': 1}", "expected JSON"),
    (b"\xff\xfe", "expected UTF-8 text"),
    (b"\xef\xbb\xbf{}", "expected JSON"),
):

    @config(ConfigError, "config.json", words)
    def config_that_is_no_plain_json(world: World, text: bytes = text) -> Action:
        world.config.write_bytes(text)
        return world.load


@config(CheckpointError, "config.json", "expected at most 16384 bytes")
def config_of_two_megabytes(world: World) -> Action:
    world.config.write_bytes(b" " * 2**21)
    return world.load


@CONFIGS.parametrize()
def test_hostile_configs(row: Row, world: World) -> None:
    refused_cheaply(row, world, seconds=0.2, memory=10 * MB)


# -------------------------------------------------------------------------------------------------------------- headers

HEADERS = Table()
header = HEADERS.row
EMPTY = '"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'


def empty_tensors(num: int) -> bytes:
    return f"{{{','.join(EMPTY % i for i in range(num))}}}".encode()


def entry(dtype: str = "U8", shape: str = "[1]", offsets: str = "[0,1]") -> bytes:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'.encode()


@header(CheckpointError, "a safetensors header of at most 524288 bytes", "10000000000")
def header_of_ten_gigabytes(world: World) -> Action:
    world.weights.write_bytes((10**10).to_bytes(8, "little") + b"{}")
    world.seal()
    return world.load


@header(CheckpointError, "header of at most 524288 bytes", f"found a length of {2**64 - 1}")
def header_of_the_greatest_length(world: World) -> Action:
    world.weights.write_bytes(b"\xff" * 100)
    world.seal()
    return world.load


@header(CheckpointError, "header of at most 524288 bytes", "found a length of 524289")
def header_beyond_the_cap(world: World) -> Action:
    return world.forge(b"{" + b" " * (2**19 - 1) + b"}", b"0" * 64)


@header(CheckpointError, "header of at most 524288 bytes", "found a length of 5")
def header_beyond_the_file(world: World) -> Action:
    return world.forge(empty_tensors(1_000_000))


@header(CheckpointError, "expected at most 5000 tensors, found 8000")
def thousands_of_empty_tensors(world: World) -> Action:
    return world.forge(empty_tensors(8_000))


for name, text, body, words in (
    ("million_lists", b'{"a":[' + b"[]," * 170_000 + b"[]]}", b"", "position of 'a' to agree"),
    ("many_dicts", f"{{{','.join(f'{chr(34)}{i:x}{chr(34)}:{{}}' for i in range(50_000))}}}".encode(), b"", "5000 ten"),
    ("metadata_of_lists", b'{"__metadata__":[' + b"[]," * 170_000 + b"[]]}", b"", "__metadata__ to map names to text"),
    ("metadata_of_code", b'{"__metadata__":{"auto_map":{"x":"os.system"}}}', b"", "__metadata__ to map names to text"),
    ("no_json", b"{'a': 1}", b"", "expected JSON"),
    ("no_text", b"\x80\x04\x95" + b"0" * 20, b"", "expected UTF-8 text"),
    ("no_object", b"[1, 2, 3]", b"", "expected a JSON object, found [1, 2, 3]"),
    ("deep", b"[" * 500_000, b"", "nested too deeply"),
    ("deep_objects", b'{"a":' * 100_000, b"", "nested too deeply"),
    ("long_number", b'{"a":' + b"1" * 500_000 + b"}", b"", "at most 64 bits"),
    ("long_exponent", b'{"a":1e' + b"1" * 500_000 + b"}", b"", "expected finite numbers"),
    ("name_twice", b'{"a":' + entry() + b',"a":' + entry() + b"}", b"0", "key 'a' occurs twice"),
    ("no_entry", b'{"a":1}', b"", "position of 'a' to agree, found 1"),
    ("more_than_an_entry", b'{"a":' + entry()[:-1] + b',"hook":"os.system"}}', b"0", "position of 'a' to agree"),
    ("larger_than_its_place", b'{"a":' + entry("F32", "[1000000000]", "[0,4]") + b"}", b"0000", "'a' to agree"),
    ("negative_size", b'{"a":' + entry("U8", "[-1,-4]", "[0,4]") + b"}", b"0000", "'a' to agree"),
    ("fractional_size", b'{"a":' + entry("U8", "[1.0]") + b"}", b"0", "'a' to agree"),
    ("boolean_size", b'{"a":' + entry("U8", "[true]") + b"}", b"0", "'a' to agree"),
    ("size_that_overflows", b'{"a":' + entry("U8", "[4294967296,4294967296]", "[0,0]") + b"}", b"", "'a' to agree"),
    ("too_many_dimensions", b'{"a":' + entry("U8", f"[{'1,' * 200_000}1]") + b"}", b"0", "'a' to agree"),
    ("unknown_type", b'{"a":' + entry("OBJECT") + b"}", b"0", "'a' to agree"),
    ("type_that_is_a_list", b'{"a":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}}', b"0", "'a' to agree"),
    ("negative_place", b'{"a":' + entry(offsets="[-1,0]") + b"}", b"0", "'a' to agree"),
    ("boolean_place", b'{"a":' + entry(offsets="[false,true]") + b"}", b"0", "'a' to agree"),
    ("place_backwards", b'{"a":' + entry(offsets="[1,0]") + b"}", b"0", "'a' to agree"),
    ("overlap", b'{"a":' + entry() + b',"b":' + entry() + b"}", b"0", "expected a tensor from byte 1, found 0"),
    ("payload_before", b'{"a":' + entry(offsets="[8,9]") + b"}", b"#!/bin/s0", "a tensor from byte 0, found 8"),
    ("payload_behind", b'{"a":' + entry() + b"}", b"0#!/bin/sh", "truncated or damaged"),
    ("truncated", b'{"a":' + entry(shape="[9]", offsets="[0,9]") + b"}", b"0", "truncated or damaged"),
    ("name_that_climbs", b'{"../../../etc/passwd":' + entry() + b"}", b"0", "the file has no tensor 'decoder.0.bias'"),
    ("no_tensors", b"{}", b"", "the file has no tensor 'decoder.0.bias' and 15 more"),
):

    @header(CheckpointError, "model.safetensors", words)
    def forged(world: World, text: bytes = text, body: bytes = body) -> Action:
        return world.forge(text, body)

    forged.__name__ = name


@HEADERS.parametrize()
def test_hostile_headers(row: Row, world: World) -> None:
    refused_cheaply(row, world, seconds=0.5, memory=50 * MB)


def test_the_tables_are_long() -> None:
    assert len(CONFIGS) >= 60 and len(HEADERS) >= 30


# ---------------------------------------------------------------------------------------- what breaks around the zoo


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment with packages that cannot be imported, and without programs, so without a compiler."""
    for package, error in (
        ("wandb", "ImportError('No module named wandb')"),
        ("sklearn", "ImportError('No module named sklearn')"),
    ):
        (tmp_path / f"{package}.py").write_text(f"raise {error}\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {"PYTHONPATH": paths, "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


def test_what_is_missing_is_missed_only_where_it_is_asked_for(broken: dict[str, str], tmp_path: Path) -> None:
    code = """
from zoo import Zoo
images = Zoo.load("vae-mnist").sample(2)
print(*images.shape)

from zoo.data import Digits
from zoo.errors import ZooError
from zoo.metrics.extractors import load_extractor
from zoo.training import Trainer

print(load_extractor("lenet-mnist").features_and_logits(images)[0].isfinite().all().item())
for ask in (
    lambda: Trainer("run", accelerator="cpu", wandb={"offline": True}),
    lambda: Digits().split("train"),
    lambda: load_extractor("inception:weights.pth"),
):
    try:
        ask()
    except ZooError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=broken, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "2 1 28 28",
        "True",
        "trainer: wandb: the package cannot be imported (No module named wandb); pip install wandb, or leave it out",
        "digits: the package scikit-learn cannot be imported (No module named sklearn); pip install scikit-learn",
        "weights.pth: expected the weights of InceptionV3, cannot be read: No such file or directory",
    ], done.stderr


def test_a_torchvision_for_another_torch_gets_one_sentence(broken: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = """
from zoo.cli import main
from zoo.errors import ConfigError

for words in (
    "from zoo import Zoo; Zoo.load('vae-mnist')",
    "import zoo.data",
    "import zoo.distributed",
    "from zoo.training import Trainer",
    "from zoo.metrics import evaluate_quality",
):
    try:
        exec(words)
    except ConfigError as error:
        print(error)
main(["sample", "vae-mnist"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=broken, cwd=tmp_path, capture_output=True, text=True, check=False)
    sentence = (
        f"torchvision: does not belong to the installed torch {torch.__version__} (operator torchvision::nms does not "
        "exist); reinstall both from one index: pip install --force-reinstall torch torchvision"
    )
    assert done.stdout.splitlines() == [sentence] * 5, done.stderr
    assert done.stderr == f"zoo: {sentence}\n"


# --------------------------------------------------------------------------------------------------------- a long life


def resident() -> int:
    """Bytes of memory of this process that are in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_ten_thousand_samples_and_a_hundred_loads_leave_nothing_behind(world: World) -> None:
    model, generator = Gaussian([2]), torch.Generator().manual_seed(0)

    def live(samples: int, loads: int) -> None:
        for _ in range(samples):
            model.sample(1, generator=generator)
        for _ in range(loads):
            world.load()
        gc.collect()

    live(1_000, 10)
    memory, files = resident(), open_files()
    live(10_000, 100)
    assert resident() - memory < 5 * MB and open_files() == files


def test_each_of_eight_threads_gets_the_images_of_its_generator(world: World) -> None:
    model = world.load()
    assert isinstance(model, VAE)

    def images(seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [model.sample(num, generator=generator) for num in (1, 20, 5) * 5]

    expected = {seed: images(seed) for seed in range(8)}
    found: dict[int, list[torch.Tensor]] = {}

    def work(seed: int) -> None:
        found[seed] = images(seed)

    def run() -> None:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run()
    memory, files = resident(), open_files()
    for _ in range(5):
        found.clear()
        run()
        for seed in range(8):
            assert all(torch.equal(a, b) for a, b in zip(found[seed], expected[seed], strict=True))
    assert resident() - memory < 5 * MB and open_files() == files


# --------------------------------------------------------------------------------------------------------- SECURITY.md


def test_every_promise_names_a_test_that_exists() -> None:
    promises = re.findall(r"^- \*\*.*?(?=^- |^#|\Z)", (ROOT / "SECURITY.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(promises) >= 8
    for promise in promises:
        named = re.findall(r"`(tests/\w+/test_\w+\.py)::(\w+)`", promise)
        assert named, f"no test proves: {promise}"
        for path, name in named:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {name}"
