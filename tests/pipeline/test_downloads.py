"""Fetching files, from a server on this machine."""

import hashlib
import os
import socket
import threading

import pytest

from pipeline import downloads
from pipeline.downloads import Checksum, fetch
from pipeline.errors import PipelineError

CONTENT = bytes(range(256)) * 5000  # more than one block
CHECKSUM = Checksum("md5", hashlib.md5(CONTENT).hexdigest())


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "file.tar"


@pytest.fixture
def part(target):
    target.parent.mkdir()
    return target.with_name("file.tar.part")


@pytest.fixture
def server(file_server):
    file_server.files["/file.tar"] = CONTENT
    return file_server


def refusal(target, *urls, **options):
    with pytest.raises(PipelineError) as caught:
        fetch("file.tar is", target, urls, CHECKSUM, **options)
    return str(caught.value)


def get(target, server, **options):
    return fetch("file.tar is", target, [f"{server.url}/file.tar"], CHECKSUM, **options)


class TestWhole:
    def test_downloads_once(self, target, server):
        for _ in range(2):
            assert get(target, server).read_bytes() == CONTENT
        assert server.requested == ["/file.tar"]
        assert [path.name for path in target.parent.iterdir()] == ["file.tar"]

    def test_a_file_put_there_by_hand_is_checked_and_not_asked_for(self, target, part, server):
        target.write_bytes(CONTENT)
        assert get(target, server) == target
        target.write_bytes(b"another")
        digest = hashlib.md5(b"another").hexdigest()
        assert refusal(target, f"{server.url}/file.tar") == (
            f"{target}: md5 {digest}, expected {CHECKSUM.digits}; remove it and get it again"
        )
        assert target.read_bytes() == b"another"
        assert server.requested == []

    def test_progress_sees_the_blocks_and_hears_the_megabytes(self, target, server):
        sizes, totals = [], []

        def progress(blocks, total):
            totals.append(total)
            for block in blocks:
                sizes.append(len(block))
                yield block

        get(target, server, progress=progress)
        assert (sum(sizes), totals) == (len(CONTENT), [1])

    def test_without_a_length(self, target, server):
        def answer(handler):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(CONTENT)

        server.answer = answer
        assert get(target, server).read_bytes() == CONTENT


class TestResumed:
    def test_cut_off_again_and_again(self, target, server):
        server.cut = 500_000
        for kept in (500_000, 1_000_000):
            message = refusal(target, f"{server.url}/file.tar")
            assert f"cut off after 500000 of {len(CONTENT) + 500_000 - kept} bytes; run again to go on from there" in message
            assert target.with_name("file.tar.part").stat().st_size == kept
        assert get(target, server).read_bytes() == CONTENT
        assert server.starts == [0, 500_000, 1_000_000]

    def test_a_server_without_ranges_begins_anew(self, target, part, server):
        part.write_bytes(CONTENT[:700])
        server.ranges = False
        assert get(target, server).read_bytes() == CONTENT
        assert server.requested == ["/file.tar"]

    @pytest.mark.parametrize("beginning", [b"of another file" * 99, CONTENT + b"!"])
    def test_the_beginning_of_another_file_is_thrown_away(self, target, part, server, beginning):
        part.write_bytes(beginning)
        assert get(target, server).read_bytes() == CONTENT
        assert server.starts[-1] == 0
        assert not part.exists()

    def test_killed_between_the_last_byte_and_the_checksum(self, target, part, server):
        part.write_bytes(CONTENT)
        assert get(target, server).read_bytes() == CONTENT
        assert server.starts == []


class TestFailures:
    def test_another_content_is_refused_and_removed(self, target, server):
        server.files["/file.tar"] = CONTENT + b"!"
        message = refusal(target, f"{server.url}/file.tar")
        assert f"the file there has md5 {hashlib.md5(CONTENT + b'!').hexdigest()}, expected {CHECKSUM.digits}" in message
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize("mirror", ["{}/none/file.tar", "{}/other.tar", "nowhere/file.tar", "http://127.0.0.1:9/file.tar"])
    def test_the_next_address_is_tried(self, target, server, mirror):
        server.files["/other.tar"] = b"another file"
        urls = [mirror.format(server.url), f"{server.url}/file.tar"]
        assert fetch("file.tar is", target, urls, CHECKSUM).read_bytes() == CONTENT
        assert server.requested[-1] == "/file.tar"

    def test_the_next_address_goes_on_where_the_first_broke_off(self, target, server):
        def break_off(handler):
            server.answer = None
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(CONTENT)))
            handler.end_headers()
            handler.wfile.write(CONTENT[:1000])

        server.answer = break_off
        assert fetch("file.tar is", target, [f"{server.url}/file.tar"] * 2, CHECKSUM).read_bytes() == CONTENT
        assert server.starts == [1000]

    def test_without_a_connection_the_error_says_which_file_to_put_where(self, target):
        with socket.socket() as closed:  # bound, but it does not listen
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.tar"
            message = refusal(target, f"{url}2", url, otherwise=", or stay at home")
        assert message.startswith(f"file.tar is not here and cannot be downloaded ({url}2: <urlopen error [Errno")
        assert message.endswith(f"get {url} on a machine with a connection and put it at {target}, or stay at home")
        assert message.count("refused") == 2
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize("sent", [b"gibberish\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\nabc"])
    def test_a_server_that_talks_nonsense(self, target, server, sent):
        server.answer = lambda handler: handler.wfile.write(sent)
        assert refusal(target, f"{server.url}/file.tar").startswith("file.tar is not here and cannot be downloaded (")
        assert not target.exists()

    def test_a_server_that_keeps_silent(self, target, server, monkeypatch):
        monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.05)
        done = threading.Event()
        server.answer = lambda handler: done.wait(10)
        assert "timed out" in refusal(target, f"{server.url}/file.tar")
        done.set()


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path, file_server):
    for name in ("file", "file.part"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(PipelineError, match=rf"{name}: it is a named pipe, not a regular file; give a file$"):
            fetch("file is", tmp_path / "file", [file_server.url + "/file"], Checksum("md5", ""))
        (tmp_path / name).unlink()
