import pytest

import daemons


@pytest.fixture(scope="module", params=["docker", "podman"])
def daemon(request):
    """A real daemon of the tests' own."""
    with daemons.Daemon(request.param) as running:
        yield running
