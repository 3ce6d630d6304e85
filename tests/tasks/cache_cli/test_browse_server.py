"""Who may ask the server of `rcnn-cache browse`, and for what."""

import http.client
import threading
from urllib.parse import urlsplit

import pytest

from pipeline.errors import PipelineError
from tasks.cache_cli.browse_requests import Refused, a_box, a_count, a_key, a_number, one_of, parse_query, read_fields
from tasks.cache_cli.browse_server import MOST_BYTES, Server


class Asker:
    """Sends requests to a server; `asked` are the (method, page, query, number of bytes) that reached the pages."""

    def __init__(self):
        self.asked = []
        self.server = Server(0, self.answer, lambda status, message: message.encode())
        self.host, self.base = urlsplit(self.server.address).netloc, urlsplit(self.server.address).path

    def answer(self, method, page, query, body):
        self.asked.append((method, page, query, len(body)))
        if page == "missing":
            raise Refused(404, "nothing here")
        if page == "broken":
            raise PipelineError("a damaged file")
        return "text/plain", b"content"

    def ask(self, path: str | None = None, method: str = "GET", body: bytes | None = None, **headers: str):
        """(status, text, headers). Headers with the value None are not sent."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        connection.putrequest(method, self.base if path is None else path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": self.host, **headers}.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers


@pytest.fixture(scope="module")
def asker():
    asker = Asker()
    thread = threading.Thread(target=asker.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield asker
    asker.server.shutdown()
    asker.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def nothing_asked(asker):
    asker.asked.clear()


def test_an_answer_may_load_nothing_from_elsewhere_and_is_stored_nowhere(asker):
    status, text, headers = asker.ask(f"{asker.base}store?store=0123456789ab&page=2")
    assert (status, text) == (200, "content")
    assert asker.asked == [("GET", "store", {"store": "0123456789ab", "page": "2"}, 0)]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in headers["Content-Security-Policy"]
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_it_listens_on_this_machine_only(asker):
    assert asker.server.server_address[0] == "127.0.0.1"
    assert len(asker.server.token) >= 20


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", None, ""])
def test_a_foreign_host_is_refused(asker, host):
    status, text, _ = asker.ask(Host=host)
    assert (status, asker.asked) == (403, [])
    assert "foreign Host" in text


def test_localhost_is_this_machine(asker):
    assert asker.ask(Host=asker.host.replace("127.0.0.1", "localhost"))[0] == 200


@pytest.mark.parametrize("path", ["/", "/store", "//", "/x/store", "/../store", "/%2e%2e/", "store"])
def test_without_the_token_nothing_is_shown(asker, path):
    assert asker.ask(path)[0] == 403
    assert asker.ask(asker.base[:-2] + "/")[0] == 403  # a part of the token
    assert asker.asked == []


def test_another_page_may_not_post(asker):
    assert asker.ask(f"{asker.base}search", "POST", b"", Content_Length="0", Origin="http://evil.example")[0] == 403
    assert asker.ask(f"{asker.base}search", "POST", b"", Content_Length="0", Origin="null")[0] == 403
    assert asker.asked == []
    assert asker.ask(f"{asker.base}search", "POST", b"abc", Content_Length="3", Origin=f"http://{asker.host}")[0] == 200
    assert asker.asked == [("POST", "search", {}, 3)]


@pytest.mark.parametrize(("length", "status"), [
    (str(MOST_BYTES + 1), 413), ("9" * 30, 413), (None, 411), ("-1", 411), ("1e3", 411), ("", 411),
])
def test_a_huge_upload_is_refused_before_it_is_read(asker, length, status):
    assert asker.ask(f"{asker.base}search", "POST", None, Content_Length=length)[0] == status
    assert asker.asked == []


def test_an_upload_without_its_size_is_refused(asker):
    assert asker.ask(f"{asker.base}search", "POST", None, Content_Length="1", Transfer_Encoding="chunked")[0] == 411


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods(asker, method):
    assert asker.ask(method=method)[0] == 501
    assert asker.asked == []


def test_errors_are_told(asker):
    assert asker.ask(f"{asker.base}missing")[:2] == (404, "nothing here")
    assert asker.ask(f"{asker.base}broken")[:2] == (409, "a damaged file")


class TestParameters:
    @pytest.mark.parametrize("query", ["a=1&a=2", "a", "&".join(f"a{n}=1" for n in range(13)), f"a={'x' * 201}"])
    def test_faulty_addresses(self, query):
        with pytest.raises(Refused) as caught:
            parse_query(query)
        assert caught.value.status == 400

    @pytest.mark.parametrize(("read", "texts"), [
        (a_key, ["../../etc", "0123456789a", "0123456789AB", "0123456789ab/", "0123456789ab\n", "/etc/passwd"]),
        (a_count, ["-1", "1.5", "1_0", "\u0663", "1" * 10, "../1"]),
        (a_number, ["nan", "inf", "1e400", "0x1", "1" * 9]),
        (a_box, ["1,2,3", "3,0,1,5", "0,0,0,0", "0,0,nan,1", "0,0,1,1,1"]),
        (one_of("cosine", "l2"), ["l1", "../l2"]),
    ])
    def test_no_path_and_nothing_else_of_another_kind(self, read, texts):
        for text in texts:
            with pytest.raises(Refused) as caught:
                read_fields({"field": text}, {"field": (read, ...)})
            assert caught.value.status == 400, text

    def test_what_is_read(self):
        kinds = {"key": (a_key, ...), "row": (a_count, 7), "low": (a_number, 0.0), "box": (a_box, None)}
        query = {"key": "0123456789ab", "row": "", "low": "-0.25", "box": "0,1.5,2,3"}
        assert read_fields(query, kinds) == {"key": "0123456789ab", "row": 7, "low": -0.25, "box": (0, 1.5, 2, 3)}

    def test_a_missing_and_an_unknown_parameter(self):
        with pytest.raises(Refused, match="lacks the parameter 'key'"):
            read_fields({}, {"key": (a_key, ...)})
        with pytest.raises(Refused, match="unknown parameter \\('path'\\)"):
            read_fields({"path": "/etc/passwd"}, {})
