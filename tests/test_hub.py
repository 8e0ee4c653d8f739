"""The Hugging Face hub by name: the real client, against a server on this machine that answers as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy

from minivit.config import ViTConfig
from minivit.errors import FileError, MinivitError
from minivit.weights import preprocessor, read_folder, read_preprocessor
from minivit.weights.hub import find

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "hf_tiny"
CONFIG = (GOLDEN / "config.json").read_bytes()
WEIGHTS = (GOLDEN / "model.safetensors").read_bytes()
PREPROCESSOR = json.dumps(preprocessor(12, 0.5, 0.25, 3)).encode()
COMMITS = {"main": "a" * 40, "v1": "b" * 40}

# finds each model that is named, and prints its folder or the error
CLIENT = """
import json, sys
from minivit.weights import read_folder
from minivit.errors import MinivitError
from minivit.weights.hub import find
for name in sys.argv[1:]:
    try:
        folder = find(name)
        read_folder(folder)
        print(json.dumps(str(folder)))
    except MinivitError as error:
        print(json.dumps(f"{type(error).__name__} {error}"))
"""


def shards():
    """The golden model in two shards and their index."""
    tensors = safetensors.numpy.load(WEIGHTS)
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    files = {
        file: safetensors.numpy.save({name: tensors[name] for name in tensors if weight_map[name] == file})
        for file in weight_map.values()
    }
    return files | {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


REPOSITORIES = {
    "tiny/vit": {
        "README.md": b"# Tiny",
        "config.json": CONFIG,
        "model.safetensors": WEIGHTS,
        "onnx/config.json": b"{}",
        "preprocessor_config.json": PREPROCESSOR,
        "pytorch_model.bin": b"\x80\x02",
        "tf_model.h5": b"\x89HDF",
    },
    "tiny/sharded": {"config.json": CONFIG, **shards()},
    "tiny/pickled": {"config.json": CONFIG, "pytorch_model.bin": b"\x80\x02"},
    "tiny/gated": {"config.json": CONFIG, "model.safetensors": WEIGHTS},
    "tiny/empty": {"README.md": b"# Nothing"},
}


class Server(ThreadingHTTPServer):
    """A server on a free port of the loopback address; it counts what it is asked for."""

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked = answer, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Sends what server.answer(path) gives: (status, headers, body)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        status, headers, body = self.server.answer(path)
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        """Nothing on the console."""


class Hub:
    """The hub and, at another address, the store from which it serves large files."""

    def __init__(self):
        self.hub, self.store = Server(self.answer), Server(self.stored)
        self.running = True

    def stop(self):
        if self.running:
            self.hub.stop()
            self.store.stop()
        self.running = False

    def answer(self, path):
        """/api/models/OWNER/MODEL/revision/NAME, /api/models/OWNER/MODEL/tree/COMMIT, /OWNER/MODEL/resolve/..."""
        parts = path.removeprefix("/api/models").split("/")
        repository, kind, revision, file = "/".join(parts[1:3]), parts[3], parts[4], "/".join(parts[5:])
        files = REPOSITORIES.get(repository)
        if repository == "tiny/broken":
            return 500, {}, b""
        if repository == "tiny/secret":
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
        if files is None:
            return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self.json({"_id": "1", "id": repository, "modelId": repository, "sha": commit, "siblings": siblings})
        if kind == "tree":
            return self.json([self.entry(name, content) for name, content in files.items()])
        if repository == "tiny/gated":
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}, b""
        entry, headers = self.entry(file, files[file]), {"X-Repo-Commit": commit}
        if "lfs" not in entry:
            return 200, headers | {"ETag": f'"{entry["oid"]}"'}, files[file]
        headers |= {"X-Linked-ETag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": entry["size"]}
        return 302, headers | {"Location": f"{self.store.url}/{repository}/{file}"}, b"moved"

    def stored(self, path):
        _, owner, model, file = path.split("/")
        return 200, {}, REPOSITORIES[f"{owner}/{model}"][file]

    @staticmethod
    def json(value):
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    @staticmethod
    def entry(name, content):
        entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith((".safetensors", ".bin", ".h5")):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """client(names, **variables): {name: folder or error} as a new process sees it, all with one cache."""
    home = tmp_path_factory.mktemp("home")
    settings = ("HF_", "HUGGING", "TRANSFORMERS_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(settings) and not k.lower().endswith("_proxy")}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.hub.url}

    def run(*names, **variables):
        what = [sys.executable, "-c", CLIENT, *names]
        done = subprocess.run(what, cwd=ROOT, env=env | variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))

    return run


@pytest.fixture(scope="module")
def online(client):
    """What the client finds while the hub answers."""
    return client(
        "tiny/vit",
        "tiny/vit@v1",
        "tiny/vit@v9",
        "tiny/sharded",
        "tiny/pickled",
        "tiny/gated",
        "tiny/empty",
        "tiny/broken",
        "tiny/secret",
        "tiny/nowhere",
        "tiny/vit--x",
    )


def assert_golden(folder):
    config, tensors = read_folder(folder)
    assert config == json.loads(CONFIG)
    expected = safetensors.numpy.load(WEIGHTS)
    assert set(tensors) == set(expected)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, expected[name])


# ---- from the hub


def test_a_model_is_found_by_its_name(online):
    folder = Path(online["tiny/vit"])
    assert folder.name == COMMITS["main"]
    assert_golden(folder)
    assert read_preprocessor(folder) == json.loads(PREPROCESSOR)


def test_only_the_files_of_a_model_are_downloaded(online, hub):
    folder = Path(online["tiny/vit"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    asked = " ".join(hub.hub.asked + hub.store.asked)
    assert "config.json" in asked and "model.safetensors" in asked
    assert not [name for name in ("README", "onnx", ".bin", ".h5") if name in asked]


def test_a_revision_is_found(online):
    assert Path(online["tiny/vit@v1"]).name == COMMITS["v1"]
    assert_golden(online["tiny/vit@v1"])


def test_shards_are_found(online):
    assert_golden(online["tiny/sharded"])


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tiny/nowhere", "there is no such folder, and no such model on http://127", "check the spelling; if private"),
        ("tiny/vit--x", "there is no such folder, and no such model on http://127", "check the spelling; if private"),
        ("tiny/gated", "is gated on http://127", "ask: log in on http://127"),
        ("tiny/vit@v9", "the model has no revision 'v9'", "take a branch, tag or commit of http://127"),
        ("tiny/empty", "has none of a model's files on http://127", ""),
        ("tiny/broken", "there is no such folder, and no such model in the cache; http://127", "look at the network"),
        ("tiny/secret", "cannot be downloaded from http://127", "for 401 or 403 log in on http://127"),
    ],
)
def test_what_the_hub_does_not_give(online, name, message, hint):
    assert online[name].startswith(f"FileError {name}: {message}")
    assert hint in online[name].partition("hint: ")[2]
    assert len(online[name].splitlines()) <= 2


def test_a_repository_with_a_pickle_only_is_refused(online):
    assert online["tiny/pickled"].startswith("FileError")
    assert "has no model.safetensors.\n  rule: " in online["tiny/pickled"] and "a pickle" in online["tiny/pickled"]


# ---- without the hub


def test_a_model_in_the_cache_needs_no_hub(online, client, hub):
    hub.stop()
    cached = {name: online[name] for name in ("tiny/vit", "tiny/vit@v1", "tiny/sharded")}
    found = client(*cached, "tiny/new", HF_HUB_OFFLINE="1")
    new = found.pop("tiny/new")
    assert found == cached
    assert new.startswith("FileError tiny/new: there is no such folder, and no such model in the cache")
    assert "hint: check the spelling; unset HF_HUB_OFFLINE" in new

    found = client("tiny/vit", "tiny/new")
    assert found["tiny/vit"] == online["tiny/vit"]
    assert found["tiny/new"].startswith("FileError tiny/new: there is no such folder, and no such model in the cache")
    assert "hint: check the spelling; look at the network, and at HF_ENDPOINT" in found["tiny/new"]


def test_a_config_is_downloaded_without_the_weights(monkeypatch):
    def download(repository, revision, allow_patterns):
        assert (repository, revision, allow_patterns) == ("tiny/vit", "v1", ["config.json"])
        return GOLDEN

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    config = ViTConfig.from_pretrained("tiny/vit@v1", patch_size=6)
    assert config == ViTConfig.from_dict(json.loads(CONFIG), patch_size=6)


def test_what_goes_wrong_in_a_download_is_one_message(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(FileError, match=r"tiny/vit: cannot be downloaded from http.*No space left[\s\S]*hint: try"):
        find("tiny/vit")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MinivitError, match=r'runs/digitz: there is no such folder[\s\S]*pip install "minivit\[hub\]"'):
        find("runs/digitz")


# ---- folders


def test_a_folder_is_itself(tmp_path, monkeypatch):
    (tmp_path / "tiny" / "vit").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path, str(tmp_path), "tiny/vit", Path("tiny")):
        assert find(name) == Path(name)


@pytest.mark.parametrize(
    "name", ["numbers", "", "a/b/c", "/a/b", "../a", "./a", "a/", "a b/c", "\0/a", Path("tiny/vit")]
)
def test_what_is_no_name_of_the_hub_is_a_folder_that_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileError, match=r"there is no such folder\.\n  hint: give the folder .*google/vit"):
        find(name)


def test_a_file_is_no_folder():
    with pytest.raises(FileError, match=r"config\.json: this is a file, not a folder"):
        find(GOLDEN / "config.json")
