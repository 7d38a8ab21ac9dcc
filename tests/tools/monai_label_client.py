"""The requests of 3D Slicer's MONAI Label extension, by its own client; run in MONAI Label's environment.

    python monai_label_client.py ENVIRONMENT URL REQUESTS.json ANSWERS.json

REQUESTS is a list of [name, arguments…]; ANSWERS gets, for each, what the server answered, or {"error": …}.
"""

import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path

import requests


def main(env: str, url: str, asked: str, answered: str) -> None:
    path = Path(env) / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"
    spec = importlib.util.spec_from_file_location("client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = Path(answered).parent
    client = module.MONAILabelClient(url, tmpdir=str(folder), client_id="slicer")

    def infer(model, image, name, params=None, **where):
        label, result = client.infer(model, image, params or {}, **where)
        shutil.move(label, folder / name)
        return result

    def session(model, path, name):
        """As the extension does with a scan that was opened in Slicer and is not in the datastore."""
        created = client.create_session(path)
        result = infer(model, "", name, session_id=created["session_id"])
        client.remove_session(created["session_id"])
        return result

    def train(model, params):
        client.train_start(model, params)
        return finished(client.train_status)

    def batch(model, params):
        requests.post(f"{url}/batch/infer/{model}", params={"images": "all"}, json=params).raise_for_status()
        return finished(lambda: requests.get(f"{url}/batch/infer/").json())

    def finished(status):
        while (answer := status())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
        return answer

    def download(image, tag, name):
        shutil.move(client.download_label(image, tag), folder / name)

    calls = {
        "info": client.info,
        "datastore": client.datastore,
        "upload": client.upload_image,
        "next": lambda strategy: client.next_sample(strategy, {}),
        "infer": infer,
        "session": session,
        "batch": batch,
        "save": client.save_label,
        "download": download,
        "train": train,
    }
    answers = []
    for name, *arguments in json.loads(Path(asked).read_text()):
        try:
            answers.append(calls[name](*arguments))
        except module.MONAILabelClientException as error:
            answers.append({"error": error.msg})
    Path(answered).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
