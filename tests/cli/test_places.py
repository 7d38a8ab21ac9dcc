"""Where bundles are found."""

import json
import zipfile
from pathlib import Path

import pytest

from rare_unet_networks.cli import places
from rare_unet_networks.cli.places import BundleError, find_bundle, find_bundles, task_of


def bundle(folder, version="1.2.3"):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text("{}")
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": version}))
    return folder


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    """No bundle lies beside the package, pip knows no clone, and the current folder is empty."""
    monkeypatch.setattr(places, "__file__", str(tmp_path / "site" / "rare_unet_networks" / "cli" / "places.py"))
    monkeypatch.setattr(places, "_source_of_installation", lambda: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    "folder, task",
    [
        ("hippocampus_mri_segmentation", "hippocampus"),
        ("brain_tumor_mri_segmentation", "brain-tumour"),
        ("whole_tumour", "whole-tumour"),
    ],
)
def test_a_task_is_named_as_its_bundle(folder, task):
    assert task_of(Path("somewhere") / folder) == task


@pytest.mark.parametrize("place", ["here/bundles/x", "here/x", "site/bundles/x", "clone/bundles/x"])
def test_a_bundle_is_found_in_each_place(tmp_path, monkeypatch, place):
    monkeypatch.setattr(places, "_source_of_installation", lambda: tmp_path / "clone")
    root = bundle(tmp_path / place)
    found = find_bundle("x")
    assert (found.root, found.version, found.is_own) == (root, "1.2.3", not place.startswith("here"))


def test_the_folder_of_the_package_comes_before_the_current_one(tmp_path):
    bundle(tmp_path / "here/bundles/x")
    root = bundle(tmp_path / "site/bundles/x")
    assert find_bundle("x").root == root


def test_a_bundle_that_carries_the_package_is_found(tmp_path, monkeypatch):
    root = bundle(tmp_path / "x_mri_segmentation")
    monkeypatch.setattr(places, "__file__", str(root / "rare_unet_networks" / "cli" / "places.py"))
    assert find_bundle("x").root == root


@pytest.mark.parametrize("spelling", ["brain-tumour", "brain-tumor", "brain_tumor_mri_segmentation", "Brain-Tumour"])
def test_every_spelling_of_a_task_finds_it(tmp_path, spelling):
    root = bundle(tmp_path / "here/bundles/brain_tumor_mri_segmentation")
    assert find_bundle(spelling).root == root


@pytest.mark.parametrize("given", ["some", "some/bundles", "some/bundles/x"])
def test_an_option_names_a_bundle_or_a_folder_of_them(tmp_path, given):
    root = bundle(tmp_path / "some/bundles/x")
    bundle(tmp_path / "here/bundles/y")
    found = find_bundle("x", tmp_path / given)
    assert list(find_bundles(tmp_path / given)) == ["x"] and found.root == root and not found.is_own


def zipped(tmp_path):
    root = bundle(tmp_path / "made" / "x_mri_segmentation")
    path = tmp_path / "here" / "x_mri_segmentation_v1.2.3.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(root.parent))
    return path


def test_the_zip_of_a_release_is_unpacked_beside_it_once(tmp_path):
    path = zipped(tmp_path)
    found = find_bundle("x", path)
    assert found.root == path.with_suffix("") / "x_mri_segmentation" and found.version == "1.2.3"
    (found.root / "configs" / "metadata.json").write_text('{"version": "mine"}')
    assert find_bundle("x", path).version == "mine"
    assert sorted(p.name for p in path.parent.iterdir()) == [path.stem, path.name]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "must be a folder or a zip of a bundle, .*b.zip does not exist"),
        (b"text", "must be a folder or a zip of a bundle, .*b.zip is a file of another kind"),
    ],
)
def test_a_file_that_is_no_zip_is_refused(tmp_path, content, message):
    if content:
        (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        find_bundles(tmp_path / "b.zip")


def test_a_zip_that_is_cut_leaves_nothing_behind(tmp_path):
    path = zipped(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"{}", b"{!", 1))  # the CRC of inference.json is that of {}
    with pytest.raises(BundleError, match=r"v1.2.3.zip cannot be unpacked: Bad CRC-32.*: download it again\."):
        find_bundles(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_folder_without_bundles_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"must be a bundle or hold some, .*here has no configs/inference.json"):
        find_bundles(tmp_path / "here")


def test_an_unknown_task_is_an_error_that_names_all_places(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_source_of_installation", lambda: tmp_path / "clone")
    four = ", ".join(str(tmp_path / place) for place in ("site/bundles", "clone/bundles", "here", "here/bundles"))
    with pytest.raises(BundleError, match=f"^no bundle of the task 'x' in {four}: give --bundle, a folder or the zip"):
        find_bundle("x")
    bundle(tmp_path / "here/bundles/y")
    with pytest.raises(BundleError, match=f"^no bundle of the task 'x' in {four}: these have y\\.$"):
        find_bundle("x")


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}"])
def test_weights_without_a_version_are_of_an_unknown_one(tmp_path, text):
    root = bundle(tmp_path / "here/bundles/x")
    (root / "configs/metadata.json").write_text(text)
    assert find_bundle("x").version == "unknown"


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"url": "file:///home/me/my%20clone", "dir_info": {}}', Path("/home/me/my clone")),
        ('{"url": "https://github.com/x/y", "vcs_info": {}}', None),
        (None, None),
    ],
)
def test_the_clone_that_pip_installed_from_is_read_from_its_metadata(monkeypatch, text, expected):
    monkeypatch.undo()

    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return text

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution())
    assert places._source_of_installation() == expected
