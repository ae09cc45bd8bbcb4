"""A small Hub on this machine that speaks the client's wire protocol, and misbehaves when told to.

Repos hold commits, branches, tags, pull requests, regular files and LFS objects. Nothing of `huggingface_hub` is used
here: what the tests push and pull goes through the real client.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


LFS_SUFFIXES = (".safetensors", ".png", ".bin")


@dataclass
class Repo:
    """Commits (path -> content), and names for them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    downloads: int = 0
    parents: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def sha(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def write(self, files: dict[str, bytes], ref: str = "main") -> str:
        digest = hashlib.sha1(str(len(self.commits)).encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        self.commits[digest.hexdigest()] = dict(files)
        parent = self.refs.get(ref) or self.refs.get("main")
        if parent and parent != digest.hexdigest():
            self.parents[digest.hexdigest()] = parent
        self.refs[ref] = digest.hexdigest()
        return self.refs[ref]


@dataclass
class Fault:
    """What goes wrong, for which requests (`"METHOD /path"` and `" bytes=..."` where a part is asked
    for, matched by a regular expression), and how often.

    Kinds: `status` (with `status` and `headers`), `cut` (the connection breaks half-way through the body), `corrupt`
    (one byte of the body differs), `slow` (the body comes in pieces, `seconds` in all), `hang` (no answer for
    `seconds`), `lost` (the request is done, but its answer never arrives).
    """

    pattern: str
    kind: str
    times: int = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 1.0


class LocalHub:
    """All repos and collections; `me` with `token` may write and read private repos.

    `whole_files` holds the LFS objects that were asked for as a whole, not by range; `ranges` where the others
    start.
    """

    def __init__(self, token: str = "hf_test") -> None:
        self.token = token
        self.repos: dict[str, Repo] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.whole_files: list[str] = []
        self.ranges: list[int] = []
        self.lock = threading.Lock()

    def add(self, repo: str, source: Path | dict[str, bytes], **attributes: Any) -> str:
        """Commit a folder or files to a repo's main branch; gives the commit."""
        if isinstance(source, Path):
            source = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
        found = self.repos.setdefault(repo, Repo())
        for name, value in attributes.items():
            setattr(found, name, value)
        for name, content in source.items():
            if is_lfs(name):
                self.objects[hashlib.sha256(content).hexdigest()] = content
        return found.write(source)

    def open_request(
        self, repo: str, files: dict[str, bytes], title: str, author: str, parent: str | None = None, status="open"
    ) -> tuple[str, str]:
        """A pull request that adds files to a commit; gives its reference and its commit."""
        found = self.repos[repo]
        ref = f"refs/pr/{len(found.requests) + 1}"
        found.requests.append({"title": title, "author": author, "status": status, "num": len(found.requests) + 1})
        found.refs[ref] = parent or found.refs["main"]
        for name, content in files.items():
            if is_lfs(name):
                self.objects[hashlib.sha256(content).hexdigest()] = content
        return ref, found.write({**found.commits[found.refs[ref]], **files}, ref)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repos[repo]
        return found.commits[found.sha(revision)] if found.refs else {}

    def head(self, repo: str, revision: str = "main") -> str:
        return self.repos[repo].refs[revision]

    def misbehave(self, pattern: str, kind: str, **options: Any) -> None:
        self.faults.append(Fault(pattern, kind, **options))

    def fault(self, request: str) -> Fault | None:
        with self.lock:
            self.log.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def asked(self, pattern: str) -> int:
        """How many requests match."""
        return sum(bool(re.search(pattern, line)) for line in self.log)


def is_lfs(name: str) -> bool:
    return name.endswith(LFS_SUFFIXES)


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def oid(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if is_lfs(name) else git_oid(content)


def front_matter(text: bytes) -> dict[str, Any]:
    found = re.match(r"^\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", text.decode(), re.DOTALL)
    return {str(key): value for key, value in (yaml.safe_load(found[1]) if found else {}).items()}


class Stop(Exception):
    """The request is answered."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *args: object) -> None:
        pass

    # Answering

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self.current and self.current.kind == "lost":
            self.connection.close()
            raise Stop
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(content)
        raise Stop

    def send_body(self, content: bytes) -> None:
        kind = self.current.kind if self.current else None
        if kind == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        if kind == "corrupt":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        if kind == "slow":
            piece = max(1, len(content) // 10)
            for start in range(0, len(content), piece):
                self.wfile.write(content[start : start + piece])
                time.sleep(self.current.seconds / 10)
            return
        self.wfile.write(content)

    def refuse(self, status: int, code: str, message: str = "") -> None:
        self.answer(status, {"error": message or code}, X_Error_Code=code)

    # Asking

    @property
    def signed_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def body(self) -> bytes:
        return self.received

    def repo(self, name: str) -> Repo:
        found = self.hub.repos.get(name)
        if found is None or (found.private and not self.signed_in):
            self.refuse(401, "RepoNotFound", "Repository not found")
        return found

    def commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self.repo(name)
        if revision == "main" and "main" not in found.refs:
            return "0" * 40, {}
        sha = found.sha(revision)
        if sha is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, found.commits[sha]

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.received = self.rfile.read(length) if length else b""
        part = f" {self.headers['Range']}" if "Range" in self.headers else ""
        self.current = self.hub.fault(f"{self.command} {self.path}{part}")
        with suppress(Stop, BrokenPipeError, ConnectionResetError):
            if self.current and self.current.kind == "status":
                self.answer(self.current.status, {"error": "out of order"}, **self.current.headers)
            if self.current and self.current.kind == "hang":
                time.sleep(self.current.seconds)
            url = urlsplit(self.path)
            self.query = parse_qs(url.query)
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            for method, pattern, route in ROUTES:
                if method in (self.command, "GET" if self.command == "HEAD" else None) and len(parts) >= len(pattern):
                    if all(want in ("*", part) for want, part in zip(pattern, parts, strict=False)):
                        route(self, *[part for want, part in zip(pattern, parts, strict=False) if want == "*"],
                              *parts[len(pattern):])  # fmt: skip
            self.answer(404, {"error": f"no such address: {self.path}"})
        self.close_connection = self.close_connection or bool(self.current and self.current.kind in ("cut", "lost"))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    @property
    def elsewhere(self) -> str:
        """The same server under another name: large files come from another host, as on the Hub."""
        return self.address.replace("127.0.0.1", "localhost")

    # Reading

    def info(self, name: str, sha: str, files: dict[str, bytes], blobs: bool = False) -> dict[str, Any]:
        found, card = self.hub.repos[name], front_matter(files.get("README.md", b""))
        siblings = []
        for path, content in sorted(files.items()):
            entry: dict[str, Any] = {"rfilename": path}
            if blobs:
                entry |= {"size": len(content), "blobId": git_oid(content)}
                if is_lfs(path):
                    entry["lfs"] = {"sha256": oid(path, content), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        bases = card.get("base_model") or []
        relation = card.get("base_model_relation", "finetune")
        if not isinstance(card.get("tags", []), list):
            card = {}  # as the Hub does with metadata that it cannot read
        tags = list(card.get("tags", []))
        for base in [bases] if isinstance(bases, str) else bases:
            tags += [f"base_model:{base}", f"base_model:{relation}:{base}"]
        tags += [f"license:{card['license']}"] if "license" in card else []
        return {
            "id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": tags, "cardData": card,
            "downloads": found.downloads, "private": found.private, "gated": "auto" if found.gated else False,
        }  # fmt: skip

    def model(self, owner: str, name: str, *rest: str) -> None:
        if rest and rest[0] != "revision":
            return
        sha, files = self.commit(f"{owner}/{name}", "/".join(rest[1:]) or "main")
        self.answer(200, self.info(f"{owner}/{name}", sha, files, "blobs" in self.query))

    def models(self, *rest: str) -> None:
        if rest:
            return
        found = []
        for name, repo in self.hub.repos.items():
            if "main" not in repo.refs or (repo.private and not self.signed_in):
                continue
            info = self.info(name, *self.commit(name, "main"))
            if set(self.query.get("filter", [])) <= set(info["tags"]):
                author, search = self.query.get("author", [""])[0], self.query.get("search", [""])[0]
                if name.startswith(f"{author}/" if author else "") and search in name:
                    found.append(info)
        found.sort(key=lambda info: -info["downloads"])
        self.answer(200, found[: int(self.query.get("limit", ["1000"])[0])])

    def discussions(self, owner: str, name: str) -> None:
        found, asked = self.repo(f"{owner}/{name}"), {key: value[0] for key, value in self.query.items()}
        listed = [
            {
                "title": request["title"], "num": request["num"], "author": {"name": request["author"]},
                "createdAt": "2023-01-01T00:00:00.000Z", "status": request["status"], "isPullRequest": True,
                "repo": {"name": f"{owner}/{name}", "type": "model"},
            }
            for request in reversed(found.requests)
            if asked.get("author") in (None, request["author"]) and asked.get("status") in (None, request["status"])
        ]  # fmt: skip
        start = 2 * int(asked.get("p", 0))  # pages of two
        self.answer(200, {"discussions": listed[start : start + 2], "count": len(listed), "start": start})

    def commits(self, owner: str, name: str, revision: str) -> None:
        sha, _ = self.commit(f"{owner}/{name}", revision)
        parents, chain = self.hub.repos[f"{owner}/{name}"].parents, [sha]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
        self.answer(
            200,
            [
                {"id": sha, "title": "", "message": "", "authors": [], "date": "2023-01-01T00:00:00.000Z"}
                for sha in chain
            ],
        )

    def tree(self, owner: str, name: str, revision: str, *rest: str) -> None:
        _, files = self.commit(f"{owner}/{name}", revision)
        entries = []
        for path, content in sorted(files.items()):
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
            if is_lfs(path):
                entry["lfs"] = {"oid": oid(path, content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.answer(200, entries)

    def resolve(self, owner: str, name: str, revision: str, *path: str) -> None:
        repo, file = f"{owner}/{name}", "/".join(path)
        sha, files = self.commit(repo, revision)
        if self.hub.repos[repo].gated:
            self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo", "Access is restricted")
        if file not in files:
            self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content = files[file]
        if is_lfs(file):
            key = oid(file, content)
            self.answer(302, b"", Location=f"{self.elsewhere}/cdn/{key}", X_Repo_Commit=sha, X_Linked_ETag=f'"{key}"',
                        X_Linked_Size=str(len(content)), ETag=f'"{key}"')  # fmt: skip
        self.send_range(content, ETag=f'"{git_oid(content)}"', X_Repo_Commit=sha)

    def cdn(self, key: str) -> None:
        if self.command == "GET" and "Range" not in self.headers:
            self.hub.whole_files.append(key)
        elif self.command == "GET":
            self.hub.ranges.append(int(re.match(r"bytes=(\d+)", self.headers["Range"])[1]))
        self.send_range(self.hub.objects[key], ETag=f'"{key}"')

    def send_range(self, content: bytes, **headers: str) -> None:
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers["Accept_Ranges"] = "bytes"
        if not wanted:
            self.answer(200, content, **headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if start > end:
            self.answer(416, b"", Content_Range=f"bytes */{len(content)}")
        self.answer(206, content[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(content)}", **headers)

    # Writing

    def must_sign_in(self) -> None:
        if not self.signed_in:
            self.answer(401, {"error": "Invalid credentials in Authorization header"})

    def whoami(self) -> None:
        self.must_sign_in()
        self.answer(200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}})

    def validate(self) -> None:
        try:
            front_matter(json.loads(self.body())["content"].encode())
        except yaml.YAMLError as error:
            self.answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        self.answer(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        self.must_sign_in()
        request = json.loads(self.body())
        name = f"{request.get('organization') or 'me'}/{request['name']}"
        if not name.startswith("me/"):
            self.answer(403, {"error": f"You don't have the rights to create a model under {name.split('/')[0]}"})
        if name in self.hub.repos:
            self.answer(409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"})
        private = request.get("private") or request.get("visibility") == "private"
        self.hub.repos[name] = Repo(private=bool(private))
        self.answer(200, {"url": f"{self.address}/{name}", "name": name, "id": name})

    def branch(self, owner: str, name: str, *branch: str) -> None:
        self.must_sign_in()
        found = self.repo(f"{owner}/{name}")
        if "/".join(branch) in found.refs:
            self.answer(409, {"error": "Reference already exists"})
        start = json.loads(self.body() or b"{}").get("startingPoint") or "main"
        found.refs["/".join(branch)] = found.sha(start) or found.write({})
        self.answer(201, {})

    def tag(self, owner: str, name: str, revision: str) -> None:
        self.must_sign_in()
        found = self.repo(f"{owner}/{name}")
        found.refs[json.loads(self.body())["tag"]] = found.sha(revision)
        self.answer(201, {})

    def preupload(self, owner: str, name: str, revision: str) -> None:
        self.must_sign_in()
        _, files = self.commit(f"{owner}/{name}", revision)
        answer = []
        for file in json.loads(self.body())["files"]:
            path = file["path"]
            entry = {"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False}
            if path in files:
                entry["oid"] = oid(path, files[path])
            answer.append(entry)
        self.answer(200, {"files": answer})

    def lfs_batch(self, owner: str, name: str, *rest: str) -> None:
        self.must_sign_in()
        repo, answer = f"{owner}/{name.removesuffix('.git')}", []
        for wanted in json.loads(self.body())["objects"]:
            entry = dict(wanted)
            if wanted["oid"] not in self.hub.objects:
                target = f"{self.address}/lfs/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": target}, "verify": {"href": f"{self.address}/{repo}/verify"}}
            answer.append(entry)
        self.answer(200, {"transfer": "basic", "objects": answer})

    def lfs_put(self, key: str) -> None:
        if hashlib.sha256(self.body()).hexdigest() != key:
            self.answer(400, {"error": "content does not match its checksum"})
        self.hub.objects[key] = self.body()
        self.answer(200)

    def verify(self, owner: str, name: str, *rest: str) -> None:
        known = json.loads(self.body())["oid"] in self.hub.objects
        self.answer(200 if known else 404, {})

    def post_commit(self, owner: str, name: str, revision: str) -> None:
        self.must_sign_in()
        repo = f"{owner}/{name}"
        if not repo.startswith("me/") and "create_pr" not in self.query:
            self.answer(403, {"error": "You don't have write access to this repo"})
        _, files = self.commit(repo, revision)
        files = dict(files)
        for line in self.body().decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.hub.objects:
                        self.answer(400, {"error": f"LFS pointer to an object that was never uploaded: {value}"})
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        found = self.hub.repos[repo]
        answer = {"success": True}
        if "create_pr" in self.query:
            revision = f"refs/pr/{1 + sum(ref.startswith('refs/pr/') for ref in found.refs)}"
            answer["pullRequestUrl"] = f"{self.address}/{repo}/discussions/{revision.split('/')[-1]}"
        sha = found.write(files, revision)
        self.answer(200, {**answer, "commitUrl": f"{self.address}/{repo}/commit/{sha}", "commitOid": sha})

    # Collections

    def new_collection(self, *rest: str) -> None:
        self.must_sign_in()
        request = json.loads(self.body())
        slug = f"{request['namespace']}/{re.sub('[^a-z0-9]+', '-', request['title'].lower())}-{'0' * 24}"
        if rest:
            slug = "/".join(rest[:2])
        if slug in self.hub.collections:
            self.answer(409, {"error": "exists", "slug": slug})
        self.hub.collections[slug] = {
            "slug": slug, "title": request["title"], "description": request.get("description"), "items": [],
            "owner": {"name": "me"}, "lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "theme": "blue",
            "private": request.get("private", False), "upvotes": 0, "gating": False,
        }  # fmt: skip
        self.answer(200, self.hub.collections[slug])

    def add_item(self, owner: str, name: str) -> None:
        self.must_sign_in()
        found, request = self.hub.collections[f"{owner}/{name}"], json.loads(self.body())
        if request["item"]["id"] not in self.hub.repos:
            self.answer(404, {"error": "no such repo"})
        item = {"type": "model", "id": request["item"]["id"], "_id": str(len(found["items"])), "position": 0}
        if any(known["id"] == item["id"] for known in found["items"]):
            self.answer(409, {"error": "already in the collection"})
        found["items"].append({**item, "note": {"text": request.get("note") or ""}})
        self.answer(200, found)

    def change_item(self, owner: str, name: str, place: str) -> None:
        self.must_sign_in()
        found = self.hub.collections[f"{owner}/{name}"]
        found["items"][int(place)]["note"] = {"text": json.loads(self.body())["note"]}
        self.answer(200, found)

    def collection(self, owner: str, name: str) -> None:
        self.answer(200, self.hub.collections[f"{owner}/{name}"])


ROUTES: list[tuple[str, tuple[str, ...], Callable]] = [
    ("GET", ("api", "whoami-v2"), Handler.whoami),
    ("POST", ("api", "validate-yaml"), Handler.validate),
    ("POST", ("api", "repos", "create"), Handler.create),
    ("POST", ("api", "collections", "*", "*", "items"), Handler.add_item),
    ("PATCH", ("api", "collections", "*", "*", "items", "*"), Handler.change_item),
    ("POST", ("api", "collections"), Handler.new_collection),
    ("GET", ("api", "collections", "*", "*"), Handler.collection),
    ("GET", ("api", "models", "*", "*", "discussions"), Handler.discussions),
    ("GET", ("api", "models", "*", "*", "commits", "*"), Handler.commits),
    ("GET", ("api", "models", "*", "*", "tree", "*"), Handler.tree),
    ("GET", ("api", "models", "*", "*"), Handler.model),
    ("GET", ("api", "models"), Handler.models),
    ("POST", ("api", "models", "*", "*", "branch"), Handler.branch),
    ("POST", ("api", "models", "*", "*", "tag", "*"), Handler.tag),
    ("POST", ("api", "models", "*", "*", "preupload", "*"), Handler.preupload),
    ("POST", ("api", "models", "*", "*", "commit", "*"), Handler.post_commit),
    ("POST", ("*", "*", "info", "lfs", "objects", "batch"), Handler.lfs_batch),
    ("POST", ("*", "*", "verify"), Handler.verify),
    ("PUT", ("lfs", "*"), Handler.lfs_put),
    ("GET", ("cdn", "*"), Handler.cdn),
    ("GET", ("*", "*", "resolve", "*"), Handler.resolve),
]


@contextmanager
def serve() -> Iterator[tuple[str, LocalHub]]:
    """Run a Hub on a free port; gives its address and itself."""
    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        server.server_close()
