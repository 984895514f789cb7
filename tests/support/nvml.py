"""A driver's double: the library by which the server finds NVIDIA devices, answered by nvml_double.c.

    with nvml.double() as folder, Server(environment={"LD_LIBRARY_PATH": str(folder)}) as server:
        …
"""

import contextlib
import pathlib
import subprocess
import tempfile


@contextlib.contextmanager
def double():
    """A folder with libnvidia-ml.so.1 in it."""
    with tempfile.TemporaryDirectory(prefix="lathe-nvml-") as folder:
        source = pathlib.Path(__file__).with_name("nvml_double.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", f"{folder}/libnvidia-ml.so.1", source], check=True)
        yield pathlib.Path(folder)
