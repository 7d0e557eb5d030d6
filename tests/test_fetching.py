"""Weights fetched over real HTTP, from a server that breaks off, lies, or has nothing."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from xray import cli, script
from xray.checkpoints import fetching, registry
from xray.checkpoints.registry import File, Licence, Published

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SIZE = len(CONTENT)
CHUNK = 1 << 16
LICENCE = Licence("Test RAIL", "https://example.org/licence", "Do no harm.")


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content` as `server.mood` has it, and keeps what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        server.asked.append(start)
        mood = server.moods.pop(0) if server.moods else "well"
        if mood in (404, 403, 503):
            return self.send_error(mood)
        content = server.content
        if mood == "html":
            content, start = b"<!doctype html><p>Log in</p>", 0
        if start and start >= len(content):
            return self.send_error(416)
        if mood == "ignores ranges":
            start = 0
        self.send_response(206 if start else 200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if mood == "breaks off":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return self.connection.close()
        if mood == "waits half way":
            self.wfile.write(body[: len(body) // 2])
            body = body[len(body) // 2 :]
            server.go_on.wait(60)
        self.wfile.write(body)

    def log_message(self, *args):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError, ValueError):  # the client has gone
            super().handle()


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.moods, server.asked = CONTENT, [], []
    server.go_on = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # Each chunk goes to the file when it is whole; 10 MB would be all of ours.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


def published(server, *, size=SIZE, name="w.h5", sha256=None):
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    file = File(name, url, sha256 or hashlib.sha256(CONTENT).hexdigest(), size, SIZE)
    return Published("sd-test", "a test", LICENCE, {"unet": file})


def whole(model):
    (file,) = model.files.values()
    assert file.path.read_bytes() == CONTENT
    names = {path.name for path in registry.cache().iterdir()}
    assert names - {".lock"} == {file.name}
    return True


# --- as it should go ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_file_is_fetched_once_after_its_licence_is_shown(server, size):
    told = []
    model = published(server, size=size)
    assert model.missing
    fetching.fetch(model, say=told.append)
    assert whole(model) and not model.missing and server.asked == [0]
    text = "\n".join(told)
    assert text.index("Test RAIL") < text.index("1 of 1: w.h5")
    assert "https://example.org/licence" in text and "Do no harm." in text
    assert ("about 3 MB" in text) == (size is None)

    told.clear()
    fetching.fetch(model, say=told.append)
    assert server.asked == [0] and told == [f"sd-test is whole, in {registry.cache()}"]


def test_from_a_mirror_only_the_mirror_is_asked(server):
    model = published(server, name="w.h5")
    elsewhere = Published(
        model.name, model.what, LICENCE,
        {"unet": File("w.h5", "http://127.0.0.1:9/w.h5", model.files["unet"].sha256, None)},
    )  # fmt: skip
    fetching.fetch(elsewhere, f"http://127.0.0.1:{server.server_port}/")
    assert whole(elsewhere) and server.asked == [0]


def test_from_a_folder_nobody_is_asked_and_what_lacks_is_named(server, tmp_path):
    model = published(server)
    other = File("vocab.gz", "http://127.0.0.1:9/vocab.gz", "0" * 64, 5)
    both = Published("sd-test", "a test", LICENCE, {**model.files, "tokenizer": other})
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "w.h5").write_bytes(CONTENT)
    with pytest.raises(ValueError, match=r"disk has no vocab\.gz; without --from"):
        fetching.fetch(both, tmp_path / "disk")
    assert whole(model) and not server.asked
    with pytest.raises(ValueError, match="neither a folder nor an address"):
        fetching.fetch(both, tmp_path / "none")


# --- interrupted and resumed -------------------------------------------------------------------


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_connection_that_breaks_off_is_taken_up_where_it_was(server, size):
    server.moods = ["breaks off", "breaks off"]
    model = published(server, size=size)
    fetching.fetch(model)
    assert whole(model) and len(server.asked) == 3
    assert 0 == server.asked[0] < server.asked[1] < server.asked[2] < SIZE


def test_a_server_that_always_breaks_off_at_once_is_given_up_and_the_part_is_kept(server):
    server.moods = ["breaks off"] + [503]
    model = published(server)
    with pytest.raises(ConnectionError, match="answers 503"):
        fetching.fetch(model)
    part = model.files["unet"].part.read_bytes()
    assert 0 < len(part) < SIZE and part == CONTENT[: len(part)]
    fetching.fetch(model)
    assert whole(model) and server.asked[-1] == len(part)


PROGRAM = """
import sys
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
import test_fetching as t
from types import SimpleNamespace
from xray import cli, script
from xray.checkpoints import registry
model = t.published(SimpleNamespace(server_port=int(sys.argv[1])))
registry.registered = lambda: {model.name: model}
sys.argv[1:] = ["weights", "fetch", model.name]
cli.main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_killed_fetch_is_taken_up_by_the_next(server, number, status):
    server.moods = ["waits half way"]
    model = published(server)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(server.server_port)],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background ignore Ctrl-C, which the child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    part = model.files["unet"].part
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status
    kept = part.stat().st_size
    assert 0 < kept < SIZE
    if number == signal.SIGINT:
        assert "interrupted" in said and "of w.h5 (3 MB) is kept: fetch again" in said
    fetching.fetch(model)
    assert whole(model) and server.asked == [0, kept]


