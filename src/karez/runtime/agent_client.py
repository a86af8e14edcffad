"""The connection of a rank to its node agent (the steward)."""

import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from karez.core.messages.greetings import ProcessGreeting, Refusal
from karez.core.messages.orders import ORDERS, Order
from karez.core.messages.reports import ProcessReport
from karez.core.messages.wire import Malformed, decode
from karez.runtime.rank_environment import RankEnvironment
from karez.transport import framing


class AgentClient:
    """Reports to the node agent, which passes them on to the job controller, and orders from it.

    `on_order` gets each order at once, on the connection's own thread; then it is put into
    `inbox`.
    """

    def __init__(self, here: RankEnvironment, on_order: Callable[[Order], None]) -> None:
        """Connect as the process of this environment. Raises OSError if the agent has gone."""
        self.inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._on_order = on_order
        self._lock = threading.Lock()
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.connect(here.steward)
        greeting = ProcessGreeting(key=here.key, token=here.process_token)
        framing.send_message(self._stream, greeting)
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, report: ProcessReport) -> None:
        """Send a report."""
        with self._lock:
            framing.send_message(self._stream, report)

    def _listen(self) -> None:
        try:
            while True:
                received, _ = framing.receive(self._stream)
                self._take(received)
        except (EOFError, OSError, ValueError):
            self._stream.close()
            os._exit(70)  # without a node agent nobody may act for this rank (70: EX_SOFTWARE)

    def _take(self, received: Mapping[str, Any]) -> None:
        order = decode(ORDERS, received)
        if isinstance(order, Malformed):
            sys.stderr.write(f"karez: order {order.type!r} is refused: {order.why}\n")
            self.send(Refusal(refused=order.type, why=order.why))
        elif isinstance(order, Refusal):
            sys.stderr.write(f"karez: report {order.refused!r} was refused: {order.why}\n")
        else:
            self._on_order(order)
            self.inbox.put(order)
