"""The base of what travels: small frozen records that turn into JSON and back."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """What was made: a place, a digest, a few figures. Immutable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Config(Record):
    """What to do. Field docstrings are the help texts of the command and of Prefect's form."""
