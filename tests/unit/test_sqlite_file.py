"""Which files the embedded broker takes, and what it says about the others."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.sqlite.layout import MESSAGES
from greenq.errors import ConnectionFailed, StorageError
from greenq.message import Message
from greenq.stores.sqlite.file import file_system_of
from greenq.stores.sqlite.operation import Operation
from tests.support.processes import output_of, running


def message(number: int = 1) -> Message:
    return Message("default", "work", (number,), {}, {})


@pytest.fixture
def open_broker():
    """Makes brokers, and closes them after the test."""
    brokers = []

    def make(path, **options):
        brokers.append(SqliteBroker(path, middleware=[], **options))
        return brokers[-1]

    yield make
    for each in brokers:
        each.close()


def refusal(broker, kind=ConnectionFailed) -> str:
    with pytest.raises(kind) as caught:
        broker.enqueue(message())
    assert broker.path in str(caught.value)
    return str(caught.value)


# -- a good file


def test_a_new_broker_creates_nothing_before_it_is_used(open_broker, tmp_path):
    open_broker(tmp_path / "queue.db")

    assert os.listdir(tmp_path) == []


def test_a_broker_says_where_its_file_is(open_broker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    broker = open_broker("queue.db")

    assert str(broker) == repr(broker) == f"SqliteBroker('{tmp_path}/queue.db')"


def test_a_file_and_what_is_beside_it_are_for_their_owner_alone(open_broker, tmp_path):
    old_mask = os.umask(0)
    try:
        broker = open_broker(tmp_path / "queue.db")
        broker.declare_queue("default")
        broker.enqueue(message())
        broker.consume("default")
    finally:
        os.umask(old_mask)

    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}

    assert modes == {"queue.db": 0o600, "queue.db-wal": 0o600, "queue.db-shm": 0o600, "queue.db.d": 0o700}


def test_a_file_is_marked_as_ours(open_broker, tmp_path):
    open_broker(tmp_path / "queue.db").enqueue(message())

    with closing(sqlite3.connect(tmp_path / "queue.db")) as file:
        (application_id,) = file.execute("PRAGMA application_id").fetchone()
        (version,) = file.execute("PRAGMA user_version").fetchone()

    assert (application_id, version) == (MESSAGES.application_id, MESSAGES.version)


def test_an_empty_file_is_taken(open_broker, tmp_path):
    (tmp_path / "queue.db").touch()
    broker = open_broker(tmp_path / "queue.db")

    broker.enqueue(message())

    assert broker.get_queue_message_counts("default") == (1, 0, 0)


def test_a_path_with_characters_that_mean_something_in_urls_is_taken_literally(open_broker, tmp_path):
    broker = open_broker(tmp_path / "a?mode=memory#b%41 c.db")

    broker.enqueue(message())

    assert (tmp_path / "a?mode=memory#b%41 c.db").stat().st_size > 0


def test_processes_that_create_a_file_at_the_same_instant_all_work(open_broker, tmp_path):
    create = """
        import sys
        from greenq.brokers.sqlite import SqliteBroker
        from greenq.message import Message
        brokers = [SqliteBroker(f"{sys.argv[1]}/{number}.db", middleware=[]) for number in range(10)]
        print("ready")
        input()
        for broker in brokers:
            broker.enqueue(Message("default", "work", (), {}, {}))
    """

    with running(create, tmp_path) as one, running(create, tmp_path) as two, running(create, tmp_path) as three:
        scripts = (one, two, three)
        for each in scripts:
            each.line()
        for each in scripts:
            each.say()
        for each in scripts:
            each.rest()

    counts = [open_broker(tmp_path / f"{number}.db").get_queue_message_counts("default") for number in range(10)]
    assert counts == [(3, 0, 0)] * 10


def test_a_synchronous_setting_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'NORMAL' or 'FULL'"):
        SqliteBroker(tmp_path / "queue.db", synchronous="OFF")


# -- what is no file of ours


def test_a_missing_directory_is_told(open_broker, tmp_path):
    text = refusal(open_broker(tmp_path / "missing" / "queue.db"))

    assert f"{tmp_path}/missing is not a directory" in text
    assert not (tmp_path / "missing").exists()


def test_a_directory_is_refused(open_broker, tmp_path):
    assert "is a directory" in refusal(open_broker(tmp_path))


def test_a_symbolic_link_is_not_followed(open_broker, tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")

    text = refusal(open_broker(tmp_path / "link.db"))

    assert "symbolic link" in text
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_pipe_is_refused(open_broker, tmp_path):
    os.mkfifo(tmp_path / "queue.db")

    assert "not a regular file" in refusal(open_broker(tmp_path / "queue.db"))


def test_a_file_that_is_no_database_is_left_as_it_is(open_broker, tmp_path):
    (tmp_path / "queue.db").write_text("Dear diary, " * 1000)

    text = refusal(open_broker(tmp_path / "queue.db"))

    assert "is not a database" in text
    assert (tmp_path / "queue.db").read_text() == "Dear diary, " * 1000


def test_a_database_of_another_program_is_left_as_it_is(open_broker, tmp_path):
    with closing(sqlite3.connect(tmp_path / "queue.db")) as file:
        file.execute("CREATE TABLE messages (id)")
    before = (tmp_path / "queue.db").read_bytes()

    text = refusal(open_broker(tmp_path / "queue.db"))

    assert "another program" in text
    assert (tmp_path / "queue.db").read_bytes() == before


def test_a_file_of_a_newer_version_is_left_as_it_is(open_broker, tmp_path):
    broker = open_broker(tmp_path / "queue.db")
    broker.enqueue(message())
    broker.close()
    with closing(sqlite3.connect(tmp_path / "queue.db")) as file:
        file.execute("PRAGMA user_version = 7")

    text = refusal(broker)

    assert "a newer version of greenq" in text
    assert "7" in text


# Root may write everything, so these scripts become nobody once everything is imported.
AS_NOBODY = """
    import os, shutil, sys, tempfile
    from greenq.brokers.sqlite import SqliteBroker
    from greenq.message import Message
    folder = tempfile.mkdtemp(dir="/tmp")
    message = Message("default", "work", (), {}, {})
    imported = SqliteBroker(folder + "/imported.db", middleware=[])
    imported.enqueue(message)
    imported.close()
    os.unlink(imported.path)
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    broker = SqliteBroker(folder + "/queue.db", middleware=[])
    def attempt():
        try:
            broker.enqueue(message)
            print("stored")
        except Exception as error:
            print(type(error).__name__, error)
