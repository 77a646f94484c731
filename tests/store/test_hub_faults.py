"""What the network, the server, other processes and the disk do to a push or a pull, by the real client."""

import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_processes import run
from hub_server import Fault, Hub
from huggingface_hub.errors import LocalEntryNotFoundError

from zoo import Zoo
from zoo.errors import DownloadError, UploadError
from zoo.store import network
from zoo.store import pull as client

LOADED = ("config.json", "metrics.json", "model.safetensors")
Files = dict[str, bytes]


def is_whole(folder: Path, files: Files, names: tuple[str, ...] = LOADED) -> bool:
    return all((folder / name).read_bytes() == files[name] for name in names)


# ------------------------------------------------------------------------------------------- what arrives is damaged


@pytest.mark.parametrize(("kind", "num"), [("truncate", 50), ("flip", 200)])
def test_damaged_downloads_are_noticed_and_repaired(kind: str, num: int, hub: Hub, tiny_files: Files) -> None:
    """Each download of a file is cut short at a random byte, or has one random bit flipped, once."""
    draw, cases = random.Random(0), []
    for number in range(num):
        name = draw.choice(LOADED)
        size = len(tiny_files[name])
        hub.add(f"user/made-{number}", tiny_files)
        value = draw.randrange(size if kind == "truncate" else 8 * size)
        hub.faults.append(Fault(kind, f"GET .*/made-{number}/.*/{name}", value, times=1))
        cases.append((number, name))
    with ThreadPoolExecutor(25) as pool:  # the client sleeps a second after each that is cut short
        folders = list(pool.map(lambda case: client.fetch(f"user/made-{case[0]}", "main", (case[1],)), cases))
    for (number, name), folder in zip(cases, folders, strict=True):
        assert is_whole(folder, tiny_files, (name,)) and hub.count(f"GET .*/made-{number}/.*/{name}") >= 2
    assert all(fault.times == 0 for fault in hub.faults)


def test_a_truncated_download_is_resumed(hub: Hub) -> None:
    """The client keeps slices of 10 MiB."""
    files = {"model.safetensors": random.Random(0).randbytes(11 * 2**20)}
    hub.add("user/large", files)
    hub.faults = [Fault("truncate", "GET .*safetensors", 10 * 2**20 + 5, times=1)]
    assert is_whole(client.fetch("user/large", "main", tuple(files)), files, tuple(files))
    assert hub.ranges == [f"bytes={10 * 2**20}-"]


