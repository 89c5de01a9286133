"""Indexing a zip: against Python's zipfile, both twins, and every way in which a zip can be damaged or
unfit."""

import io
import struct
import zipfile

import pytest
from shard_corpus import ODD_NAMES, PASSED_OVER, assert_same_outcome, content_of, samples_of, write, zip_bytes

from fastload.shards.rows import split_name
from fastload.shards.zip import index_zip


def expected_samples(path):
    samples = {}
    with zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            split = split_name(member.filename.encode())
            if not member.is_dir() and not isinstance(split, str) and member.filename != "dataset.json":
                samples.setdefault(split[0], {})[split[1]] = packed.read(member)
    return list(samples.items())


@pytest.mark.parametrize("comment", [b"", b"made by hand", b"PK\5\6" + bytes(18), b"c" * 65535])
def test_samples_are_those_of_zipfile(tmp_path, comment):
    path = write(tmp_path / "a.zip", zip_bytes(ODD_NAMES + PASSED_OVER, comment))
    if comment.startswith(
        b"PK"
    ):  # the last 22 bytes look like an end record of an empty zip: zipfile reads that too
        with zipfile.ZipFile(path) as packed:
            assert packed.infolist() == []
        assert "does not end where it should" in assert_same_outcome(index_zip, path)
        return
    rows = assert_same_outcome(index_zip, path)
    assert samples_of(rows, path) == expected_samples(path)
    assert rows.skipped == {"meta": 2, "no extension": 2, "hidden": 1}


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129])
def test_any_number_of_samples(tmp_path, count):
    path = write(tmp_path / "a.zip", zip_bytes([f"{i // 10:05d}/img{i:08d}.png" for i in range(count)]))
    rows = assert_same_outcome(index_zip, path)
    assert rows.n == count
    assert samples_of(rows, path) == expected_samples(path)


