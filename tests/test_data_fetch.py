"""Downloads from a server on this machine; nothing leaves it."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zsrbook.data import catalogue, fetch
from zsrbook.data.dataset import DataError
from zsrbook.data.fetch import Archive, File, Source

CONTENT = b"user,item\nu,a\n"
SHA = hashlib.sha256(CONTENT).hexdigest()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server():
    """Serves ``files``: path -> bytes, or (bytes, pretended length) to break off in the middle; counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.asked.append(self.path)
            if self.path not in served.files:
                self.send_error(404)
                return
            body = served.files[self.path]
            body, length = body if isinstance(body, tuple) else (body, len(body))
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.files, served.asked = {}, []
    served.address = f"http://127.0.0.1:{served.server_port}"
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path


def register(monkeypatch, *files, archive=None):
    monkeypatch.setitem(fetch.SOURCES, "it", Source("it-folder", files, "cite", "key", "http://page", archive))


def nothing_left(folder):
    return not list(folder.rglob("*"))


def test_get_downloads_checks_and_is_content_next_time(server, data, monkeypatch, capsys):
    server.files["/t.csv"] = CONTENT
    register(monkeypatch, File("t.csv", SHA, len(CONTENT), f"{server.address}/t.csv"))
    folder = fetch.get("it")
    assert (folder / "t.csv").read_bytes() == CONTENT
    assert fetch.locate("it") == data / "it-folder"
    fetch.get("it")
    assert server.asked == ["/t.csv"]
    assert "terms: cite" in capsys.readouterr().out
    assert [p.name for p in data.rglob("*")] == ["it-folder", "t.csv"]


def test_what_was_downloaded_can_be_read_by_whom_the_umask_lets(server, data, monkeypatch):
    server.files["/t.csv"] = CONTENT
    register(monkeypatch, File("t.csv", SHA, len(CONTENT), f"{server.address}/t.csv"))
    (data / "any").touch()
    assert (fetch.get("it", lambda _: None) / "t.csv").stat().st_mode == (data / "any").stat().st_mode


def test_a_hash_that_nobody_knows_is_printed(server, data, monkeypatch):
    server.files["/t.csv"] = CONTENT
    register(monkeypatch, File("t.csv", url=f"{server.address}/t.csv"))
    said = []
    fetch.get("it", said.append)
    assert any(SHA in s and "could not be checked" in s for s in said)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"user,item\nu,b\n", r"^t\.csv from http://[\w.:]+/t\.csv: sha256 is .*; expected .*; nothing of it was kept"),
        ((CONTENT, 10_000), "could not be downloaded"),
        (b"<!DOCTYPE html><html>log in</html>", "sent a web page"),
        (None, "could not be downloaded .*404"),
    ],
)
def test_bad_downloads_leave_nothing(server, data, monkeypatch, body, message):
    if body is not None:
        server.files["/t.csv"] = body
    register(monkeypatch, File("t.csv", SHA, len(CONTENT), f"{server.address}/t.csv"))
    with pytest.raises(DataError, match=message):
        fetch.get("it", lambda _: None)
    assert nothing_left(data)


def test_an_interrupted_download_of_unknown_hash_is_noticed_too(server, data, monkeypatch):
    server.files["/t.csv"] = (CONTENT, 10_000)
    register(monkeypatch, File("t.csv", url=f"{server.address}/t.csv"))
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch.get("it", lambda _: None)
    assert nothing_left(data)


def test_what_is_whole_stays_where_a_later_file_fails(server, data, monkeypatch):
    server.files["/t.csv"] = CONTENT
    register(monkeypatch, *(File(f"{name}.csv", SHA, len(CONTENT), f"{server.address}/{name}.csv") for name in "tu"))
    (data / ".get-it").mkdir()
    (data / ".get-it" / "half").touch()  # of a download that was killed
    for asked in (["/t.csv", "/u.csv"], ["/u.csv"]):
        server.asked.clear()
        with pytest.raises(DataError, match=r"/u\.csv could not be downloaded"):
            fetch.get("it", lambda _: None)
        assert server.asked == asked
        assert [str(p.relative_to(data)) for p in sorted(data.rglob("*"))] == ["it-folder", "it-folder/t.csv"]