def test_a_server_that_always_sends_other_bytes_is_refused_until_it_is_repaired(
    hub: Hub, tiny_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("user/made", tiny_files)
    hub.faults = [Fault("replace", "GET .*safetensors")]
    monkeypatch.setattr(network, "PATIENCE", 2.0)
    with pytest.raises(DownloadError, match=r"model.safetensors is damaged .* the bytes differ from the promised ones"):
        Zoo.load("hf-hub:user/made")
    with pytest.raises(DownloadError, match=r"model.safetensors is damaged"):
        Zoo.load("hf-hub:user/made")
    hub.faults = []
    monkeypatch.undo()
    Zoo.load("hf-hub:user/made")


@pytest.mark.parametrize("name", [*LOADED, "recipe.yaml"])
def test_files_damaged_in_the_cache_are_fetched_again_once(
    name: str, hub: Hub, tiny_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("user/made", tiny_files)
    folder = client.fetch("user/made", commit)
    damaged = bytearray(tiny_files[name])
    damaged[len(damaged) // 2] ^= 1
    (folder / name).resolve().write_bytes(damaged)
    hub.requests.clear()
    Zoo.load(f"hf-hub:user/made@{commit}")
    assert is_whole(folder, tiny_files, (*LOADED, name)) and hub.count("^GET") == hub.count(f"^GET .*{name}") == 1
    hub.requests.clear()
    Zoo.load(f"hf-hub:user/made@{commit}")
    assert hub.requests == []
    (folder / name).resolve().write_bytes(damaged)
    hub.stop()
    with pytest.raises(DownloadError, match=f"{name} is damaged in the cache and .* gives no valid answer"):
        Zoo.load(f"hf-hub:user/made@{commit}")


# -------------------------------------------------------------------------------------------------- nothing arrives


def test_a_third_of_all_requests_fails(hub: Hub, tiny_files: Files) -> None:
    """Half of the failures are answers 503, half dropped connections."""
    hub.faults = [Fault("status", value=503, rate=1 / 6), Fault("drop", rate=1 / 5)]
    for number in range(8):
        hub.add(f"user/made-{number}", tiny_files)

    def fetch(number: int) -> str:
        try:
            return str(client.fetch(f"user/made-{number}", "main"))
        except DownloadError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(fetch, range(8)))
    hub.faults = []
    for number, result in enumerate(results):
        is_told = "try again" in result and "\n" not in result
        assert is_told or is_whole(Path(result), tiny_files)
        assert is_whole(client.fetch(f"user/made-{number}", "main"), tiny_files)
    assert sum("/snapshots/" in result for result in results) >= 6


def test_a_server_that_is_gone(hub: Hub, tiny_files: Files) -> None:
    """What is in the cache loads at once, whatever names it; for the rest there is one sentence, at once."""
    commit = hub.add("user/made", tiny_files)
    hub.repositories["user/made"].tags["v1"] = commit
    client.fetch("user/made", "main")
    client.fetch("user/made", "v1")
    hub.stop()
    start = time.monotonic()
    for revision in ("main", "v1", commit):
        assert is_whole(client.fetch("user/made", revision), tiny_files)
    with pytest.raises(DownloadError, match=r"user/other@main: config.json is not in the cache .* connect and try"):
        client.fetch("user/other", "main")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("where", "fault", "words"),
    [
        ("HEAD .*config", Fault("stall", value=30), "tried for at most 1 seconds"),
        ("GET .*safetensors", Fault("stall", value=30), "tried for at most 1 seconds"),
        ("GET .*safetensors", Fault("status", value=503), "tried for at most 1 seconds"),
        ("HEAD .*config", Fault("status", value=429, headers={"Retry-After": "3600"}), "asks to wait for 3600 seconds"),
        (
            "GET .*config",
            Fault("status", value=429, headers={"Retry-After": "3600"}),
            "gives no valid answer, tried for",
        ),
    ],
)
def test_patience_ends_by_the_deadline(
    where: str, fault: Fault, words: str, hub: Hub, tiny_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("user/made", tiny_files)
    fault.where, fault.times = where, float("inf")
    hub.faults = [fault]
    monkeypatch.setattr(network, "PATIENCE", 1.0)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=words):
        client.fetch("user/made", "main")
    assert time.monotonic() - start < 10


def test_a_cached_branch_loads_though_the_server_only_stalls(
    hub: Hub, tiny_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("user/made", tiny_files)
    client.fetch("user/made", "main")
    hub.faults = [Fault("stall", value=30)]
    monkeypatch.setattr(network, "PATIENCE", 6.0)
    start = time.monotonic()
    assert is_whole(client.fetch("user/made", "main"), tiny_files)
    assert time.monotonic() - start < 6


def test_what_passes_is_waited_for(hub: Hub, tiny_files: Files) -> None:
    hub.add("user/made", tiny_files)
    hub.faults = [
        Fault("status", "HEAD .*config", 429, times=1, headers={"Retry-After": "1"}),
        Fault("status", "GET .*metrics", 503, times=2),
        Fault("stall", "GET .*safetensors", 4, times=1),
        Fault("slow", "GET .*safetensors", 0.01, times=1),
    ]
    assert is_whole(client.fetch("user/made", "main"), tiny_files)
    assert all(fault.times == 0 for fault in hub.faults)


def test_a_recipe_that_does_not_arrive_is_not_taken_for_none(
    hub: Hub, tiny_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository may have none, which the server says; the client has an error of the same kind for its silence."""
    hub.add("user/made", tiny_files)
    download = client._download

    class ConnectError(Exception):  # by its name that of the client's library, which is not tried again
        pass

    def fail(repo: str, name: str, commit: str) -> Path:
        if name == "recipe.yaml":
            raise LocalEntryNotFoundError("no connection") from ConnectError()
        return download(repo, name, commit)

    monkeypatch.setattr(client, "_download", fail)
    with pytest.raises(DownloadError, match=r"recipe.yaml is not in the cache and .* gives no valid answer"):
        client.fetch("user/made", "main")
    monkeypatch.undo()
    assert is_whole(client.fetch("user/made", "main"), tiny_files, (*LOADED, "recipe.yaml"))
    hub.add("user/bare", {name: tiny_files[name] for name in LOADED})
    assert is_whole(client.fetch("user/bare", "main"), tiny_files)


# ------------------------------------------------------------------------------------------- processes and the disk


def test_killed_downloads_leave_a_cache_that_works(hub: Hub, tiny_files: Files, hub_cache: Path) -> None:
    """SIGKILL at 20 random moments; the partial files that it leaves are removed when they are old."""
    repos = [f"user/made-{number}" for number in range(21)]
    for repo in repos:
        hub.add(repo, tiny_files)
    hub.faults = [Fault("slow", "GET", 0.01)]
    assert int(run("kill", *repos)) >= 10  # the others had finished
    hub.faults = []
    left = list(hub_cache.glob("*/blobs/*.incomplete"))
    for path in left:
        os.utime(path, (0, 0))
    for repo in repos:
        assert is_whole(client.fetch(repo, "main"), tiny_files)
    assert left and not list(hub_cache.glob("*/blobs/*.incomplete"))


def test_eight_processes_fetch_once(hub: Hub, tiny_files: Files) -> None:
    hub.add("user/wanted", tiny_files)  # a name of its own: a caller that an earlier test left may come late
    hub.faults = [Fault("slow", "GET", 0.02)]
    assert run("crowd", "user/wanted") == "8"
    assert hub.count("^GET .*/user/wanted/") == 4  # configuration, recipe, numbers, weights
    assert is_whole(client.fetch("user/wanted", "main"), tiny_files)


def test_a_full_disk_is_named_and_what_was_there_stays(hub: Hub, tiny_files: Files) -> None:
    """A limit on the size of files stands in for the disk."""
    old = hub.add("user/made", tiny_files)
    client.fetch("user/made", old)
    hub.add("user/made", {**tiny_files, "model.safetensors": tiny_files["model.safetensors"][::-1]})
    words = run("starve", "user/made")
    assert "model.safetensors cannot be written to " in words and "File too large; make room" in words
    assert is_whole(client.fetch("user/made", old), tiny_files)


# ------------------------------------------------------------------------------------------------------------- push


def test_a_push_that_fails_anywhere_is_completed_by_the_next(
    hub: Hub, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at each of its requests once; and each of its requests done once without the client hearing of it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.tokens["hf_secret"] = "user"
    Zoo.push(tiny_checkpoint, "user/undisturbed")
    num = hub.count("^(?!GET /storage/)")
    names = {*(path.name for path in tiny_checkpoint.iterdir()), ".gitattributes"}
    for moment in range(num):
        repo = f"user/made-{moment}"
        hub.objects.clear()
        # a push reads nothing from the storage, but a caller that an earlier test left may
        hub.faults = [Fault("status", "^(?!GET /storage/)", 403, skip=moment, times=1)]
        with pytest.raises(UploadError, match=r"push again|was refused"):
            Zoo.push(tiny_checkpoint, repo)
        started = hub.repositories[repo].commits if repo in hub.repositories else []
        assert all(set(commit.files) == names for commit in started[1:])
        Zoo.push(tiny_checkpoint, repo)
        _, commit = hub.repositories[repo].commits
        assert set(commit.files) == names and list(hub.repositories[repo].tags.values()) == [commit.oid]
        assert commit.files["model.safetensors"] == (tiny_checkpoint / "model.safetensors").read_bytes()
    for moment in range(num):
        hub.objects.clear()
        hub.faults = [Fault("late", skip=moment, times=1)]
        pushed = Zoo.push(tiny_checkpoint, f"user/late-{moment}")
        assert [commit.oid for commit in hub.repositories[f"user/late-{moment}"].commits][1:] == [pushed.commit]
        assert hub.faults[0].times == 0
    assert num >= 9


def test_two_pushes_at_once_do_not_mix(
    hub: Hub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else commits between the question what has changed and the commit."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.tokens["hf_secret"] = "user"
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "mine"))
    Zoo.push(folder, "user/made")
    (folder / "recipe.yaml").write_text("seed: 1\n")
    strike, commits = hub.strike, []

    def meddling(request: str) -> Fault | None:
        if "/commit/" in request and not commits:
            commits.append(hub.add("user/made", {"model.safetensors": b"of another"}))
        return strike(request)

    monkeypatch.setattr(hub, "strike", meddling)
    pushed = Zoo.push(folder, "user/made")
    newest = hub.repositories["user/made"].commits[-1]
    assert newest.oid == pushed.commit and hub.repositories["user/made"].commits[-2].oid == commits[0]
    assert all(newest.files[path.name] == path.read_bytes() for path in folder.iterdir() if path.name != "README.md")


def test_a_push_without_an_answer_says_so_by_its_deadline(
    hub: Hub, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PATIENCE", 1.0)
    hub.faults = [Fault("stall", value=30)]
    start = time.monotonic()
    with pytest.raises(UploadError, match=r"user/made: not finished, since .* gives no valid answer.*; push again"):
        Zoo.push(tiny_checkpoint, "user/made")
    assert time.monotonic() - start < 10
