"""Who is let in, and that nothing but what is known leaves the disk."""

from pathlib import Path
from socket import gethostname

import pytest
from fgdiag_explorer import address, create_app
from fgdiag_explorer.serving import is_loopback, needed_token
from fgdiag_explorer.serving import serve as serve_runs

from tests.apps.conftest import Fgdiag


@pytest.fixture(scope="module")
def client(runs: list[Path]):
    return create_app(runs).server.test_client()


def test_every_answer_forbids_scripts_made_from_text(client):
    for path in ("/", "/thumbnails/0.jpg?run=birds", "/nowhere/at/all"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def test_only_thumbnails_of_known_runs_are_handed_out(client, runs: list[Path]):
    answer = client.get("/thumbnails/0.jpg?run=birds")
    assert answer.status_code == 200
    assert answer.mimetype == "image/jpeg"
    assert "max-age" in answer.headers["Cache-Control"]
    for path in (
        "/thumbnails/0.jpg",
        "/thumbnails/0.jpg?run=../birds",
        f"/thumbnails/0.jpg?run={runs[0]}",
        "/thumbnails/99999999.jpg?run=birds",
        "/thumbnails/-1.jpg?run=birds",
        "/thumbnails/..%2f..%2frun.json?run=birds",
        "/tables/../run.csv?run=birds",
        "/tables/run.csv?run=birds",
        "/assets/..%2f..%2fapp.py",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 or answer.text.startswith("<!doctype html>"), path


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("curves", "level,site,readout"),
        ("confusion", "truth,said,taken"),
        ("images", "image,class,kind"),
        ("image", "site,readout"),
        ("compare", "level,run,depth"),
        ("agreement", "level,first,second"),
        ("classes", "coarse,fine"),
        ("near-duplicates", "source"),
        ("unreadable", "source"),
    ],
)
def test_tables_are_handed_out(client, name: str, head: str):
    answer = client.get(f"/tables/{name}.csv?run=birds")
    assert answer.status_code == 200
    assert answer.mimetype == "text/csv"
    assert answer.text.startswith(head)


def test_this_machine_alone_is_open_and_only_under_its_own_names(client):
    assert client.get("/", headers={"Host": "localhost:8050"}).status_code == 200
    assert client.get("/", headers={"Host": "[::1]:8050"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_a_token_is_asked_for_once(runs: list[Path]):
    client, elsewhere = create_app(runs, token="secret").server.test_client(), "http://server.example"
    assert client.get("/").status_code == 401
    assert client.get("/thumbnails/0.jpg?run=birds").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    answer = client.get("/curves?run=birds&token=secret&level=fine", base_url=elsewhere)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/curves?run=birds&level=fine"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "secret" not in cookie
    assert client.get("/curves", base_url=elsewhere).status_code == 200


@pytest.mark.parametrize("path", ["/x/", "/x/curves", "/", "/curves"])
def test_below_a_prefix_whether_or_not_the_proxy_takes_it_off(runs: list[Path], path: str):
    answer = create_app(runs, prefix="x").server.test_client().get(path)
    assert answer.status_code == 200
    assert 'src="/x/_dash-component-suites' in answer.text
    assert 'src="/x/assets/scheme.js"' in answer.text


def test_addresses():
    assert address() == "http://127.0.0.1:8050/"
    assert address("::1", 1, "/x/", "a b") == "http://[::1]:1/x/?token=a+b"
    assert address("0.0.0.0") == f"http://{gethostname()}:8050/"
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
    assert needed_token("127.0.0.1", None) is None
    assert needed_token("0.0.0.0", "mine") == "mine"
    assert len(needed_token("0.0.0.0", None) or "") > 20


def test_the_command_says_what_is_wrong(fgdiag: Fgdiag):
    ended = fgdiag("app", "runs/bird")
    assert ended.code == 1
    assert "did you mean" in ended.told
    assert "--host" in fgdiag("app", "--help").out


def test_the_address_is_told_when_it_can_be_opened(runs: list[Path], monkeypatch: pytest.MonkeyPatch):
    import waitress.server

    told: list[str] = []
    monkeypatch.setattr(waitress.server.BaseWSGIServer, "run", lambda server: server.close())
    serve_runs(runs, prefix="/x", told=told.append)
    assert told[0].startswith("http://127.0.0.1:")
    assert told[0].endswith("/x/")
