"""What the README shows is what happens."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from served import Predictor

README = Path(__file__).parents[1] / "README.md"


def on_ports_of(predictor: Predictor, text: str) -> str:
    """The text with this predictor's ports in place of the README's."""
    ports = {"8080": predictor.http_port, "8081": predictor.grpc_port}
    for documented, port in ports.items():
        text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{port}")
    return text


def test_the_curl_commands_answer_as_shown(predictor: Predictor) -> None:
    """Each command of a console block is answered with the line below it."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    shown = re.findall(r"^\$ (.*)\n(.*)$", "".join(blocks), re.MULTILINE)
    assert len(shown) == 4
    # curl's own default: the tests run where there is no curl.
    default = "content-type: application/x-www-form-urlencoded"
    for command, expected in shown:
        _curl, _silent, url, *header, _data, body = shlex.split(on_ports_of(predictor, command))
        name, value = (header[-1] if header else default).split(": ")
        answer = predictor.client.post(url, content=body, headers={name: value})
        assert answer.text == expected


def test_the_grpc_example_prints_as_shown(predictor: Predictor) -> None:
    """The Python block, as a program."""
    (example,) = re.findall(r"```python\n(import grpc.*?)```", README.read_text(), re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-c", on_ports_of(predictor, example)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert printed.stdout.strip() == re.findall(r"# (\[.*\])", example)[0]
