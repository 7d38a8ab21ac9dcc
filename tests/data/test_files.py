"""Files that are not what they say, written here byte by byte."""

import gzip
import io
import os
import pickle
import struct
import sys
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from rare_unet_networks.data import file_content, files
from rare_unet_networks.data.datasets import CachedDataset, FaultTolerantDataset
from rare_unet_networks.data.files import check_file

RANDOM = np.random.default_rng(0)
VOXELS = RANDOM.integers(0, 1000, (12, 11, 10)).astype(np.int16)
BEGIN, SIZE = 352, 352 + VOXELS.nbytes


def nifti(kind=nib.Nifti1Image, voxels=VOXELS):
    return kind(voxels, np.eye(4)).to_bytes()


def patched(position, form, *values):
    """A file whose header is changed at a position."""
    content = bytearray(nifti())
    struct.pack_into(form, content, position, *values)
    return bytes(content)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(gzip.compress(content, mtime=0) if name.lower().endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII", "A.Nii.GZ", "name with (brackets) ä.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_whole_files_pass(tmp_path, name, kind):
    check_file(write(tmp_path, name, nifti(kind)))


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "u2", "i4", "f4", ">f4", "f8", "u8"])
def test_types_and_byte_orders_of_whole_files_pass(tmp_path, dtype):
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    image = nib.Nifti1Image(VOXELS.astype(dtype), np.eye(4), header, dtype=np.dtype(dtype))
    nib.save(image, tmp_path / "a.nii.gz")
    check_file(tmp_path / "a.nii.gz")


def test_an_extension_of_the_header_and_a_filled_last_block_pass(tmp_path):
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    check_file(write(tmp_path, "a.nii", image.to_bytes()))
    check_file(write(tmp_path, "b.nii.gz", nifti() + bytes(512)))


def npy():
    buffer = io.BytesIO()
    np.save(buffer, VOXELS)
    return buffer.getvalue()


