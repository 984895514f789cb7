"""An image with Debian's PyTorch, made by debootstrap from the mirror that apt is set up for. Needs root."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import archives

PACKAGES = "python3-minimal,python3-torch,libopenblas0-pthread"
KEPT = pathlib.Path(__file__).resolve().parents[2] / ".cache/images/python3-torch.tar"


def mirror():
    uris = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                           "Codename: bookworm"], check=True, capture_output=True, text=True).stdout.split()
    return uris[0] if uris else "http://deb.debian.org/debian"


def archive():
    """The path of a docker-archive; made once, kept in .cache."""
    if KEPT.exists():
        return KEPT
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="debootstrap-", dir=KEPT.parent))
    try:
        root = folder / "root"
        subprocess.run(["debootstrap", "--variant=minbase", "--merged-usr",
                        f"--include={PACKAGES}", "bookworm", root, mirror()],
                       check=True, timeout=1200, stdout=subprocess.DEVNULL)
        for what in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(root / what, ignore_errors=True)
        layer = folder / "layer.tar"
        subprocess.run(["tar", "-C", root, "--numeric-owner", "--exclude=./dev/*", "--exclude=./proc/*",
                        "--exclude=./sys/*", "-cf", layer, "."], check=True, timeout=600)
        shutil.rmtree(root)
        made = folder / "image.tar"
        archives.write_docker_archive(made, [layer])
        os.rename(made, KEPT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return KEPT


if __name__ == "__main__":
    print(archive())
