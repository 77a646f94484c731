"""Bad input gets one clear sentence, and nothing is lost: a table of what can go wrong. Foreign checkpoints that mean
harm are in test_hostile.py.
"""

import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from harm import Action, Row, Table, World, own_length, refuse, tree
from PIL import Image

from zoo import Zoo
from zoo.classifier.lenet import LeNet
from zoo.cli import main
from zoo.cli.command import COMMANDS
from zoo.errors import CheckpointError, ConfigError, DownloadError, UploadError
from zoo.files import expand
from zoo.store.checkpoint import Checkpoint
from zoo.vae.vae import VAE

ROWS = Table()
bad = ROWS.row

# ------------------------------------------------------------------------------------------------- names and sources


@bad(ConfigError, "'vae-digit'", "did you mean 'vae-digits'?")
def unknown_name(world: World) -> Action:
    return lambda: Zoo.load("vae-digit")


@bad(ConfigError, "'vae-digit'", "did you mean 'vae-digits'?")
def info_of_an_unknown_name(world: World) -> Action:
    return lambda: Zoo.info("vae-digit")


@bad(ConfigError, "no checkpoint is called", "local-dir:")
def path_without_prefix(world: World) -> Action:
    return lambda: Zoo.load(str(world.folder))


@bad(ConfigError, "no checkpoint is called 'mine'; write 'local-dir:mine' for the folder of this name")
def a_folder_without_its_prefix(world: World) -> Action:
    (world.root / "mine").mkdir()
    (world.root / "mine" / "config.json").write_text("{}")
    world.patch.chdir(world.root)
    return lambda: Zoo.load("mine")


@bad(ConfigError, "no checkpoint is called", "known: vae-digits")
def empty_name(world: World) -> Action:
    return lambda: Zoo.load("")


@bad(ConfigError, "expected the name of a checkpoint")
def name_of_the_wrong_type(world: World) -> Action:
    return lambda: Zoo.load(world.folder)  # type: ignore[arg-type]


@bad(ConfigError, "hf-hub:user/repository@revision", "found 'hf-hub:user'")
def hub_source_without_repository(world: World) -> Action:
    return lambda: Zoo.load("hf-hub:user")


@bad(ConfigError, "hf-hub:user/repository@revision", "'hf-hub:user/../../etc@main'")
def hub_source_that_climbs(world: World) -> Action:
    return lambda: Zoo.load("hf-hub:user/../../etc@main")


@bad(ConfigError, "hf-hub:user/repository@revision", "refs/../pr")
def hub_revision_with_slashes(world: World) -> Action:
    return lambda: Zoo.load("hf-hub:user/vae@refs/../pr")


@bad(DownloadError, "hf-hub:user/vae@main: config.json is not in the cache", "http://127.0.0.1:", "local-dir:PATH")
def no_network_and_no_cached_file(world: World) -> Action:
    return lambda: Zoo.load("hf-hub:user/vae@main")


@bad(ConfigError, "a repository 'user/name'", "found 'my-vae'")
def push_without_a_user(world: World) -> Action:
    return lambda: Zoo.push(world.folder, "my-vae")


@bad(ConfigError, "a checkpoint folder or a name to push, found 'my-vaee'")
def push_of_nothing(world: World) -> Action:
    return lambda: Zoo.push("my-vaee", "user/my-vae")


@bad(UploadError, "hf-hub:user/my-vae", "gives no valid answer", "push again")
def push_without_a_network(world: World) -> Action:
    return lambda: Zoo.push("vae-digits", "user/my-vae")


@bad(CheckpointError, "'vae-digits' is missing", "not on the Hub")
def shipped_folder_removed(world: World) -> Action:
    world.folder.rename(world.root / "elsewhere")
    return lambda: Zoo.load("vae-digits")


@bad(ConfigError, "device", "'cuda:99'")
def device_that_is_not_there(world: World) -> Action:
    return lambda: Zoo.load("vae-digits", device="cuda:99")


@bad(ConfigError, "device", "'gpu'")
def device_of_no_kind(world: World) -> Action:
    return lambda: Zoo.load("vae-digits", device="gpu")


def test_the_reason_why_a_device_is_not_there_is_a_whole_sentence(world: World) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver "
            "from http://www.nvidia.com/Download/index.aspx"
        )

    world.patch.setattr(torch, "empty", refuse)
    with pytest.raises(ConfigError, match=r"found 'cuda': Found no NVIDIA driver on your system$"):
        Zoo.load("vae-digits", device="cuda")


