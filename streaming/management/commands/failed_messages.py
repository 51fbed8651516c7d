"""``manage.py failed_messages``: list, show and replay what the gateway could not accept. Room: streaming.tools."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import islice
from typing import Any

from confluent_kafka import Message
from django.core.management.base import BaseCommand, CommandError

from streaming.tools.failed_messages import (
    Filters,
    details,
    fetch,
    found,
    judge_again,
    parse_place,
    place_of,
    publish,
    summary,
)
from streaming.tools.replay import Accepted
from streaming.tools.topic_reader import TopicUnreadable

# Messages that are on their way to Kafka at once.
_BATCH = 1_000


class Command(BaseCommand):
    help = "Lists, shows and replays messages that were kept in failed-messages."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="what the topic holds")
        _add_filters(listing)
        listing.add_argument("--limit", type=int, default=100, help="at most so many (default %(default)s)")
        show = actions.add_parser("show", help="one message whole")
        show.add_argument("place", help="PARTITION:OFFSET as list prints it")
        replay = actions.add_parser(
            "replay", help="judge again by today's rules and publish what is valid now; consumers see it a second time"
        )
        replay.add_argument("places", nargs="*", help="PARTITION:OFFSET; none: everything the filters match")
        _add_filters(replay)
        replay.add_argument("--dry-run", action="store_true", help="say what would happen, publish nothing")
        for action in (listing, show, replay):
            action.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            {"list": self._list, "show": self._show, "replay": self._replay}[options["action"]](options)
        except (TopicUnreadable, ValueError) as error:
            raise CommandError(str(error)) from None

    def _list(self, options: dict[str, Any]) -> None:
        for record in islice(found(_filters(options)), max(0, options["limit"])):
            row = summary(record)
            line = "{place:12} {reason:18} {message_type:16} user {user_id} company {company_id} {size} bytes"
            self._print(row, options, line)

    def _show(self, options: dict[str, Any]) -> None:
        record = fetch([parse_place(options["place"])])[0]
        self.stdout.write(json.dumps(details(record), ensure_ascii=False, indent=None if options["json"] else 2))

    def _replay(self, options: dict[str, Any]) -> None:
        filters = _filters(options)
        if options["places"]:
            records = [r for r in fetch([parse_place(place) for place in options["places"]]) if filters.matches(r)]
        elif filters == Filters():
            raise CommandError("name places, or a filter such as --reason unknown_type: replaying all is rarely meant")
        else:
            records = list(found(filters))
        for start in range(0, len(records), _BATCH):
            missing = self._replay_some(records[start : start + _BATCH], options)
            if missing:
                rest = len(records) - start - _BATCH
                after = f"; {rest} more were not tried" if rest > 0 else ""
                hint = "they stay in failed-messages, replay their places again"
                raise CommandError(f"Kafka has not confirmed {missing} messages, see above: {hint}{after}")

    def _replay_some(self, records: Sequence[Message], options: dict[str, Any]) -> int:
        """Prints what became of each once that is known; how many Kafka has not confirmed."""
        verdicts = [judge_again(record) for record in records]
        accepted = [verdict for verdict in verdicts if isinstance(verdict, Accepted)]
        problems = iter(publish(accepted) if accepted and not options["dry_run"] else [])
        missing = 0
        for record, verdict in zip(records, verdicts, strict=True):
            row = {"place": place_of(record), "result": "refused", "topic": "", "code": "", "reason": ""}
            if not isinstance(verdict, Accepted):
                row |= {"code": verdict.code, "reason": verdict.reason}
            elif options["dry_run"]:
                row |= {"result": "valid", "topic": verdict.topic}
            elif problem := next(problems):
                missing += 1
                row |= {"result": "unconfirmed", "topic": verdict.topic, "reason": problem}
            else:
                row |= {"result": "replayed", "topic": verdict.topic}
            self._print(row, options, "{place:12} {result:11} {topic}{code} {reason}")
        return missing

    def _print(self, row: dict[str, Any], options: dict[str, Any], line: str) -> None:
        self.stdout.write(json.dumps(row, ensure_ascii=False) if options["json"] else line.format(**row))


def _add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="for instance malformed, unknown_type, payload_mismatch")
    parser.add_argument("--user", default="", help="user id")
    parser.add_argument("--company", default="", help="company id")


def _filters(options: dict[str, Any]) -> Filters:
    return Filters(options["reason"], options["user"], options["company"])