"""


def as_nobody(steps: str) -> list[str]:
    lines = [line.strip() for line in steps.strip().splitlines()]
    return output_of(AS_NOBODY + "".join(f"    {line}\n" for line in lines))


def test_a_file_that_may_not_be_written_is_told():
    lines = as_nobody("""
        attempt()
        broker.close()
        os.chmod(broker.path, 0o400)
        attempt()
        shutil.rmtree(folder)
    """)

    assert lines[0] == "stored"
    assert lines[1].startswith("BrokerUnusable /tmp/")
    assert "cannot be read and written by this process" in lines[1]


def test_a_directory_that_may_not_be_written_is_told():
    lines = as_nobody("""
        os.chmod(folder, 0o500)
        attempt()
        os.rmdir(folder)
    """)

    assert lines[0].startswith("BrokerUnusable /tmp/")
    assert "cannot be created: Permission denied" in lines[0]


def test_network_file_systems_are_recognised(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "2 1 0:40 / /srv rw,relatime shared:2 master:1 - nfs4 server:/srv rw\n"
        "3 2 8:2 / /srv/local\\040disk rw - xfs /dev/sdb1 rw\n"
    )

    found = [file_system_of(path, str(mounts)) for path in ("/home", "/srv", "/srv/a/b", "/srvice", "/srv/local disk")]

    assert found == ["ext4", "nfs4", "nfs4", "ext4", "xfs"]


def test_a_system_that_does_not_tell_its_file_systems_refuses_nothing(tmp_path):
    assert file_system_of("/", str(tmp_path / "missing")) is None


# -- what happens to it later


def test_a_deleted_file_is_told_and_no_new_one_takes_its_place(open_broker, tmp_path):
    broker = open_broker(tmp_path / "queue.db")
    broker.enqueue(message())

    os.unlink(tmp_path / "queue.db")

    assert "was deleted" in refusal(broker, StorageError)
    assert "was deleted" in refusal(broker, StorageError)
    assert not (tmp_path / "queue.db").exists()


def test_a_replaced_file_is_told(open_broker, tmp_path):
    broker, other = open_broker(tmp_path / "queue.db"), open_broker(tmp_path / "other.db")
    broker.enqueue(message())
    other.enqueue(message())
    other.close()

    os.rename(tmp_path / "other.db", tmp_path / "queue.db")

    assert "replaced by another file" in refusal(broker, StorageError)


def test_a_file_that_was_put_back_is_used_again(open_broker, tmp_path):
    broker = open_broker(tmp_path / "queue.db")
    broker.enqueue(message())
    os.rename(tmp_path / "queue.db", tmp_path / "away.db")
    refusal(broker, StorageError)

    os.rename(tmp_path / "away.db", tmp_path / "queue.db")

    assert broker.get_queue_message_counts("default") == (1, 0, 0)


class LimitPages(Operation):
    """Leaves the file no room to grow, as a full disk does."""

    writes = False

    def run(self, connection):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_told_and_what_was_stored_before_stays(open_broker, tmp_path):
    broker = open_broker(tmp_path / "queue.db")
    broker.enqueue(message())
    broker._attach().store.do(LimitPages())

    with pytest.raises(StorageError) as caught:
        broker.write([broker.prepare(message(number)) for number in range(1000)])

    assert str(caught.value).startswith(f"There is no space left for {broker.path}")
    assert broker.get_queue_message_counts("default") == (1, 0, 0)


def test_a_broker_goes_on_once_there_is_space_again(open_broker, tmp_path):
    broker = open_broker(tmp_path / "queue.db")
    broker.enqueue(message())
    envelopes = [broker.prepare(message(number)) for number in range(1000)]
    broker._attach().store.do(LimitPages())
    with pytest.raises(StorageError):
        broker.write(envelopes)

    broker.write(envelopes)

    assert broker.get_queue_message_counts("default") == (1001, 0, 0)


def test_a_damaged_file_is_told_with_the_way_to_save_what_is_left(open_broker, tmp_path):
    broker = open_broker(tmp_path / "queue.db")
    broker.write([broker.prepare(message(number)) for number in range(1000)])
    broker.close()
    with open(tmp_path / "queue.db", "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))

    with pytest.raises((ConnectionFailed, StorageError)) as caught:
        broker.get_queue_message_counts("default")

    assert f"{broker.path} is damaged" in str(caught.value)
    assert ".recover" in str(caught.value)
