"""Stands for a program of the same name while a printed block of commands is run, and calls the real one.

It puts real places in the place of those that a page can only name for the reader (/data, s3://bucket, RUN_ID), adds
the options that make the command small, and writes down what it was called with. Started as a script, with the name of
the program as its first word; the file $DOCUMENTED has the settings that project_copy.py writes. It imports nothing of
the project, and little at all, since it is started for every command.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    settings = json.loads(Path(os.environ["DOCUMENTED"]).read_text())
    words = sys.argv[1:]
    arguments = settings["instead"].get(" ".join(words))
    if arguments is None:
        if words[0] not in settings["programs"]:
            sys.exit(f"{' '.join(words)}: not run here, wanted a row of INSTEAD with what is run in its place")
        arguments = [*settings["programs"][words[0]], *_with_flags(words, _flags(words, settings["flags"]))[1:]]
    arguments = [_placed(word, settings["places"]) for word in arguments]
    environment = {**os.environ, "PATH": settings["path"], **settings["environments"].get(words[0], {})}
    began = time.monotonic()
    status = subprocess.run(arguments, env=environment).returncode
    with open(settings["log"], "a") as log:
        call = {"words": words, "arguments": arguments, "status": status, "seconds": time.monotonic() - began}
        log.write(json.dumps(call) + "\n")
    sys.exit(status)


def das_words(words: list[str]) -> list[str]:
    """The words of `das` that a command is the same as, also where a job script is run or submitted."""
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :] if "--" in words else ["python", words[-1]]
    if words[0] == "python" and (job := re.fullmatch(r"jobs/(\w+)\.py", words[1])):
        return ["das", job[1].replace("_", "-"), *words[2:]]
    return words


def _with_flags(words: list[str], flags: list[str]) -> list[str]:
    """The command with more options; a job that is submitted without any needs -- before it for that."""
    if words[:3] == ["ray", "job", "submit"] and "--" not in words:
        return [*words[:-1], "--", words[-1], *flags]
    return [*words, *flags]


def _flags(words: list[str], flags: list[tuple[str, list[str]]]) -> list[str]:
    """The options of the first row whose words the command begins with."""
    text = " ".join(das_words(words)) + " "
    return next((more for start, more in flags if text.startswith(f"{start} ")), [])


def _placed(word: str, places: list[tuple[str, str | dict[str, str]]]) -> str:
    for printed, place in places:
        if printed in word:
            if isinstance(place, dict):  # known only when an earlier command has run
                from pyarrow import fs  # few commands need it

                storage, path = fs.FileSystem.from_uri(place["file"])
                place = str(json.loads(storage.open_input_stream(path).read())[place["key"]])
            word = word.replace(printed, place)
    return word


if __name__ == "__main__":
    main()
