"""MNIST comes whole or not: from a folder, from the cache, or from hosts that fail in every way (127.0.0.1)."""

import gzip
import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from cnflib.data import _download, mnist
from cnflib.data._download import Published
from cnflib.data.digits import digits


def packed(values):
    header = np.array([0x800 + values.ndim, *values.shape], ">i4").tobytes()
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


draw = np.random.default_rng(0)
IMAGES, LABELS = draw.integers(256, size=(20, 28, 28)), draw.integers(10, size=20)
CONTENTS = {f.name: packed(v) for f, v in zip(mnist.FILES["train"], (IMAGES, LABELS))}
FILES = {
    "train": tuple(
        Published(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in CONTENTS.items()
    )
}


class Host(BaseHTTPRequestHandler):
    """What the first part of the path says is done to the file that the last part names."""

    def do_GET(self):
        self.server.asked.append(self.path)
        _, way, name = self.path.split("/")
        content = CONTENTS[name]
        if way == "missing":
            return self.send_error(404)
        sent = {
            "truncated": content[: len(content) // 2],
            "corrupt": content[:-1] + bytes([content[-1] ^ 1]),
            "long": content + bytes(1 << 20),
        }.get(way, content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        half = len(sent) // 2
        try:
            self.wfile.write(sent[:half])
            if way == "slow":
                time.sleep(0.2)
            if way == "silent":
                self.server.done.wait(5)
            if way not in ("silent", "hung"):
                self.wfile.write(sent[half:])
        except OSError:  # the reader had enough
            pass

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.asked, server.done = [], threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.done.set()
        server.shutdown()


@pytest.fixture
def hosts(server, tmp_path, monkeypatch):
    """Sets the hosts by what they do; the cache is in the test's own folder."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CNFLIB_DATA", raising=False)
    monkeypatch.setattr(mnist, "FILES", FILES)
    address = f"http://127.0.0.1:{server.server_port}"

    def hosts(*ways):
        monkeypatch.setattr(mnist, "HOSTS", tuple(f"{address}/{way}/" for way in ways))

    return hosts


def check_whole(data):
    assert torch.equal(data.images, torch.as_tensor(IMAGES)[:, None].to(data.images))
    assert torch.equal(data.labels, torch.as_tensor(LABELS)) and data.levels == 256


def kept(tmp_path):
    folder = tmp_path / "cnflib" / "mnist"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_it_is_downloaded_once_and_then_read_from_the_cache(hosts, server, tmp_path):
    hosts("whole")
    check_whole(mnist.mnist())
    assert kept(tmp_path) == sorted(CONTENTS) and len(server.asked) == 2
    hosts()
    check_whole(mnist.mnist("train", torch.uint8))
    data = mnist.mnist(dtype=torch.float64)
    assert data.images.dtype == torch.float64 and data.images.shape == (20, 1, 28, 28)
    assert data.labels.dtype == torch.int64 and len(server.asked) == 2


FAULTS = {
    "truncated": "gave [0-9]+ bytes and no more",
    "hung": "gave",
    "corrupt": "gave the SHA-256 [0-9a-f]{8}",
    "long": "gave more bytes than that",
    "missing": "gave HTTPError: .*404",
    "silent": "gave TimeoutError",
}


@pytest.mark.parametrize("way", FAULTS)
def test_a_bad_download_is_named_and_leaves_nothing(way, hosts, tmp_path, monkeypatch):
    if way == "silent":
        monkeypatch.setattr(_download, "TIMEOUT", 0.3)
    hosts(way)
    name = FILES["train"][0].name
    with pytest.raises(
        ValueError, match=f"Expected {name} of {FILES['train'][0].size} bytes.*{FAULTS[way]}"
    ) as caught:
        mnist.mnist()
    assert "CNFLIB_DATA/mnist" in str(caught.value) and str(tmp_path) in str(caught.value)
    assert kept(tmp_path) == []
    monkeypatch.setattr(_download, "TIMEOUT", 30)
    hosts("whole")
    check_whole(mnist.mnist())


def test_of_too_much_a_chunk_is_read_and_no_more(hosts):
    hosts("long")
    file = FILES["train"][0]
    content = _download._downloaded(mnist.HOSTS[0] + file.name, file)
    assert file.size < len(content) <= file.size + _download.CHUNK


def test_the_second_host_serves_where_the_first_fails(hosts, server, tmp_path):
    hosts("corrupt", "whole")
    check_whole(mnist.mnist())
    assert len(server.asked) == 4 and kept(tmp_path) == sorted(CONTENTS)


def test_no_host_at_all_is_named(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "HOSTS", ("http://127.0.0.1:1/",))
    with pytest.raises(ValueError, match=r"127.0.0.1:1/ gave URLError"):
        mnist.mnist()
    assert kept(tmp_path) == []


def test_a_broken_file_in_the_cache_is_replaced(hosts, tmp_path):
    hosts("whole")
    mnist.mnist()
    path = tmp_path / "cnflib" / "mnist" / FILES["train"][0].name
    path.write_bytes(path.read_bytes()[:-9])
    check_whole(mnist.mnist())
    assert path.read_bytes() == CONTENTS[path.name]


def test_an_interrupt_leaves_nothing(hosts, tmp_path, monkeypatch):
    hosts("whole")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mnist.mnist()
    assert kept(tmp_path) == []


def test_many_downloads_at_once_do_no_harm(hosts, server, tmp_path):
    """Eight threads of one process; each writes under a name of its own, as another process would."""
    hosts("slow")
    found = []
    threads = [threading.Thread(target=lambda: found.append(mnist.mnist())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(server.asked) > 2
    for data in found:
        check_whole(data)
    assert kept(tmp_path) == sorted(CONTENTS)


def test_a_folder_of_one_s_own_comes_first_and_is_read_as_it_is(hosts, server, tmp_path, monkeypatch):
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    hosts("whole")
    check_whole(mnist.mnist())  # there is no folder mnist in it yet
    (folder := tmp_path / "own" / "mnist").mkdir()
    images, labels = FILES["train"]
    (folder / images.name).write_bytes(packed(255 - IMAGES[:7]))
    with pytest.raises(ValueError, match=f"{folder / labels.name}.*FileNotFound"):
        mnist.mnist()
    (folder / labels.name).write_bytes(packed(LABELS[:7]))
    assert torch.equal(mnist.mnist().images, torch.as_tensor(255.0 - IMAGES[:7])[:, None].float())
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", CONTENTS[FILES["train"][0].name][:-50], packed(IMAGES[:, 0]), gzip.compress(b"short")],
    ids=["empty", "no gzip", "truncated", "of other axes", "short"],
)
def test_a_broken_file_of_one_s_own_is_named(content, hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for name in CONTENTS:
        (tmp_path / "mnist" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path / 'mnist' / FILES['train'][0].name}.*IDX"):
        mnist.mnist()


@pytest.mark.parametrize("name", ["none", "mnist"])
def test_a_variable_that_names_no_folder_of_folders_is_shown_and_nothing_is_asked(
    name, hosts, server, tmp_path, monkeypatch
):
    """Neither a folder that does not exist nor the folder of the files themselves is passed over for the network."""
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path / name))
    hosts("whole")
    with pytest.raises(ValueError, match=f"Expected CNFLIB_DATA .*got {tmp_path / name}"):
        mnist.mnist()
    assert not server.asked


def test_a_failed_download_names_the_folder_that_the_variable_means(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path))
    hosts("missing")
    with pytest.raises(ValueError, match=f"into {tmp_path / 'mnist'}"):
        mnist.mnist()


def test_labels_of_another_split_are_refused(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for file, values in zip(FILES["train"], (IMAGES, LABELS[:7])):
        (tmp_path / "mnist" / file.name).write_bytes(packed(values))
    with pytest.raises(ValueError, match="20 images, 7 labels"):
        mnist.mnist()


def test_a_dtype_holds_every_level_or_is_refused(hosts):
    hosts("whole")
    for dtype in (torch.uint8, torch.int16, torch.bfloat16, torch.float64):
        check_whole(mnist.mnist(dtype=dtype))
    assert digits(dtype=torch.int8).images.max() == 16
    for call in (lambda: mnist.mnist(dtype=torch.int8), lambda: digits(dtype=torch.bool)):
        with pytest.raises(ValueError, match="dtype"):
            call()


def test_a_split_that_is_none_is_refused(hosts):
    with pytest.raises(ValueError, match="split.*'train'.*'valid'"):
        mnist.mnist("valid")


def test_the_hosts_are_read_over_tls_and_the_files_are_those_published():
    assert all(host.startswith("https://") and host.endswith("/mnist/") for host in mnist.HOSTS)
    sizes = {file.name: (file.size, file.sha256[:8]) for files in mnist.FILES.values() for file in files}
    assert sizes == {
        "train-images-idx3-ubyte.gz": (9_912_422, "440fcabf"),
        "train-labels-idx1-ubyte.gz": (28_881, "3552534a"),
        "t10k-images-idx3-ubyte.gz": (1_648_877, "8d422c7b"),
        "t10k-labels-idx1-ubyte.gz": (4_542, "f7ae60f9"),
    }
