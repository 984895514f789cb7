"""What every test in Python can ask for by name."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "support"))

import lathe  # noqa: E402


@pytest.fixture(scope="module")
def server():
    """A running server, shared by the tests of one file."""
    with lathe.Server() as running:
        yield running


@pytest.fixture
def own_server():
    """A running server for one test, which may stop, kill and start it again."""
    with lathe.Server() as running:
        yield running


@pytest.fixture
def admin(server):
    return server.admin


@pytest.fixture
def user(server):
    """A new ordinary user, logged in."""
    return server.new_user()


@pytest.fixture
def anonymous(server):
    return server.client()
