"""Base classes of records and configurations: frozen pydantic models that serialise to JSON."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A result of a step: paths, digests, figures. Immutable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Config(Record):
    """A configuration; the docstrings of its fields are the help texts of the command line and of Prefect's form."""
