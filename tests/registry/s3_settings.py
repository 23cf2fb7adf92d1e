"""The environment that boto3 reads, under test."""

import os

import pytest

REAL = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PCAM_TEST_BUCKET")
HERE = {name: os.environ.get(name, "") for name in REAL}


def real_environment() -> dict[str, str]:
    """The settings of the real server, or a skip that says what is missing."""
    missing = [name for name, value in HERE.items() if not value]
    if missing:
        pytest.skip(f"no S3 server to test on: {', '.join(missing)} not set")
    return HERE


def settings(monkeypatch: pytest.MonkeyPatch, endpoint: str, key: str, secret: str) -> None:
    """boto3's environment, and nothing that the person who tests has set."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
