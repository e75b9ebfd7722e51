"""Requests that come one by one and are sent to a server many at a time: at once while it is idle, and while it is busy
all that have gathered when an answer comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Generic, TypeVar

AskT = TypeVar("AskT")
AnswerT = TypeVar("AnswerT")


class InBatches(Generic[AskT, AnswerT]):
    """send: takes a batch, gives as many answers in the same order; what it raises, all of the batch raise.

    lanes          batches on their way at once
    pause_seconds  how long a batch gathers before it is sent, where nobody is in a hurry
    """

    def __init__(
        self,
        send: Callable[[Sequence[AskT]], Awaitable[Sequence[AnswerT]]],
        *,
        max_items: int = 500,
        lanes: int = 2,
        pause_seconds: float = 0.0,
    ) -> None:
        self._send, self._max_items, self._lanes, self._pause = send, max_items, lanes, pause_seconds
        self._waiting: list[tuple[AskT, asyncio.Future[AnswerT]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._planned = False

    def ask(self, item: AskT) -> asyncio.Future[AnswerT]:
        future: asyncio.Future[AnswerT] = self._loop.create_future()
        self._waiting.append((item, future))
        self._plan()
        return future

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Of whoever asks first. To find it costs a system call, which is too much for each event."""
        return asyncio.get_running_loop()

    def _plan(self) -> None:
        if self._waiting and not self._planned and len(self._tasks) < self._lanes:
            self._planned = True
            # At the soonest after everything that is ready in this turn of the loop has asked, too.
            self._loop.call_later(self._pause, self._start)

    def _start(self) -> None:
        self._planned = False
        if self._waiting and len(self._tasks) < self._lanes:
            batch, self._waiting = self._waiting[: self._max_items], self._waiting[self._max_items :]
            task = self._loop.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            self._plan()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._plan()

    async def _run(self, batch: Sequence[tuple[AskT, asyncio.Future[AnswerT]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # who asked may have gone: no complaint about that
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def finish(self) -> None:
        """Wait until nothing is on its way."""
        while self._waiting or self._tasks:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(self._pause)
