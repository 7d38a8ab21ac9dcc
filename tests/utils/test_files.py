import os
import sys

import pytest

from rare_unet_networks.utils import replaced_as_a_whole, sha256
from rare_unet_networks.utils.files import _sha256, read_json


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "folder" / "scan.nii.gz"
    for text in ("old", "new"):
        with replaced_as_a_whole(path) as temporary:
            assert temporary.parent == path.parent and temporary.name.endswith(".scan.nii.gz")
            temporary.write_text(text)
            assert not path.exists() if text == "old" else path.read_text() == "old"
    with pytest.raises(KeyboardInterrupt), replaced_as_a_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "new" and os.listdir(path.parent) == ["scan.nii.gz"]


def test_a_digest_is_that_of_the_content_and_a_file_is_read_again_when_it_changed(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = _sha256.cache_info().misses
    assert sha256(str(path)) == sha256(path) and _sha256.cache_info().misses == before
    old = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))  # of the same size and date
    assert sha256(path) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_pipe_or_device_has_no_digest(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match="expected a file"):
            sha256(path)


@pytest.mark.parametrize(
    "text, reason", [("[" * 100_000, "nested too deeply"), ("{", "Expecting"), ("\udcff", "codec")]
)
def test_a_file_that_is_no_json_is_named(tmp_path, text, reason):
    path = tmp_path / "splits.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=f"splits.json must be a JSON file: .*{reason}"):
        read_json(path)
