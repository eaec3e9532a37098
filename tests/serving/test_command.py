"""``cbtrain serve`` as it is started: adapters by name, addresses, keys, devices."""

import socket

import pytest

from cbtrain.cli import serve
from cbtrain.cli.main import build_parser, main
from cbtrain.cli.parser import parse


@pytest.mark.fault("H3")
def test_what_is_wrong_is_one_line_before_anything_is_loaded(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv(serve.KEY_VARIABLE, raising=False)
    (tmp_path / "a").mkdir()
    listener = socket.create_server(("127.0.0.1", 0))
    taken = listener.getsockname()[1]
    for options, words in (
        (["--adapter", "A", "--adapter", "B"], "two adapters are named 'cbtrain'"),
        (["--adapter", "a=A", "--adapter", "a=B"], "two adapters are named 'a'"),
        (["--adapter", "base=A", "--adapter", "B"], "has the name of the base"),
        (["--adapter", "=A"], "neither DIR nor NAME=DIR"),
        (["--host", "0.0.0.0"], "CBTRAIN_SERVE_KEY"),
        (["--host", "::"], "CBTRAIN_SERVE_KEY"),
        (["--host", "node7"], "CBTRAIN_SERVE_KEY"),
        (["--allow-origin", "http://localhost:3000/"], "not the origin of a page"),
        (["--allow-origin", "*"], "not the origin of a page"),
        (["--port", "-1"], "no port"),
        (["--port", "99999"], "no port"),
        (["--host", "127.0.0.1", "--port", str(taken)], "stop what uses this one"),
        (["--allow-host", "x", "--host", "127.0.0.256"], "CBTRAIN_SERVE_KEY"),
        (["--queue", "0"], "too small"),
        (["--devices", "0,tpu"], "'tpu' is no device"),
        (["--devices", "cpu,cpu", "--device", "cpu"], "both there"),
        (["--devices", ""], "no device"),
        (["--system", str(tmp_path / "none.txt")], "cannot be read"),
    ):
        assert main(["serve", "--model", str(tmp_path / "a"), *options]) == 2, options
        error = capsys.readouterr().err
        assert words in error, (options, error)
        assert len(error.strip().splitlines()) == 1
    listener.close()
    for key in ("", " ", "a b ", "line\nbreak"):
        monkeypatch.setenv(serve.KEY_VARIABLE, key)
        assert main(["serve", "--model", str(tmp_path / "a")]) == 2
        assert serve.KEY_VARIABLE in capsys.readouterr().err


def test_who_may_use_it_follows_from_the_address(monkeypatch):
    def access(*options):
        return serve._access(parse(build_parser(), ["serve", "--model", "x", *options]))

    monkeypatch.delenv(serve.KEY_VARIABLE, raising=False)
    local = access("--allow-host", "Node7.example", "--allow-origin", "http://localhost:3000")
    assert {"localhost", "127.0.0.1", "[::1]", "node7.example"} == local.hosts
    assert (local.key, local.origins) == (None, {"http://localhost:3000"})
    assert "[::1]" in access("--host", "::1").hosts
    monkeypatch.setenv(serve.KEY_VARIABLE, "secret")
    assert access().key == "secret"
    everywhere = access("--host", "0.0.0.0")
    assert (everywhere.hosts, everywhere.key) == (None, "secret")
    assert access("--host", "0.0.0.0", "--allow-host", "node7").hosts >= {"node7", "127.0.0.1"}
