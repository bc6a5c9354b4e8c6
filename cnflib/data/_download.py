"""Files of known content, fetched once and kept in one piece."""

import hashlib
import os
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen
from uuid import uuid4

from tqdm import tqdm

__all__ = ["Published", "cache", "fetched", "own_folder"]

CHUNK = 1 << 16  # bytes
TIMEOUT = 30  # seconds without a byte


class Published(NamedTuple):
    """What a file is known to be: its name, its number of bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


def own_folder(name: str) -> Path:
    """The user's own folder of a data set, $CNFLIB_DATA/name; it need not exist, but its root must where it is set."""
    root = os.environ.get("CNFLIB_DATA")
    folder = Path(root or "$CNFLIB_DATA", name)
    if root and not folder.is_dir() and (Path(root).name == name or not Path(root).is_dir()):
        raise ValueError(
            f"Expected CNFLIB_DATA to be a folder that holds the folder {name}; got {root}. Set it to the absolute "
            f"path, without ~, of the folder above {name}, or unset it."
        )
    return folder


def cache(name: str) -> Path:
    """Where a data set is kept after a download: $XDG_CACHE_HOME/cnflib/name, else ~/.cache/cnflib/name."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cnflib", name)


def fetched(file: Published, folder: Path, hosts: Iterable[str]) -> Path:
    """The file in a folder; if it is not there as published, it is downloaded from the first host that has it.

    It is written under another name beside its own and then renamed: whoever reads it at the same time, or downloads it
    too, finds a whole file.

    Raises:
        ValueError: If no host gives the file as published; then nothing is written.
    """
    path = folder / file.name
    if path.exists() and _fault(path.read_bytes(), file) is None:
        return path
    content = _from_hosts(file, path, hosts)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{file.name}.{uuid4().hex}.tmp"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _from_hosts(file: Published, path: Path, hosts: Iterable[str]) -> bytes:
    faults = []
    for host in hosts:
        try:
            content = _downloaded(host + file.name, file)
        except (OSError, HTTPException) as error:
            fault = f"{type(error).__name__}: {error}"
        else:
            fault = _fault(content, file)
        if fault is None:
            return content
        faults.append(f"{host} gave {fault}")
    raise ValueError(
        f"Expected {file.name} of {file.size} bytes with the SHA-256 {file.sha256[:8]}… from the network; "
        f"{'; '.join(faults)}. Look at the connection and call again, or put the file to {path}, or all files of the "
        f"data set into {own_folder(path.parent.name)}."
    )


def _downloaded(url: str, file: Published) -> bytes:
    """What an address gives, at most one chunk more than there should be."""
    content = bytearray()
    progress = {"total": file.size, "desc": file.name, "unit": "B", "unit_scale": True}
    with urlopen(url, timeout=TIMEOUT) as response, tqdm(**progress, disable=None) as bar:
        while len(content) <= file.size and (part := response.read(CHUNK)):
            content += part
            bar.update(len(part))
    return bytes(content)


def _fault(content: bytes, file: Published) -> str | None:
    """What is wrong with a content, if anything."""
    if len(content) > file.size:
        return "more bytes than that"
    if len(content) < file.size:
        return f"{len(content)} bytes and no more"
    return (
        None if (found := hashlib.sha256(content).hexdigest()) == file.sha256 else f"the SHA-256 {found[:8]}…"
    )
