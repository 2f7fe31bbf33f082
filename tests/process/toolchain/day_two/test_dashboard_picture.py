"""What stands at the address of a Prometheus, or at a picture's place, ends in one sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.clock import SystemClock
from toolchain.day_two.dashboard import picture
from toolchain.day_two.dashboard.panels import Query, panels
from toolchain.day_two.dashboard.picture import NoAnswer, NotDrawn

QUERY = Query("up", "{{name}}")
END = 1_800_000_000.0


def answered(*series: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"result": series}}).encode()


ODD = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b'{"data": []}',
    b'{"data": {"result": 7}}',
    answered({"metric": {}}),
    answered({"metric": {}, "values": [[1, "x"]]}),
    answered({"metric": {}, "values": [[1]]}),
    answered({"metric": {}, "values": [["y", "1"]]}),
    answered({"metric": {"name": 7}, "values": []}),
    answered({"metric": [], "values": 7}),
]


@pytest.mark.parametrize("body", ODD, ids=bytes.decode)
def test_what_no_prometheus_answers_is_one_sentence(body):
    with pytest.raises(NoAnswer, match=r"^what answers at http://x is no Prometheus$"):
        picture.read("http://x", body, QUERY, END)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["metric", "values", "x"]), inner)
    ),
)


@given(JSON)
def test_whatever_stands_for_a_series_is_read_or_refused(odd):
    try:
        read = picture.read("http://x", answered(odd), QUERY, END)
    except NoAnswer:
        return
    ((name, minutes, values),) = read
    assert (type(name), len(minutes)) == (str, len(values))


def test_moments_become_minutes_before_the_end():
    values = [[END - 60, "1.5"], [END, "NaN"], [END, "+Inf"]]
    ((name, minutes, found),) = picture.read(
        "http://x", answered({"metric": {"name": "machine 0"}, "values": values}), QUERY, END
    )
    assert (name, minutes, found[0]) == ("machine 0", [-1.0, 0.0, 0.0], 1.5)


class Answers(BaseHTTPRequestHandler):
    """Answers what the server knows with its text, or without an end."""

    server: Stranger

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()
        try:
            knows = any(one in self.path for one in self.server.knows)
            self.wfile.write(self.server.body if knows else answered())
            while self.server.is_endless:
                self.wfile.write(b" " * 65_536)
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name there)
        del format, args


class Stranger(HTTPServer):
    """What stands where a Prometheus should."""

    status, body, is_endless = 200, b"", False
    knows: tuple[str, ...] = ("",)
    """What stands in the questions that it has an answer for: one of these."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with Stranger(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_answer_without_an_end_is_read_no_further(stranger):
    stranger.is_endless = True
    with pytest.raises(NoAnswer, match=r"does not answer \(TooMuch\)"):
        picture.lines(stranger.url, QUERY, END - 60, END, SystemClock())


def test_a_refusal_is_named(stranger):
    stranger.status = 503
    with pytest.raises(NoAnswer, match="answers 503"):
        picture.lines(stranger.url, QUERY, END - 60, END, SystemClock())


@pytest.mark.parametrize(
    "url", ["http://[", "x", "", "http://127.0.0.1:x", "ftp://x", "http://a\nb"]
)
def test_what_is_no_address_is_one_sentence(url, monkeypatch, capsys, tmp_path):
    words = ["picture", url, "--stack", "dev", "--file", str(tmp_path / "x.svg")]
    monkeypatch.setattr("sys.argv", words)
    assert picture.main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "does not answer" in said


@pytest.mark.parametrize("name", ["x.foo", "a-file/x.svg", "a-folder.svg"])
def test_a_file_that_cannot_be_written_is_one_sentence_before_prometheus_is_asked(tmp_path, name):
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder.svg").mkdir()
    with pytest.raises(NotDrawn, match=r"cannot be drawn: ."):
        picture.draw("http://127.0.0.1:9", "dev", 1.0, tmp_path / name, SystemClock())
    assert not (tmp_path / "x.foo").exists()


def test_nothing_is_left_where_prometheus_does_not_answer(tmp_path):
    with pytest.raises(NoAnswer):
        picture.draw("http://127.0.0.1:9", "dev", 1.0, tmp_path / "x.svg", SystemClock())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_when_the_picture_is_written_is_one_sentence(stranger, tmp_path):
    (tmp_path / "x.svg").symlink_to("/dev/full")
    stranger.body = answered({"metric": {}, "values": [[END, "1"]]})
    stranger.knows = (quote_plus(panels("dev", has_router=True)[0].queries[0].expression),)
    with pytest.raises(NotDrawn, match=r"cannot be drawn: No space left on device"):
        picture.draw(stranger.url, "dev", 1.0, tmp_path / "x.svg", SystemClock())


def test_what_would_be_a_formula_is_drawn_as_it_stands(stranger, tmp_path):
    metric = {"name": r"$\x$", "job": r"$\frac$"}
    stranger.body = answered({"metric": metric, "values": [[END, "1"]]})
    queries = [query for panel in panels("dev", has_router=True) for query in panel.queries]
    # The legends of the others have neither name, and each panel takes its time to draw.
    stranger.knows = tuple(
        quote_plus(query.expression)
        for query in queries
        if "{{name}}" in query.legend or "{{job}}" in query.legend
    )
    assert len(stranger.knows) > 2
    picture.draw(stranger.url, "dev", 1.0, tmp_path / "x.svg", SystemClock())
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")
