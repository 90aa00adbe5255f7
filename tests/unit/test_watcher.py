"""What --watch takes for a change, and what not."""

from __future__ import annotations

import os
import shutil

import pytest

from greenq.watcher import Files, changes, told


@pytest.fixture
def put(tmp_path):
    """Writes files below the directory that is watched."""

    def put(*paths, text=""):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

    return put


def seen(folder, include=(), exclude=()):
    return sorted(Files(str(folder), include, exclude).look())


def test_python_files_are_watched_wherever_they_are(put, tmp_path):
    put("app.py", "package/sub/tasks.py", "README.md", "package/data.yaml", "app.pyc", "py")

    assert seen(tmp_path) == ["app.py", "package/sub/tasks.py"]


def test_hidden_folders_caches_and_environments_are_left_out(put, tmp_path):
    put("app.py", ".git/hook.py", "__pycache__/app.py", "web/node_modules/x/y.py", "env/lib/z.py", "env/pyvenv.cfg")

    assert seen(tmp_path) == ["app.py"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.yaml"], [], ["app.py", "conf/a.yaml", "conf/deep/b.yaml", "tests/t.py"]),
        (["conf/*.yaml"], [], ["app.py", "conf/a.yaml", "conf/deep/b.yaml", "tests/t.py"]),
        (["**/b.yaml"], [], ["app.py", "conf/deep/b.yaml", "tests/t.py"]),
        ([], ["tests"], ["app.py"]),
        ([], ["./tests/*"], ["app.py"]),
        (["*.yaml"], ["deep", "*.py"], ["conf/a.yaml"]),
    ],
)
def test_patterns_add_files_and_leave_out_more(put, tmp_path, include, exclude, expected):
    put("app.py", "tests/t.py", "conf/a.yaml", "conf/deep/b.yaml")

    assert seen(tmp_path, include, exclude) == expected


def test_news_are_a_reason_to_look_unless_they_are_of_another_file(put, tmp_path):
    put("app.py", "queue.db", "package/x.txt")
    files = Files(str(tmp_path))

    concerning = [name for name in ("app.py", "queue.db", "package", "gone") if files.may_concern(str(tmp_path / name))]

    assert concerning == ["app.py", "package", "gone"]


def changes_after(folder, *steps, settle=lambda seconds: None):
    """What is told when each of these steps is followed by an occasion to look."""

    def occasions():
        yield
        for step in steps:
            step()
            yield

    first, *rest = changes(Files(str(folder)), occasions(), settle)
    assert first == []
    return rest


def test_files_that_are_written_made_moved_and_deleted_are_changes(put, tmp_path):
    put("a.py", "b.py", "c.py")

    def all_at_once():
        put("a.py", text="new")
        (tmp_path / "b.py").rename(tmp_path / "d.py")
        (tmp_path / "c.py").unlink()

    assert changes_after(
        tmp_path, lambda: put("package/x.py"), all_at_once, lambda: shutil.rmtree(tmp_path / "package")
    ) == [["package/x.py"], ["a.py", "b.py", "c.py", "d.py"], ["package/x.py"]]


def test_a_file_that_is_read_or_whose_rights_change_is_no_change(put, tmp_path):
    put("a.py", text="x")

    def look():
        with open(tmp_path / "a.py", "r+") as file:
            file.read()

    assert changes_after(tmp_path, look, lambda: os.chmod(tmp_path / "a.py", 0o600), lambda: put("other.txt")) == []


def test_a_change_is_told_once_and_when_it_is_complete(put, tmp_path):
    more_to_come = ["b.py", "c.py"]

    def settle(seconds):
        if more_to_come:
            put(more_to_come.pop())

    assert changes_after(tmp_path, lambda: put("a.py"), lambda: None, settle=settle) == [["a.py", "b.py", "c.py"]]


def test_a_change_that_is_taken_back_at_once_is_none(put, tmp_path):
    def settle(seconds):
        (tmp_path / "a.py").unlink(missing_ok=True)

    assert changes_after(tmp_path, lambda: put("a.py"), settle=settle) == []


def test_a_link_that_leads_nowhere_is_passed_over(tmp_path):
    (tmp_path / "a.py").symlink_to(tmp_path / "gone")

    assert seen(tmp_path) == []


def test_many_paths_are_told_in_a_few_words():
    assert told(["a.py"]) == "a.py"
    assert told(["a.py", "b.py", "c.py"]) == "a.py and 2 more"
