"""A store in a bucket, and its faults, by the proxy in front of it."""

import logging
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from benchmarks.chaos_fault import Broken, Fault, killed
from benchmarks.chaos_proxy import MODES, fault_proxy
from benchmarks.chaos_runs import Home, S3Store


@contextmanager
def s3_store() -> Iterator[S3Store]:
    """A bucket on an S3 server of this process, behind a proxy."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        direct = f"http://127.0.0.1:{port}"
        boto3.client(
            "s3", endpoint_url=direct, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
        ).create_bucket(Bucket="chaos")
        with fault_proxy(port) as proxy:
            environment = keys | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}"}
            yield S3Store("s3://chaos", environment, proxy)
    finally:
        server.stop()


def store_misbehaves(home: Home, draw: random.Random, seconds: float) -> Broken:
    """The bucket is down, resets connections, answers 503, is slow, or loses its answers, for some seconds."""
    assert home.bucket is not None
    proxy, process = home.bucket.proxy, home.start()
    moment, length, mode = draw.uniform(0.2, seconds), draw.uniform(1, 8), draw.choice(MODES)
    time.sleep(moment)
    with proxy.misbehaving(mode):
        time.sleep(length)
    return Broken(f"store {mode} for {length:.1f} s after {moment:.1f} s", codes=(0, 1), code=home.wait(process).code)


def wrong_bytes_once(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Go on on another machine, to which the store sends one wrong bit."""
    assert home.bucket is not None
    before = killed(home, draw, seconds)
    shutil.rmtree(home.cache, ignore_errors=True)
    home.clear_output()
    proxy = home.bucket.proxy
    proxy.spared, proxy.where = draw.randrange(40), draw.random()
    with proxy.misbehaving("wrong"):
        ended = home.wait(home.start())
        sent = proxy.mode == ""
    what = f"{before.what}, the cache removed, a wrong bit {'' if sent else 'not '}sent: exit code {ended.code}"
    return Broken(what, codes=(0, 1), code=ended.code)


def refused(home: Home, draw: random.Random, seconds: float, mode: str) -> Broken:
    """From a random moment on the store refuses credentials or clock, until the next start."""
    assert home.bucket is not None
    proxy, process, moment = home.bucket.proxy, home.start(), draw.uniform(0.2, seconds)
    time.sleep(moment)
    with proxy.misbehaving(mode):
        ended = home.wait(process)
    return Broken(f"{mode} after {moment:.1f} s: exit code {ended.code}", codes=(0, 1), code=ended.code)


def credentials_expire(home: Home, draw: random.Random, seconds: float) -> Broken:
    """The credentials expire in mid-run, and are renewed before the next start."""
    return refused(home, draw, seconds, "expired")


def clock_refused(home: Home, draw: random.Random, seconds: float) -> Broken:
    """The store takes this machine's clock for wrong, until the next start."""
    return refused(home, draw, seconds, "skewed")


STORE_FAULTS: dict[str, Fault] = {
    "store misbehaves": Fault(store_misbehaves, bucket=True, cause=r"127\.0\.0\.1|s3://"),
    "store sends wrong bytes once": Fault(
        wrong_bytes_once, bucket=True, cause=r"damaged|SHA-256|digest|checksum|does not|s3://|127\.0\.0\.1"
    ),
    "credentials expire": Fault(credentials_expire, bucket=True, cause=r"credentials|ExpiredToken|forbids|may not"),
    "store refuses the clock": Fault(clock_refused, bucket=True, cause=r"clock"),
}
