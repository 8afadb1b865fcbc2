"""`@cached` where no event loop runs: what is refused at decoration, plain calls, and the names of entries."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasbase.caching import activate_cache, cached, open_cache
from faasbase.caching.keys import key_of

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
ARGUMENTS = st.recursive(SIMPLE, lambda part: st.lists(part) | st.tuples(part, part) | st.dictionaries(st.text(), part))


def test_plain_function_is_cached_without_an_event_loop() -> None:
    runs = list[int]()

    @cached(ttl=60)
    def square(number: int) -> int:
        runs.append(number)
        return number**2

    with activate_cache(open_cache("memory://")):
        assert [square(3), square(3), runs] == [9, 9, [3]]


@pytest.mark.parametrize("ttl", [0, -1, "0s", "soon"])
def test_ttl_that_is_none_is_refused_at_decoration(ttl: float | str) -> None:
    with pytest.raises(ValueError, match=r"ttl|duration"):
        cached(ttl=ttl)


def test_function_that_cannot_be_cached_is_refused_at_decoration() -> None:
    def unannotated():  # type: ignore[no-untyped-def]
        return 1

    async def generator() -> AsyncIterator[int]:
        yield 1

    for function in (unannotated, generator):
        with pytest.raises(TypeError):
            cached(ttl=1)(function)


@given(ARGUMENTS, ARGUMENTS)
def test_keys_are_equal_only_for_equal_content(first: object, second: object) -> None:
    same = repr(first) == repr(second)
    assert same or first == second or key_of("f", 1, first) != key_of("f", 1, second)
    assert not same or key_of("f", 1, first) == key_of("f", 1, second)
