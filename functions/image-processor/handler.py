"""Resize, crop, turn and convert images: POST one, or its URL, with what to do."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from faasbase import CacheDep, StoreDep, problem_responses

from .asked import BODY, asked
from .grammar import GRAMMAR, MAX_OPERATIONS, read_wanted
from .limits import read_limits
from .memory import bound_memory
from .pool import Pool
from .processing import Processed, Processor
from .remote import Remote
from .sources import use_pixel_limit

router = APIRouter()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Read the limits and start the threads."""
    limits = read_limits(os.environ)
    bound_memory()
    use_pixel_limit(limits.max_pixels)
    pool = Pool(limits)
    yield {"limits": limits, "pool": pool}
    pool.close()


@router.post(
    "/",
    openapi_extra={"requestBody": BODY},
    responses=problem_responses(403, 413, 415, 422, 429, 502, 503, 504),
    description=f"The image is a JPEG, PNG, WebP, AVIF or GIF; of an animation the first frame is used.\n{GRAMMAR}",
)
async def process_image(
    request: Request,
    cache: CacheDep,
    store: StoreDep,
    op: Annotated[list[str] | None, Query(max_length=MAX_OPERATIONS, examples=[["resize:800x600"]])] = None,
    format: Annotated[Literal["jpeg", "jpg", "png", "webp", "avif"] | None, Query()] = None,
    quality: Annotated[int | None, Query(ge=1, le=100, description="Of JPEG, WebP and AVIF.")] = None,
) -> Processed:
    """Process an image."""
    wanted = read_wanted(op or [], format, quality)
    limits, pool = request.state.limits, request.state.pool
    with pool.admitted():
        async with asked(request, wanted, Remote(limits, pool, cache, store)) as (upload, wanted):
            return await Processor(limits, pool, cache, store).answer(upload, wanted)