def test_a_folder_that_cannot_be_written_is_named(server, data, monkeypatch):
    server.files["/t.csv"] = CONTENT
    register(monkeypatch, File("t.csv", SHA, len(CONTENT), f"{server.address}/t.csv"))
    (data / "it-folder").write_text("a file in the way")
    with pytest.raises(DataError, match=r"can't write .*it-folder.*set ZSRBOOK_DATA"):
        fetch.get("it", lambda _: None)
    assert [p.name for p in data.rglob("*")] == ["it-folder"]


@pytest.mark.parametrize("first", [b"other", b"<!DOCTYPE html><html>log in</html>", (CONTENT, 10_000), None])
@pytest.mark.parametrize("mirror", ["/there/t.csv", "/there/other.csv"])
def test_the_mirror_is_tried_second(server, data, monkeypatch, first, mirror):
    server.files = {"/here/t.csv": first, mirror: CONTENT} if first else {mirror: CONTENT}
    register(monkeypatch, File("t.csv", SHA, len(CONTENT), f"{server.address}/here/t.csv", f"{server.address}{mirror}"))
    said = []
    folder = fetch.get("it", said.append)
    assert (folder / "t.csv").read_bytes() == CONTENT
    assert server.asked == ["/here/t.csv", mirror]
    assert any("trying" in s for s in said)


def test_files_of_one_name_at_two_addresses_are_two(server, data, monkeypatch):
    server.files = {"/train/t.csv": CONTENT, "/test/t.csv": b"other"}
    files = [
        File(f"{part}.csv", hashlib.sha256(server.files[f"/{part}/t.csv"]).hexdigest(), url=f"{server.address}/{part}/t.csv")
        for part in ("train", "test")
    ]
    register(monkeypatch, *files)
    folder = fetch.get("it", lambda _: None)
    assert [(folder / f"{part}.csv").read_bytes() for part in ("train", "test")] == [CONTENT, b"other"]


def test_a_file_that_is_there_with_another_hash_is_not_touched(server, data, monkeypatch):
    register(monkeypatch, File("t.csv", SHA, len(CONTENT), f"{server.address}/t.csv"))
    (data / "it-folder").mkdir()
    (data / "it-folder" / "t.csv").write_text("mine")
    for call in (fetch.get, fetch.locate):
        with pytest.raises(DataError, match=r"t\.csv: sha256 is .*move it away"):
            call("it")
    assert (data / "it-folder" / "t.csv").read_text() == "mine"
    assert server.asked == []


def test_where_no_hash_is_known_the_size_is_checked(server, data, monkeypatch):
    server.files["/t.csv"] = CONTENT
    register(monkeypatch, File("t.csv", size=len(CONTENT), url=f"{server.address}/t.csv"))
    path = fetch.get("it", lambda _: None) / "t.csv"
    path.write_bytes(CONTENT[:-2])
    for call in (fetch.get, fetch.locate):
        with pytest.raises(DataError, match=r"t\.csv: 12 bytes, expected 14: not the file .*move it away"):
            call("it")
    path.write_bytes(b"")  # is as good as none
    with pytest.raises(DataError, match=r"t\.csv is empty\. It belongs in"):
        fetch.locate("it")
    server.files["/t.csv"] = CONTENT[:-1]
    with pytest.raises(DataError, match=r"t\.csv from .*: 13 bytes, expected 14: .*nothing of it was kept"):
        fetch.get("it", lambda _: None)
    server.files["/t.csv"] = CONTENT
    assert (fetch.get("it", lambda _: None) / "t.csv").read_bytes() == CONTENT