# ------------------------------------------------------------------------------------------------------ damaged files


@bad(CheckpointError, "nowhere", "does not exist")
def missing_folder(world: World) -> Action:
    return lambda: Zoo.load(f"local-dir:{world.root / 'nowhere'}")


@bad(CheckpointError, "vae-digits", "has no config.json")
def missing_config(world: World) -> Action:
    world.config.unlink()
    return world.load


@bad(CheckpointError, "vae-digits", "has no model.safetensors")
def missing_weights(world: World) -> Action:
    world.weights.unlink()
    return world.load


@bad(CheckpointError, "vae-digits", "has no metrics.json")
def missing_metrics(world: World) -> Action:
    (world.folder / "metrics.json").unlink()
    return world.load


@bad(CheckpointError, "model.safetensors", "truncated")
def truncated_weights(world: World) -> Action:
    world.weights.write_bytes(world.weights.read_bytes()[:-100])
    return world.load


@bad(CheckpointError, "model.safetensors", "header", "found a length of 0 in a file of 0 bytes")
def empty_weights(world: World) -> Action:
    world.weights.write_bytes(b"")
    return world.load


@bad(CheckpointError, "model.safetensors", "expected sha256", "damaged or altered")
def flipped_bit(world: World) -> Action:
    content = bytearray(world.weights.read_bytes())
    content[-3] ^= 16
    world.weights.write_bytes(content)
    return lambda: Zoo.load("vae-digits")


@bad(CheckpointError, "config.json", "expected sha256", "damaged or altered")
def altered_config(world: World) -> Action:
    world.config.write_text(world.config.read_text().replace('"hidden": 8', '"hidden": 9'))
    return lambda: Zoo.load("vae-digits")


@bad(CheckpointError, "config.json", "expected sha256")
def altered_config_with_a_forged_record(world: World) -> Action:
    world.configure(arguments={"likelihood": "discretized-logistic"})
    return lambda: Zoo.load("vae-digits")


@bad(ConfigError, "metrics.json", "weights_sha256", "64 hexadecimal digits")
def record_without_sha256(world: World) -> Action:
    path = world.folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": ""}))
    return world.load


@bad(CheckpointError, "config.json", "expected a file")
def folder_in_place_of_a_file(world: World) -> Action:
    world.config.unlink()
    world.config.mkdir()
    return world.load


# -------------------------------------------------------------------------------------------------------------- saving


@bad(CheckpointError, "vae-digits: exists already", "overwrite")
def existing_folder(world: World) -> Action:
    return world.save(folder=world.folder)


@bad(CheckpointError, "empty: exists already")
def existing_empty_folder(world: World) -> Action:
    (world.root / "empty").mkdir()
    return world.save(folder=world.root / "empty")


@bad(CheckpointError, "holds 'diary.txt', which is no file of a checkpoint")
def overwriting_what_is_no_checkpoint(world: World) -> Action:
    (world.folder / "diary.txt").write_text("dear diary")
    return world.save(folder=world.folder, overwrite=True)


@bad(CheckpointError, "config.json: unknown key 'architectures'", "vae-digits is not overwritten")
def overwriting_a_model_of_another_library(world: World) -> Action:
    for path in world.folder.iterdir():
        if path.name not in ("model.safetensors", "README.md"):
            path.unlink()
    (world.folder / "config.json").write_text('{"architectures": ["Other"]}')
    return world.save(folder=world.folder, overwrite=True)


@bad(ConfigError, "'~nobody-here/x': expected a path, found ~ without a home folder")
def a_home_folder_that_is_none(world: World) -> Action:
    return lambda: Zoo.load("local-dir:~nobody-here/x")


@bad(CheckpointError, "registry.json", "found a file")
def overwriting_a_file(world: World) -> Action:
    return world.save(folder=world.root / "registry.json", overwrite=True)


@bad(CheckpointError, "cannot be written")
def parent_that_is_a_file(world: World) -> Action:
    return world.save(folder=world.root / "registry.json" / "new")


def _full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@bad(CheckpointError, "new: cannot be written: No space left on device", "nothing was changed")
def full_disk(world: World) -> Action:
    world.patch.setattr(os, "fsync", _full_disk)
    return world.save()


@bad(CheckpointError, "vae-digits: cannot be written: No space left on device", "nothing was changed")
def full_disk_while_overwriting(world: World) -> Action:
    world.patch.setattr(os, "fsync", _full_disk)
    return world.save(folder=world.folder, overwrite=True)


