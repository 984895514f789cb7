"""./dev takes the PyTorch that suits the machine: the one for its NVIDIA GPU, where there is one."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA GPU itself")


def dev(folder, *words, programs=None):
    """Runs ./dev where nothing of [demo] is installed; what it says. `programs`: further ones, as shell lines."""
    for name, line in {"dpkg-query": "true", "apt-get": 'echo "apt-get $@"; exit 9', **(programs or {})}.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    run = subprocess.run([ROOT / "dev", *words], env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
                         capture_output=True, text=True)
    assert run.returncode != 0
    return run.stdout + run.stderr


GPU = {"nvidia-smi": "true"}
OFFERED = {"apt-cache": "printf 'python3-torch-cuda:\\n  Installed: (none)\\n  Candidate: 2.6.0\\n'"}
NOT_OFFERED = {"apt-cache": "printf 'python3-torch-cuda:\\n  Installed: (none)\\n  Candidate: (none)\\n'"}


@pytest.mark.parametrize("programs, package", [
    ({}, "python3-torch"), (OFFERED, "python3-torch"), ({**GPU, **OFFERED}, "python3-torch-cuda"),
    ({**GPU, **NOT_OFFERED}, "python3-torch"), ({**GPU, "apt-cache": "true"}, "python3-torch")])
def test_the_package(tmp_path, programs, package):
    words = dev(tmp_path, "setup", "demo", programs=programs).split()
    assert [word for word in words if word.startswith("python3-torch")][0] == package


def test_the_demo_says_what_is_missing_and_goes_on(tmp_path):
    everything = (ROOT / "packages.txt").read_text().split()
    installed = {"dpkg-query": "\n".join(f"echo 'ii  {name}, '" for name in everything if name[0] not in "[#")}
    said = dev(tmp_path, "demo", programs={**GPU, **NOT_OFFERED, **installed, "cmake": "exit 9", "ninja": "exit 9"})
    for word in ("NVIDIA GPU", "contrib", "non-free", "the demo trains on the CPU", "nvidia-smi", "release"):
        assert word in said