def test_archives_are_unpacked_and_their_files_checked(server, data, monkeypatch):
    body = zipped({"x-1/t.csv": CONTENT, "x-1/README": b"hello"})
    server.files["/x.zip"] = body
    md5 = hashlib.md5(body).hexdigest()
    register(monkeypatch, File("t.csv", SHA, len(CONTENT)), archive=Archive(f"{server.address}/x.zip", md5))
    fetch.get("it", lambda _: None)
    assert [p.name for p in data.rglob("*") if p.is_file()] == ["t.csv"]
    register(monkeypatch, File("u.csv"), archive=Archive(f"{server.address}/x.zip", md5))
    with pytest.raises(DataError, match=r"holds 0 files called u\.csv"):
        fetch.get("it", lambda _: None)
    register(monkeypatch, File("u.csv"), archive=Archive(f"{server.address}/x.zip", "0" * 32))
    with pytest.raises(DataError, match="md5 is"):
        fetch.get("it", lambda _: None)


def test_missing_data_names_file_address_terms_folder_and_command(data, monkeypatch):
    register(monkeypatch, File("t.csv", SHA, 5, "http://somewhere/t.csv"))
    with pytest.raises(DataError) as error:
        fetch.locate("it")
    for part in ("t.csv", "http://somewhere/t.csv", "cite", str(data / "it-folder"), "data get it", "ZSRBOOK_DATA"):
        assert part in str(error.value)
    register(monkeypatch, File("t.csv"))
    for call in (fetch.get, fetch.locate):
        with pytest.raises(DataError, match="can't be downloaded without an account"):
            call("it")
    with pytest.raises(DataError, match="no data set is called 'moon'; there are ml-100k"):
        catalogue.load("moon")


def test_every_source_has_a_loader_and_sound_entries():
    search = {source for sources, _ in catalogue.SEARCH.values() for source in sources}
    clicks = {source for source, _ in catalogue.CLICKS.values()}
    assert set(fetch.SOURCES) == set(catalogue.LOADERS) | clicks | set(catalogue.GRAPHS) | search
    assert set(catalogue.SEARCH).isdisjoint(set(catalogue.LOADERS) | set(catalogue.CLICKS))
    for source in fetch.SOURCES.values():
        for file in source.files:
            assert file.sha256 is None or len(file.sha256) == 64
            assert file.url is None or file.url.startswith("https://")
    folders = [(s.folder, f.path) for s in fetch.SOURCES.values() for f in s.files]
    assert len(folders) == len(set(folders))


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:/out.txt"])
def test_zip_members_stay_inside(tmp_path, name):
    (tmp_path / "bad.zip").write_bytes(zipped({"good.txt": b"x", name: b"x"}))
    with pytest.raises(DataError, match="points outside the folder; nothing was unpacked"):
        fetch.extract(tmp_path / "bad.zip", tmp_path / "into")
    assert [p.name for p in tmp_path.rglob("*")] == ["bad.zip"]


def test_zip_links_are_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        fetch.extract(tmp_path / "bad.zip", tmp_path / "into")


def test_good_and_broken_archives(tmp_path):
    (tmp_path / "good.zip").write_bytes(zipped({"./": b"", "d/t.csv": CONTENT}))
    fetch.extract(tmp_path / "good.zip", tmp_path / "into")
    assert (tmp_path / "into" / "d" / "t.csv").read_bytes() == CONTENT
    (tmp_path / "cut.zip").write_bytes(zipped({"t.csv": CONTENT})[:-10])
    (tmp_path / "text.zip").write_text("no archive")
    body = bytearray(zipped({"t.csv": CONTENT}))
    body[body.index(b"user,item")] ^= 255
    (tmp_path / "flipped.zip").write_bytes(bytes(body))
    for name, flag, method in (("locked.zip", 1, 0), ("other.zip", 0, 97)):
        body = bytearray(zipped({"t.csv": CONTENT}))
        for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # flags, then method
            begin = body.index(mark) + place
            body[begin : begin + 4] = bytes([flag, 0, method, 0])
        (tmp_path / name).write_bytes(bytes(body))
    for name in ("cut.zip", "text.zip", "flipped.zip", "locked.zip", "other.zip"):
        with pytest.raises(DataError, match="get it again"):
            fetch.extract(tmp_path / name, tmp_path / name[:3])
        assert not (tmp_path / name[:3]).exists()
