"""Checks of overlays: config files of a user's own, whose misspelt entries MONAI would add without a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from monai.bundle import ConfigParser

from .overrides import component_arguments

__all__ = ["check_overlays"]

SIMILAR = 0.8  # ratio of equal characters from which a name is taken for a misspelt one


def check_overlays(files: Sequence[str]) -> None:
    """Checks the entries of config files that lie in another folder than the first one.

    An overlay may add entries, for its own references. An entry that nothing refers to is an error if a known one has a
    similar name; so is an argument that a component does not have. An entry of any config in the first file's folder is
    known, so that one overlay serves training, evaluation and inference.

    Args:
        files: config files of a command, in order.

    Raises:
        SystemExit: on such an entry; the message names the file, the entry and the one that was probably meant.
    """
    folder = Path(files[0]).resolve().parent if files else Path()
    overlays = [i for i, file in enumerate(files) if Path(file).resolve().parent != folder]
    if not overlays:
        return
    known = set()
    for path in folder.glob("*.json"):
        content = ConfigParser.load_config_file(str(path))
        known |= set(content) if isinstance(content, dict) else set()
    whole = str(ConfigParser.load_config_files(list(files))).replace("::", "#")
    for i in overlays:
        parser = ConfigParser(ConfigParser.load_config_files(list(files[:i])))
        overlay = ConfigParser.load_config_file(files[i])
        for written in overlay:
            key = written.removeprefix("+").replace("::", "#")
            is_used = re.search(rf"[@%]{re.escape(key)}(?![\w#])", whole) is not None
            if key in known or key in parser or is_used:
                continue
            parent, _, last = key.rpartition("#")
            candidates = known | set(parser.get())
            if parent:
                target = overlay.get(f"{parent}#_target_")
                names = component_arguments(parser, parent, target) if parent in parser else None
                if names is None or last in names:
                    continue
                candidates = {f"{parent}#{name}" for name in names}
            guess = get_close_matches(key, sorted(candidates), n=1, cutoff=SIMILAR)
            if guess or parent:
                hint = f" Did you mean {guess[0]}?" if guess else ""
                raise SystemExit(f"error: {files[i]}: {written} is no entry of the config.{hint}")
