"""Paths in an object store, against a server on this machine that speaks S3's protocol."""

import csv
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import boto3
import fsspec
import jax
import pytest
from etils.epath import backend
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer
from running import Commands, Process
from workdirs import assert_same_results

from sie_jax import remote
from sie_jax.errors import UserError

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A client of a server of its own, which the environment names as the store."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        forget_stores()
        yield boto3.client("s3")
    forget_stores()
    server.stop()


def forget_stores() -> None:
    """Has the next path look at the environment anew."""
    backend.fsspec_backend._get_filesystem.cache_clear()
    fsspec.AbstractFileSystem.clear_instance_cache()
    for name in ("s3fs", "gcsfs"):
        if name in sys.modules and sys.modules[name] is not None:
            for each in vars(sys.modules[name]).values():
                if hasattr(each, "clear_instance_cache"):
                    each.clear_instance_cache()


@pytest.fixture
def bucket(store: Any) -> str:
    name = f"bucket-{next(NUMBERS)}"
    store.create_bucket(Bucket=name)
    return name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sie_jax"


def keys(store: Any, bucket: str) -> list[str]:
    return sorted(one["Key"] for one in store.list_objects_v2(Bucket=bucket).get("Contents", []))


# -------------------------------------------------------------------------------------- inputs


def test_a_local_path_stays_as_it_is() -> None:
    assert remote.local("") == ""
    assert remote.local("data/pairs.csv") == "data/pairs.csv"


def test_an_object_is_copied(store: Any, bucket: str) -> None:
    store.put_object(Bucket=bucket, Key="some/pairs.csv", Body=b"a")
    store.put_object(Bucket=bucket, Key="some/pairs.csv.old", Body=b"b")
    copy = Path(remote.local(f"s3://{bucket}/some/pairs.csv"))
    assert copy.read_bytes() == b"a"
    assert [path.name for path in copy.parent.iterdir()] == ["pairs.csv"]


def test_a_folder_is_copied_again_where_it_changed(store: Any, bucket: str) -> None:
    for key in ("data/a", "data/b", "data/below/c", "database"):
        store.put_object(Bucket=bucket, Key=key, Body=key.encode())
    copy = Path(remote.local(f"s3://{bucket}/data/"))
    assert {name: (copy / name).read_text() for name in remote._names(copy)} == {
        "a": "data/a",
        "b": "data/b",
        "below/c": "data/below/c",
    }
    untouched = (copy / "b").stat()
    store.put_object(Bucket=bucket, Key="data/a", Body=b"DATA/A")  # as long as before
    store.delete_object(Bucket=bucket, Key="data/below/c")
    assert remote.local(f"s3://{bucket}/data") == str(copy)
    assert remote._names(copy) == ["a", "b"]
    assert (copy / "a").read_text() == "DATA/A"
    assert (copy / "b").stat().st_ino == untouched.st_ino


# ------------------------------------------------------------------------------------- workdir


def mirror(bucket: str) -> remote.Mirror:
    return remote.Mirror(f"s3://{bucket}/run", print)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in remote._names(folder)}


def brought(bucket: str, cache: Path) -> dict[str, str]:
    """What another machine is given."""
    shutil.rmtree(cache)
    other = mirror(bucket)
    other.bring()
    return content(other.folder)


def test_what_is_left_is_sent_and_brought_elsewhere(store: Any, bucket: str, cache: Path) -> None:
    first = mirror(bucket)
    with first.kept():
        write(first.folder, config="c", scores__0="part", deep__er__x="x")
        first.send()
        shutil.rmtree(first.folder / "scores")
        write(first.folder, importance="i", deep__er__x="y")
        write(first.folder, **{".table.tmp": "half", "a.orbax-checkpoint-tmp__b": "half"})
    expected = {"config": "c", "importance": "i", "deep/er/x": "y"}
    assert keys(store, bucket) == sorted(f"run/{name}" for name in [*expected, "mirror.json"])
    assert brought(bucket, cache) == expected


