"""The zip and the hub's folder of a bundle, downloaded by MONAI and used from another folder without the repository."""

import functools
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from tools.verify_bundle import files

from ..bundles.conftest import BUNDLE, BUNDLES, REPOSITORY, read
from ..bundles.documents import programs
from .helpers import tool

build_bundle = tool("release/build_bundle")

NAME = BUNDLE.name
VERSION = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["version"]
# Runs when Python starts: of what is installed here only what a bundle needs can be imported, and nothing is fetched.
MINIMAL = """
import importlib.util, os, socket, sys
from importlib.machinery import PathFinder

ABSENT = {absent!r}

class Absent:
    def find_spec(name, path=None, target=None):
        if name in ABSENT and PathFinder.find_spec(name, [os.getcwd()]) is None:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def find_spec(name, package=None, found=importlib.util.find_spec):
    try:
        return found(name, package)
    except ModuleNotFoundError:
        return None

importlib.util.find_spec = find_spec
sys.meta_path.insert(0, Absent)
connect = socket.socket.connect

def only_here(self, address):
    if address[0] not in ("127.0.0.1", "localhost"):
        raise OSError(f"no network: {{address}}")
    return connect(self, address)

socket.socket.connect = only_here
"""
EXTRAS = ["scipy", "tqdm", "tensorboard", "matplotlib", "pandas", "sklearn", "skimage", "huggingface_hub", "pytest"]
# The mean Dice of one sample scan at every scale with the network that load() gives.
DICE = """
import json, sys, torch
from monai.bundle import create_workflow, load

bundle_dir, name, sample, kind, output = sys.argv[1:]
net = load(name, bundle_dir=bundle_dir, workflow_type=kind).eval()
workflow = create_workflow(
    config_file=[f"{bundle_dir}/{name}/configs/{file}.json" for file in ("inference", "evaluate")],
    workflow_type="infer", bundle_root=f"{bundle_dir}/{name}",
    dataset_dir=sample, output_dir=output,
)
for own, loaded in zip(workflow.network_def.parameters(), net.parameters(), strict=True):
    own.data.zero_()
evaluator = workflow.parser.get_parsed_content("evaluator")
evaluator.network = net
workflow.run()
"""


def minimal(folder, absent=EXTRAS, **variables):
    """Environment of a process that lacks the modules ``absent`` and any network but this machine's."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(MINIMAL.format(absent=list(absent)))
    return {
        "PYTHONPATH": str(folder),
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def python(*words, cwd, env):
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)


def installed():
    """Folder that the package is imported from: a checkout installed in place is not on the path of a new process."""
    import rare_unet_networks

    return str(Path(rare_unet_networks.__file__).parents[1])


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Both bundles as they are given out."""
    output = tmp_path_factory.mktemp("dist")
    build_bundle.main([*map(str, BUNDLES.values()), "--output_dir", str(output)])
    return output


@pytest.fixture(scope="module")
def server():
    """Serves what ``serve`` gives for the path of a request: bytes and headers, or None."""
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            found = next((a for serve in answers.values() if (a := serve(path)) is not None), None)
            body, headers = found or (b"", {})
            self.send_response(200 if found else 404)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", answers
        httpd.shutdown()


def release(path, dist):
    """A release's files, at the address GitHub gives them."""
    folder = "/owner/name/releases/download/v1/"
    file = dist / path.removeprefix(folder)
    return (file.read_bytes(), {}) if path.startswith(folder) and file.is_file() else None


def hub(path, dist):
    """The requests of ``huggingface_hub.snapshot_download``: a revision, the files that it holds, and each file."""
    revision, folder = "0" * 40, dist / "hub" / NAME
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    revision_path, tree_path = (f"/api/models/owner/name/{kind}/" for kind in ("revision", "tree"))
    if path.startswith(revision_path):
        body = {"id": "owner/name", "sha": revision, "siblings": [{"rfilename": name} for name in files]}
        return json.dumps(body).encode(), {"Content-Type": "application/json"}
    if path.startswith(tree_path):
        body = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in files.items()]
        return json.dumps(body).encode(), {"Content-Type": "application/json"}
    prefix = f"/owner/name/resolve/{revision}/"
    if not path.startswith(prefix):
        return None
    body = (folder / path.removeprefix(prefix)).read_bytes()
    return body, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": revision}


