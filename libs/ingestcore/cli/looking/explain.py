"""`ingest explain`: what a dead letter's reason means and what to do about it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from ingestcore.cli import choices
from ingestcore.cli.console import AsJson, err, out, print_json, print_table, table
from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.datasets.problems import nearest
from ingestcore.reasons import ANY_STAGE, MEANING, Meaning, Reason

_QUERY = (
    """SELECT object_uri, "row", "column", value, message, raw FROM 's3://LAKE/dlq/**/*.parquet' WHERE reason = '{}'"""
)

_LIST_ANEW = (
    'objects: redis-cli DEL "checkpoint:TENANT:SOURCE" lists the source anew, by the specs that are in force now'
)
_RESET = "ingest stop {0}; kafka-consumer-groups.sh --reset-offsets ... --execute; ingest start {0}"
_READ_AGAIN = {
    "chunk-downloader": _LIST_ANEW,
    "csv-parser": _LIST_ANEW,
    "event-parser": "events: their producer posts them again, under ids of their own",
    "postgres-sink": _RESET.format("SINK"),
}
"""By the service that gave the letter."""


def explain(
    reason: Annotated[
        str | None,
        typer.Argument(
            metavar="[REASON]",
            help="As in a dead letter. Without it: all.",
            show_default=False,
            autocompletion=choices.reasons,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain why records become dead letters: what happened, whether retrying helps, what to do, where the bytes are.

    The reason stands in the header `reason` of `ingest.dlq` and in the column `reason` of the lake's dead letters.

    Examples:

      ingest explain

      ingest explain VALIDATION_FAIL

      ingest explain --json | jq '.reasons[] | select(.retryable) | .reason'
    """
    if reason is None:
        _show_all(as_json)
        return
    found = reason_of(reason)
    known = found.value == reason.strip().upper().replace("-", "_")
    if not known:
        err().print(escape(f"no reason {reason!r}: the closest is {found.value}; `ingest explain` lists all"))
    if as_json:
        print_json(_as_dict(found, MEANING[found]) | {"asked": reason})
    else:
        _show(found, MEANING[found])
    if not known:
        raise typer.Exit(EXIT_CONFIGURATION)


def reason_of(text: str) -> Reason:
    """-> the reason that is meant; case and dashes do not count. Raises OperatorError: nothing is close."""
    written = text.strip().upper().replace("-", "_")
    known = [reason.value for reason in Reason]
    meant = nearest(written, known) or next((name for name in known if written and written in name), "")
    if not meant:
        raise OperatorError(f"no reason {text!r}; known: {', '.join(known)}", EXIT_CONFIGURATION)
    return Reason(meant)


def _show_all(as_json: bool) -> None:
    if as_json:
        print_json({"reasons": [_as_dict(reason, meaning) for reason, meaning in MEANING.items()]})
        return
    made = table("REASON", "AGAIN?", "GIVEN BY", "MEANING")
    for reason, meaning in MEANING.items():
        made.add_row(reason.value, _again(meaning), _given_by(meaning), escape(meaning.summary))
    print_table(made)
    err().print("AGAIN?: whether the same bytes may pass later, unchanged. `ingest explain REASON` says what to do.")


def _show(reason: Reason, meaning: Meaning) -> None:
    console = out()
    console.print(f"[bold]{reason.value}[/bold]: {escape(meaning.summary)}")
    again = "it may: the same bytes can pass later" if meaning.retryable else "no: the same bytes will fail again"
    for title, text in (
        ("what happened", meaning.cause),
        ("given by", _given_by(meaning)),
        ("does retrying help", again),
        ("what to do", meaning.advice),
        ("to have it read again", "\n  ".join(_read_again(meaning))),
        ("where the bytes are", meaning.bytes_at),
        ("the letter", "value and headers in the topic `ingest.dlq`; a row of the `dlq` table in the lake"),
    ):
        console.print(f"\n[bold]{title}[/bold]\n  {escape(text)}")
    console.print(f"\n[bold]look at them[/bold] (DuckDB)\n  {escape(_QUERY.format(reason.value))}")


def _again(meaning: Meaning) -> str:
    return "yes" if meaning.retryable else "no"


def _given_by(meaning: Meaning) -> str:
    if ANY_STAGE in meaning.stages:
        return "any service"
    return ", ".join(meaning.stages) or "no service of this version"


def _read_again(meaning: Meaning) -> list[str]:
    known = [_READ_AGAIN[stage] for stage in meaning.stages if stage in _READ_AGAIN]
    return [*dict.fromkeys(known or [_RESET.format("SERVICE")]), "what was published or written before is not doubled"]


def _as_dict(reason: Reason, meaning: Meaning) -> dict[str, Any]:
    return {
        "reason": reason.value,
        "summary": meaning.summary,
        "cause": meaning.cause,
        "retryable": meaning.retryable,
        "advice": meaning.advice,
        "read_again": _read_again(meaning),
        "bytes_at": meaning.bytes_at,
        "given_by": list(meaning.stages),
    }