@bad(CheckpointError, "vae-digits: cannot be written: No space left on device", "then repeat the command")
def full_disk_while_adding_numbers(world: World) -> Action:
    world.patch.setattr(os, "fsync", _full_disk)
    return lambda: Zoo.update(Checkpoint.of_folder(world.folder), [])


@bad(CheckpointError, "vae-digits: cannot be written", "nothing was changed")
def file_system_that_takes_no_more(world: World) -> Action:
    """The system itself refuses the write half-way: files may have 4 KB."""

    def save() -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            world.save(folder=world.folder, overwrite=True)()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return save


@bad(CheckpointError, "decoder.0.bias has NaN values")
def weights_that_are_no_numbers(world: World) -> Action:
    torch.nn.init.constant_(world.model.get_parameter("decoder.0.bias"), float("nan"))
    return world.save()


@bad(CheckpointError, "decoder.0.bias has values that float16 cannot hold")
def weights_beyond_half_precision(world: World) -> Action:
    torch.nn.init.constant_(world.model.get_parameter("decoder.0.bias"), 1e6)
    return world.save(dtype="float16")


@bad(ConfigError, "dtype", "'int8'")
def unknown_type_of_weights(world: World) -> Action:
    return world.save(dtype="int8")


@bad(ConfigError, "save: recipe", "line 2")
def recipe_that_is_no_yaml(world: World) -> Action:
    return world.save(recipe="seed: 1\nmodel: {")


@bad(ConfigError, "plain and finite values")
def numbers_that_are_none(world: World) -> Action:
    return world.save(measurements=[{"name": "elbo", "value": float("nan")}])


@bad(ConfigError, "expected a class of the zoo, or one that an installed package offers", "Own")
def model_from_outside(world: World) -> Action:
    class Own(LeNet):
        pass

    return lambda: Zoo.save(Own(), world.root / "new")


@bad(ConfigError, "arguments of VAE", "hidden must be int")
def model_with_arguments_that_are_not_plain(world: World) -> Action:
    world.model.hparams["hidden"] = torch.tensor(8)
    return world.save()


# ------------------------------------------------------------------------------------------------------------ the table


@ROWS.parametrize()
def test_bad_input(row: Row, world: World) -> None:
    action = row.case(world)
    before = tree(world.root)
    refuse(row, action)
    assert tree(world.root) == before


def test_every_command_that_writes_a_file_has_its_rows() -> None:
    flags = {name: command.parser()._option_string_actions for name, command in COMMANDS.items()}
    files = {name for name, has in flags.items() if "--overwrite" in has}
    assert files == WRITING.keys()
    assert {name for name, has in flags.items() if "--out" in has} == files | {"fit", "finetune", "export"}


def test_the_checkpoint_of_the_table_is_sound(world: World) -> None:
    """Without the harm, every way of loading works: rows fail for their own reason."""
    world.seal()
    assert isinstance(world.load(), VAE) and isinstance(Zoo.load("vae-digits"), VAE)
    assert isinstance(world.configure(arguments={"hidden": 8})(), VAE)
    assert isinstance(world.change_tensors(lambda tensors: None)(), VAE)
    assert world.save()() == world.root / "new"


# ----------------------------------------------------------------------------------------------------- the command line


class Saying(NamedTuple):
    case: Callable[[World], list[str]]
    words: tuple[str, ...]


SAYINGS: list[Saying] = []
Words = Callable[[World], list[str]]


def says(*words: str) -> Callable[[Words], Words]:
    """A row of the table below: a function that prepares something bad and returns the words after `zoo`."""

    def add(case: Words) -> Words:
        SAYINGS.append(Saying(case, words))
        return case

    return add


