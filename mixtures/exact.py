"""A plain mapping as a dataclass, where its values have the types that the dataclass states.

OmegaConf converts ("3" to 3) and says what is wrong, in milliseconds for each block; what a file
states right needs neither.
"""

import dataclasses
import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MEANT_OTHERWISE = ("${", "???")
"""What OmegaConf takes for more than text: an interpolation, a value that is missing."""


LARGEST = 2**1023
"""An int below it is a float."""


class NotExactError(Exception):
    """A value is not of the stated type, or a key is unknown or missing."""


def exact(value: Any, kind: Any) -> Any:
    """The value as `kind`: a dataclass, `dict`, `list`, `Literal`, a union, `Any` or a plain type.

    An int is made a float where one is stated. Raises NotExactError for all that is otherwise.
    """
    origin = get_origin(kind)
    if kind is Any:
        return _plain(value)
    if origin in (Union, types.UnionType):
        return _any_of(value, get_args(kind))
    if origin is Literal:
        same = any(type(each) is type(value) and each == value for each in get_args(kind))
        return value if same else _refuse(value)
    if origin is dict and type(value) is dict:
        key_kind, value_kind = get_args(kind)
        return {exact(key, key_kind): exact(each, value_kind) for key, each in value.items()}
    if origin is list and type(value) is list:
        return [exact(each, get_args(kind)[0]) for each in value]
    if dataclasses.is_dataclass(kind) and type(value) is dict:
        return _instance(value, kind)
    if kind is float and type(value) is int:
        return float(value) if abs(value) < LARGEST else _refuse(value)
    return _plain(value) if type(value) is kind else _refuse(value)


def _instance(value: dict[Any, Any], kind: Any) -> Any:
    """The dataclass with these fields, and defaults in place of the others."""
    fields = _fields(kind)
    if not fields.keys() >= value.keys():
        _refuse(value)
    made = {key: exact(each, fields[key]) for key, each in value.items()}
    try:
        return kind(**made)
    except TypeError as error:  # one without a default is missing
        raise NotExactError(str(error)) from error


@cache
def _fields(kind: Any) -> dict[str, Any]:
    """Field -> its type, but of those that would be laid over a default of several values."""
    hints, found = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        several = isinstance(default, dict) or dataclasses.is_dataclass(default)
        if not several or made in (dict, hints[field.name]):
            found[field.name] = hints[field.name]
    return found


def _any_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    """The value as the one of these types that is its own."""
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        try:
            return exact(value, kind)
        except NotExactError:
            continue
    return _refuse(value)


def _plain(value: Any) -> Any:
    """The value, of lists, mappings by text, numbers and texts that mean themselves."""
    if type(value) is dict and all(type(key) is str for key in value):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if type(value) is list:
        return [_plain(each) for each in value]
    if type(value) is str and any(mark in value for mark in MEANT_OTHERWISE):
        _refuse(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise NotExactError(repr(value))