def test_zip64_sizes_offsets_and_directory(tmp_path, monkeypatch):
    """With a lower limit zipfile writes zip64 records for small members and few of them."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 600)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    names = [f"{i}.jpg" for i in range(20)]
    path = write(tmp_path / "a.zip", zip_bytes(names))
    assert b"PK\6\6" in path.read_bytes() and b"PK\6\7" in path.read_bytes()
    rows = assert_same_outcome(index_zip, path)
    monkeypatch.undo()
    assert samples_of(rows, path) == expected_samples(path)
    assert {int(size) for size in rows.size_bytes[0]} == {len(content_of(name)) for name in names}


def test_folders_and_links_are_counted(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("folder/", b"")
        link = zipfile.ZipInfo("link.jpg")
        link.create_system = 3
        link.external_attr = 0o120777 << 16
        packed.writestr(link, b"folder/a.jpg")
        packed.writestr(zipfile.ZipInfo("folder/a.jpg"), b"content")
    rows = assert_same_outcome(index_zip, write(tmp_path / "a.zip", out.getvalue()))
    assert rows.key_list() == [b"folder/a"]
    assert rows.skipped == {"directory": 1, "link": 1}


def test_only_a_dataset_json_at_the_root_is_not_a_sample(tmp_path):
    path = write(tmp_path / "a.zip", zip_bytes(["a.png", "dataset.json", "sub/dataset.json"]))
    rows = assert_same_outcome(index_zip, path)
    assert rows.key_list() == [b"a", b"sub/dataset"]
    assert rows.skipped == {"label file": 1}
    start, size = rows.label_member
    assert path.read_bytes()[start : start + size] == content_of("dataset.json")


def test_a_deflated_member_is_named(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(zipfile.ZipInfo("a.jpg"), b"stored")
        place = packed.fp.tell()
        packed.writestr(zipfile.ZipInfo("b.jpg"), b"deflated" * 100, zipfile.ZIP_DEFLATED)
    got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", out.getvalue()))
    assert got.startswith(f"a.zip: 'b.jpg' is compressed (method 8) at byte {place}. Pack it again")


def test_an_encrypted_member_is_named(tmp_path):
    blob = bytearray(zip_bytes(["a.jpg", "b.jpg"]))
    entry = blob.rfind(b"PK\1\2")
    blob[entry + 8] |= 1
    got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", bytes(blob)))
    assert "'b.jpg' is encrypted at byte" in got


def test_a_zip_cut_anywhere_is_reported(tmp_path):
    whole = zip_bytes(["a.jpg", "a.txt", "folder/b.jpg"])
    for cut in [*range(0, len(whole), 97), *range(len(whole) - 200, len(whole))]:
        got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", whole[:cut]))
        assert got.startswith(f"a.zip: the zip is cut: it has no directory before its end at byte {cut}.")


def test_a_flipped_bit_is_found_or_the_rows_still_lie_inside_the_file(tmp_path):
    """A zip's headers have no checksum of their own, so a flip in a date, say, cannot be found; nothing may
    crash."""
    whole = zip_bytes(["a.jpg", "b.jpg"])
    expected = index_zip(str(write(tmp_path / "a.zip", whole)), "a.zip")
    structure = [*range(30 + 5), *range(whole.find(b"PK\1\2"), len(whole))]
    found = 0
    for place in structure:
        for bit in (0, 3, 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", bytes(damaged)))
            found += isinstance(got, str)
            if not isinstance(got, str):
                assert got.n <= expected.n
                for start, size in zip(got.offset_bytes, got.size_bytes, strict=True):
                    assert ((start < 0) | (start + size <= len(whole))).all()
    assert found > len(structure)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda blob: b"prefix" + blob, "the directory does not end where it should"),
        (lambda blob: blob[:-22] + b"x" + blob[-22:], "the directory does not end where it should"),
        (lambda blob: _at_end(blob, 8, struct.pack("<2H", 3, 3)), "has 2 entries and claims 3"),
        (lambda blob: _at_end(blob, 4, b"\1\0"), "spread over several disks"),
        (lambda blob: blob.replace(b"PK\3\4", b"PK\0\0", 1), "no local header of 'a.jpg' at byte 0"),
        (lambda blob: blob.replace(b"a.jpg", b"x.jpg", 1), "no local header of 'a.jpg' at byte 0"),
        (
            lambda blob: _entry(blob, 42, struct.pack("<L", 10**9)),
            "no local header of 'a.jpg' at byte 1000000000",
        ),
        (
            lambda blob: _entry(blob, 20, struct.pack("<2L", 10**6, 10**6)),
            "the local header of 'a.jpg' contradicts the directory at byte 0",
        ),
        (lambda blob: _entry(blob, 24, struct.pack("<L", 2**32 - 1)), "'a.jpg' has no zip64 sizes"),
        (
            lambda blob: blob[: blob.find(b"PK\1\2")] + bytes(4) + blob[blob.find(b"PK\1\2") + 4 :],
            "damaged entry",
        ),
    ],
)
def test_broken_rules_are_reported(tmp_path, change, message):
    path = write(tmp_path / "bad.zip", change(zip_bytes(["a.jpg", "b.jpg"])))
    got = assert_same_outcome(index_zip, path)
    assert message in got and got.startswith("bad.zip: ") and "\n" not in got


def test_the_same_name_twice_is_refused(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(zipfile.ZipInfo("a.jpg"), b"1")
        packed.writestr(zipfile.ZipInfo("a.JPG"), b"2")
    assert "a second member 'a.JPG'" in assert_same_outcome(
        index_zip, write(tmp_path / "a.zip", out.getvalue())
    )


def test_a_key_that_comes_back_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", zip_bytes(["a.jpg", "b.jpg", "a.txt"]))
    assert "the key 'a', first seen at byte 0, comes back" in assert_same_outcome(index_zip, path)


def _at_end(blob, place, content):
    at = len(blob) - 22 + place
    return blob[:at] + content + blob[at + len(content) :]


def _entry(blob, place, content):
    at = blob.find(b"PK\1\2") + place
    return blob[:at] + content + blob[at + len(content) :]
