"""Traffic: budgets for the memory that a worker keeps for its clients.

One budget counts bytes that clients have sent and the worker has not used yet. The other counts bytes that the worker has made
and clients have not taken yet. A caller holds a place in a budget for the bytes that it keeps, and waits where there is no room.
A slow client hurts nobody while there is room for all. Where a caller waits, the client that was idle for longest loses its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Self, TypeAlias

from tvix_store.errors import ExhaustedError

Client: TypeAlias = tuple[str, int] | None
"""The address of a connection's other end, as ASGI has it. None where there is none, as on Unix sockets."""

SMALL = 64 << 10
"""Bytes up to which nobody asks for a place: a lookup, a narinfo, a small file never waits for somebody's download."""
LARGE = 2560 << 10
"""Bytes that a long answer makes us keep while its client does not read. The engine holds 32 pieces of 32 KiB. We hold the piece of
up to a MiB that they are cut from, and half a MiB more."""
CROWD = 16 << 20
"""Bytes held by all clients, from which there are many."""
MEMORY = 256 << 20
"""Default bytes of each of the two budgets of a worker."""
STALL = 600.0
"""Default of the seconds that a client may do nothing. Nix lets a download rest while it unpacks what has come."""
_SPARED = 5.0
_PATIENCE = 240.0
"""Nix gives up after 300 s without a byte."""
_TICK = 1.0
"""Seconds between looks at whose client has stopped."""
_AT_ONCE = 4
"""Places that are taken in one look. As many others then begin, and a hundred beginnings at once keep small requests waiting."""
_PAUSE = 0.05
"""Seconds until the next look where more places may have to be taken."""
_log = logging.getLogger(__name__)


class LostPlaceError(ExhaustedError):
    """The client did nothing for too long, and others got its place."""


class Budget:
    """Some bytes of memory for all clients of a worker.

    capacity: Bytes of the budget.
    share: Bytes that one connection may hold. Beyond them, the connection waits until it has given some back.
    stall: Seconds that a client may do nothing before it loses its place.
    spared: The same, while others wait.
    patience: Seconds that a caller waits for a place.
    """

    def __init__(
        self, capacity: int, *, share: int | None = None, stall: float = STALL, spared: float = _SPARED, patience: float = _PATIENCE
    ) -> None:
        self.capacity = capacity
        self.held = 0
        # One connection must not have it all.
        self._share = share or capacity * 2 // 3
        self._stall = stall
        self._spared = spared
        self._patience = patience
        self._kept_by_waiters = 0
        self._by_client: dict[Client, int] = {}
        self._places: set[Place] = set()
        self._queues: dict[Client, deque[_Waiter]] = {}
        """The callers that wait, by connection. Connections are served in rotation."""
        self._clock: asyncio.TimerHandle | None = None
        self._lost = 0
        """Places taken from clients since this was last logged."""

    def place(self, client: Client) -> Place:
        """A place that holds nothing yet."""
        return Place(self, client)

    def take(self, place: Place, more: int) -> bool:
        """Hold `more` bytes if there is room; whether there was. Callers that wait already go first."""
        return not self._queues and self._try(place, more)

    async def wait(self, place: Place, more: int, kept: int) -> None:
        """Wait until there is room for `more` bytes, and hold them."""
        if kept and self._kept_by_waiters + kept > self.capacity // 4:
            raise ExhaustedError("the server keeps too much for others at this moment; try again in some seconds")
        waiter = _Waiter(place, more)
        self._queues.setdefault(place.client, deque()).append(waiter)
        self._kept_by_waiters += kept
        try:
            self._grant()
            async with asyncio.timeout(self._patience):
                await waiter.granted
        except TimeoutError:
            raise ExhaustedError(f"the server has kept too much for others for {self._patience:g} s; try again later") from None
        finally:
            self._kept_by_waiters -= kept
            self._forget(waiter)

    def give(self, place: Place, less: int) -> None:
        """Take `less` bytes back."""
        client = place.client
        place.held -= less
        self.held -= less
        self._by_client[client] -= less
        if not self._by_client[client]:
            del self._by_client[client]
        if not place.held:
            self._places.discard(place)
        if self._queues:
            self._grant()

    def _try(self, place: Place, more: int) -> bool:
        client = place.client
        of_client = self._by_client.get(client, 0)
        if not self._has_room(more) or (client is not None and of_client and of_client + more > self._share):
            return False
        self._by_client[client] = of_client + more
        self.held += more
        place.held += more
        self._places.add(place)
        if self._clock is None:
            self._clock = asyncio.get_running_loop().call_later(_TICK, self._look)
        return True

    def _has_room(self, more: int) -> bool:
        return not self.held or self.held + more <= self.capacity

    def _grant(self) -> None:
        """Grant places to waiting callers, connection by connection."""
        for client in list(self._queues):
            waiter = self._queues[client][0]
            if waiter.granted.done():  # given up, and about to leave
                self._forget(waiter)
            elif self._try(waiter.place, waiter.more):
                self._forget(waiter)
                if client in self._queues:
                    self._queues[client] = self._queues.pop(client)  # behind the others
                waiter.granted.set_result(None)
            elif not self._has_room(waiter.more):
                return

    def _forget(self, waiter: _Waiter) -> None:
        queue = self._queues.get(waiter.place.client)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[waiter.place.client]

    def _look(self) -> None:
        """Take places from those whose clients have stopped."""
        self._clock = None
        if not self._places:
            return
        loop = asyncio.get_running_loop()
        wanted = sum(queue[0].more for queue in self._queues.values() if not self._has_room(queue[0].more))
        lost = 0
        for place in sorted(self._places, key=lambda each: each.since):
            idle = loop.time() - place.since
            if idle < self._spared or (wanted <= 0 and idle < self._stall):
                break
            wanted -= place.held
            lost += place.lose(idle)
            if lost == _AT_ONCE:
                break
        self._lost += lost
        self._clock = loop.call_later(_TICK if lost < _AT_ONCE else _PAUSE, self._look)
        if self._lost and lost < _AT_ONCE:
            _log.info("%d transfers were given up, since their clients did too little", self._lost)
            self._lost = 0