@pytest.fixture(scope="module")
def downloaded(dist, server, tmp_path_factory):
    """The hippocampus bundle, downloaded from a release by MONAI's command, in a folder of its own."""
    address, answers = server
    answers["release"] = functools.partial(release, dist=dist)
    folder = tmp_path_factory.mktemp("downloaded")
    url = f"{address}/owner/name/releases/download/v1/{NAME}_v{VERSION}.zip"
    words = ["-m", "monai.bundle", "download", "--name", NAME, "--url", url, "--bundle_dir", folder / "bundles"]
    done = python(*words, cwd=folder, env=minimal(folder / "minimal"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundles"


def test_two_builds_have_the_same_bytes(dist, tmp_path):
    again = build_bundle.build(BUNDLE, tmp_path / "elsewhere")
    first = dist / again.name
    assert first.read_bytes() == again.read_bytes()
    assert f"{hashlib.sha256(first.read_bytes()).hexdigest()}  {first.name}\n" in (dist / "SHA256SUMS").read_text()


@pytest.mark.parametrize("name", BUNDLES)
def test_the_zip_holds_one_folder_with_the_bundle_its_torchscript_and_the_package(dist, name):
    version = json.loads((BUNDLES[name] / "configs" / "metadata.json").read_text())["version"]
    names = zipfile.ZipFile(dist / f"{name}_v{version}.zip").namelist()
    assert {n.split("/")[0] for n in names} == {name}
    files = ["models/model.pt", "models/model.ts", "configs/inference.json", "rare_unet_networks/networks/rare_unet.py"]
    assert {f"{name}/{file}" for file in files} <= set(names)
    # Neither outputs nor what only the paper's experiment needs (docs/experiment, rare_unet_networks/baselines).
    assert not [n for n in names if any(word in n for word in ("/output/", "__pycache__", "baselines", "paper"))]


def test_files_above_25_mb_are_listed_with_an_address(tmp_path, monkeypatch):
    monkeypatch.setattr(build_bundle, "LARGE", 10 * 2**20)
    build_bundle.build(BUNDLE, tmp_path, url="https://hub.example/owner/name/resolve/main")
    folder = tmp_path / "hub" / NAME
    (entry,) = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"]
    assert entry["path"] == "models/model.ts"
    assert entry["url"] == "https://hub.example/owner/name/resolve/main/models/model.ts"
    assert entry["hash_val"] == hashlib.sha256((folder / "models/model.ts").read_bytes()).hexdigest()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"bundle must be a folder with configs/metadata\.json, got .*"):
        build_bundle.build(tmp_path, tmp_path / "dist")


@pytest.fixture
def linked(tmp_path):
    """A bundle's folder with a link within it, links that are left out, and a file beside it."""
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text('{"version": "1"}')
    (bundle / "configs" / "meta.json").symlink_to("metadata.json")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("private")
    (bundle / "data").symlink_to(tmp_path / "private")
    (bundle / ".hidden").symlink_to(tmp_path / "private" / "key")
    return bundle


def test_links_within_a_bundle_and_of_what_is_left_out_are_followed_or_left_out(linked, tmp_path):
    build_bundle.copy_with_package(linked, tmp_path / "copy")
    names = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy" / "configs").iterdir()}
    assert names == {"configs/metadata.json", "configs/meta.json"}
    assert {p.name for p in (tmp_path / "copy").iterdir()} == {"configs", "rare_unet_networks"}


@pytest.mark.parametrize("target", ["../../private/key", "../../private", "../data", "..", "."])
@pytest.mark.parametrize("by_another", [False, True])
def test_a_link_out_of_a_bundle_is_refused_before_anything_is_copied(linked, tmp_path, target, by_another):
    link = linked / "configs" / "link"
    link.symlink_to(target)
    if by_another:
        (linked / "a").symlink_to("configs/link")
    with pytest.raises(ValueError, match=r"(configs/link|a) must not be a link out of the bundle or to a folder above"):
        build_bundle.build(linked, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_slip_is_reported_in_one_line(tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{")
    for bundle, message in (("/nowhere", "got /nowhere."), (tmp_path, f"{tmp_path}/configs/metadata.json must be a")):
        with pytest.raises(SystemExit):
            build_bundle.main([str(bundle), "--output_dir", str(tmp_path / "dist")])
        error = capsys.readouterr().err.splitlines()[-1]
        assert "error: " in error and message in error
    assert not (tmp_path / "dist").exists()


def test_digests_are_those_of_all_zips_also_of_earlier_calls(tmp_path, monkeypatch, capsys):
    def build(bundle, output_dir, url):
        output_dir.mkdir(exist_ok=True)
        (output_dir / f"{bundle.name}_v1.zip").write_text(bundle.name)

    monkeypatch.setattr(build_bundle, "build", build)
    for name in ("b", "a"):
        build_bundle.main([name, "--output_dir", str(tmp_path / "dist"), "--url", f"https://hub.example/{name}"])
    expected = (  # printf a | sha256sum
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a_v1.zip\n"
        "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b_v1.zip\n"
    )
    assert (tmp_path / "dist" / "SHA256SUMS").read_text() == expected
    assert capsys.readouterr().out.endswith(expected)


def test_model_card_says_what_the_metadata_say(dist):
    _, header, body = (dist / "hub" / NAME / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(header)
    metrics = card["model-index"][0]["results"][0]["metrics"]
    expected = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["eval_metrics"]
    assert [m["value"] for m in metrics] == [
        expected[f"dice_native_scale_{s}_mean"] for s in ("1", "0.5", "0.25", "0.125")
    ]
    assert (card["license"], card["library_name"], card["datasets"]) == (
        "apache-2.0", "monai", ["medical-segmentation-decathlon"]
    )  # fmt: skip
    assert body.strip() == (BUNDLE / "docs" / "README.md").read_text().strip()


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_loaded_network_scores_on_a_sample_what_the_tables_say(downloaded, tmp_path, kind):
    """MONAI passes over weights that do not fit; so does no Dice."""
    (tmp_path / "dice.py").write_text(DICE)
    env = minimal(tmp_path / "minimal")
    env["PYTHONPATH"] += f":{installed()}"
    sample = downloaded / NAME / "sample" / "Task04_Hippocampus"
    done = python("dice.py", downloaded, NAME, sample, kind, tmp_path / "out", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr

    def dice(path):
        rows = read(path)
        return {
            tuple(r[k] for k in ("scale", "grid", "class")): float(r["dice"])
            for r in rows
            if r["case"] == "hippocampus_067"
        }

    table = dice(REPOSITORY / "docs/experiment/hippocampus/rare_unet/per_case.csv")
    found = dice(tmp_path / "out" / "metrics" / "per_case.csv")
    assert len(found) == 16 and found == pytest.approx({key: table[key] for key in found}, abs=1e-3)


def test_downloaded_torchscript_predicts_as_the_loaded_network(downloaded):
    from monai.bundle import load

    scripted, metadata, _ = load(NAME, bundle_dir=str(downloaded), load_ts_module=True)
    net = load(NAME, bundle_dir=str(downloaded), workflow_type="inference").eval()
    x = torch.rand(1, 1, 16, 32, 16)
    with torch.no_grad():
        for level in range(4):
            torch.testing.assert_close(scripted(x, level=level), net(x, level=level), atol=1e-4, rtol=1e-4)
    assert metadata["version"] == VERSION


def test_downloaded_bundle_runs_from_another_folder_with_the_package_installed(downloaded, tmp_path):
    env = minimal(tmp_path / "minimal")
    env["PYTHONPATH"] += f":{installed()}"
    words = ["--config_file", downloaded / NAME / "configs" / "inference.json", "--output_dir", tmp_path / "out"]
    words += ["--input", downloaded / NAME / "sample" / "images" / "icbm152_left_4mm.nii.gz"]
    done = python("-m", "monai.bundle", "run", "inferring", *words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "icbm152_left_4mm_seg.nii.gz").is_file()


def test_in_its_folder_the_bundle_needs_no_package(downloaded, tmp_path):
    env = minimal(tmp_path / "minimal", [*EXTRAS, "rare_unet_networks"])
    words = ["--config_file", "configs/inference.json", "--output_dir", tmp_path / "out"]
    words += ["--input", "sample/images/icbm152_left_4mm.nii.gz"]
    done = python("-m", "monai.bundle", "run", "inferring", *words, cwd=downloaded / NAME, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "icbm152_left_4mm_seg.nii.gz").is_file()


@pytest.mark.parametrize("config", ["inference.json", "train.json"])
def test_without_the_package_the_one_line_says_what_to_install(downloaded, tmp_path, config):
    env = minimal(tmp_path / "minimal", [*EXTRAS, "rare_unet_networks"])
    words = ["-m", "monai.bundle", "run", "--config_file", downloaded / NAME / "configs" / config]
    done = python(*words, cwd=tmp_path, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [s for s in done.stderr.splitlines() if s.startswith("error")]
    assert line == (
        "error: the package rare-unet-networks is missing: pip install it from the repository, "
        "or put the folder of a bundle that carries it on PYTHONPATH"
    )


def test_the_documented_program_runs_with_the_bundles_folder_on_the_path(downloaded, tmp_path):
    document = REPOSITORY / "docs" / "downloads.md"
    (program,) = programs(document)
    (tmp_path / "use.py").write_text(f"{program}\nimport rare_unet_networks\nprint(rare_unet_networks.__file__)\n")
    (tmp_path / "bundles").symlink_to(downloaded)
    (tmp_path / "my_scans").symlink_to(downloaded / NAME / "sample" / "images")
    (where,) = re.findall(r"`PYTHONPATH=(\S+) python use.py`", document.read_text())
    env = minimal(tmp_path / "minimal")
    done = python("use.py", cwd=tmp_path, env={**env, "PYTHONPATH": f"{env['PYTHONPATH']}:{where}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]).parent == tmp_path / where / "rare_unet_networks"
    assert (tmp_path / "my_segmentations" / "icbm152_left_4mm_seg.nii.gz").is_file()


@pytest.mark.slow
def test_the_hub_gives_the_same_bundle(dist, server, downloaded, tmp_path):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub (extra test) is not installed")
    address, answers = server
    answers["hub"] = functools.partial(hub, dist=dist)
    variables = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env = minimal(tmp_path / "minimal", [e for e in EXTRAS if e not in ("huggingface_hub", "tqdm")], **variables)
    words = ["--name", NAME, "--source", "huggingface_hub", "--repo", "owner/name", "--version", "main"]
    done = python("-m", "monai.bundle", "download", *words, "--bundle_dir", tmp_path / "b", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in sorted(p for p in (downloaded / NAME).rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        assert (tmp_path / "b" / NAME / path.relative_to(downloaded / NAME)).read_bytes() == path.read_bytes(), path


@pytest.mark.slow
def test_wheel_and_source_hold_the_package(tmp_path):
    """Built from what git would give; installed where nothing else of this repository is."""
    pytest.importorskip("build", reason="build (extra test) is not installed")
    import shutil

    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "rare_unet_networks", source / "rare_unet_networks")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wheel, sdist = (next((tmp_path / "dist").glob(ending)) for ending in ("*.whl", "*.tar.gz"))
    package = [p for ending in ("*.py", "*.html") for p in (REPOSITORY / "rare_unet_networks").rglob(ending)]
    modules = {p.relative_to(REPOSITORY).as_posix() for p in package}
    assert {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("rare_unet_networks/")} == modules
    for package in (wheel, sdist):
        target = tmp_path / package.suffix[1:]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(package)]
        done = subprocess.run(pip, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        where = "import rare_unet_networks as r; print(r.__version__, r.__file__)"
        done = python("-c", where, cwd=tmp_path, env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"})
        version, path = done.stdout.split()
        assert path.startswith(str(target)) and wheel.name.startswith(f"rare_unet_networks-{version}-"), done.stderr


def test_what_is_large_is_decided_alike_by_whoever_builds_and_whoever_verifies():
    assert build_bundle.LARGE == files.LARGE
