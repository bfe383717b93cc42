"""What a real Label Studio makes of our hand-off: `python -m tests.coslow.label_studio` asks it.

Needs `label-studio` on the PATH, of an environment of its own (docs/label.md says how and which
version): a server on loopback, two people, a project for each of `ANSWERS`, four exports of each.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from taskeff.coslow.handoff import hand_off, to_annotate
from taskeff.tasks.examples import Example

FOLDER = Path(__file__).parent
TEXTS = (
    "=HYPERLINK(1)",
    "'=quoted already",
    '-3 degrees, "quoted"; and\nanother line',
    "@user + tabs\t\u2028 und Umlaute ä 😀",
    '["a", "list"]',
    "1,5 <b>bold</b> & more",
)
CHOICES = ("yes", "no & <never>", "café")
YES, NO, CAFE = CHOICES
WORDS = ("=1+1", 'say "no"', "zwei\nZeilen", "[1]", '{"choices": 1}', "x")
SKIP: tuple[str, ...] = ()
ENDINGS = {"JSON": "json", "JSON_MIN": "min.json", "CSV": "csv", "TSV": "tsv"}

_PLAIN = [[[choice]] for choice in (*CHOICES, *CHOICES)]
# project -> row -> annotator -> the answers given, none for a skip
ANSWERS: dict[str, list[list[Sequence[str]]]] = {
    "agree": [_PLAIN[0], [[NO], [NO]], [[CAFE], SKIP], [SKIP, [YES]], *_PLAIN[4:]],
    "differ": [*_PLAIN[:4], [[NO], [YES]], _PLAIN[5]],
    "ticks": [*_PLAIN[:4], [[NO, YES]], _PLAIN[5]],
    "part": [*_PLAIN[:4], [SKIP], []],
    "free": [[[word]] * (1 + (place == 1)) for place, word in enumerate(WORDS)],
}


def choices_of(project: str) -> tuple[str, ...] | None:
    """The choices of a project, None where answers are written."""
    return None if project == "free" else CHOICES


def records_of(project: str) -> list[dict[str, Any]]:
    """The rows of a project, as they are handed out."""
    pool = [Example(f"train-{place}", text) for place, text in enumerate(TEXTS)]
    confidences = [None, *(place / 8 for place in range(1, len(TEXTS)))]
    return to_annotate(pool, confidences, choices_of(project))


class Server:
    """Label Studio at work, and the two who label in it."""

    def __init__(self, url: str, token: str):
        self._url = url
        self._tokens = [token]
        self._tokens.append(self._invited())

    def _asked(self, path: str, body: object = None, who: int = 0) -> bytes:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        words = {"Authorization": f"Token {self._tokens[who]}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, words)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def _invited(self) -> str:
        """A second person, signed up as one is who was sent the link."""
        path = json.loads(self._asked("/api/invite"))["invite_url"].removeprefix(self._url)
        jar = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        browser.open(self._url + path).close()
        values = {"email": "two@example.com", "password": "Label-me-2"}
        values["csrfmiddlewaretoken"] = next(c.value or "" for c in jar if c.name == "csrftoken")
        form = urllib.parse.urlencode(values).encode()
        words = {"Referer": self._url + path}
        browser.open(urllib.request.Request(self._url + path, form, words)).close()
        with browser.open(self._url + "/api/current-user/token") as answer:
            return json.load(answer)["token"]

    def exports(self, project: str) -> dict[str, bytes]:
        """Our hand-off imported, labelled as `ANSWERS` says; the exports by their endings."""
        choices = choices_of(project)
        files = hand_off(records_of(project), "label-studio", choices, 'Say "yes" or <no>.')
        view = files["label_studio.xml"].decode()
        if project == "ticks":
            view = view.replace('choice="single"', 'choice="multiple"')
        settings = {"title": project, "label_config": view}
        number = json.loads(self._asked("/api/projects", settings))["id"]
        self._asked(f"/api/projects/{number}/import", files["to_annotate.json"])
        listed = json.loads(self._asked(f"/api/tasks?project={number}&page_size=100"))["tasks"]
        for task, given in zip(sorted(listed, key=lambda one: one["id"]), ANSWERS[project]):
            for who, answers in enumerate(given):
                body = {"result": _result(choices, answers), "was_cancelled": not answers}
                self._asked(f"/api/tasks/{task['id']}/annotations/", body, who)
        export = f"/api/projects/{number}/export?exportType="
        return {ending: self._asked(export + form) for form, ending in ENDINGS.items()}


def _result(choices: Sequence[str] | None, answers: Sequence[str]) -> list[Mapping[str, Any]]:
    kind, value = ("choices", "choices") if choices else ("textarea", "text")
    result = {"from_name": "label", "to_name": "text", "type": kind}
    return [{**result, "value": {value: list(answers)}}] if answers else []


@contextmanager
def serving() -> Iterator[Server]:
    """A server of its own on a free port, its data gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, token = f"http://127.0.0.1:{port}", "0123456789abcdef" * 2 + "01234567"
    words = ["label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1", "-p"]
    words += [str(port), "--username", "one@example.com", "--password", "Label-me-1"]
    told = {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false"}
    told |= {"LABEL_STUDIO_HOST": url, "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
    outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+b") as log:
        process = subprocess.Popen(
            [*words, "--user-token", token, "--data-dir", folder],
            env=outside | told,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while not _answers(url):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                    log.seek(0)
                    raise RuntimeError(log.read().decode(errors="replace")[-2000:])
            yield Server(url, token)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url + "/health").close()
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
    return True


def main() -> None:
    """Write the exports of every project beside this file, or into the folder that is named."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with serving() as server:
        for project in ANSWERS:
            for ending, content in server.exports(project).items():
                (folder / f"{project}.{ending}").write_bytes(content)
