"""What all parts of the configuration have in common."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from volprompt.settings.values import number_fault


class Section(BaseModel):
    """A part of the configuration; keys that it does not know are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_as_people_write_them(cls, value: Any, info: ValidationInfo) -> Any:
        if _takes_numbers(cls.model_fields[info.field_name or ""].annotation):
            items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
            for item in items:
                if fault := number_fault(item):
                    raise ValueError(fault)
        return value


def _takes_numbers(annotation: Any) -> bool:
    """Whether a key holds a number, a list of numbers, or one of several values with a number among them."""
    return annotation in (int, float) or any(type(part) is int or _takes_numbers(part) for part in get_args(annotation))
