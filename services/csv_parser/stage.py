"""Blocks in, typed rows out. Pure: no Kafka, no clock.

Large blocks are emitted at once. Small ones are held, per dataset version and columns, until enough is gathered or a
commit is due: one step then covers many inputs, and one message carries rows of many objects.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from ingestcore.datasets.registry import Registry
from ingestcore.messages.blocks import Block
from ingestcore.stage import Fate, Input, Line, Origin, Stateless, Step, Unbalanced
from ingestcore.tabular.block import Parsed, parse_block
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader
from services.csv_parser.gather import Group, Piece
from services.csv_parser.letters import letters_of

_PLANS: Final = 256
"""Dataset versions × headers whose plans are kept."""


class CsvParser(Stateless):
    """The stage. `partitions`: of `ingest.typed`; sizes are in bytes of blocks, see `CsvParserSettings`."""

    def __init__(
        self,
        specs: Registry,
        partitions: int,
        *,
        storm_limit: int = 1000,
        gather_bytes: int = 8 << 20,
        large_bytes: int = 1 << 20,
        message_bytes: int = 4 << 20,
    ) -> None:
        self._specs = specs
        self._partitions = partitions
        self._storm_limit = storm_limit
        self._gather_bytes = gather_bytes
        self._large_bytes = large_bytes
        self._message_bytes = message_bytes
        self._groups: dict[tuple[str, tuple[str, ...]], Group] = {}
        self._plans: OrderedDict[tuple[str, tuple[str, ...]], tuple[Plan, Reader]] = OrderedDict()

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        """Raises NotSeenYet: the dataset version has not come through the configuration yet; ValueError: the block's
        headers, or the columns they name, are not what the downloader promises; Unbalanced."""
        block = Block.of(input.headers)
        plan, reader = self._plan(block)
        parsed = parse_block(input.value, reader, plan, self._storm_limit)
        if input.rows is not None and parsed.records.count != input.rows:
            raise Unbalanced(
                f"{block.object.uri}, block {block.number}: {input.rows} rows were promised, "
                f"{parsed.records.count} were found"
            )
        group = self._group(block, plan)
        group.add(self._piece(input, block, parsed))
        if len(input.value) >= self._large_bytes or group.nbytes >= self._gather_bytes:
            yield self._release(group)
        elif sum(held.nbytes for held in self._groups.values()) >= self._gather_bytes:
            yield from self.settle(final=False)

    def settle(self, *, final: bool) -> Iterator[Step]:
        for group in [group for group in self._groups.values() if group.pieces]:
            yield self._release(group)
        self._groups.clear()

    def aborted(self) -> None:
        self._groups.clear()

    def _plan(self, block: Block) -> tuple[Plan, Reader]:
        asked = (block.object.dataset, block.columns)
        known = self._plans.get(asked)
        if known is None:
            plan = Plan.of(self._specs.dataset(block.object.dataset), block.columns)
            known = self._plans[asked] = (plan, Reader(plan))
            if len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(asked)
        return known

    def _group(self, block: Block, plan: Plan) -> Group:
        asked = (block.object.dataset, tuple(plan.schema.names))
        if asked not in self._groups:
            self._groups[asked] = Group(block.object.dataset, plan.spec)
        return self._groups[asked]

    def _piece(self, input: Input, block: Block, parsed: Parsed) -> Piece:
        origin = Origin.of(block.object)
        rejects = letters_of(parsed, block, input.at, origin, self._storm_limit)
        counts = (
            (Fate.EMITTED, parsed.rows.num_rows),
            (Fate.REJECTED, len(parsed.bad)),
            (Fate.BLANK, parsed.records.blank),
        )
        if sum(rows for _, rows in counts) != parsed.records.count:
            raise Unbalanced(f"{block.object.uri}, block {block.number}: {counts} of {parsed.records.count} records")
        tally = tuple(Line(input.at, origin, fate, rows) for fate, rows in counts if rows)
        return Piece.of(input, block, parsed, tally, rejects)

    def _release(self, group: Group) -> Step:
        step = group.step(self._partitions, self._message_bytes)
        group.clear()
        return step
