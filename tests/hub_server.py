"""A stand-in of the Hugging Face hub: as much of its HTTP API as pushing and pulling take, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Tree = dict[str, bytes]
_LARGE = (".safetensors", ".png", ".tar")  # what goes the way of large files


class Hub:
    """What is on it.

    Attributes:
        url: Where it listens.
        repositories: Kind and id to the commits, oldest first: id of the commit, and its files.
        created: What was asked for when repositories were made.
        breaks_at: A part of the way that it refuses: "lfs" or "commit".
        lost: A file that it does not give.
        sent: Files that it gave.
    """

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[tuple[str, str], list[tuple[str, Tree]]] = {}
        self.created: list[dict[str, Any]] = []
        self.large: dict[str, bytes] = {}
        self.breaks_at: str | None = None
        self.lost: str | None = None
        self.sent: list[str] = []

    def tree(self, kind: str, name: str, revision: str = "main") -> Tree:
        """The files of a commit."""
        commits = self.repositories[kind, name]
        return commits[-1][1] if revision == "main" else dict(commits)[revision]

    def commit(self, kind: str, name: str, lines: list[dict[str, Any]]) -> str:
        """A new commit of what an NDJSON body says."""
        files = dict(self.tree(kind, name))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(repr(sorted(files.items())).encode() + bytes(len(lines))).hexdigest()
        self.repositories[kind, name].append((oid, files))
        return oid


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        hub = self.hub
        if path == "/api/repos/create":
            asked = json.loads(body)
            key = asked.get("type") or "model", f"{asked['organization']}/{asked['name']}"
            url = f"{hub.url}/{'datasets/' if key[0] == 'dataset' else ''}{key[1]}"
            there = key in hub.repositories
            if not there:
                hub.created.append(asked)
                hub.repositories[key] = [("0" * 40, {".gitattributes": b""})]
            return self._json({"url": url}, 409 if there else 200)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+?/.+?)/preupload/main", path):
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+?/.+?)/commit/main", path):
            if hub.breaks_at == "commit":
                return self._json({"error": "no room left"}, 403)
            oid = hub.commit(found[1], found[2], [json.loads(line) for line in body.splitlines()])
            return self._json({"commitUrl": f"{hub.url}/{found[2]}/commit/{oid}", "commitOid": oid})
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+?/.+?)/paths-info/(\w+)", path):
            tree, wanted = hub.tree(*found.groups()), parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
            return self._json([_entry(name, tree[name]) for name in wanted if name in tree])
        return self._json({"error": f"unknown: {path}"}, 404)

    def do_PUT(self) -> None:
        content = self._body()
        if self.hub.breaks_at == "lfs":
            return self._json({"error": "no room left"}, 403)
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.large[oid] = content
        return self._json({})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/tree/(\w+)(?:/(.+))?", path):
                deep = "recursive=true" in self.path.lower()
                return self._json(_listed(self.hub.tree(*found.groups()[:3]), found[4] or "", deep))
            if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/revision/(\w+)", path):
                return self._json(
                    {
                        "id": found[2],
                        "sha": found[3],
                        "siblings": [{"rfilename": name} for name in self.hub.tree(*found.groups())],
                    }
                )
            if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
                kind = "dataset" if found[1] else "model"
                if self.command == "GET":
                    if found[4] == self.hub.lost:
                        return self._json({"error": "no such file"}, 404)
                    self.hub.sent.append(found[4])
                return self._file(found[3], self.hub.tree(kind, found[2], found[3])[found[4]])
        except KeyError:
            pass
        return self._json({"error": "not found"}, 404)

    do_HEAD = do_GET  # noqa: N815  its name is given

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []  # in pieces, as large files come
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _file(self, commit: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._answer(content, 200, {"X-Repo-Commit": commit, "ETag": f'"{digest}"'})

    def _json(self, content: Any, status: int = 200) -> None:
        self._answer(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _listed(tree: Tree, folder: str, deep: bool) -> list[dict[str, Any]]:
    """The files below a folder, or in it, and the folders there."""
    start = f"{folder}/" if folder else ""
    inside = [name.removeprefix(start) for name in tree if name.startswith(start)]
    if not inside:
        raise KeyError(folder)
    folders = {parent.as_posix() for name in inside for parent in PurePosixPath(name).parents} - {"."}
    shown = [name for name in (*inside, *sorted(folders)) if deep or "/" not in name]
    return [
        {"type": "directory", "path": start + name, "size": 0, "oid": "0" * 40}
        if name in folders
        else _entry(start + name, tree[start + name])
        for name in shown
    ]


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": blob}


@contextmanager
def served(monkeypatch: pytest.MonkeyPatch, cache: Any) -> Iterator[Hub]:
    """A hub on this machine, to which the real client is sent."""
    import huggingface_hub
    from huggingface_hub import constants

    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, value in {
        "ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    huggingface_hub.close_session()  # it was opened for the network that there is not
    try:
        yield hub
    finally:
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()
        server.server_close()
