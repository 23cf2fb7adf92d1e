"""Configuration of the store."""

from pcam_model.core.schema import Config


class StoreConfig(Config):
    """The store to which runs are published."""

    uri: str = ""
    """`file:///folder`, a folder's path, or `s3://bucket/prefix`; empty: PCAM_STORE, else .pcam/store here."""
