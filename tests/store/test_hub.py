"""Push and pull by the real client against a server that behaves; `test_hub_faults` has the one that does not."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import hub_processes
import hub_server
import pytest
import torch
from conftest import HUB
from hub_server import Fault, Hub
from huggingface_hub import ModelCard

import zoo
from zoo import Zoo
from zoo.autoregressive.made import MADE
from zoo.cli import main
from zoo.errors import CheckpointError, ConfigError, DownloadError, UploadError
from zoo.store import pull as client
from zoo.store import registry as records
from zoo.store import release
from zoo.store.checkpoint import FILES, Checkpoint

TAG = f"v{zoo.__version__}"
GENERATED = {"README.md"}  # on the Hub it says how to load it from there


@pytest.fixture
def user(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """Logged in as `user`, who is the organisation `org` too."""
    hub.tokens |= {"hf_secret": "user", "hf_stranger": "stranger"}
    hub.organisations["org"] = "user"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return "user"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "my-made"))


def is_same(model: Any, folder: Path) -> bool:
    expected = Zoo.load(f"local-dir:{folder}").state_dict()
    return all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in expected.items())


# ------------------------------------------------------------------------------------------------------------- pull


@pytest.mark.parametrize("revision", ["", "@main", "@v1", "@fix/typo", "@refs/pr/3", "@commit"])
def test_a_repository_loads_and_is_cached(revision: str, hub: Hub, tiny_checkpoint: Path, tiny_files: Any) -> None:
    commit = hub.add("user/made", tiny_files)
    hub.repositories["user/made"].tags |= dict.fromkeys(("v1", "fix/typo", "refs/pr/3"), commit)
    assert is_same(Zoo.load(f"hf-hub:user/made{revision.replace('commit', commit)}"), tiny_checkpoint)
    assert Zoo.info(f"hf-hub:user/made@{commit}").recipe == Zoo.info(f"local-dir:{tiny_checkpoint}").recipe is not None
    assert hub.count("^GET") == 4  # configuration, recipe, numbers, weights
    # the revision was resolved with the first file: requests for the others name the commit
    assert all(commit in request for request in hub.requests if re.search("metrics|safetensors", request))
    hub.requests.clear()
    Zoo.load(f"hf-hub:user/made@{commit}")
    assert hub.requests == []


def test_a_branch_that_moves_while_it_is_read_gives_one_commit(
    hub: Hub, tiny_files: Any, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("user/made", tiny_files)
    other = Zoo.save(MADE(event_shape=[1, 3, 3], hidden=8), tiny_checkpoint.parent / "other", overwrite=True)
    strike = hub.strike

    def moving(request: str) -> Any:
        if request.startswith("GET") and "metrics.json" in request:
            hub.add("user/made", {path.name: path.read_bytes() for path in other.iterdir()})
        return strike(request)

    monkeypatch.setattr(hub, "strike", moving)
    assert is_same(Zoo.load("hf-hub:user/made"), tiny_checkpoint)
    assert is_same(Zoo.load("hf-hub:user/made"), other)


def test_a_registered_name_comes_from_the_hub_where_it_is_not_shipped(
    hub: Hub, tiny_checkpoint: Path, tiny_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("user/made", tiny_files)
    hub.add("user/made", {})  # the newest commit is another
    entry = {
        **release.describe(Checkpoint.of_folder(tiny_checkpoint)).__dict__,
        "repo": "user/made",
        "revision": commit,
    }
    entries = {"made": entry, "forged": {**entry, "weights_sha256": "0" * 64}}
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"format_version": 2, "checkpoints": entries}))
    monkeypatch.setattr(records, "REGISTRY", registry)
    monkeypatch.setattr(records, "SHIPPED", tmp_path / "nothing")
    assert is_same(Zoo.load("made"), tiny_checkpoint)
    assert all(commit in request for request in hub.requests)
    with pytest.raises(CheckpointError, match="expected sha256 000000000000"):
        Zoo.load("forged")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf-hub:user/other@v1", "shows no such repository"),
        ("hf-hub:user/made@v2", "no such revision"),
        ("hf-hub:user/made@main", "config.json does not exist there"),
        ("hf-hub:user/gated", "is gated; accept its conditions"),
        ("hf-hub:user/private", "log in if it is private"),
    ],
)
def test_what_the_hub_does_not_have_or_show(source: str, words: str, hub: Hub, tiny_files: Any) -> None:
    hub.add("user/made", {"README.md": b"no model"})
    hub.add("user/gated", tiny_files, gated=set())
    hub.add("user/private", tiny_files, private=True)
    with pytest.raises(DownloadError, match=words):
        Zoo.load(source)
    assert len(hub.requests) == 1  # an answer is not asked for twice


def test_a_token_that_does_not_suffice_is_named(
    hub: Hub, user: str, folder: Path, tiny_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """403 from a repository whose conditions were not accepted, 401 from a token that is none (any more)."""
    hub.add("other/gated", tiny_files, gated=set())
    hub.add("user/made", tiny_files)
    with pytest.raises(DownloadError, match="is gated; accept its conditions"):
        Zoo.load("hf-hub:other/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(DownloadError, match=r"config.json was refused: .*log in again with `hf auth login`") as error:
        Zoo.load("hf-hub:user/made")
    assert "\n" not in str(error.value) and "hf_expired" not in str(error.value)
    with pytest.raises(UploadError, match=r"was refused; log in with `hf auth login`") as error:
        Zoo.push(folder, "user/made")
    assert "\n" not in str(error.value) and hub.count("PUT|preupload|commit") == 0


def test_gated_and_private_repositories_load_with_a_token(
    hub: Hub, user: str, tiny_checkpoint: Path, tiny_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, and from the file that `hf auth login` writes. The server checks where it is shown."""
    hub.add("other/gated", tiny_files, gated={user})
    hub.add("user/private", tiny_files, private=True)
    assert is_same(Zoo.load("hf-hub:other/gated"), tiny_checkpoint)
    monkeypatch.delenv("HF_TOKEN")
    (HUB / "token").write_text("hf_secret")
    try:
        assert is_same(Zoo.load("hf-hub:user/private"), tiny_checkpoint)
    finally:
        (HUB / "token").unlink()


