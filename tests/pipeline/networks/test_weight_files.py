"""Fetching weights, from a server on this machine."""

import hashlib
import http.server
import socket
import threading

import pytest

from pipeline.errors import PipelineError
from pipeline.networks import weight_files
from pipeline.networks.weight_files import IMAGENET_FILES, fetch_imagenet, imagenet_file

CONTENT = bytes(range(256)) * 5000  # more than one block
NAME = f"tinynet-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requested.append(self.path)
        self.server.answer(self)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


def answer_whole(handler, content=CONTENT):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def answer_other(handler):
    answer_whole(handler, CONTENT + b"!")


def answer_without_length(handler):
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(CONTENT)


def answer_not_found(handler):
    handler.send_error(404)


def answer_cut_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])


def answer_cut_off_in_a_chunk(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"10000\r\n" + CONTENT[:1000])


def answer_gibberish(handler):
    handler.wfile.write(b"gibberish\r\n\r\n")


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that answers each request as its attribute `answer` does."""
    monkeypatch.setitem(IMAGENET_FILES, "tinynet", NAME)
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.answer, running.requested = answer_whole, []
        running.url = f"http://127.0.0.1:{running.server_port}/models/"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def refusal(folder, url):
    with pytest.raises(PipelineError) as caught:
        fetch_imagenet("tinynet", folder, url)
    return str(caught.value)


class TestFetch:
    @pytest.mark.parametrize("answer", [answer_whole, answer_without_length])
    def test_downloads_once(self, tmp_path, server, answer):
        server.answer = answer
        folder = tmp_path / "data" / "weights"
        for _ in range(2):
            path = fetch_imagenet("tinynet", folder, server.url)
            assert path == folder / NAME
            assert path.read_bytes() == CONTENT
        assert server.requested == [f"/models/{NAME}"]
        assert [file.name for file in folder.iterdir()] == [NAME]

    def test_a_file_that_is_there_is_not_asked_for(self, tmp_path, server):
        (tmp_path / NAME).write_bytes(CONTENT)
        assert fetch_imagenet("tinynet", tmp_path, server.url).read_bytes() == CONTENT
        assert server.requested == []

    def test_a_file_that_is_there_with_other_content_is_refused_and_kept(self, tmp_path, server):
        (tmp_path / NAME).write_bytes(b"put here by hand")
        with pytest.raises(PipelineError, match="SHA-256"):
            fetch_imagenet("tinynet", tmp_path, server.url)
        assert (tmp_path / NAME).read_bytes() == b"put here by hand"

    def test_progress_sees_the_blocks_and_hears_the_megabytes(self, tmp_path, server):
        sizes, totals = [], []

        def progress(blocks, total):
            totals.append(total)
            for block in blocks:
                sizes.append(len(block))
                yield block

        fetch_imagenet("tinynet", tmp_path, server.url, progress)
        assert (sum(sizes), totals) == (len(CONTENT), [1])

    @pytest.mark.parametrize("answer", [answer_other, answer_cut_off])
    def test_another_content_is_refused_and_removed(self, tmp_path, server, answer):
        server.answer = answer
        message = refusal(tmp_path, server.url)
        assert ": SHA-256 " in message or message.startswith("the weights of tinynet")
        assert NAME.split("-")[1].split(".")[0] in message
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("answer", [answer_not_found, answer_cut_off_in_a_chunk, answer_gibberish])
    def test_a_failed_download_says_which_file_to_put_where(self, tmp_path, server, answer):
        server.answer = answer
        message = refusal(tmp_path, server.url)
        assert message.startswith("the weights of tinynet are not here and cannot be downloaded (")
        assert f"get {server.url}{NAME} on a machine with a connection and put it at {tmp_path / NAME}" in message
        assert list(tmp_path.iterdir()) == []

    def test_no_connection(self, tmp_path, server):
        with socket.socket() as closed:  # bound, but it does not listen
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
            message = refusal(tmp_path, url)
        assert "refused" in message
        assert f"get {url}{NAME}" in message
        assert f"put it at {tmp_path / NAME}" in message
        assert message.endswith("or give a file with --weights, or train with --weights scratch")
        assert list(tmp_path.iterdir()) == []

    def test_a_server_that_keeps_silent(self, tmp_path, server, monkeypatch):
        monkeypatch.setattr(weight_files, "TIMEOUT_SECONDS", 0.05)
        done = threading.Event()
        server.answer = lambda handler: done.wait(10)
        assert "timed out" in refusal(tmp_path, server.url)
        done.set()


class TestNames:
    @pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "squeezenet1_0"])
    def test_are_torchvisions(self, backbone):
        from torchvision.models import get_model_weights

        url = get_model_weights(backbone).IMAGENET1K_V1.url
        assert weight_files.IMAGENET_URL + imagenet_file(backbone) == url

    def test_a_backbone_without_imagenet_weights(self):
        with pytest.raises(PipelineError, match="no ImageNet weights for backbone 'tiny'; use --weights scratch or a file"):
            imagenet_file("tiny")