def test_google_cloud_storage(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_GCE_CHECK", "true")  # nobody is to be asked for credentials
        forget_stores()
        first = remote.Mirror("gs://bucket/run", print)
        with first.kept():
            write(first.folder, config="c", scores__0="part")
            first.send()
            shutil.rmtree(first.folder / "scores")
            write(first.folder, importance="i")
        shutil.rmtree(cache)
        second = remote.Mirror("gs://bucket/run", print)
        second.bring()
        assert content(second.folder) == {"config": "c", "importance": "i"}
        assert Path(remote.local("gs://bucket/run/config")).read_text() == "c"
        assert said(remote.Mirror("gs://no-such-bucket/run", print).bring).startswith(
            "gs://no-such-bucket/run: there is no such bucket, folder or object"
        )
    finally:
        server.stop()


class Cut:
    """The store as a process sees it that is killed after so many changes."""

    def __init__(self, store: Any, changes: int) -> None:
        self._store, self._left = store, changes

    def _change(self, method: str, *args: Any) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        getattr(self._store, method)(*args)

    def put(self, files: list[str], names: list[str]) -> None:
        for pair in zip(files, names, strict=True):
            self._change("put_file", *pair)

    def pipe_file(self, name: str, content: bytes) -> None:
        self._change("pipe_file", name, content)

    def rm_file(self, name: str) -> None:
        self._change("rm_file", name)

    def cat_file(self, name: str) -> bytes:
        return self._store.cat_file(name)


@pytest.mark.parametrize("cut", range(6))
def test_a_send_cut_off_anywhere_leaves_a_whole_state(
    store: Any, bucket: str, cache: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    before = {"old/a": "a", "old/b": "b", "keep": "k"}
    after = {"new/a": "A", "new/b": "B", "keep": "k"}
    first = mirror(bucket)
    first.bring()
    write(first.folder, old__a="a", old__b="b", keep="k")
    first.send()
    shutil.rmtree(first.folder / "old")
    write(first.folder, new__a="A", new__b="B")
    cut_off = Cut(remote._store(first.path), cut)
    with monkeypatch.context() as patch:
        patch.setattr(remote, "_store", lambda path: cut_off)
        if cut < 5:  # two files, the manifest, two removals
            with pytest.raises(KeyboardInterrupt):
                first.send()
        else:
            first.send()
    assert brought(bucket, cache) == (before if cut < 3 else after)
    # and what goes on from there leaves nothing of the old behind
    second = mirror(bucket)
    with second.kept():
        write(second.folder, **{"new/a": "A", "more": "m"})
    assert ("run/old/a" in keys(store, bucket)) == (cut < 3)


def test_a_folder_that_is_ahead_of_the_store_goes_on(bucket: str) -> None:
    first = mirror(bucket)
    first.bring()
    write(first.folder, config="c", **{"not/sent": "n"})
    second = mirror(bucket)  # on the same machine, after a kill
    with second.kept():
        assert content(second.folder) == {"config": "c", "not/sent": "n"}


def test_a_store_that_was_emptied_begins_again(store: Any, bucket: str) -> None:
    first = mirror(bucket)
    with first.kept():
        write(first.folder, config="c", data__rows="r")
    for key in keys(store, bucket):
        store.delete_object(Bucket=bucket, Key=key)
    second = mirror(bucket)
    second.bring()
    assert not list(second.folder.iterdir())


def test_a_workdir_that_was_copied_there_is_gone_on_with(store: Any, bucket: str) -> None:
    for name in ("config.json", "data/rows"):
        store.put_object(Bucket=bucket, Key=f"run/{name}", Body=name.encode())
    first = mirror(bucket)
    with first.kept():
        assert content(first.folder) == {"config.json": "config.json", "data/rows": "data/rows"}


def test_another_run_is_noticed(bucket: str, tmp_path: Path, monkeypatch: Any) -> None:
    first = mirror(bucket)
    first.bring()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
    second = mirror(bucket)
    with second.kept():
        write(second.folder, config="of the second")
    write(first.folder, config="of the first")
    with pytest.raises(UserError, match="was written by another run: the files of this run are in"):
        first.send()


def test_a_failure_is_told_once_and_what_was_not_sent_is_sent_later(
    store: Any, bucket: str, cache: Path
) -> None:
    told: list[str] = []
    first = remote.Mirror(f"s3://{bucket}/run", told.append)
    first.bring()
    write(first.folder, config="c")
    policy = {"Effect": "Deny", "Principal": "*", "Action": "s3:*"}
    policy |= {"Resource": f"arn:aws:s3:::{bucket}/*"}
    store.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [policy]}))
    first.try_to_send()
    first.try_to_send()
    assert len(told) == 1
    assert told[0].startswith(f"not sent: s3://{bucket}/run: access is denied: give this machine's")
    store.delete_bucket_policy(Bucket=bucket)
    first.try_to_send()
    assert brought(bucket, cache) == {"config": "c"}


