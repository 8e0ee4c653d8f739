"""The lock of a folder, and temporary files: one writer, nothing of the user's deleted, nothing left behind."""

import errno
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minivit.errors import FileError
from minivit.machinery import lock as room
from minivit.machinery.files import is_leftover, replacing, sweep, writable_folder
from minivit.machinery.lock import LOCK, locked
from minivit.weights import read_folder, read_state, write_folder, write_state


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def child(code, *args):
    """A Python process that runs the code, and has printed a line already."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


HOLDER = """
import sys, time
from minivit.machinery.lock import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_writer_and_a_killed_one_has_no_lock(tmp_path):
    holder = child(HOLDER, tmp_path / "run")
    try:
        with pytest.raises(FileError, match="run: another process is writing into this folder"):
            with locked(tmp_path / "run"):
                pass
        with pytest.raises(FileError, match="another process"):
            write_folder(tmp_path / "run", {"model_type": "vit"}, {"x": np.ones(2)})
        assert names(tmp_path / "run") == [LOCK]
        with locked(tmp_path / "other"):  # another folder is free
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert names(tmp_path / "run") == [LOCK]
    with locked(tmp_path / "run"):
        pass
    assert names(tmp_path / "run") == []


def test_a_thread_may_ask_again_and_another_may_not(tmp_path):
    refused = []

    def ask():
        try:
            with locked(tmp_path):
                pass
        except FileError as error:
            refused.append(error)

    with locked(tmp_path) as first:
        with locked(str(tmp_path)) as second:
            assert first is second
        assert names(tmp_path) == [LOCK]
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(refused) == 1 and names(tmp_path) == []
    ask()
    assert len(refused) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_lock_that_its_last_owner_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    """Between open and lock the file may go: a lock on it would hold nobody off."""
    taken, _lock = [], room._lock

    def late(number):
        taken.append(number)
        _lock(number)
        if len(taken) < 3:
            (tmp_path / LOCK).unlink()

    monkeypatch.setattr(room, "_lock", late)
    with locked(tmp_path) as lock:
        assert len(taken) == 3 and os.path.samestat(os.fstat(lock.number), os.stat(tmp_path / LOCK))
    assert names(tmp_path) == []


def test_many_who_ask_at_once_are_served_one_at_a_time(tmp_path):
    """Each holder removes the file at its end, while others wait to open it: no two ever hold the lock together."""
    code = """
import os, sys
from minivit.errors import FileError
from minivit.machinery.lock import locked
print(flush=True)
held = 0
while held < 100:
    try:
        with locked(sys.argv[1]):
            os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))
            os.unlink(sys.argv[2])
            held += 1
    except FileError:
        pass
"""
    processes = [child(code, tmp_path / "run", tmp_path / "inside") for _ in range(3)]
    for process in processes:
        assert process.wait(60) == 0
        process.stdout.close()


def test_a_failed_block_leaves_no_folder_and_a_full_one_stays(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert names(tmp_path) == []
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "mine.txt").write_text("mine")
        raise ZeroDivisionError
    assert names(tmp_path / "a") == ["mine.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes and moves no folder in which a file is open")
@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
def test_a_folder_that_has_gone_is_said(tmp_path, fate):
    folder = tmp_path / "run"
    with locked(folder) as lock:
        lock.check()
        if fate == "deleted":
            (folder / LOCK).unlink()
            folder.rmdir()
        else:
            folder.rename(tmp_path / "elsewhere")
        if fate == "replaced":
            folder.mkdir()
            (folder / LOCK).touch()
        with pytest.raises(FileError, match="run: this folder was deleted, moved or replaced while it was written to"):
            lock.check()
    assert (folder / LOCK).exists() == (fate == "replaced")  # another's is not ours to remove


def test_a_file_of_the_user_with_the_lock_s_name_stays(tmp_path):
    (tmp_path / LOCK).write_text("mine")
    with locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / LOCK).symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match="cannot be written to"), locked(tmp_path):
        pass
    assert names(tmp_path) == [LOCK]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_is_warned_of(tmp_path, monkeypatch, number):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(room, "_lock", refuse)
    with pytest.warns(UserWarning, match="knows no locks"), locked(tmp_path) as lock:
        lock.check()
    assert names(tmp_path) == []


def test_windows_locks_one_byte_and_removes_the_file_when_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(room.os, "name", "nt")
    unlink = room.Path.unlink

    def only_closed(path, **kwargs):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(lock.number)
        unlink(path, **kwargs)

    lock = room.Lock(tmp_path)
    monkeypatch.setattr(room.Path, "unlink", only_closed)
    lock.close()
    monkeypatch.undo()
    assert names(tmp_path) == []


