"""`kustomize build`: the real thing, by its C interface (tests/deploy/run fetches it)."""

import ctypes
import platform
from pathlib import Path

import yaml

TOOLS = Path(__file__).resolve().parents[1] / ".tools/kustomize/pykustomize/_lib"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def build(folder):
    """The resources that `kubectl apply -k folder` would send."""
    path = TOOLS / f"linux-{ARCHITECTURES[platform.machine()]}" / "libpykustomize.so"
    assert path.exists(), f"no kustomize for this machine at {path}"
    library = ctypes.CDLL(str(path))
    library.pykustomize_last_error.restype = ctypes.c_char_p
    result = ctypes.c_char_p()
    failed = library.pykustomize_build(str(folder).encode(), b"{}", ctypes.byref(result))
    assert not failed, f"kustomize build {folder}: {library.pykustomize_last_error().decode()}"
    return list(yaml.safe_load_all(result.value.decode()))
