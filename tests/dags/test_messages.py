"""The pictures of messages in the docs are those of the messages that are sent now."""

from __future__ import annotations

import re

from local.messages import FOLDER, SILENT, messages, pictures
from merchant_usage.alerts.alert import AlertKind
from merchant_usage.settings import load_settings
from tests.support import PROJECT, Usage


def test_each_kind_of_message_has_its_picture_as_it_reads_now(usage: Usage) -> None:
    drawn = pictures(usage.client, usage.conn)
    assert set(drawn) == {f"{kind}.svg" for kind in set(AlertKind) - SILENT}
    committed = {file.name: file.read_text() for file in FOLDER.glob("*.svg")}
    assert committed == drawn, "draw them anew: ./run messages"


def test_each_picture_is_shown() -> None:
    page = (PROJECT / "docs" / "reference" / "alerts.md").read_text()
    shown = re.findall(r"!\[[^\]]+\]\(\.\./images/messages/(\w+\.svg)\)", page)
    assert sorted(shown) == sorted(file.name for file in FOLDER.glob("*.svg"))


def test_nothing_that_is_pasted_first_decides_or_writes(usage: Usage) -> None:
    for kind, body in messages(usage.client, usage.conn, load_settings({})).items():
        texts = [block["text"]["text"] for block in body["blocks"] if "text" in block]
        commands = [
            line for text in texts for line in text.splitlines() if line.startswith(("merchant-usage", "airflow"))
        ]
        assert not commands or " resolve " not in commands[0], kind
