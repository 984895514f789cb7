"""Files that are either complete or not there, and tensors in the safetensors format.

A job may be killed at any instruction. Whatever another program may look for is therefore written under
another name, flushed to the disk, and renamed: the rename is the moment at which it exists.
"""
import json
import os
import shutil
from pathlib import Path

import torch

# Names of element types in safetensors files; only what a model of this kind uses.
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def sync(path):
    """Flushes a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path, *parts):
    """Writes bytes to `path`, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)


def write_json(path, value):
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_folder(path, fill):
    """Makes the folder `path` whole or not at all; `fill(folder)` writes its files."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
    temporary.mkdir(parents=True)
    fill(temporary)
    sync(temporary)
    shutil.rmtree(path, ignore_errors=True)  # half a copy, made by something else
    os.rename(temporary, path)
    sync(path.parent)


def save_tensors(path, tensors):
    """Writes {name: tensor} as safetensors: the header's length, the header (JSON), the raw elements."""
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        size = tensor.numel() * tensor.element_size()
        part = bytearray(size)
        torch.frombuffer(part, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)
        parts.append(part)
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the elements start aligned
    write_file(path, len(text).to_bytes(8, "little"), text, *parts)


def load_tensors(path):
    """Reads what save_tensors, or any other writer of safetensors, has written. Runs nothing, unlike a pickle."""
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"{path} is not a safetensors file")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
        flat = torch.frombuffer(data[start + begin:start + end], dtype=dtype)
        tensors[name] = flat.view(entry["shape"])
    return tensors
