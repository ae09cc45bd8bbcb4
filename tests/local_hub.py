"""A small Hub on this machine that speaks the client's wire protocol: repos in folders, commits by content."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class LocalHub:
    """Model repos under `root/owner/name`; private ones need the token.

    Args:
        root: Folder of repos.
        token: That may read private repos and write.
    """

    def __init__(self, root: Path, token: str = "hf_test") -> None:
        self.root = root
        self.token = token
        self.private: set[str] = set()
        self.log: list[str] = []

    def files(self, repo: str) -> dict[str, bytes]:
        folder = self.root / repo
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }

    def commit(self, repo: str) -> str:
        digest = hashlib.sha1()
        for name, content in self.files(repo).items():
            digest.update(name.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: object = b"", **headers: str) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def refuse(self) -> None:
            self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        @property
        def signed_in(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {hub.token}"

        def readable(self, repo: str) -> bool:
            return (hub.root / repo).is_dir() and (repo not in hub.private or self.signed_in)

        def do_GET(self) -> None:  # noqa: N802
            path = unquote(urlsplit(self.path).path)
            hub.log.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"] and len(parts) >= 4:
                repo, rest = "/".join(parts[2:4]), parts[4:]
                if not self.readable(repo):
                    return self.refuse()
                sha = hub.commit(repo)
                if rest[:1] == ["tree"]:
                    tree = [
                        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for name, content in hub.files(repo).items()
                    ]
                    return self.answer(200, tree)
                if rest[:1] == ["revision"] and rest[1] not in ("main", sha):
                    return self.answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
                siblings = [{"rfilename": name} for name in hub.files(repo)]
                return self.answer(200, {"id": repo, "modelId": repo, "sha": sha, "siblings": siblings, "tags": []})
            if len(parts) >= 5 and parts[2] == "resolve":
                repo, name = "/".join(parts[:2]), "/".join(parts[4:])
                if not self.readable(repo):
                    return self.refuse()
                content = hub.files(repo).get(name)
                if content is None:
                    return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=hub.commit(repo))
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self.answer(200, content, ETag=etag, X_Repo_Commit=hub.commit(repo), Accept_Ranges="none")
            return self.answer(404, {"error": path})

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:  # noqa: N802
            path = unquote(urlsplit(self.path).path)
            hub.log.append(f"POST {path}")
            parts, body = path.strip("/").split("/"), self.body()
            if path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if not self.signed_in:
                return self.answer(401, {"error": "Invalid credentials"})
            if path == "/api/repos/create":
                request = json.loads(body)
                repo = f"{request.get('organization') or 'me'}/{request['name'].split('/')[-1]}"
                if (hub.root / repo).is_dir():
                    return self.answer(409, {"error": "exists", "url": f"/{repo}"})
                (hub.root / repo).mkdir(parents=True)
                if request.get("private") or request.get("visibility") == "private":
                    hub.private.add(repo)
                return self.answer(200, {"url": f"http://{self.headers['Host']}/{repo}", "name": repo, "id": repo})
            repo = "/".join(parts[2:4])
            if parts[4] == "preupload":
                files = json.loads(body)["files"]
                answer = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                return self.answer(200, {"files": answer})
            if parts[4] == "commit":
                for line in body.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        target = hub.root / repo / entry["value"]["path"]
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(base64.b64decode(entry["value"]["content"]))
                sha = hub.commit(repo)
                address = f"http://{self.headers['Host']}/{repo}/commit/{sha}"
                return self.answer(200, {"commitUrl": address, "commitOid": sha, "success": True})
            return self.answer(404, {"error": path})

    return Handler


@contextmanager
def serve(root: Path) -> Iterator[tuple[str, LocalHub]]:
    """Run a Hub on a free port; gives its address and itself."""
    hub = LocalHub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        server.server_close()
