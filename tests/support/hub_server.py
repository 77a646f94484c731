"""A Hub for tests: repositories with commits in memory behind the HTTP protocol that the real client speaks.

Storage of large files is another host ("localhost"), as it is on the Hub, and is not shown the caller's token. Faults
are put into `Hub.faults` and strike requests whose "METHOD path" they match.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import random
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

SLICE = 256  # bytes between two pauses of a slow answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Fault:
    """What goes wrong with the requests that `where` finds.

    Attributes:
        kind: "status" answers `value`; "drop" closes the connection before an answer; "truncate" closes it after
            `value` bytes of the body; "flip" flips bit `value` of the body; "replace" sends as many other bytes;
            "stall" says nothing for `value` seconds, then closes it; "slow" waits `value` seconds between slices;
            "late" does what is asked and then closes the connection without an answer.
        where: pattern of "METHOD path".
        rate: part of the matching requests that it strikes, by a seeded draw.
        skip: how many it lets pass first.
        times: how often at most.
        headers: of the answer to "status".
    """

    kind: str
    where: str = ""
    value: Any = None
    rate: float = 1.0
    skip: int = 0
    times: float = float("inf")
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    private: bool = False
    gated: set[str] | None = None  # who has accepted its conditions; None where it has none
    commits: list[Commit] = field(default_factory=list)  # of the main branch
    tags: dict[str, str] = field(default_factory=dict)
    proposals: list[Commit] = field(default_factory=list)

    def find(self, revision: str) -> Commit | None:
        oid = self.commits[-1].oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in [*self.commits, *self.proposals] if commit.oid == oid), None)

    def next(self, message: str, files: dict[str, bytes]) -> Commit:
        content = repr((message, sorted(files.items()), [commit.oid for commit in self.commits]))
        return Commit(hashlib.sha1(content.encode()).hexdigest(), message, files)

    def add(self, files: dict[str, bytes], message: str = "new") -> str:
        self.commits.append(self.next(message, files))
        return self.commits[-1].oid


def is_large(name: str, sample: bytes) -> bool:
    return name.endswith(".safetensors") or b"\0" in sample[:512]


def etag(name: str, content: bytes) -> str:
    """As on the Hub: sha256 of large files, the git blob of others."""
    if is_large(name, content):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Answer(Exception):  # noqa: N818 - ends the handling of a request wherever it is decided
    def __init__(
        self, status: int, body: bytes | dict[str, Any] | list[Any] = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.status, self.headers = status, headers or {}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


def refusal(status: int, code: str, message: str = "") -> Answer:
    return Answer(status, {"error": message or code}, {"X-Error-Code": code, "X-Error-Message": message or code})


class Hub:
    """Its state, and a server between `start` and `stop`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.endpoint, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: dict[str, str] = {}  # to the user's name
        self.organisations: dict[str, str] = {}  # to the name of its one member
        self.requests: list[str] = []
        self.ranges: list[str] = []  # asked for
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.draw = random.Random(0)

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> str:
        """A repository, or a commit of it; returns the commit."""
        repository = self.repositories.setdefault(name, Repository(**options))
        return repository.add(files)

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = _Server(("127.0.0.1", self.port), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        """Nothing listens any more; does nothing the second time."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def strike(self, request: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if not re.search(fault.where, request) or fault.times <= 0 or self.draw.random() >= fault.rate:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    # ------------------------------------------------------------------------------------------- what is asked of it

    def reach(self, name: str, user: str | None, *, write: bool = False) -> Repository:
        """The repository, if this user may see it, or change it."""
        repository, owner = self.repositories.get(name), name.split("/")[0]
        is_owner = user is not None and user in (owner, self.organisations.get(owner))
        if repository is None or (repository.private and not is_owner):
            raise refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not is_owner:
            raise refusal(403 if user else 401, "Forbidden", "You don't have the rights to change this repository")
        return repository

    def create(self, payload: dict[str, Any], user: str | None) -> Answer:
        if user is None:
            return refusal(401, "Unauthorized", "Invalid username or password.")
        owner = payload.get("organization") or user
        name = f"{owner}/{payload['name']}"
        if user not in (owner, self.organisations.get(owner)):
            return refusal(403, "Forbidden", f"You don't have the rights to create a model under {owner}")
        url = {"url": f"{self.endpoint}/{name}", "name": name}
        if name in self.repositories:
            return Answer(409, {"error": "You already created this model repo", **url})
        is_private = payload.get("visibility") == "private" or payload.get("private") is True
        self.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=is_private)
        return Answer(200, url)

    def commit(self, name: str, repository: Repository, lines: bytes, propose: bool) -> Answer:
        records = [json.loads(line) for line in lines.splitlines()]
        header, files = records[0]["value"], dict(repository.commits[-1].files)
        if header.get("parentCommit", repository.commits[-1].oid) != repository.commits[-1].oid and not propose:
            return refusal(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.")
        for record in records[1:]:
            value = record["value"]
            match record["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile" if value["oid"] in self.objects:
                    files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile" if value["path"] in files:
                    del files[value["path"]]
                case _:
                    return refusal(400, "BadRequest", f"cannot {record['key']} {value['path']}")
        made = repository.next(header["summary"], files)
        (repository.proposals if propose else repository.commits).append(made)
        url = f"{self.endpoint}/{name}/discussions/{len(repository.proposals)}" if propose else None
        return Answer(
            200,
            {
                "success": True,
                "commitOid": made.oid,
                "commitUrl": f"{self.endpoint}/{name}/commit/{made.oid}",
                "pullRequestUrl": url,
            },
        )

    def resolve(self, name: str, user: str | None, revision: str, path: str) -> Answer:
        repository = self.reach(name, user)
        commit = repository.find(revision)
        if commit is None:
            return refusal(404, "RevisionNotFound")
        if repository.gated is not None and user not in repository.gated:
            return refusal(403 if user else 401, "GatedRepo", "Access to this repository is restricted")
        common = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if (content := commit.files.get(path)) is None:
            answer = refusal(404, "EntryNotFound")
            answer.headers |= common
            return answer
        tag = f'"{etag(path, content)}"'
        if not is_large(path, content):
            return Answer(200, content, {**common, "ETag": tag})
        linked = {"X-Linked-ETag": tag, "X-Linked-Size": str(len(content))}
        location = f"{self.storage}/storage/{name}/{commit.oid}/{path}"
        return Answer(302, b"", {**common, **linked, "Location": location})

    def info(self, name: str, repository: Repository, revision: str) -> Answer:
        if (commit := repository.find(revision)) is None:
            return refusal(404, "RevisionNotFound")
        content = {"id": name, "sha": commit.oid, "private": repository.private, "tags": [], "downloads": 0, "likes": 0}
        return Answer(200, {**content, "siblings": [{"rfilename": path} for path in commit.files]})

    def answer(self, method: str, path: str, query: dict[str, list[str]], user: str | None, body: bytes) -> Answer:
        """Routes. Names of repositories are `user/name` throughout."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case (("HEAD" | "GET"), [owner, repo, "resolve", revision, *rest]):
                return self.resolve(f"{owner}/{repo}", user, revision, "/".join(rest))
            case (("HEAD" | "GET"), ["storage", owner, repo, oid, *rest]):
                found = self.repositories[f"{owner}/{repo}"].find(oid)
                content = found.files["/".join(rest)] if found else b""
                return Answer(200, content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})
            case "POST", ["api", "repos", "create"]:
                return self.create(json.loads(body), user)
            case "POST", ["api", "validate-yaml"]:
                head = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
                errors = [] if head and yaml.safe_load(head[1])["library_name"] else [{"message": "no metadata"}]
                return Answer(400 if errors else 200, {"errors": errors, "warnings": []})
            case "POST", [owner, repo, "info", "lfs", "objects", "batch"] if repo.endswith(".git"):
                name = f"{owner}/{repo.removesuffix('.git')}"
                self.reach(name, user)
                items = json.loads(body)["objects"]
                for item in items:
                    if item["oid"] not in self.objects:
                        item["actions"] = self.actions(name, item["oid"])
                return Answer(200, {"transfer": "basic", "objects": items})
            case "PUT", ["upload", oid]:
                if hashlib.sha256(body).hexdigest() != oid:
                    return refusal(400, "BadDigest", "the content is not what was announced")
                self.objects[oid] = body
                return Answer(200)
            case _, ["api", "models", owner, repo, *rest]:
                return self.model(method, f"{owner}/{repo}", rest, query, user, body)
        return refusal(404, "NotFound", f"no such route: {method} {path}")

    def actions(self, name: str, oid: str) -> dict[str, Any]:
        verify = f"{self.endpoint}/api/models/{name}/verify"
        return {"upload": {"href": f"{self.storage}/upload/{oid}"}, "verify": {"href": verify}}

    def model(
        self, method: str, name: str, rest: list[str], query: dict[str, list[str]], user: str | None, body: bytes
    ) -> Answer:
        is_proposal = query.get("create_pr") == ["1"]
        writes = rest[:1] in (["preupload"], ["commit"], ["tag"]) and not is_proposal
        repository = self.reach(name, user, write=writes)
        match method, rest:
            case "GET", []:
                return self.info(name, repository, "main")
            case "GET", ["revision", revision]:
                return self.info(name, repository, revision)
            case "GET", ["tree", revision]:
                found = repository.find(revision)
                files = found.files.items() if found else ()
                entries = [{"type": "file", "path": k, "size": len(v), "oid": etag(k, v)} for k, v in files]
                return Answer(200, entries) if found else refusal(404, "RevisionNotFound")
            case "POST", ["preupload", _]:
                files, answers = repository.commits[-1].files, []
                for item in json.loads(body)["files"]:
                    path = item["path"]
                    mode = "lfs" if is_large(path, base64.b64decode(item["sample"])) else "regular"
                    oid = etag(path, files[path]) if path in files else None
                    answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
                return Answer(200, {"files": answers})
            case "POST", ["verify"]:
                item = json.loads(body)
                return Answer(200) if len(self.objects.get(item["oid"], b"")) == item["size"] else refusal(404, "Lost")
            case "POST", ["commit", "main"] if user is not None:
                with self.lock:
                    return self.commit(name, repository, body, is_proposal)
            case "POST", ["tag", revision]:
                found, tag = repository.find(revision), json.loads(body)["tag"]
                if found is None or tag in repository.tags:
                    return refusal(409, "Conflict", "Tag already exists") if found else refusal(404, "RevisionNotFound")
                repository.tags[tag] = found.oid
                return Answer(200)
        return refusal(404, "NotFound", f"no such route: {method} {name} {rest}")


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256  # or the system refuses some of fifty callers at once
    daemon_threads = True
    block_on_close = False  # a stalled answer is nobody's business after the test

    def handle_error(self, *_: Any) -> None:
        """A caller that hung up, or was killed."""


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        hub, address = self.hub, urlsplit(self.path)
        body = self._body()
        fault = hub.strike(f"{self.command} {self.path}")
        kind, value = (fault.kind, fault.value) if fault else ("", None)
        if fault and kind == "stall":
            time.sleep(value)
        if fault and kind in ("drop", "stall"):
            return self._hang_up()
        if fault and kind == "status":
            return self._send(Answer(value, {"error": "no"} if value < 500 else b"<html>no</html>", fault.headers))
        is_storage = address.path.startswith(("/storage/", "/upload/"))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if is_storage and token:
            return self._send(refusal(400, "TokenLeaked", "the storage was shown a token"))
        try:
            if token and token not in hub.tokens:
                raise refusal(401, "Unauthorized", "Invalid credentials in Authorization header")
            answer = hub.answer(self.command, address.path, parse_qs(address.query), hub.tokens.get(token), body)
        except Answer as refused:
            answer = refused
        if kind == "late":
            return self._hang_up()
        self._send(answer, kind, value)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, answer: Answer, kind: str = "", value: Any = None) -> None:
        content, status, headers = answer.body, answer.status, answer.headers
        ranges = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if ranges and status == 200 and self.command == "GET":
            begin, whole = int(ranges[1]), len(content)
            self.hub.ranges.append(ranges[0])
            content, status = content[begin:], 206
            headers = {**headers, "Content-Range": f"bytes {begin}-{whole - 1}/{whole}"}
        if kind == "flip":
            damaged = bytearray(content)
            damaged[value // 8] ^= 1 << value % 8
            content = bytes(damaged)
        if kind == "replace":
            content = bytes(byte ^ 85 for byte in content)
        self.send_response(status)
        for key, text in {**headers, "Content-Length": str(len(content)), "Connection": "close"}.items():
            self.send_header(key, text)
        self.end_headers()
        if kind == "truncate":
            content = content[:value]
        if self.command == "HEAD":
            return
        if kind != "slow":
            self.wfile.write(content)
        else:
            for start in range(0, len(content), SLICE):
                self.wfile.write(content[start : start + SLICE])
                time.sleep(value)

    def _hang_up(self) -> None:
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass
