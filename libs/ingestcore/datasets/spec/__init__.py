"""Specs of sources, datasets and sinks: what operators write and `ingest.config` carries. Everybody imports them from
here, whatever file they stand in.

Names are snake_case; the camelCase of JSON configurations is accepted too. Unknown keys are refused.
"""

from ingestcore.datasets.spec.dataset import DatasetSpec as DatasetSpec
from ingestcore.datasets.spec.dataset import DedupeSpec as DedupeSpec
from ingestcore.datasets.spec.dataset import OnExtra as OnExtra
from ingestcore.datasets.spec.dialect import Dialect as Dialect
from ingestcore.datasets.spec.field import FieldSpec as FieldSpec
from ingestcore.datasets.spec.field import Type as Type
from ingestcore.datasets.spec.s3 import S3Access as S3Access
from ingestcore.datasets.spec.s3 import S3Source as S3Source
from ingestcore.datasets.spec.sink import PLACES as PLACES
from ingestcore.datasets.spec.sink import ParquetSink as ParquetSink
from ingestcore.datasets.spec.sink import SinkSpec as SinkSpec
from ingestcore.datasets.spec.source import SourceSpec as SourceSpec
from ingestcore.datasets.spec_values import Name as Name
from ingestcore.datasets.spec_values import Seconds as Seconds
from ingestcore.datasets.spec_values import Size as Size
from ingestcore.datasets.spec_values import Spec as Spec
from ingestcore.datasets.spec_values import parse_seconds as parse_seconds
from ingestcore.datasets.spec_values import parse_size as parse_size