CONTENTS = [
    (b"", "the content is not NIfTI but empty"),
    (bytes(1000), "not NIfTI but zeros"),
    (b"not a scan", "not NIfTI but no known format"),
    (npy(), "not NIfTI but a NumPy array"),
    (pickle.dumps(VOXELS), "not NIfTI but a pickle"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not NIfTI but a git-lfs pointer"),
    (b"<!DOCTYPE html><html></html>", "not NIfTI but a web page"),
    (bytes(128) + b"DICM" + bytes(600), "not NIfTI but DICOM"),
    (nifti()[:300], "not NIfTI but no known format"),
    (patched(344, "4s", b"ni1\0"), r"the header of a pair of files \(.hdr, .img\)"),
    (nifti()[:-1], f"12×11×10 voxels take {VOXELS.nbytes} bytes, the file holds {VOXELS.nbytes - 1}"),
    (nifti()[:400], f"take {VOXELS.nbytes} bytes, the file holds 48"),
    (nifti() + b"more", "holds more than the voxels that its header claims"),
    (nifti() + bytes(8192), "holds more than the voxels"),
    (patched(42, "<h", 11), "holds more than the voxels"),  # one slice less than there is
    (patched(42, "<h", 13), "the file is cut, or its header is damaged: 13×11×10 voxels"),
    (patched(42, "<h", -12), "the header is damaged: it claims -12×11×10 voxels"),
    (patched(42, "<h", 0), "it claims 0×11×10 voxels"),
    (patched(40, "<h", 9), "it claims 9 axes"),
    (patched(40, "<h", 0), "it claims 0 axes"),
    (patched(70, "<h", 16), "the file is cut, or its header is damaged"),  # float32 instead of int16
    (patched(70, "<h", 32), "real numbers, the header says type 32 .complex64"),
    (patched(70, "<h", 128), "real numbers, the header says type 128 .RGB"),
    (patched(70, "<h", 7), "real numbers, the header says type 7$"),
    (patched(108, "<f", 0.0), "the voxels begin at byte 0"),
    (patched(108, "<f", float("nan")), "the voxels begin at byte nan"),
    (patched(108, "<f", 400.0), "the file is cut"),
]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("content, reason", CONTENTS)
def test_what_is_not_what_its_name_says_is_refused_with_the_files_name_and_words(tmp_path, suffix, content, reason):
    path = write(tmp_path, f"scan{suffix}", content)
    with pytest.raises(ValueError, match=reason) as error:
        check_file(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_gzip_under_the_wrong_name_is_reported(tmp_path):
    (tmp_path / "a.nii").write_bytes(gzip.compress(nifti()))
    (tmp_path / "b.nii.gz").write_bytes(nifti())
    with pytest.raises(ValueError, match=r"a.nii: the name says .nii, the content is not NIfTI but gzip"):
        check_file(tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"b.nii.gz: the name says .nii.gz, the content is not a gzip file"):
        check_file(tmp_path / "b.nii.gz")


def test_every_flipped_bit_and_every_cut_of_a_compressed_file_is_noticed_or_harmless(tmp_path):
    """Random voxels are stored by deflate nearly as they are, so that most flips keep the stream readable."""
    content = gzip.compress(nifti(), mtime=0)
    path = tmp_path / "a.nii.gz"
    passed = []
    for position in RANDOM.choice(len(content), 300, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << RANDOM.integers(8)
        path.write_bytes(damaged)
        files._check_content.cache_clear()
        try:
            check_file(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            passed.append(position)
            assert gzip.decompress(damaged) == nifti()  # a flip in the time or the name of gzip's own header
    assert len(passed) <= 10
    for length in (0, 1, 10, 18, 100, len(content) // 2, len(content) - 9, len(content) - 1):
        path.write_bytes(content[:length])
        files._check_content.cache_clear()
        with pytest.raises(ValueError, match=r"a.nii.gz"):
            check_file(path)


def test_what_a_header_claims_is_not_allocated_and_a_bomb_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(file_content, "physical_memory", lambda: 1 << 40)
    claims = write(tmp_path, "claims.nii.gz", patched(42, "<3h", 1500, 1500, 1500))
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(nifti())
        for _ in range(200):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="1500×1500×1500 voxels take 6750000000 bytes, the file holds 2640"):
        check_file(claims)
    with pytest.raises(ValueError, match="holds more than"):
        check_file(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def test_voxels_that_do_not_fit_into_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = write(tmp_path, "a.nii.gz", nifti())
    monkeypatch.setattr(file_content, "physical_memory", lambda: 8000)
    with pytest.raises(ValueError, match=r"12×11×10 voxels: 0.0 GiB, too much"):
        check_file(path)


@pytest.mark.parametrize("name", ["a.img", "a.hdr", "a.mhd", "a.nhdr", "a.npy", "a.npz", "a.pkl", "a.pt", "a.gz", "a"])
def test_formats_without_a_reader_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(nifti())
    with pytest.raises(ValueError, match=rf"{name}: no reader is declared for .* \(.nii.gz, .nii, .mgz, .*.dcm"):
        check_file(tmp_path / name)


def test_folders_pipes_and_missing_files_are_refused(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(ValueError, match=r"folder.nii: expected a file, got a folder"):
        check_file(tmp_path / "folder.nii")
    with pytest.raises(FileNotFoundError, match=r"gone.nii.gz: there is no such file"):
        check_file(tmp_path / "gone.nii.gz")
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.nii.gz")  # opening it would wait for ever
        with pytest.raises(ValueError, match=r"pipe.nii.gz: expected a file, got a device"):
            check_file(tmp_path / "pipe.nii.gz")


def test_a_file_that_was_checked_and_then_changed_is_checked_again(tmp_path):
    path = write(tmp_path, "a.nii", nifti())
    check_file(path)
    path.write_bytes(nifti()[:-10])
    with pytest.raises(ValueError, match="is cut"):
        check_file(path)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["scan.npy", "scan.nii.gz", "scan.nii", "scan.pkl", "scan.npz"])
def test_no_pickle_is_ever_executed(tmp_path, name):
    from monai.transforms import LoadImaged

    array = np.array([Payload(tmp_path / "executed")], dtype=object)
    np.save(tmp_path / "scan.npy", array, allow_pickle=True)
    os.replace(tmp_path / "scan.npy", tmp_path / name)
    dataset = FaultTolerantDataset([{"image": str(tmp_path / name), "case": "scan"}], LoadImaged("image"))
    assert "failure" in dataset[0]
    assert not (tmp_path / "executed").exists()


def test_a_failure_names_the_file_that_is_damaged_also_when_it_is_the_label(tmp_path):
    image = write(tmp_path, "image.nii.gz", nifti())
    label = write(tmp_path, "label.nii.gz", nifti()[:-5])
    (failure,) = FaultTolerantDataset([{"image": str(image), "label": str(label), "case": "a"}], lambda x: x)
    assert failure["image"] == str(label) and failure["failure"].startswith(f"{label}: the file is cut")


def test_a_cached_dataset_stops_at_the_first_refused_file_when_all_threads_have_ended(tmp_path):
    from monai.transforms import Compose, Lambdad

    ended = []
    good = [write(tmp_path, f"{i}.nii.gz", nifti()) for i in range(6)]
    bad = write(tmp_path, "bad.nii.gz", nifti()[:-5])
    items = [{"image": str(p)} for p in [*good[:3], bad, *good[3:]]]
    transform = Compose([Lambdad("image", lambda path: ended.append(path) or path)])
    with pytest.raises(ValueError, match=r"bad.nii.gz: the file is cut"):
        CachedDataset(items, transform, num_workers=2, progress=False)
    count = len(ended)
    assert count <= 6
    assert len(CachedDataset(items[:3], transform, num_workers=2, progress=False)) == 3


@pytest.mark.parametrize("options", [{"cache_rate": 0.0}, {"runtime_cache": True}])
def test_what_is_loaded_later_is_checked_as_well(tmp_path, options):
    from monai.transforms import Compose, Identityd

    bad = write(tmp_path, "bad.nii.gz", nifti()[:-5])
    dataset = CachedDataset([{"image": str(bad)}], Compose([Identityd("image")]), progress=False, **options)
    with pytest.raises(ValueError, match=r"bad.nii.gz: the file is cut"):
        dataset[0]


def test_other_programs_that_read_with_the_bundles_reader_are_guarded_as_well(tmp_path):
    from monai.transforms import LoadImage

    from rare_unet_networks.data.readers import HeaderPreservingNibabelReader

    path = write(tmp_path, "a.nii.gz", nifti()[:-5])
    with pytest.raises((ValueError, RuntimeError), match=r"a.nii.gz: the file is cut"):
        LoadImage(HeaderPreservingNibabelReader)(path)
