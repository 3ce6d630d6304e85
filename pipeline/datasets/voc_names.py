"""Names of images and classes as VOC's result files can hold them: what they cannot hold is escaped as in URLs."""

import re
from urllib.parse import quote

UNFIT = r"[%/\\\x00-\x1f\x7f-\x9f\u2028\u2029]"  # signs of a class name that are escaped in a file's name


def voc_id(name: str) -> str:
    """The id of an image as a line of a result file can hold it: white space and % are escaped (%20, %25)."""
    return re.sub(r"[\s%]", lambda match: quote(match[0]), name)


def voc_file_name(split: str, name: str) -> str:
    """The name of the result file of a class. Slashes, control characters and % are escaped."""
    return f"comp4_det_{split}_{re.sub(UNFIT, lambda match: quote(match[0], safe=''), name)}.txt"