class _Waiter:
    __slots__ = ("granted", "more", "place")

    def __init__(self, place: Place, more: int) -> None:
        self.place = place
        self.more = more
        self.granted = asyncio.get_running_loop().create_future()


class Place:
    """The part of a budget that one caller holds, until the end of a `with`.

    Raises:
        LostPlaceError: (at the end of the `with`) it was lost, and the work in it cancelled.
    """

    __slots__ = ("_budget", "_cancelling", "_lost_after", "_task", "client", "held", "since")

    def __init__(self, budget: Budget, client: Client) -> None:
        self._budget = budget
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._lost_after = 0.0
        self.client = client and (client[0], client[1])
        self.held = 0
        self.since = inf
        """Since when the work waits for the client."""

    @property
    def is_lost(self) -> bool:
        return self._lost_after > 0

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self.hold_at_most(0)
        task, self._task = self._task, None
        if task is not None and self._lost_after and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise LostPlaceError(f"the client did too little for {self._lost_after:.0f} s; try again") from error

    async def hold(self, size: int, *, kept: int = 0) -> None:
        """Hold at least `size` bytes; wait until there is room. `kept` of them are in memory already.

        Raises:
            ExhaustedError: there was no room in time, or too much is in memory of others that wait.
        """
        more = min(size, self._budget.capacity) - self.held
        if more > 0 and not self._budget.take(self, more):
            self.works()
            await self._budget.wait(self, more, kept)

    def hold_at_most(self, size: int) -> None:
        """Give back all but `size` bytes."""
        if self.held > size:
            self._budget.give(self, self.held - size)

    @property
    def is_crowded(self) -> bool:
        """Whether so many bytes are held that long work must let others run often."""
        return self._budget.held > CROWD

    def waits(self) -> None:
        """From now on, the client has to do something."""
        self.since = asyncio.get_running_loop().time()

    def works(self) -> None:
        """From now on, the client waits for us."""
        self.since = inf

    def lose(self, idle: float) -> bool:
        """Cancel the work, since the client did nothing for `idle` seconds; whether it was not lost before."""
        if self._lost_after or self._task is None:
            return False
        self._lost_after = idle
        self._task.cancel()
        return True


def _nobody(_client: Client) -> None:
    pass


class Traffic:
    """The budgets of a worker, and how it ends a connection.

    memory: Bytes of each of the two budgets.
    stall: Seconds that a client may take nothing of an answer.
    hang_up: Ends the connection with a client.
    """

    def __init__(self, memory: int = MEMORY, stall: float = STALL, hang_up: Callable[[Client], None] = _nobody) -> None:
        self.incoming = Budget(memory, stall=min(stall, 60.0))
        self.outgoing = Budget(memory, stall=stall)
        self.hang_up = hang_up
