"""`instil env` prints what a bug report needs."""

from __future__ import annotations

import os

import pytest

from instil import __version__, runs
from instil.env import Config, run


def test_one_name_and_version_a_line(capsys):
    run(Config())
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["instil"] == __version__
    assert lines["cores"] == str(os.cpu_count())
    assert {"python", "platform", *runs.PACKAGES} <= lines.keys()


def test_a_package_that_is_missing_is_said_to_be(monkeypatch, capsys):
    monkeypatch.setattr(runs, "PACKAGES", ("torch-of-nowhere",))
    run(Config())
    assert "torch-of-nowhere not installed" in capsys.readouterr().out


@pytest.mark.parametrize("secret", ["HF_TOKEN", "WANDB_API_KEY"])
def test_no_secret_is_printed(monkeypatch, capsys, secret):
    monkeypatch.setenv(secret, "hunter2")
    run(Config())
    assert "hunter2" not in capsys.readouterr().out