def test_weights_beyond_the_limit_are_not_downloaded(
    hub: Hub, tiny_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("user/made", tiny_files)
    monkeypatch.setattr(client, "MAX_WEIGHTS", 3000)
    with pytest.raises(DownloadError, match="expected at most 3000; not downloaded"):
        Zoo.load("hf-hub:user/made")
    assert hub.count("^GET .*safetensors") == 0


def test_a_hostile_repository_is_refused_and_its_pickles_stay_there(
    hub: Hub, tiny_files: Any, hub_cache: Path, tmp_path: Path
) -> None:
    """As `test_hostile` does it with folders."""
    payload = b"cos\nmkdir\n(S'%s'\ntR." % str(tmp_path / "pwned").encode()
    evil = {**tiny_files, "pytorch_model.bin": payload, "../../evil.py": payload}
    config = json.loads(tiny_files["config.json"])
    hub.add("user/code", {**evil, "config.json": json.dumps({**config, "class": "os.system"}).encode()})
    hub.add("user/pickle", {**evil, "model.safetensors": payload})
    for name, words in {"code": "expected a class of the zoo", "pickle": "safetensors header"}.items():
        with pytest.raises((CheckpointError, ConfigError), match=words):
            Zoo.load(f"hf-hub:user/{name}")
    assert hub.count("bin|evil.py") == 0 and not (tmp_path / "pwned").exists()


def test_a_name_that_leads_out_of_the_cache_is_refused(
    hub: Hub, tiny_files: Any, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("user/made", tiny_files)
    monkeypatch.setattr(hub_server, "etag", lambda name, content: f"../../../pwned-{name}")
    with pytest.raises(DownloadError, match=r"config.json comes with an ETag that is no file name"):
        Zoo.load("hf-hub:user/made")
    assert not list(HUB.glob("pwned*")) and hub.count("^GET") == 0


def test_after_one_download_everything_works_offline(hub: Hub, tiny_files: Any, hub_cache: Path) -> None:
    """In a process of its own, which the environment puts offline: no request at all, and no damaged weights."""
    commit = hub.add("user/made", tiny_files)
    folder = client.fetch("user/made", "main")
    hub.add("user/damaged", tiny_files)
    with (client.fetch("user/damaged", "main") / "model.safetensors").resolve().open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"!")
    hub.requests.clear()
    sources = ["user/made", f"user/made@{commit}", "user/other", "user/damaged"]
    by_name, by_commit, absent, damaged = hub_processes.run("fetch", *sources, HF_HUB_OFFLINE="1").splitlines()
    assert by_name == by_commit == str(folder)
    assert "user/other@main: config.json is not in the cache and the client is offline (HF_HUB_OFFLINE)" in absent
    assert "model.safetensors is damaged in the cache and the client is offline" in damaged and "connect" in damaged
    assert hub.requests == []


# ------------------------------------------------------------------------------------------------------------- push


def test_a_pushed_folder_arrives_in_one_commit_with_card_and_tag(hub: Hub, user: str, folder: Path) -> None:
    for picture in ("samples.png", "curve.png", "curve.csv", "before_after.png"):
        (folder / picture).write_bytes(b"\x89PNG\0")
    (folder / "notes.txt").write_text("not of the checkpoint")
    pushed = Zoo.push(f"local-dir:{folder}", "user/my-made")
    repository = hub.repositories["user/my-made"]
    first, commit = repository.commits
    assert list(first.files) == [".gitattributes"] and not repository.private
    assert set(commit.files) == {*FILES, ".gitattributes"}
    for name in set(FILES) - GENERATED:
        assert commit.files[name] == (folder / name).read_bytes()
    assert repository.tags == {TAG: commit.oid}
    assert str(pushed) == f"{hub.endpoint}/user/my-made\nhf-hub:user/my-made@{commit.oid} = {TAG}"
    card = ModelCard(commit.files["README.md"].decode())
    assert card.data.library_name == "generative-zoo" and card.data.model_name == "my-made"
    assert 'Zoo.load("hf-hub:user/my-made")' in card.text and "](samples.png)" in card.text
    assert is_same(Zoo.load(f"hf-hub:user/my-made@{TAG}"), folder) and is_same(Zoo.load(pushed.source or ""), folder)


def test_models_have_the_methods_that_users_of_the_hub_know(hub: Hub, user: str, folder: Path, tmp_path: Path) -> None:
    model = MADE.from_pretrained(str(folder))
    assert is_same(model, folder) and not model.training
    source = model.push_to_hub("user/mine", private=True)
    assert source == f"hf-hub:user/mine@{hub.repositories['user/mine'].commits[-1].oid}"
    assert hub.repositories["user/mine"].private
    assert is_same(MADE.from_pretrained("user/mine"), folder) and is_same(Zoo.load(source), folder)
    commit = source.partition("@")[2]
    assert is_same(MADE.from_pretrained("user/mine", revision=commit), folder)
    model.save_pretrained(tmp_path / "saved")
    assert is_same(Zoo.load(f"local-dir:{tmp_path / 'saved'}"), folder)
    assert isinstance(MADE.from_pretrained("made-binarized-mnist"), MADE)
    with pytest.raises(ConfigError, match="expected a model that is MADE, found VAE"):
        MADE.from_pretrained("vae-mnist")
    with pytest.raises(ConfigError, match="revision: expected none for made-binarized-mnist"):
        MADE.from_pretrained("made-binarized-mnist", revision="main")


def test_an_unchanged_folder_makes_no_commit_and_a_tag_never_moves(hub: Hub, user: str, folder: Path) -> None:
    first = Zoo.push(folder, "user/my-made")
    repository = hub.repositories["user/my-made"]
    uploads = hub.count("^PUT")
    assert Zoo.push(folder, "user/my-made") == first
    assert len(repository.commits) == 2 and hub.count("^PUT") == uploads
    Zoo.save(MADE(event_shape=[1, 3, 3], hidden=8), folder, overwrite=True)
    second = Zoo.push(folder, "user/my-made")
    assert [commit.oid for commit in repository.commits[1:]] == [first.commit, second.commit]
    assert repository.tags == {TAG: first.commit} and second.tag is None and TAG not in str(second)


def test_files_of_an_earlier_checkpoint_go_and_foreign_files_stay(hub: Hub, user: str, folder: Path) -> None:
    hub.add("user/my-made", {"LICENSE": b"mine", "samples.png": b"\0of other weights"})
    Zoo.push(folder, "user/my-made")
    files = hub.repositories["user/my-made"].commits[-1].files
    assert set(files) == {"LICENSE", *(path.name for path in folder.iterdir())} and "samples.png" not in files


def test_a_private_repository_is_private_before_anything_is_sent(
    hub: Hub, user: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Zoo.push(folder, "user/secret", private=True)
    assert hub.repositories["user/secret"].private and is_same(Zoo.load("hf-hub:user/secret"), folder)
    hub.add("user/open", {"README.md": b"for all to see"})
    with pytest.raises(
        ConfigError, match="user/open: expected a private repository, found a public one; nothing was sent"
    ):
        Zoo.push(folder, "user/open", private=True)
    assert (
        len(hub.repositories["user/open"].commits) == 1 and hub.count("PUT|commit") == hub.count("secret.*commit") + 1
    )
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(DownloadError, match="shows no such repository"):
        Zoo.load(f"hf-hub:user/secret@{TAG}")


def test_a_pull_request_proposes_a_commit(hub: Hub, user: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Zoo.push(folder, "user/my-made")
    Zoo.save(MADE(event_shape=[1, 3, 3], hidden=8), folder, overwrite=True)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")  # who may propose, and not push
    pushed = Zoo.push(folder, "user/my-made", pull_request=True)
    repository = hub.repositories["user/my-made"]
    (proposal,) = repository.proposals
    assert pushed.url == str(pushed) == f"{hub.endpoint}/user/my-made/discussions/1" and pushed.commit == proposal.oid
    assert len(repository.commits) == 2 and len(repository.tags) == 1
    assert is_same(Zoo.load(f"hf-hub:user/my-made@{proposal.oid}"), folder)
    with pytest.raises(UploadError, match=r"was refused; .* token that may write to 'user'"):
        Zoo.push(folder, "user/my-made")


@pytest.mark.parametrize("damage", ["weights", "config", "link", "none"])
def test_an_unsound_folder_is_not_sent(damage: str, hub: Hub, user: str, folder: Path, tmp_path: Path) -> None:
    if damage == "link":
        (tmp_path / "private-key").write_text("secret")
        (folder / "samples.png").symlink_to(tmp_path / "private-key")
    elif damage == "none":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        path = folder / {"weights": "model.safetensors", "config": "config.json"}[damage]
        path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(CheckpointError):
        Zoo.push(folder, "user/my-made")
    assert hub.requests == []


@pytest.mark.parametrize(
    "repo",
    [
        "made",
        "user/../made",
        "user/made/x",
        "user/ma--de",
        "user/made@v1",
        "",
        "ü/made",
        "u/made.",
        "u-/made",
        "u/made.git",
    ],
)
def test_names_that_no_repository_has(repo: str, hub: Hub, user: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="expected a repository 'user/name'"):
        Zoo.push(folder, repo)
    assert hub.requests == []


def test_without_a_token_it_says_how_to_log_in(hub: Hub, folder: Path) -> None:
    with pytest.raises(UploadError, match="log in with `hf auth login`, or set HF_TOKEN"):
        Zoo.push(folder, "user/my-made")


# --------------------------------------------------------------------------------------------------- the whole zoo


@pytest.fixture
def catalog(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with three checkpoints of its own."""
    root = tmp_path / "checkpoints"
    monkeypatch.setattr(records, "SHIPPED", root)
    monkeypatch.setattr(records, "REGISTRY", tmp_path / "registry.json")
    for name in ("made-a", "made-b", "made-c"):
        shutil.copytree(tiny_checkpoint, root / name)
    records.write_registry(release.entries())
    return root


def test_push_all_pins_every_commit_and_goes_on_where_it_stopped(
    hub: Hub, user: str, catalog: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults = [Fault("status", "made-b.*commit", 403)]
    assert main(["push", "--all", "--namespace", "org"]) == 1
    assert capsys.readouterr().err.startswith("zoo: hf-hub:org/made-b: was refused")
    assert [entry.repo for entry in records.registry().values()] == ["org/made-a", None, None]
    hub.faults = []
    assert main(["push", "--all", "--namespace", "org"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for number, name in enumerate(("made-a", "made-b", "made-c")):
        _, commit = hub.repositories[f"org/{name}"].commits
        entry = records.registry()[name]
        assert (entry.repo, entry.revision) == (f"org/{name}", commit.oid)
        assert lines[2 * number : 2 * number + 2] == [
            f"{hub.endpoint}/org/{name}",
            f"hf-hub:org/{name}@{commit.oid} = {TAG}",
        ]
    assert records.render(release.entries()) == records.REGISTRY.read_text()
    assert {path.name for path in catalog.parent.iterdir()} == {"checkpoints", "registry.json"}
    hub.add("org/made-a", {})
    shutil.rmtree(catalog)
    assert is_same(Zoo.load("made-a"), tiny_checkpoint)  # the pinned commit, not the newest
    hub.requests.clear()
    assert is_same(Zoo.load("made-a"), tiny_checkpoint) and Zoo.info("made-a").recipe and hub.requests == []


def test_push_all_leaves_out_nothing(hub: Hub, user: str, catalog: Path) -> None:
    shutil.copytree(catalog / "made-a", catalog / "made-new")
    with pytest.raises(ConfigError, match="made-new: is not in the registry; nothing was sent"):
        list(Zoo.push_all("org"))
    assert hub.requests == []


def test_a_folder_that_is_called_like_a_pretrained_checkpoint(
    hub: Hub, user: str, catalog: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, folder.parent / "made-a")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(
        ConfigError, match="'made-a' is a pretrained checkpoint, and here a folder too; write 'local-dir:m"
    ):
        Zoo.push("made-a", "user/made-a")
    assert hub.requests == []
    for source in (Path("made-a"), "local-dir:made-a"):
        pushed = Zoo.push(source, "user/made-a").source or ""
        assert is_same(Zoo.load(pushed), folder)
    monkeypatch.chdir(catalog)  # where it is the pretrained one
    Zoo.push("made-a", "user/other")


def test_a_registered_name_is_pushed_only_as_registered(hub: Hub, user: str, catalog: Path) -> None:
    Zoo.save(MADE(event_shape=[1, 3, 3], hidden=8), catalog / "made-a", overwrite=True)
    with pytest.raises(CheckpointError, match="expected sha256"):
        Zoo.push("made-a", "user/made-a")
    assert hub.requests == []


def test_the_commands(hub: Hub, user: str, folder: Path, capsys: pytest.CaptureFixture[str], hub_cache: Path) -> None:
    assert main(["push", str(folder), "user/my-made", "--private"]) == 0
    url, source = capsys.readouterr().out.splitlines()
    assert url == f"{hub.endpoint}/user/my-made" and hub.repositories["user/my-made"].private
    assert main(["pull", source.split(" ")[0]]) == 0
    pulled = Path(capsys.readouterr().out.strip())
    assert pulled.is_relative_to(hub_cache)
    assert (pulled / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    digits = {"data": {"class": "Digits", "binarize": True}}
    Zoo.save(MADE(event_shape=[1, 8, 8], hidden=4), folder.parent / "digits", recipe=digits)
    assert main(["push", str(folder.parent / "digits"), "user/digits"]) == 0
    pushed = capsys.readouterr().out.splitlines()[1].split(" ")[0]
    assert main(["evaluate", pushed, "--only", "likelihood"]) == 0
    assert "nll" in capsys.readouterr().out
    assert main(["evaluate", pushed, "--write"]) == 1
    assert "which is only a copy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["push", "push my-made", "push --all", "push my-made user/x --namespace org", "push --all x --namespace org"],
)
def test_half_a_command(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 1
    assert "expected `zoo push" in capsys.readouterr().err
