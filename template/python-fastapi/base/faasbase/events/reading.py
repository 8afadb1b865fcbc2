"""From an envelope to the event that a handler takes; most events take a short cut past what they cannot fail at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from .envelope import JSON, Envelope, Event, data_of, is_json
from .handlers import EventHandler

_new = object.__new__
_set_dict, _set_fields_set, _set_extra, _set_private = (
    vars(BaseModel)[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
_moment = datetime.fromisoformat
_DEFAULTS = {
    name: "" if field.is_required() else field.default for name, field in Event.model_fields.items() if name != "data"
}
"""Of what an event leaves out; what it must not is no text then."""


class EventReader:
    """Validates the events of one handler."""

    def __init__(self, handler: EventHandler) -> None:
        self._model, self._decode, self._wanted = handler.model, handler.decode, handler.wanted
        # A model of the user's own may check, or add, more than the data.
        self._is_plain = self._model.__pydantic_generic_metadata__["origin"] is Event
        self._takes_json = self._is_plain and self._decode is None and self._wanted not in (bytes, str)
        self._data_of_json: Callable[[bytes], Any] = TypeAdapter(self._wanted).validator.validate_json

    def read(self, envelope: Envelope) -> Event[Any]:
        """
        Return the event of *envelope*.

        Raises:
            MalformedError: Its data cannot be read.
            ValidationError: It, or its data, is not valid.
        """
        attributes, content = envelope.attributes, envelope.content
        if (
            self._takes_json
            and content
            and (attributes.get("datacontenttype") == JSON or is_json(envelope.media_type or JSON))
        ):
            try:
                data = self._data_of_json(content)
            except ValidationError:
                # The long way tells what is wrong in terms of the event.
                pass
            else:
                values = _DEFAULTS | attributes
                if not _is_sound(values):
                    return self._model.model_validate({**attributes, "data": data})
                values["data"] = data
                # What `model_construct` does, which takes longer than the validation that it saves.
                event = _new(self._model)
                _set_dict(event, values)
                _set_fields_set(event, {*attributes, "data"})
                _set_extra(event, None)
                _set_private(event, None)
                return event
        data = data_of(envelope, self._wanted, self._decode)
        return self._model.model_validate({**attributes, "data": data})


def _is_sound(values: dict[str, Any]) -> bool:
    """Tell whether the attributes are what they must be, and read their time; the type has brought the event here."""
    if (written := values["time"]) is not None:
        # Weeks and days of the year, which the short way reads as well, have no `T` there.
        if written[10:11] != "T":
            return False
        try:
            values["time"] = moment = _moment(written)
        except ValueError:
            return False
        if moment.tzinfo is None:
            return False
    return bool(values["specversion"] == "1.0" and values["id"] and values["source"])
