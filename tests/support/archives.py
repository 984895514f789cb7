"""Tars, and images as `docker save` writes them."""

import hashlib
import io
import json
import os
import pathlib
import tarfile

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name, data=b"", kind=tarfile.REGTYPE, link="", mode=0o755, **more):
    """What `tar` takes: a file, a link, whatever `kind` says. `more`: further attributes of the header."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = os.path.getsize(data) if isinstance(data, pathlib.Path) else len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def write_tar(out, entries, pax=False):
    """To a file object. Entries are those of `entry`, or what that takes: (name, data) at least. Data may be a path,
    whose file is then not read into memory."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) as archive:
        for info, data in (e if isinstance(e[0], tarfile.TarInfo) else entry(*e) for e in entries):
            if isinstance(data, pathlib.Path):
                with open(data, "rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info, io.BytesIO(data) if data else None)


def tar(*entries, pax=False):
    """The same in memory; of one {name: data}, too."""
    if len(entries) == 1 and isinstance(entries[0], dict):
        entries = entries[0].items()
    out = io.BytesIO()
    write_tar(out, entries, pax)
    return out.getvalue()


def image_config(layers, architecture=ARCHITECTURE, **process):
    """The configuration document of an image with these layers (bytes, or paths). `process`: Cmd, Env, …"""
    def digest_of(layer):
        if not isinstance(layer, pathlib.Path):
            return digest(layer)
        with open(layer, "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps({"architecture": architecture, "os": "linux",
                       "config": process or {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                                             "Cmd": ["/bin/sh"]},
                       "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}}).encode()


def docker_entries(layers, config=None, tag="test:1.0"):
    """What `docker save` would write."""
    config = config or image_config(layers)
    name = digest(config)[7:] + ".json"
    names = [f"layer{i}/layer.tar" for i in range(len(layers))]
    saved = [{"Config": name, "RepoTags": [tag], "Layers": names}]
    return [*zip(names, layers), (name, config), ("manifest.json", json.dumps(saved).encode())]


def docker_archive(layers, config=None, tag="test:1.0"):
    return tar(*docker_entries(layers, config, tag))


def write_docker_archive(path, layers, config=None, tag="test:1.0"):
    """The same in a file, of layers that may be files."""
    with open(path, "wb") as out:
        write_tar(out, docker_entries(layers, config, tag))