def test_a_server_without_ranges_begins_again(server):
    model = published(server)
    registry.cache().mkdir()
    model.files["unet"].part.write_bytes(CONTENT[:100_000])
    server.moods = ["ignores ranges"]
    fetching.fetch(model)
    assert whole(model) and server.asked == [100_000]


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_part_that_was_whole_only_needs_its_name(server, size):
    model = published(server, size=size)
    registry.cache().mkdir()
    model.files["unet"].part.write_bytes(CONTENT)
    fetching.fetch(model)
    assert whole(model)
    assert server.asked == ([] if size else [SIZE])


# --- what is not what was published ------------------------------------------------------------


def rejected(server, match, **facts):
    model = published(server, **facts)
    with pytest.raises(ValueError, match=match):
        fetching.fetch(model)
    assert {path.name for path in registry.cache().iterdir()} <= {".lock"}
    assert model.missing


def test_a_wrong_digest_is_refused_and_nothing_is_left(server):
    rejected(server, r"w\.h5: what came \(3 MB\) is not what was published.*0000", sha256="0" * 64)


def test_a_web_page_in_its_place_is_refused(server):
    server.moods = ["html"]
    rejected(server, r"what came \(28 B\) is not what was published", size=None)


def test_a_web_page_in_place_of_a_file_of_known_size_is_not_kept(server):
    server.moods = ["html"]
    model = published(server)
    with pytest.raises(ConnectionError, match=r"w\.h5: what came is a web page"):
        fetching.fetch(model)
    assert not model.files["unet"].part.exists()
    fetching.fetch(model)
    assert whole(model) and server.asked[-1] == 0


def test_what_is_damaged_here_is_fetched_again(server):
    model, told = published(server), []
    fetching.fetch(model)
    path = model.files["unet"].path
    path.write_bytes(bytes(SIZE))
    assert not model.missing  # by its size
    fetching.fetch(model, say=told.append)
    assert told[0] == "w.h5 is here, but damaged: it is fetched again" and whole(model)


def test_a_truncated_file_of_known_size_is_refused(server):
    server.content = CONTENT[:1_000_000]
    model = published(server)
    with pytest.raises(ConnectionError, match=r"1 MB came where w\.h5 \(3 MB\) was to.*--from"):
        fetching.fetch(model)
    assert model.missing and not model.files["unet"].path.exists()
    server.content = CONTENT  # the mirror has been mended
    fetching.fetch(model)
    assert whole(model) and server.asked[-1] == 1_000_000


def test_a_truncated_file_of_unknown_size_is_refused(server):
    server.content = CONTENT[:1_000_000]
    rejected(server, r"what came \(1 MB\) is not", size=None)


def test_a_part_of_another_file_is_found_out(server):
    model = published(server)
    registry.cache().mkdir()
    model.files["unet"].part.write_bytes(b"\0" * 1000)
    with pytest.raises(ValueError, match="not what was published"):
        fetching.fetch(model)
    fetching.fetch(model)
    assert whole(model) and server.asked == [1000, 0]


def test_a_longer_part_is_not_gone_on_with(server):
    model = published(server)
    registry.cache().mkdir()
    model.files["unet"].part.write_bytes(CONTENT + b"more")
    fetching.fetch(model)
    assert whole(model) and server.asked == [0]


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_refusal_is_said_with_address_and_way_out(server, status):
    server.moods = [status]
    model = published(server)
    with pytest.raises(ConnectionError, match=rf"{model.files['unet'].url}.*{status}.*--from"):
        fetching.fetch(model)
    assert not model.files["unet"].part.exists()


def test_nobody_there_is_said(server):
    model = published(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="does not answer.*fetch again"):
        fetching.fetch(model)


# --- the disk ----------------------------------------------------------------------------------


