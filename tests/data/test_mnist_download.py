"""Downloads, from servers on this machine that serve made-up files."""

import functools
import hashlib
import http.server
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from equilibrist.data import DataError, mnist
from equilibrist.data._download import fetch

NAME = "train-images-idx3-ubyte.gz"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; notes what was asked for; under /short/ it hangs up half way."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers))
        if self.path.startswith("/short/"):
            body = (Path(self.directory) / self.path.removeprefix("/short/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            return
        super().do_GET()


@pytest.fixture
def server(write_mnist, tmp_path) -> Iterator[http.server.ThreadingHTTPServer]:
    files = write_mnist(tmp_path / "served")
    handler = functools.partial(Handler, directory=str(files))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.asked, httpd.headers, httpd.files = [], [], files
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        httpd.md5 = {
            f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in sorted(files.iterdir())
        }
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "equilibrist" / "mnist"


def test_missing_files_are_fetched_once(server, tmp_path) -> None:
    source = mnist(mirrors=[server.url + "/"], md5=server.md5)
    assert source.size == 30
    assert server.asked == [f"/{NAME}", "/train-labels-idx1-ubyte.gz"]
    assert sorted(p.name for p in cache(tmp_path).iterdir()) == [
        NAME,
        "train-labels-idx1-ubyte.gz",
    ]
    assert mnist(mirrors=[server.url], md5=server.md5).size == 30
    assert mnist(mirrors=[], md5=server.md5, download=False).size == 30
    assert len(server.asked) == 2
    assert mnist(mirrors=[server.url], md5=server.md5, train=False).size == 20
    assert len(server.asked) == 4


def test_servers_are_asked_for_the_file_as_it_is(server) -> None:
    mnist(mirrors=[server.url], md5=server.md5)
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_fetched_files_have_ordinary_permissions(server, tmp_path) -> None:
    mnist(mirrors=[server.url], md5=server.md5)
    plain = tmp_path / "plain"
    plain.touch()
    assert (cache(tmp_path) / NAME).stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("bad", ["/none/", "/short/"])
def test_the_next_mirror_helps_out(server, tmp_path, bad) -> None:
    mirrors = [server.url + bad, server.url]
    assert mnist(mirrors=mirrors, md5=server.md5).size == 30
    assert server.asked[:2] == [f"{bad}{NAME}", f"/{NAME}"]
    assert len(list(cache(tmp_path).iterdir())) == 2


def test_a_spoilt_cache_is_fetched_again(server, tmp_path) -> None:
    mnist(mirrors=[server.url], md5=server.md5)
    (cache(tmp_path) / NAME).write_bytes(b"spoilt")
    assert mnist(mirrors=[server.url], md5=server.md5).size == 30
    assert server.asked.count(f"/{NAME}") == 2


WRONG = {NAME: "0" * 32}


@pytest.mark.parametrize(
    ("mirrors", "md5", "wrong"),
    [
        pytest.param(["{url}/none"], {}, "{url}/none/" + NAME + ": HTTP status 404", id="404"),
        pytest.param(["{url}/short"], {}, "{url}/short/" + NAME + ": ", id="hung-up"),
        pytest.param(["{url}"], WRONG, "wrong checksum (MD5 ", id="checksum"),
        pytest.param(["http://127.0.0.1:9"], {}, "127.0.0.1:9/" + NAME + ": Connect", id="closed"),
        pytest.param(["nonsense"], {}, "nonsense/" + NAME + ": MissingSchema", id="no-address"),
        pytest.param([], {}, "no mirror is given", id="no-mirror"),
        pytest.param(
            ["{url}/none", "{url}"], WRONG, "HTTP status 404, {url}/" + NAME + ": wrong", id="both"
        ),
    ],
)
def test_failed_downloads_get_one_line_and_leave_nothing(
    server, tmp_path, mirrors, md5, wrong
) -> None:
    mirrors = [m.format(url=server.url) for m in mirrors]
    with pytest.raises(DataError) as caught:
        mnist(mirrors=mirrors, md5={**server.md5, **md5})
    message = str(caught.value)
    assert message.startswith(f"{cache(tmp_path) / NAME}: could not be fetched (")
    assert wrong.format(url=server.url) in message
    assert message.endswith(
        "let --data-root or EQUILIBRIST_DATA name a folder that holds the MNIST files"
    )
    assert message.isprintable()
    assert list(cache(tmp_path).iterdir()) == []


def test_a_failed_download_keeps_the_old_file(server, tmp_path) -> None:
    mnist(mirrors=[server.url], md5=server.md5)
    before = (cache(tmp_path) / NAME).read_bytes()
    with pytest.raises(DataError, match="wrong checksum"):
        mnist(mirrors=[server.url], md5={**server.md5, **WRONG})
    assert (cache(tmp_path) / NAME).read_bytes() == before
    assert len(list(cache(tmp_path).iterdir())) == 2


def test_an_interrupt_leaves_nothing(server, tmp_path, monkeypatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mnist(mirrors=[server.url], md5=server.md5)
    assert list(cache(tmp_path).iterdir()) == []


def test_a_cache_that_cannot_be_made(server, tmp_path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError) as caught:
        mnist(mirrors=[server.url], md5=server.md5)
    message = str(caught.value)
    assert message.startswith(f"{cache(tmp_path) / NAME}: could not be fetched (")
    assert "Not a directory" in message or "File exists" in message
    assert message.isprintable()
    assert server.asked == []


def test_download_may_be_forbidden(server, tmp_path) -> None:
    with pytest.raises(DataError) as caught:
        mnist(mirrors=[server.url], md5=server.md5, download=False)
    message = str(caught.value)
    assert message.startswith(f"{cache(tmp_path) / NAME}: not found and download is off; ")
    assert "EQUILIBRIST_DATA" in message
    assert message.isprintable()
    assert server.asked == []


def test_a_file_without_checksum_is_not_fetched(server) -> None:
    with pytest.raises(DataError, match=f"^{NAME}: no checksum is given.*add it to md5$"):
        mnist(mirrors=[server.url], md5={})
    assert server.asked == []


def test_no_bar_where_there_is_no_terminal(server, capfd) -> None:
    mnist(mirrors=[server.url], md5=server.md5)
    assert capfd.readouterr() == ("", "")


def test_a_bar_on_a_terminal(server, tmp_path, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    fetch(tmp_path / NAME, server.md5[NAME], [server.url], "")
    size = (server.files / NAME).stat().st_size / 1000
    assert NAME in screen.getvalue()
    assert f"{size:.1f}/{size:.1f} kB" in screen.getvalue()
