"""Which ticks a newer one stands for. Pure."""

from trading_gateway_client.journal import Entry
from trading_gateway_client.pb import payloads_pb2


class Newest:
    """Knows for each symbol of each account the message that carried its newest tick."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def note(self, number: int, batch: payloads_pb2.BatchTickData) -> None:
        """Call it in order of the numbers."""
        account, numbers = batch.account, self._numbers
        for tick in batch.ticks:
            numbers[account, tick.symbol] = number

    def split(
        self, entry: Entry, batch: payloads_pb2.BatchTickData
    ) -> tuple[payloads_pb2.BatchTickData, list[payloads_pb2.Tick]]:
        """What of a refused batch is still the newest, and what is not."""
        newest: dict[str, payloads_pb2.Tick] = {}
        older: list[payloads_pb2.Tick] = []
        for tick in batch.ticks:
            if self._numbers.get((batch.account, tick.symbol), 0) > entry.number:
                older.append(tick)
                continue
            if tick.symbol in newest:
                older.append(newest.pop(tick.symbol))
            newest[tick.symbol] = tick
        return payloads_pb2.BatchTickData(ticks=newest.values(), account=batch.account), older
