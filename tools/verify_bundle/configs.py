"""Checks of a bundle's configs against each other and against MONAI: parsed and evaluated, no network is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from monai.bundle import config_item
from monai.transforms import Compose, Randomizable
from monai.utils import ensure_tuple

from .common import Bundle, Failed, NotChecked

__all__ = ["check_network_def", "check_preprocessing", "check_properties"]

IMAGE = "image"
# Where MONAI's specification has the preprocessing of a validation and of an inference, and where a dataset has it.
PREPROCESSING = ("validate::preprocessing", "validate::dataset::transform", "preprocessing", "dataset::transform")
TRAINING = ("train::preprocessing", "train::dataset::transform")
# Transforms that leave values and grid alone.
NEUTRAL = ("EnsureTyped", "ToTensord", "ToDeviced", "Identityd", "DataStatsd")
# Arguments that decide whether a scan is used, not what is done to it.
DECISIONS = ("refuse",)
# Transforms that decide on what grid the network sees a scan.
GRID = ("Orientationd", "Spacingd", "Flipd", "Rotate90d", "Rotated", "Transposed", "Resized", "Zoomd", "Affined")


class InstantiationRecorder:
    """Records the arguments of a config's components, however the config refers to them."""

    def __init__(self) -> None:
        self.arguments: dict[int, dict[str, Any]] = {}
        self._kept: list[Any] = []  # an id is another object's once its own is gone

    @contextmanager
    def recording(self) -> Iterator[None]:
        original = config_item.instantiate

        def instantiate(path: Any, mode: str, /, **kwargs: Any) -> Any:
            component = original(path, mode, **kwargs)
            self.arguments[id(component)] = kwargs
            self._kept.append(component)
            return component

        with mock.patch.object(config_item, "instantiate", instantiate):
            yield

    def as_plain_data(self, value: Any) -> Any:
        """A value as something that can be compared and printed."""
        if isinstance(value, Mapping):
            return {str(key): self.as_plain_data(v) for key, v in value.items()}
        if isinstance(value, (list, tuple, set, range)):
            return [self.as_plain_data(v) for v in value]
        if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
            return value.tolist()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if id(value) in self.arguments:
            return {type(value).__qualname__: self.as_plain_data(self.arguments[id(value)])}
        return getattr(value, "__qualname__", None) or type(value).__qualname__

    def transforms(self, transform: Any) -> list[tuple[Any, dict[str, Any]]]:
        """(transform, its arguments) of a pipeline, one after another; of those made in an expression only the keys."""
        if isinstance(transform, Compose):
            return [pair for part in transform.transforms for pair in self.transforms(part)]
        known = self.arguments.get(id(transform), {"keys": getattr(transform, "keys", ())})
        return [(transform, self.as_plain_data(known))]


def of_image(recorder: InstantiationRecorder, transform: Any) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of the transforms of the image up to the first random one, with the image's share of each."""
    pairs = []
    for part, arguments in recorder.transforms(transform):
        if isinstance(part, Randomizable):
            break
        keys = ensure_tuple(arguments.get("keys", ()))
        if IMAGE not in keys or type(part).__name__ in NEUTRAL:
            continue
        of_key = {}
        for name, value in arguments.items():
            per_key = name != "keys" and isinstance(value, list) and len(keys) > 1 and len(value) == len(keys)
            of_key[name] = value[keys.index(IMAGE)] if per_key else value
        for name in ("keys", *DECISIONS):
            of_key.pop(name, None)
        pairs.append((type(part).__name__, of_key))
    return pairs


def parsed(bundle: Bundle, name: str, ids: Sequence[str]) -> tuple[InstantiationRecorder, Any]:
    """Returns the first of these entries that a config has, parsed, and the recorder of its components."""
    recorder, parser = InstantiationRecorder(), bundle.parser(name)
    present = next((i for i in ids if i in parser), None)
    if present is None:
        raise NotChecked(f"{name} has no {ids[0].replace('::', '#')}")
    with recorder.recording():
        return recorder, parser.get_parsed_content(present)


def difference(ours: Sequence[tuple[str, dict]], theirs: Sequence[tuple[str, dict]]) -> str:
    """The first transform in which two pipelines differ; empty where they do not."""
    for a, b in zip([*ours, ("nothing", {})], [*theirs, ("nothing", {})]):
        if a[0] != b[0]:
            return f"{a[0]} where inference.json has {b[0]}"
        for key in sorted(a[1].keys() | b[1].keys()):
            if a[1].get(key) != b[1].get(key):
                return f"{a[0]} with {key} {a[1].get(key)} where inference.json has {b[1].get(key)}"
    return ""


def check_network_def(bundle: Bundle) -> str:
    """The same network, with the same arguments, in every config that stands alone."""
    networks = {}
    for name in bundle.complete:
        recorder, network = parsed(bundle, name, ("network_def",))
        state = {key: list(value.shape) for key, value in network.state_dict().items()}
        networks[name] = (
            type(network).__qualname__,
            recorder.as_plain_data(recorder.arguments.get(id(network), {})),
            state,
        )
    if "inference.json" not in networks or len(networks) < 2:
        raise NotChecked("there is no config beside inference.json that stands alone")
    expected = networks.pop("inference.json")
    for name, (kind, arguments, state) in networks.items():
        if (kind, arguments) != expected[:2]:
            text = difference([(kind, arguments)], [expected[:2]])
            raise Failed(f"network_def of {name}: {text}")
        if state != expected[2]:
            raise Failed(f"network_def of {name} has weights of other names or shapes than that of inference.json")
    return f"{expected[0]}, the same in {', '.join(['inference.json', *networks])}"


def check_preprocessing(bundle: Bundle) -> str:
    """What is done to an image is the same in every config; training sees it on the same grid and goes its own way."""
    pipelines = {name: of_image(*parsed(bundle, name, PREPROCESSING)) for name in bundle.complete}
    expected = pipelines.pop("inference.json", [])
    if not expected or not pipelines:
        raise NotChecked("no preprocessing of an image beside that of inference.json")
    faults = [f"{name}: {text}" for name, pipeline in pipelines.items() if (text := difference(pipeline, expected))]
    if "train.json" in pipelines:
        training, grid = (
            [pair for pair in pipeline if pair[0] in GRID]
            for pipeline in (of_image(*parsed(bundle, "train.json", TRAINING)), expected)
        )
        if text := difference(training, grid):
            faults.append(f"train.json, training: {text}")
    if faults:
        raise Failed("; ".join(faults))
    return f"{', '.join(name for name, _ in expected)}, the same in {', '.join(['inference.json', *pipelines])}"


def check_properties(bundle: Bundle) -> str:
    """MONAI finds every property of the workflows (``check_properties``)."""
    for name in bundle.complete:
        bundle.needs_data(name)
        missing = bundle.workflow(name).check_properties()
        if missing:
            raise Failed(f"{name} has no, or wrongly named, {', '.join(missing)}")
    return f"none is missing in {', '.join(bundle.complete)}"
