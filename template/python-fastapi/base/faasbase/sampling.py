"""What a sampler would say, where that is known beforehand: to ask costs more than to handle an event."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.trace.sampling import ParentBased, ParentBasedTraceIdRatio, TraceIdRatioBased

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer as AnyTracer

_KNOWN = (ParentBased, ParentBasedTraceIdRatio)
_ON, _OFF = "AlwaysOnSampler", "AlwaysOffSampler"
_PARENT_BASED = re.compile(
    r"ParentBased\{root:(?P<root>.*),remoteParentSampled:(?P<remote>\w+),remoteParentNotSampled:(?P<remote_not>\w+)"
    r",localParentSampled:\w+,localParentNotSampled:(?P<local_not>\w+)\}"
)
_RATIO = re.compile(r"TraceIdRatioBased\{([\d.e-]+)\}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a sampler goes by that follows the parents of spans."""

    records_sampled: bool
    """Whether it records all that is below a remote parent that is recorded."""
    leaves_out: bool
    """Whether it records nothing below a parent that is not."""
    new_below: int | None
    """It records new traces of whose ids the lower half is below that; None where it has to be asked."""


def rules_of(tracer: AnyTracer) -> Rules | None:
    """Return what *tracer*'s sampler goes by; None where it is of another kind and has to be asked each time."""
    if not isinstance(tracer, Tracer) or type(tracer.sampler) not in _KNOWN:
        return None
    description: str = tracer.sampler.get_description()
    if (told := _PARENT_BASED.fullmatch(description)) is None:
        return None
    root, ratio = told["root"], _RATIO.fullmatch(told["root"])
    rate = float(ratio[1]) if ratio else {_ON: 1.0, _OFF: 0.0}.get(root)
    new_below = None if rate is None else TraceIdRatioBased.get_bound_for_rate(rate)
    return Rules(told["remote"] == _ON, told["remote_not"] == told["local_not"] == _OFF, new_below)