# ---- temporary files


OLD_NAMES = [f"{name}.tmp" for name in ("minivit", "config.json", "model.safetensors", "training.npz", "a.png")]
OLD_NAMES += [".minivit-x.tmp", f".minivit-{'0' * 31}.tmp", f".minivit-{'0' * 32}.tmp.txt"]


def test_files_of_the_user_with_temporary_names_stay(tmp_path):
    for name in OLD_NAMES:
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (0, 0))
    writable_folder(tmp_path)
    with locked(tmp_path), replacing(tmp_path / "a.png", tmp_path / "config.json") as paths:
        assert all(is_leftover(path.name) for path in paths)
    write_state(tmp_path / "training.npz", {"model/x": np.ones(2)}, {})
    write_folder(tmp_path, {"model_type": "vit"}, {"x": np.ones(2)}, force=True)
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "config.json"):
        raise ZeroDivisionError
    for name in OLD_NAMES:
        assert (tmp_path / name).read_text() == name
    made = {"a.png", "config.json", "model.safetensors", "training.npz"}
    assert set(names(tmp_path)) == made | set(OLD_NAMES)


def test_a_name_that_is_taken_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda count: "ab" * count)
    taken = tmp_path / f".minivit-{'ab' * 16}.tmp"
    taken.write_text("mine")
    with pytest.raises(FileError, match=r"cannot be written: .*exists"), replacing(tmp_path / "a"):
        pass
    assert taken.read_text() == "mine"


def test_what_was_refused_leaves_no_folders(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a" / "b" / "c.json", tmp_path / "a" / "d.json"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_what_killed_processes_left_is_swept(tmp_path):
    left, young = (tmp_path / f".minivit-{digit * 32}.tmp" for digit in "07")
    left.touch()
    os.utime(left, (0, 0))
    young.touch()
    with replacing(tmp_path / "a") as (path,):  # another process may be writing the young one
        path.write_text("new")
    assert names(tmp_path) == [young.name, "a"]
    with locked(tmp_path):  # nobody else may
        assert names(tmp_path) == [LOCK, "a"]
    sweep(tmp_path)
    assert names(tmp_path) == ["a"]


SAVER = """
import sys, time
import numpy as np
from minivit.weights import write_state
arrays = {"model/x": np.full(20000, float(sys.argv[2]))}
print(flush=True)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    write_state(sys.argv[1], arrays, {"number": float(sys.argv[2])})
"""


def test_two_savers_of_one_state_never_damage_it(tmp_path):
    path = tmp_path / "training.npz"
    write_state(path, {"model/x": np.full(20000, 1.0)}, {"number": 1.0})
    savers = [child(SAVER, path, number, 3) for number in (1, 2)]
    while any(saver.poll() is None for saver in savers):
        arrays, meta = read_state(path)
        np.testing.assert_array_equal(arrays["model/x"], meta["number"])
    for saver in savers:
        assert saver.returncode == 0
        saver.stdout.close()
    assert names(tmp_path) == ["training.npz"]


def test_two_savers_of_one_model_leave_what_belongs_together(tmp_path):
    code = """
import sys, time
import numpy as np
from minivit.errors import FileError
from minivit.weights import write_folder
print(flush=True)
size, end = int(sys.argv[2]), time.monotonic() + 3
while time.monotonic() < end:
    try:
        write_folder(sys.argv[1], {"model_type": "vit", "size": size}, {"x": np.ones(size)})
    except FileError as error:
        assert "another process is writing" in str(error)
"""
    savers = [child(code, tmp_path / "m", size) for size in (3, 40)]
    for saver in savers:
        assert saver.wait(60) == 0
        saver.stdout.close()
    config, tensors = read_folder(tmp_path / "m")
    assert tensors["x"].shape == (config["size"],)


def test_a_saver_killed_in_its_work_leaves_the_state_whole_and_little_else(tmp_path):
    path = tmp_path / "training.npz"
    for number in range(3):
        saver = child(SAVER, path, number, 60)
        time.sleep(0.1 + 0.013 * number)
        saver.kill()
        saver.wait()
        saver.stdout.close()
        arrays, meta = read_state(path)
        np.testing.assert_array_equal(arrays["model/x"], meta["number"])
    assert all(name == "training.npz" or is_leftover(name) for name in names(tmp_path))
    with locked(tmp_path):
        pass
    assert names(tmp_path) == ["training.npz"]
