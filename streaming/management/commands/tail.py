"""``manage.py tail``: what a topic receives, decoded. Room: streaming.tools."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from streaming.tools.records import describe
from streaming.tools.topic_reader import TopicReader, TopicUnreadable


class Command(BaseCommand):
    help = "Prints the messages of a topic as they come, until --max or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("topic", help="for instance tick-data")
        parser.add_argument("--max", type=int, help="stop after so many messages")
        parser.add_argument("--from-beginning", action="store_true", help="what the topic holds first")
        parser.add_argument("--idle-timeout", type=float, help="stop after so many seconds without a message")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *_args: Any, **options: Any) -> None:
        wanted = options["max"]
        if wanted is not None and wanted < 1:
            raise CommandError("--max takes a number of at least 1")
        try:
            with TopicReader(options["topic"]) as reader:
                records = reader.follow(from_beginning=options["from_beginning"], idle_timeout=options["idle_timeout"])
                for number, record in enumerate(records, start=1):
                    self._print(describe(record), as_json=options["json"])
                    if number == wanted:
                        return
        except TopicUnreadable as error:
            raise CommandError(str(error)) from None
        except (KeyboardInterrupt, BrokenPipeError):
            return

    def _print(self, record: dict[str, Any], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(record, ensure_ascii=False))
        else:
            place = f"{record['topic']}[{record['partition']}]@{record['offset']}"
            body = record.get("envelope", record.get("value_base64"))
            self.stdout.write(f"{place} key={record['key']} {json.dumps(body, ensure_ascii=False)}")
        self.stdout.flush()
