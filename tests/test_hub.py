"""Models by their names on the Hugging Face Hub: over real HTTP, from a small Hub of our own."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session, get_session
from loading import assert_same_weights, into, weights_of

import xray
from xray.checkpoints import check_name, export_diffusers, form_of, hub, outline
from xray.checkpoints.fetching import ensure

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHOLE, VAE = "someone/tiny-diffusion", "someone/tiny-vae"


class Handler(BaseHTTPRequestHandler):
    """Of the Hub's addresses those that its library asks for; keeps which files were sent."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        for name, files in self.server.models.items():
            if path.startswith(f"api/models/{name}/revision/"):
                return self.say({"id": name, "sha": COMMIT, "siblings": []})
            if path.startswith(f"api/models/{name}/tree/"):
                return self.say(
                    [
                        {"type": "file", "path": file, "size": len(data), "oid": etag(data)}
                        for file, data in files.items()
                    ]
                )
            file = path.removeprefix(f"{name}/resolve/{COMMIT}/")
            if file in files:
                if self.command == "GET":
                    self.server.sent.append(f"{name}/{file}")
                return self.reply(files[file], {"ETag": f'"{etag(files[file])}"'})
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def say(self, data):
        self.reply(json.dumps(data).encode(), {"Content-Type": "application/json"})

    def reply(self, content, headers):
        self.send_response(200)
        for key, value in {**headers, "X-Repo-Commit": COMMIT}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


def etag(data):
    return hashlib.sha1(data).hexdigest()


def files_of(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    export_diffusers(model, folder, shard_bytes=400_000)
    for path in list(folder.glob("*/*.safetensors")):  # what is there besides, as on the real Hub
        for other in (f"{path.stem}.fp16.safetensors", f"{path.stem}.bin"):
            path.with_name(other).write_bytes(b"not wanted")
    for other in ("safety_checker/model.safetensors", "tokenizer/run.py", "model.ckpt"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(b"not wanted")
    return folder


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.models, server.sent = {WHOLE: files_of(folder), VAE: files_of(folder / "vae")}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_of_the_hub_is_fetched_only_if_asked_and_then_is_here(server, model, spare, capsys):
    assert form_of(WHOLE) is None
    check_name(WHOLE)  # it may be one; and yet nothing is downloaded unasked
    for load in (xray.load, outline, lambda name: ensure(name, download=False)):
        with pytest.raises(ValueError, match="nothing is on this machine.*download=True"):
            load(WHOLE)
    with pytest.raises(ValueError, match="nothing is on this machine"):
        xray.load("mini", autoencoder=VAE)
    assert not server.sent
    with into(spare):
        loaded = xray.load(WHOLE, download=True)
    assert loaded.name == WHOLE and COMMIT in loaded.sources["unet"]["source"]
    assert_same_weights(weights_of(loaded), weights_of(model))
    assert f"{server.server_port}/{WHOLE}, which tells its licence" in capsys.readouterr().err
    assert any("-of-" in file for file in server.sent)
    unwanted = ("fp16", ".bin", ".py", ".ckpt", "safety_checker")
    assert not [file for file in server.sent if any(part in file for part in unwanted)]

    server.sent.clear()
    with into(spare):
        again = xray.load(WHOLE)
    assert not server.sent and again.digest == loaded.digest
    assert_same_weights(weights_of(again), weights_of(model))


@pytest.mark.parametrize("name", [WHOLE, VAE])
def test_one_component_is_fetched_alone(server, folder, model, spare, name):
    with into(spare):
        loaded = xray.load(folder, autoencoder=name, download=True)
    assert_same_weights(weights_of(loaded), weights_of(model))
    assert COMMIT in loaded.sources["autoencoder"]["source"]
    assert loaded.sources["unet"]["source"] == str(folder / "unet")
    assert server.sent and not [file for file in server.sent if "unet" in file or "text" in file]
    if name == WHOLE:
        with pytest.raises(ValueError, match="without text_encoder, unet; fetch it whole, .*Hub"):
            xray.load(WHOLE)


def test_a_variant_is_fetched_alone(server):
    hub.fetch(WHOLE, ["autoencoder"], variant="fp16", say=lambda line: None)
    weights = {file for file in server.sent if "diffusion_pytorch_model" in file}
    assert weights and all("fp16" in file for file in weights)


def test_what_the_hub_does_not_have_is_said_with_its_address(server):
    with pytest.raises(ConnectionError, match="someone/else cannot be fetched.*Is the name right"):
        xray.load("someone/else", download=True)
    for name in ("someone/else.git", "some--one/else"):
        with pytest.raises(ConnectionError, match=f"{name} cannot be fetched.*Is the name right"):
            xray.load(name, download=True)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=f"{WHOLE} cannot be fetched"):
        xray.load(WHOLE, download=True)


def test_a_client_that_another_thread_closed_is_a_lost_connection(server):
    """Threads share one, and the library closes it when one of them finds no connection."""
    get_session().close()
    try:
        with pytest.raises(ConnectionError, match=f"{WHOLE} cannot be fetched .*has been closed"):
            xray.load(WHOLE, download=True)
    finally:
        close_session()


def test_a_path_that_exists_is_no_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_id("runs/model") and not hub.is_id("mini") and not hub.is_id("a/b/c")
    Path("runs/model").mkdir(parents=True)
    assert not hub.is_id("runs/model") and not hub.is_id("../model") and not hub.is_id("/a/b")