def test_too_little_room_is_said_before_anything_is_fetched(server, monkeypatch):
    usage = type("usage", (), {"free": 1_000_000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"no room for w\.h5 \(3 MB\).*3 MB to come, 1 MB free"):
        fetching.fetch(published(server))
    assert not server.asked


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full to fill a disk with")
def test_a_disk_that_is_full_meanwhile_is_said(server):
    model = published(server)
    registry.cache().mkdir()
    model.files["unet"].part.symlink_to("/dev/full")  # every write to it fails: no space left
    with pytest.raises(OSError, match=r"no room for w\.h5.*No space left.*XRAY_CACHE"):
        fetching.fetch(model)
    assert model.missing


def test_two_fetches_at_once_do_not_mix(server):
    server.moods = ["waits half way"]
    model = published(server)
    first = threading.Thread(target=fetching.fetch, args=[model])
    first.start()
    deadline = time.monotonic() + 30
    while not server.asked:
        assert time.monotonic() < deadline, "the first fetch has asked for nothing"
        time.sleep(0.01)
    with pytest.raises(OSError, match="another fetch is under way"):
        fetching.fetch(model)
    server.go_on.set()
    first.join()
    assert whole(model)


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def models(server, monkeypatch):
    """Two models that share a file."""
    shared = published(server).files["unet"]
    own = {
        name: File(f"{name}.h5", shared.url, shared.sha256, None, SIZE) for name in ("one", "two")
    }
    found = {
        name: Published(name, "a test", LICENCE, {"unet": own[name], "decoder": shared})
        for name in own
    }
    monkeypatch.setattr(registry, "registered", lambda: found)
    return found


def run(*arguments):
    return CliRunner().invoke(cli.app, ["weights", *arguments])


def rows(told):
    return {line.split()[0]: line for line in told.stdout.splitlines() if line.strip()}


def test_list_says_what_there_is_and_what_is_here(models):
    listed = rows(run("list"))
    assert "shipped" in listed["mini"] and "Apache-2.0" in listed["mini"]
    assert (
        "about 6 MB" in listed["one"] and "Test RAIL" in listed["one"] and " no " in listed["one"]
    )
    assert run("fetch", "one").exit_code == 0
    listed = rows(run("list"))
    assert " yes " in listed["one"] and " 3 MB " in listed["two"]


def test_fetch_takes_the_files_of_a_folder(models, server, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    for name in ("one.h5", "w.h5"):
        (there / name).write_bytes(CONTENT)
    told = run("fetch", "one", "--from", str(there))
    assert told.exit_code == 0, told.output
    assert not models["one"].missing and not server.asked
    assert run("verify", "one").exit_code == 0


def test_verify_finds_a_flipped_bit(models):
    assert run("verify").stdout == "nothing has been fetched\n"
    assert run("verify", "one").exit_code == 1
    run("fetch", "one")
    assert run("verify", "one").exit_code == 0
    path = models["one"].files["unet"].path
    damaged = bytearray(CONTENT)
    damaged[12345] ^= 1
    path.write_bytes(damaged)
    told = run("verify", "one")
    assert told.exit_code == 1 and "damaged" in rows(told)["one.h5"]
    assert "fetched again with `xray weights fetch NAME`" in told.stdout
    assert rows(told)["w.h5"].split()[-1] == "ok"
    assert run("verify").exit_code == 1


def test_remove_leaves_what_another_model_uses(models):
    run("fetch", "one")
    run("fetch", "two")
    assert run("remove", "one").stdout == "one.h5\n"
    assert not models["two"].missing
    assert run("remove", "two").stdout == "two.h5\nw.h5\n"
    assert run("remove", "two").stdout == "nothing to delete\n"


def test_where_is_the_cache_that_the_environment_names(models, monkeypatch, tmp_path):
    assert run("where").stdout.strip() == str(tmp_path / "cache")
    assert run("where", "one").stdout.split() == [
        str(tmp_path / "cache" / name) for name in ("one.h5", "w.h5")
    ]
    monkeypatch.delenv("XRAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert run("where").stdout.strip() == str(tmp_path / "xdg" / "diffusion-xray")


def test_an_unknown_name_is_answered_with_those_there_are(models):
    told = run("fetch", "sd-v9")
    assert told.exit_code == 2 and "'sd-v9'" in told.stderr and "one, two" in told.stderr


# --- the registry ------------------------------------------------------------------------------


def test_the_registry_has_what_keras_cv_publishes():
    """Addresses and digests as KerasCV's own classes have them."""
    package = Path(importlib.util.find_spec("keras_cv").origin).parent  # without importing it
    modules = sorted((package / "src" / "models" / "stable_diffusion").glob("*.py"))
    source = "".join(module.read_text("utf-8") for module in modules)
    models = registry.registered()
    assert set(models) == {"sd-v1-4", "sd-v2-1-base"}
    for model in models.values():
        assert set(model.files) == {"text", "unet", "encoder", "decoder", "tokenizer"}
        for file in model.files.values():
            assert f'"{file.url}"' in source and f'"{file.sha256}"' in source
            assert source.index(file.sha256) - source.index(file.url) in range(20, 300)
            assert file.size > 10**6


# --- the option that experiments have ----------------------------------------------------------


@pytest.mark.parametrize("asked", [[], ["--download"]])
def test_an_experiment_fetches_weights_only_if_asked(models, server, monkeypatch, asked):
    ran = []

    def main(model: str = "one", seed: int = 3) -> None:
        ran.append((model, seed))

    monkeypatch.setitem(main.__globals__, "__doc__", "Why?")
    told = CliRunner().invoke(script.app(main), ["--seed", "7", *asked])
    if asked:
        assert told.exit_code == 0 and ran == [("one", 7)] and not models["one"].missing
    else:
        assert told.exit_code == 2 and not ran and not server.asked
        assert "--download" in told.stderr and "xray weights fetch one" in told.stderr


def test_an_experiment_without_a_model_has_no_such_option(monkeypatch):
    def main(seed: int = 3) -> None:
        pass

    monkeypatch.setitem(main.__globals__, "__doc__", "Why?")
    assert "--download" not in CliRunner().invoke(script.app(main), ["--help"]).stdout