def test_sigterm_sends_what_is_there(store: Any, bucket: str) -> None:
    script = f"""
import signal
from sie_jax import remote
from sie_jax.training import stopping

remote.PAUSE_SECONDS = 1e6
stopping.listen()
mirror = remote.Mirror("s3://{bucket}/run", print)
with stopping.before_leaving(mirror.try_to_send), mirror.kept():
    (mirror.folder / "half").write_text("h")
    signal.raise_signal(signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 143, ended.stderr
    assert "run/half" in keys(store, bucket)


# -------------------------------------------------------------------------------------- errors


def said(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_other_urls() -> None:
    assert said(lambda: remote.local("https://host/pairs.csv")) == (
        "https://host/pairs.csv: give a local path, or one that begins with gs:// or s3://"
    )


def test_nothing_there(bucket: str) -> None:
    for path in ("s3://no-such-bucket/pairs.csv", f"s3://{bucket}/pairs.csv"):
        assert said(lambda path=path: remote.local(path)).startswith(
            f"{path}: there is no such bucket, folder or object: check the name"
        )
    assert said(remote.Mirror("s3://no-such-bucket/run", print).bring).startswith(
        "s3://no-such-bucket/run: there is no such bucket, folder or object"
    )


def test_a_folder_of_other_things(store: Any, bucket: str) -> None:
    store.put_object(Bucket=bucket, Key="run/letter.txt", Body=b"private")
    assert said(mirror(bucket).bring) == (
        f"s3://{bucket}/run has files that no run made: give another --workdir"
    )


def test_no_credentials(store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_stores()
    try:
        assert said(mirror("bucket").bring) == (
            "s3://bucket/run: no credentials were found: run aws configure, or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    finally:
        forget_stores()


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_stores()
    for name, scheme, extra in (("s3fs", "s3", "s3"), ("gcsfs", "gs", "gcs")):
        monkeypatch.setitem(sys.modules, name, None)
        # fsspec.registry is the mapping of that name, not the module
        registered = sys.modules["fsspec.registry"].__dict__["_registry"]
        for known in ("s3", "gcs"):
            monkeypatch.delitem(registered, known, raising=False)
        assert said(lambda scheme=scheme: remote.local(f"{scheme}://bucket/data")).startswith(
            f"{scheme}://bucket/data needs a package that is not installed: "
            f"pip install 'sie_jax[{extra}]'"
        )


def test_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert said(lambda: mirror("bucket")) == (
        "--workdir=s3://bucket/run: with several processes give a folder that all of them see, "
        "such as a mounted bucket (docs/many_devices.md)"
    )


# ----------------------------------------------------------------------------------- whole run

FIELDS = {
    "data.source": "table",
    "train.epochs": 3,
    "train.checkpoint_every": 5,
    "train.log_every": 1,
}
# looks for what is to be sent all the time: a tiny run is over before the usual pause is
IMPATIENT = """
from sie_jax import remote
remote.PAUSE_SECONDS, remote.PAUSE_FACTOR = 0.2, 1.0
"""


class Runs:
    """Starts train.py on one config, each time as on a machine that never saw it."""

    def __init__(self, folder: Path, forks: Any) -> None:
        self.folder, self.number = folder, 0
        self._commands = Commands(folder, forks, FIELDS)
        with (folder / "pairs.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["query", "title", "label"])
            for query in range(20):
                for item in range(8):
                    text = f"thing{query % 7} size{item % 3} item{query}{item}"
                    rows.writerow([f"thing{query % 7} q{query}", text, (query + item) % 2])

    def started(self, workdir: str, data: str) -> AbstractContextManager[Process]:
        self.number += 1
        return self._commands.started(
            self._commands.config,
            f"--workdir={workdir}",
            f"--config.data.path={data}",
            environment={
                **{name: os.environ[name] for name in os.environ if name.startswith("AWS_")},
                "XDG_CACHE_HOME": str(self.folder / f"cache-{self.number}"),
            },
            first=IMPATIENT,
        )


@pytest.mark.slow
def test_a_killed_run_ends_on_another_machine_as_one_in_a_local_folder(
    store: Any, bucket: str, tmp_path: Path, forks: Any
) -> None:
    runs = Runs(tmp_path, forks)
    store.upload_file(str(tmp_path / "pairs.csv"), bucket, "data/pairs.csv")
    paths = f"s3://{bucket}/runs/tiny", f"s3://{bucket}/data/pairs.csv"

    def sent(run: str) -> bool:
        """Whether the store has a whole checkpoint of that run."""
        try:
            body = store.get_object(Bucket=bucket, Key="runs/tiny/mirror.json")["Body"].read()
        except store.exceptions.NoSuchKey:
            return False
        names = json.loads(body)["files"]
        return any(name.startswith(f"checkpoints/{run}/steps/") for name in names)

    with runs.started(*paths) as run:
        run.wait(lambda: sent("uniform-0"))
        run.send(signal.SIGKILL)
    assert "runs/tiny/metrics.json" not in keys(store, bucket)
    with runs.started(*paths) as run:
        code, output, error = run.done()
        assert code == 0, error
    assert f"Report: s3://{bucket}/runs/tiny/report.html" in output
    with runs.started(str(tmp_path / "peace"), str(tmp_path / "pairs.csv")) as run:
        code, _, error = run.done()
        assert code == 0, error

    gone_on, peace = tmp_path / "gone on", tmp_path / "peace"
    for key in keys(store, bucket):
        path = gone_on / key
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download_file(bucket, key, str(path))
    gone_on /= "runs/tiny"
    # which checkpoints stay depends on the kill; TensorBoard's files are named by the time
    left, expected = (
        {name for name in remote._names(folder) if not name.startswith(("checkpoints", "tracking"))}
        for folder in (gone_on, peace)
    )
    assert left == expected | {"mirror.json"}
    assert any((gone_on / "checkpoints" / "weighted-0").iterdir())
    assert_same_results(gone_on, peace)
