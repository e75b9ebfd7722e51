"""`ingest infer`: a whole configuration from a look at the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape

from ingestcore.cli.config.infer_report import Place, Seen, as_dict, tell, tell_skipped
from ingestcore.cli.console import AsJson, err, print_json
from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.cli.inputs import S3, File, listed, local, open_s3, split_uri, start_of
from ingestcore.cli.target import DEFAULT_FOLDER, Folder
from ingestcore.datasets.names import as_name
from ingestcore.datasets.spec import parse_size

if TYPE_CHECKING:
    from ingestcore.inference.datasets import Dataset
    from ingestcore.inference.document import Document
    from ingestcore.inference.sample import Look

HEAD_BYTES: Final = 64 << 10
TOTAL_BYTES: Final = 256 << 20
"""Of all samples in memory."""

SAMPLED_OF_A_KIND: Final = 8
_READERS: Final = 8
_PLACEHOLDER: Final = "my-bucket"


def infer(
    given: Annotated[
        list[str], typer.Argument(metavar="s3://BUCKET/PREFIX/ | FILE...", help="A prefix, objects, files or folders.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the configuration there."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE if it exists.")] = False,
    uri: Annotated[
        str | None, typer.Option("--uri", metavar="s3://BUCKET/PREFIX/", help="Where local files will lie.")
    ] = None,
    sink: Annotated[
        str | None,
        typer.Option("--sink", metavar="s3://BUCKET/PREFIX/", help="Where the Parquet goes. [INGEST_DEFAULT_SINK_URI]"),
    ] = None,
    sample: Annotated[
        str, typer.Option("--sample", metavar="SIZE", help="Bytes read of each sampled file, inflated.")
    ] = "4MiB",
    files: Annotated[int, typer.Option("--files", metavar="N", min=1, help="Files looked at, at most.")] = 200,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Write a whole configuration from a look at CSV files, plain or gzip: source, datasets with types and keys, sink.

    Files with the same columns, in any order, become one dataset. Nothing is changed anywhere; what was looked at, and
    what could not be told, is said on stderr and in the file's comments. Only the dataset names are a matter of taste.

    Digits with leading zeros (zip codes) stay strings, as does all that a type would change or refuse.

    Examples:

      ingest infer s3://lake/raw/ -o ingest.yaml

      ingest infer orders-*.csv.gz --uri s3://shop/export/ --sink s3://lake/ > orders.yaml

      ingest infer s3://lake/raw/ --json | jq '.datasets[] | {name, primary_key, rows}'
    """
    from ingestcore.fleet.bring_up import default_sink_uri

    if output is not None and output.exists() and not force:
        raise OperatorError(f"{output} exists: another name, or --force to write over it", EXIT_CONFIGURATION)
    place = _place(given, uri, folder)
    seen = _look(place, _size(sample), files)
    if not seen.looks:
        tell_skipped(seen.skipped)
        raise OperatorError(f"no CSV file to learn from in {place.asked}", EXIT_CONFIGURATION)
    datasets, document = _infer(place, seen.looks, sink or default_sink_uri(os.environ))
    text = document.text(datasets)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    tell(place, seen, datasets)
    if as_json:
        print_json(as_dict(place, seen, datasets, document, text))
    elif output is None:
        typer.echo(text, nl=False)
    else:
        err().print(escape(f"written to {output}: `ingest validate {output}`, `ingest apply {output}`"))


def _place(given: Sequence[str], uri: str | None, folder: Path) -> Place:
    if any(name.startswith(S3) for name in given):
        if uri is not None:
            raise OperatorError("--uri is for local files: where they will lie", EXIT_CONFIGURATION)
        return _in_s3(given, folder)
    from ingestcore.inference.names import folder_of

    found = local(given)
    common = folder_of(file.key for file in found)
    bucket, prefix = split_uri(uri) if uri else (_PLACEHOLDER, "")
    return Place(
        " ".join(given[:5]) + (" …" if len(given) > 5 else ""),
        bucket,
        prefix,
        uri is not None,
        {file.key.removeprefix(common): file for file in found},
        False,
    )


def _in_s3(given: Sequence[str], folder: Path) -> Place:
    from ingestcore.inference.names import folder_of

    places = [split_uri(name) if name.startswith(S3) else ("", "") for name in given]
    buckets = {bucket for bucket, _ in places}
    if len(buckets) > 1:
        raise OperatorError("one bucket at a time, and no local files beside it", EXIT_CONFIGURATION)
    (bucket,) = buckets
    store, found, more = open_s3(folder), dict[str, File](), False
    for _, prefix in places:
        files, cut = listed(store, bucket, prefix)
        more = more or cut
        found |= {file.key: file for file in files}
    # Keys are routed by what follows the prefix, so it ends with a folder.
    common = folder_of(prefix for _, prefix in places)
    return Place(
        " ".join(given), bucket, common, True, {key.removeprefix(common): file for key, file in found.items()}, more
    )


def _look(place: Place, sample_bytes: int, most: int) -> Seen:
    from ingestcore.inference.choice import choose
    from ingestcore.inference.sample import Look, Sample, look

    chosen = choose(list(place.files), most, SAMPLED_OF_A_KIND)
    sample_bytes = max(HEAD_BYTES, min(sample_bytes, TOTAL_BYTES // max(1, len(chosen.sampled))))
    wanted = dict.fromkeys(chosen.sampled, sample_bytes) | dict.fromkeys(chosen.heads, HEAD_BYTES)
    names = [name for name in place.files if name in wanted]
    with ThreadPoolExecutor(_READERS) as pool:
        starts = list(pool.map(lambda name: start_of(place.files[name], wanted[name]), names))
    found = [look(Sample(name, data, whole)) for name, (data, whole) in zip(names, starts, strict=True)]
    return Seen(
        [one for one in found if isinstance(one, Look)],
        [one for one in found if not isinstance(one, Look)],
        sum(len(data) for data, _ in starts),
    )


def _infer(place: Place, looks: Sequence[Look], sink_uri: str) -> tuple[list[Dataset], Document]:
    from ingestcore.datasets.checks import conflict_findings
    from ingestcore.datasets.spec import ParquetSink, S3Source, SinkSpec, SourceSpec
    from ingestcore.inference.datasets import infer_dataset
    from ingestcore.inference.document import Document
    from ingestcore.inference.names import dataset_name
    from ingestcore.inference.routes import routes_of
    from ingestcore.inference.sample import groups_of

    last = place.prefix.strip("/").rpartition("/")[2]
    fallback = as_name(last or place.bucket)
    datasets: list[Dataset] = []
    for group in groups_of(looks):
        name = dataset_name(group.names, fallback, [found.name for found in datasets])
        datasets.append(infer_dataset(name, group))
    route = routes_of({found.name: found.group.names for found in datasets})
    source = SourceSpec(s3=S3Source(bucket=place.bucket, prefix=place.prefix), route=route)
    lake = SinkSpec(parquet=ParquetSink(uri=sink_uri))
    for clash in conflict_findings({fallback: source}, {"lake": lake}):
        raise OperatorError(f"--sink {sink_uri} {clash.message}: {clash.instead}", EXIT_CONFIGURATION)
    return datasets, Document(place.asked, fallback, place.bucket, place.prefix, place.bucket_known, route, sink_uri)


def _size(text: str) -> int:
    try:
        return int(parse_size(text))
    except ValueError as error:
        raise OperatorError(f"--sample: {error}", EXIT_CONFIGURATION) from error
