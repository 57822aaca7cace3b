"""Fixtures of the pipelines' tests."""

import pytest

from tests.hub_server import Hub


@pytest.fixture
def on_hub(tmp_path, hub_python):
    """Runs a command whose hub is the given one."""

    def ran(hub: Hub, *words: str, token: str = ""):
        environment = hub.environment(tmp_path, token=token)
        words = ("-m", "pipelines", *words)
        return hub_python.run(*words, environment=environment, folder=tmp_path)

    return ran