for text, *sentence in (
    ("info vae-digit", "did you mean 'vae-digits'?"),
    ("sample vae-digit", "did you mean 'vae-digits'?"),
    ("list --family vea", "did you mean 'vae'?"),
    ("sample local-dir:nowhere", "does not exist"),
    ("pull hf-hub:user", "hf-hub:user/repository@revision"),
    ("reproduce mnist-nil", "did you mean 'mnist-nll'"),
    ("evaluate vae-digits --only likelyhood", "did you mean 'likelihood'?"),
    ("evaluate vae-digits --k 0", "k: expected at least 1, found 0"),
    ("evaluate vae-digits --write --slice", "--write: a slice is a check"),
    ("complete vae-digits", "expected a Completable", "found VAE"),
    ("complete vae-digits --known 2", "--known: expected a fraction between 0 and 1, found 2"),
    ("sample vae-digits --num 0", "--num: expected at least 1, found 0"),
    ("traverse vae-digits --steps 0", "--steps: expected at least 1, found 0"),
    ("sample vae-digits -n 100000000000000", "--num: expected at most 100000, found 100000000000000"),
    ("interpolate vae-digits --steps 100001", "--steps: expected at most 100000, found 100001"),
    ("complete vae-digits --draws 100001", "--draws: expected at most 100000, found 100001"),
    ("neighbours vae-digits --k 100001", "--k: expected at most 100000, found 100001"),
    ("animate vae-digits --frames 100001", "--frames: expected at most 100000, found 100001"),
    ("edit vae-digits --set 0=1e40", "--set: expected a finite number of at most 3.4e38, found '1e40'"),
    ("edit vae-digits --set 1=2 0=nan", "--set: expected a finite number of at most 3.4e38, found 'nan'"),
    ("edit vae-digits --set x=1", "--set: expected DIMENSION=VALUE, such as 3=2.5, found 'x=1'"),
    (
        "attribute vae-digits --add 7 --strength inf",
        "--strength: expected a finite number of at most 3.4e38, found 'inf'",
    ),
    ("attribute vae-digits --add 7 --strength much", "--strength: expected a finite number", "found 'much'"),
    ("list nothing*", "no checkpoint matches 'nothing*'", "`zoo list` shows all"),
    ("reconstruct vae-digits --num 301", "expected a subset of 0 to 300 examples of test, found 301"),
    ("sample vae-digits --num many", "--num: expected a whole number, found 'many'", "zoo sample --help"),
    ("sample vae-digits --device gpux", "expected a device of this machine such as 'cpu', found 'gpux'"),
    ("sample vae-digits --out picture.xyz", "picture.xyz: cannot write a picture there"),
    ("sample vae-digits --out checkpoints", "checkpoints: cannot write a picture there: a folder is there"),
    ("sample vae-digits --out registry.json/x.png", "registry.json is no folder", "choose another --out"),
    (
        "sample vae-digits --out registry.json",
        "registry.json: cannot write a picture there: a file is there",
        "--overwri",
    ),
    ("sample vae-digits --out registry.json --overwrite", "unknown file extension: .json"),
    ("score vae-digits --data x.npy --out registry.json", "cannot write a table there: a file is there", "--overwrite"),
    ("score vae-digits --data x.npy --sheet x.csv", "x.csv: cannot write a sheet there: unknown file extension: .csv"),
    ("sample vae-digits --seed 9223372036854775808", "--seed: expected a whole number of at most 64 bits, found '92"),
    ("evaluate vae-digits --num 0", "num: expected at least 1, found 0"),
    ("animate vae-digits --frames 1", "--frames: expected at least 2, found 1"),
    ("animate vae-digits --frames -3", "--frames: expected at least 2, found -3"),
    ("interpolate vae-digits --steps 1", "--steps: expected at least 2, found 1"),
    ("sample vae-digits --trainer.devices 2", "`zoo sample` takes no keys of a recipe"),
    ("sample", "arguments are required: NAME; see `zoo sample --help`"),
    ("", "expected a command; see `zoo --help`"),
    ("smaple vae-digits", "no command is called 'smaple'; did you mean 'sample'"),
    ("list --pattern vae", "unrecognized arguments: --pattern", "zoo list --help"),
    ("edit vae-digits --set 0=1 --label 3", "labels: VAE does not take any; leave it out"),
    ("reconstruct vae-digits --label 3", "unrecognized arguments: --label 3; see `zoo reconstruct --help`"),
    ("sample vae-digits --labels 3,x", "--label: expected the number or the name of a class, found 'x'"),
    ("sample vae-digits --labels 3,-1", "--label: expected the number or the name of a class, found '-1'"),
    ("sample vae-digits --labels 3,7", "labels: VAE does not take any; leave it out"),
    ("receptive-field vae-digits --pixel 3", "--pixel: expected ROW,COLUMN, such as 14,14, found '3'"),
    ("animate vae-digits --out x.png", "--out: expected a name that ends in .gif, found x.png"),
    ("interpolate vae-digits --test --images a.png b.png", "--images: not allowed with argument --test"),
    ("info s3://bucket/vae", "no checkpoint is called 's3://bucket/vae'"),
    ("sample vae-digits --out s3://bucket/x.png", "'s3://bucket/x.png': expected a path on this machine"),
    ("score vae-digits --data gs://bucket/images", "'gs://bucket/images': expected a path on this machine"),
    ("score vae-digits --data x.npy --sheet s3://bucket/x.png", "expected a path on this machine"),
    ("interpolate vae-digits --images https://a.b/c.png d.png", "expected a path on this machine"),
    ("finetune vae-digits --data x.npy --out s3://bucket/new", "expected a path on this machine"),
    ("fit s3://bucket/recipe.yaml --out new", "expected a path on this machine"),
    ("push s3://bucket/vae you/vae", "'s3://bucket/vae': expected a path on this machine"),
    ("sample vae-digits --sampler ddim", "--sampler: expected none for VAE, which has no samplers, found ddim"),
    ("sample vae-digits --steps 20", "--steps: expected --sampler beside it"),
    ("sample vae-digits --out ~nobody-here/x.png", "'~nobody-here/x.png': expected a path, found ~ without a home"),
    ("check nowhere", "expected module:Class, such as my_package.my_module:MyModel, found 'nowhere'"),
    ("check nowhere:Model", "nowhere: cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
    ("check zoo.vae:VEA", "zoo.vae:VEA: expected a class of models", "found no such name"),
    ("check zoo.data:Digits", "zoo.data:Digits: expected a class of models"),
    ("check zoo.capabilities:Decoder", "expected a model that can be built; its capabilities ask for decode, draw"),
    ("check zoo.vae:VAE --arguments {", "--arguments: expected JSON"),
    ('check zoo.vae:VAE --arguments {"latent":1}', "zoo.vae:VAE: unknown key 'latent'"),
    ('check zoo.vae:VAE --arguments {"event_shape":[1,5,5]}', "zoo.vae:VAE: cannot be built: ConfigError: event_shape"),
    ("export vae-digits --to onx --out new", "--to: invalid choice: 'onx'"),
    ("export vae-digits --to onnx --out registry.json", "--out: registry.json exists already; choose a new file"),
    (
        "export vae-digits --to onnx --out new --method sample",
        "--method: VAE can export decode, encode, elbo",
        "sample",
    ),
    ("export vae-digits --to diffusers --out new --method decode", "--method: expected none with --to diffusers"),
    ("compare --data mnist", "expected --samples, --log-prob or both, found neither"),
    ("compare --log-prob registry.json --data Digit", "no data set is called 'Digit'; did you mean 'Digits'?"),
    ("compare --log-prob nowhere.csv --data Digits", "nowhere.csv: expected a CSV file, found nothing; check the path"),
    ("compare --log-prob registry.json --data Digits", "registry.json: expected a column log_prob or nats, found "),
    ("compare --samples nowhere --data Digits", "nowhere: expected a folder of images"),
    ("compare --log-prob x.csv --data digits --json --card", "not allowed with argument --json"),
    ("fit nowhere.yaml --out new", "nowhere.yaml: no such file"),
    ("fit vae-digit --out new", "did you mean 'vae-digits'?"),
    ("fit local-dir:nowhere --out new", "nowhere: expected a checkpoint folder"),
    ("fit registry.json --out new", "recipe: unknown key 'format_version'"),
    ("fit checkpoints/vae-digits/recipe.yaml --out new", "expected one section 'model' or 'start'"),
    ("fit checkpoints/vae-digits/recipe.yaml --out new --start vae-digit", "unrecognized arguments: --start"),
):

    @says(*sentence)
    def words_that_mean_nothing(world: World, text: str = text) -> list[str]:
        return text.split()


WRITING = {  # commands that write a file, and what more they must be told
    "sample": "",
    "interpolate": "",
    "reconstruct": "",
    "traverse": "",
    "edit": "--set 0=1",
    "attribute": "--add 1",
    "analogies": "",
    "neighbours": "",
    "complete": "",
    "probabilities": "",
    "animate": "",
    "receptive-field": "",
    "filters": "",
    "landscape": "",
    "score": "--data x.npy",
    "classify": "--data x.npy",
    "encode": "--data x.npy",
}


@pytest.mark.parametrize("name", WRITING)
def test_nothing_is_replaced_and_nothing_done_in_vain(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The place is looked at first, before the checkpoint, which is not there."""
    mine, theirs, folder = (tmp_path / place for place in ("mine.gif", "theirs", "folder.gif"))
    mine.write_text("a day's work")
    theirs.mkdir()
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: theirs not in (path, *path.parents))
    for place, said in (
        (mine, "there: a file is there; choose another --out, or replace it with --overwrite"),
        (folder, "there: a folder is there; choose another --out"),
        (theirs / "x.gif", f"there: {theirs} is not yours to write; choose another --out"),
    ):
        assert main([name, "nowhere", *WRITING[name].split(), "--out", str(place)]) == 1
        assert capsys.readouterr().err.endswith(f"{said}\n")
    assert main([name, "nowhere", *WRITING[name].split(), "--out", str(mine), "--overwrite"]) == 1
    assert "no checkpoint is called 'nowhere'" in capsys.readouterr().err
    assert mine.read_text() == "a day's work" and not [*theirs.iterdir()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_path_may_begin_with_a_home_folder(name: str) -> None:
    for action in COMMANDS[name].parser()._actions:
        is_path = action.dest in ("out", "sheet", "images", "mask", "new", "samples", "log_prob") or (
            action.dest == "data" and name not in ("list", "compare")
        )
        assert (action.type is expand) == is_path
    assert expand("~/x.png") == Path.home() / "x.png"


def test_pictures_go_to_the_home_folder(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.patch.setenv("HOME", str(world.root))
    assert main(["sample", "local-dir:~/checkpoints/vae-digits", "-n", "1", "--out", "~/deep/x.png"]) == 0
    assert capsys.readouterr().out == f"{world.root}/deep/x.png\n"
    assert [path.name for path in (world.root / "deep").iterdir()] == ["x.png"]


def test_a_picture_is_written_whole_or_not_at_all(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.patch.chdir(world.root)
    Path("real.png").write_text("a day's work")
    Path("x.png").symlink_to("real.png")
    words = ["sample", "vae-digits", "-n", "1", "--overwrite", "--out", "x.png"]
    before = tree(world.root)
    with world.patch.context() as patch:
        patch.setattr(os, "fsync", _full_disk)
        assert main(words) == 1
        assert "x.png: cannot write a picture there: [Errno 28] No space left on device" in capsys.readouterr().err
        assert tree(world.root) == before
    assert main(words) == 0
    assert Path("x.png").is_symlink() and Path("real.png").read_bytes().startswith(b"\x89PNG")
    with Image.open("real.png") as picture:
        picture.load()
    assert tree(world.root).keys() == before.keys()


def test_what_appears_meanwhile_is_not_replaced(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.patch.chdir(world.root)
    draw = VAE.draw

    def meanwhile(self: VAE, streams: Any) -> torch.Tensor:
        Path("x.png").write_text("a day's work")
        return draw(self, streams)

    world.patch.setattr(VAE, "draw", meanwhile)
    assert main(["sample", "vae-digits", "-n", "1", "--raw", "--out", "x.png"]) == 1
    assert "x.png: cannot write a picture there: a file is there" in capsys.readouterr().err
    assert Path("x.png").read_text() == "a day's work"


@says("pipe.csv: cannot write a table there: it is not a regular file")
def pipe_in_place_of_a_file(world: World) -> list[str]:
    os.mkfifo(world.root / "pipe.csv")
    return ["score", "vae-digits", "--data", "x.npy", "--out", "pipe.csv", "--overwrite"]


@says("sheet.png: cannot write a sheet there: a file is there")
def sheet_in_the_way(world: World) -> list[str]:
    (world.root / "sheet.png").write_text("a day's work")
    return ["score", "vae-digits", "--data", "x.npy", "--out", "sheet.csv"]


@says("--write:", "is not yours to write; copy the folder")
def numbers_for_the_checkpoint_of_somebody_else(world: World) -> list[str]:
    world.patch.setattr(os, "access", lambda path, mode: False)
    return ["evaluate", f"local-dir:{world.folder}", "--write"]


@says("vae-digits: expected images, found NaN in some pixels; choose smaller values")
def codes_too_far_away(world: World) -> list[str]:
    world.patch.setattr(VAE, "decode", lambda self, z: torch.full((len(z), 1, 8, 8), torch.nan))
    return ["edit", "vae-digits", "--set", "0=3e38"]


@says("k: expected 1 to ", "the training images, found 5000")
def more_neighbours_than_images(world: World) -> list[str]:
    world.patch.setattr(VAE, "draw", None)  # nothing is drawn
    return ["neighbours", "vae-digits", "--k", "5000"]


def finetune(world: World, *more: str, x: np.ndarray | None = None) -> list[str]:
    """`zoo finetune` on an array, by default a good one."""
    path = world.root / "data.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), np.uint8) if x is None else x)
    return ["finetune", "vae-digits", "--data", str(path), "--out", str(world.root / "new"), *more]


def finetune_on_images(world: World, *sizes: tuple[int, ...]) -> list[str]:
    """`zoo finetune` on a folder of grey (width, height) and coloured (width, height, 3) images."""
    folder = world.root / "images"
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(np.full(size, 40 * i, np.uint8)).save(folder / f"{i}.png")
    return ["finetune", "vae-digits", "--data", str(folder), "--out", str(world.root / "new")]


@says("images: expected examples of shape 1x8x8", "for vae-digits, found 1x12x12", "pass --resize")
def images_of_another_size(world: World) -> list[str]:
    return finetune_on_images(world, *[(12, 12)] * 4)


@says("images: expected examples of shape 1x8x8", "found 3x8x8", "pass --resize")
def images_of_other_channels(world: World) -> list[str]:
    return finetune_on_images(world, *[(8, 8, 3)] * 4)


@says("3.png: expected 8x8 pixels in 1 channel as in 0.png, found 8x9 pixels in 1 channel", "--resize")
def images_of_several_sizes(world: World) -> list[str]:
    return finetune_on_images(world, (8, 8), (8, 8), (8, 8), (8, 9))


@says("2.png: expected an image, but it cannot be decoded", "--skip-corrupt")
def image_that_is_truncated(world: World) -> list[str]:
    words = finetune_on_images(world, *[(8, 8)] * 4)
    path = world.root / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:50])
    return words


@says("images: expected images", "found 4 files, none of which can be decoded")
def images_none_of_which_can_be_decoded(world: World) -> list[str]:
    words = finetune_on_images(world, *[(8, 8)] * 4)
    for path in (world.root / "images").iterdir():
        path.write_bytes(b"")
    return [*words, "--skip-corrupt"]


@pytest.mark.parametrize("command", ["finetune", "score", "fit"])
def test_own_output_does_not_become_own_data(command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    words = finetune_on_images(world, *[(8, 8)] * 4)
    folder, recipe = world.root / "images", world.root / "own.yaml"
    recipe.write_text(f"{{data: {{class: ImageFolder, path: {folder}}}, start: vae-digits, trainer: {{max_steps: 1}}}}")
    world.patch.chdir(folder)
    (world.root / "link").symlink_to(folder)
    before = tree(world.root)
    own = ["fit", str(recipe)] if command == "fit" else [command, *words[1:3], "."]
    for out in ("new", "deep/new", str(world.root / "link" / "new")):
        assert main([*own, "--out", out]) == 1
        said = capsys.readouterr().err
        assert f"{out}: lies in {folder}, and would become part of these data" in said and said.count("\n") == 1
    if command == "score":
        assert main([*own, "--out", "../x.csv", "--sheet", "x.png"]) == 1
        assert "x.png: lies in" in capsys.readouterr().err
    assert tree(world.root) == before


for words in (
    ["score", "vae-digits", "--data", ""],
    ["finetune", "vae-digits", "--data", "", "--out", "new"],
    ["finetune", "vae-digits", "--data", "images", "--out", ""],
    ["sample", "vae-digits", "--out", ""],
    ["sample", "local-dir:"],
    ["push", "", "you/vae"],
):

    @says("expected a path, found an empty word; is a variable of the shell unset?")
    def path_that_is_empty(world: World, words: list[str] = words) -> list[str]:
        return words


@says("images: expected images", "found none; check the path")
def empty_folder_of_images(world: World) -> list[str]:
    return finetune_on_images(world)


@says("images: expected at least 3 examples", "found 2")
def too_few_images(world: World) -> list[str]:
    return finetune_on_images(world, *[(8, 8)] * 2)


for options in ([], ["--resize"]):

    @says("data.npz: expected a folder of images, or a .npy or .npz file, found nothing; check the path")
    def data_that_are_not_there(world: World, options: list[str] = options) -> list[str]:
        words = finetune(world, *options)
        (world.root / "data.npz").unlink()
        return words

    @says("0.png: expected a folder of images, or a .npy or .npz file, found an image; pass the folder that")
    def one_image_in_place_of_a_folder(world: World, options: list[str] = options) -> list[str]:
        words = finetune_on_images(world, (8, 8))
        words[words.index("--data") + 1] += "/0.png"
        return [*words, *options]


@says("data.npz", "cannot be read")
def arrays_that_are_truncated(world: World) -> list[str]:
    words = finetune(world)
    (world.root / "data.npz").write_bytes((world.root / "data.npz").read_bytes()[:900])
    return words


@says("data.npz", "cannot be read", "encrypted")
def arrays_behind_a_password(world: World) -> list[str]:
    words, path = finetune(world), world.root / "data.npz"
    content = bytearray(path.read_bytes())
    content[6] |= 1  # of the first file in the archive, and of its entry in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return words


@says("data.npy", "cannot be read")
def an_array_whose_header_never_ends(world: World) -> list[str]:
    words, path = finetune(world), world.root / "data.npy"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (30, 1, 8, 8"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    words[words.index("--data") + 1] = "data.npy"
    return words


@says("data.npz: x: expected finite numbers, found NaN or infinity in 1 of 30 examples, the first at 7")
def arrays_with_a_nan(world: World) -> list[str]:
    x = np.zeros((30, 1, 8, 8), np.float32)
    x[7, 0, 3, 3] = np.nan
    return finetune(world, x=x)


@says("data: expected 8-bit pixels for vae-digits, found real numbers", "uint8")
def arrays_of_another_kind(world: World) -> list[str]:
    return finetune(world, x=np.zeros((30, 1, 8, 8), np.float32))


@says("data.npz: resize is for a folder of images")
def arrays_to_resize(world: World) -> list[str]:
    return finetune(world, "--resize")


@says("new: exists already; choose another folder")
def output_folder_that_exists(world: World) -> list[str]:
    (world.root / "new").mkdir()
    (world.root / "new" / "diary.txt").write_text("dear diary")
    return finetune(world)


@says("new: exists already; choose another folder")
def output_folder_that_exists_though_resumed(world: World) -> list[str]:
    Zoo.save(world.model, world.root / "new")
    return finetune(world, "--resume")


@says("new.run: there is a run already; resume it")
def run_that_is_there(world: World) -> list[str]:
    (world.root / "new.run").mkdir()
    (world.root / "new.run" / "last.ckpt").write_text("hours of work")
    return finetune(world)


@says("trainer: devices=4 asks for more processes than this machine has processors (2)")
def more_processes_than_processors(world: World) -> list[str]:
    world.patch.setattr(os, "cpu_count", lambda: 2)
    return finetune(world, "--trainer.accelerator", "cpu", "--trainer.devices", "4")


@says("trainer: ", "gpu")
def more_gpus_than_there_are(world: World) -> list[str]:
    return finetune(world, "--trainer.accelerator", "gpu", "--trainer.devices", "4096")


for options, *sentence in (
    (["--steps", "0"], "--steps: expected at least 1, found 0"),
    (["--minutes", "0"], "minutes: expected more than 0, found 0"),
    (["--steps", "9", "--minutes", "1"], "not allowed with argument"),
    (["--evaluation.k", "0"], "k: expected at least 1, found 0"),
    (["--seed", "x"], "--seed: expected a whole number of at most 64 bits, found 'x'"),
    (["--optimization.lrr", "1"], "optimization: unknown key 'lrr'; did you mean 'lr'?"),
    (["--optimization.lr", "fast"], "optimization: lr must be float, found 'fast'"),
    (["--optimization.lr", "[1"], "--optimization.lr: expected plain YAML"),
    (["--optimisation.lr", "1"], "recipe: unknown key 'optimisation'; did you mean 'optimization'?"),
    (["--trainer.max_epoch", "1"], "trainer: no option 'max_epoch'; did you mean 'max_epochs'"),
    (["--trainer.max_epochs"], "--trainer.max_epochs: expected a value after it, found none"),
    (["--trainer.max_epochs", "--resume"], "--trainer.max_epochs: expected a value after it, found --resume"),
    (["--evaluation.number", "1"], "evaluation: unknown key 'number'; did you mean 'num'?"),
    (["--data.batch_size", "0"], "batch_size: expected at least 1, found 0"),
):

    @says(*sentence)
    def impossible_setting(world: World, options: list[str] = options) -> list[str]:
        return finetune(world, *options)


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda saying: saying.case.__name__)
def test_the_command_line_says_it_in_one_line(saying: Saying, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.patch.chdir(world.root)
    arguments = saying.case(world)
    before = tree(world.root)
    capsys.readouterr()
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("zoo: ") and output.err.count("\n") == 1, output
    assert own_length(output.err) <= 300 and all(word in output.err for word in saying.words), output.err
    assert tree(world.root) == before
