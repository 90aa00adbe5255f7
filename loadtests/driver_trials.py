"""One job for each driver, which waits in it for as long as it is told.

Knows the drivers and how to have each of them wait: by a server that answers late, a lock that
somebody else holds, a sleep of its own. Does not know how jobs are run, nor what comes of it:
driver_jobs.py makes actors of them, drivers.py runs those and draws the table. Drivers are
imported where they are used, so that what is not installed is not missed before.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

#: Where the servers are, as drivers.py says: "127.0.0.1:8080", or a folder.
SERVER_VARIABLE = "DRIVERS_{}"


class Trial(NamedTuple):
    """A driver, and how it is made to wait.

    Attributes:
      name(str): As the page has it.
      call(Callable): Waits in the driver for so many seconds. A coroutine function for what is awaited.
      group(str): The table of the page in which it is.
      package(str): Whose version is told. Default: none, it is Python's own.
      servers(tuple[str, ...]): What has to be running.
      lane(str): The lane that is the remedy, and is tried as well. Default: none.
      remedy(str): What to do instead, in words.
      prepare(Callable): Called once in the worker, which is then this trial's own.
      environment(dict[str, str]): Variables of the worker, which is then this trial's own.
      is_alone(bool): Whether it needs a worker of its own for another reason, as it may not return.
      wait_s(float): How long each job waits.
      jobs(int): How many there are at once.
    """

    name: str
    call: Callable[[float], Any]
    group: str
    package: str = ""
    servers: tuple[str, ...] = ()
    lane: str = ""
    remedy: str = ""
    prepare: Callable[[], None] | None = None
    environment: dict[str, str] = {}  # noqa: RUF012 - nobody writes to it
    is_alone: bool = False
    wait_s: float = 0.2
    jobs: int = 20

    @property
    def actor(self) -> str:
        """The name of its actor."""
        return self.call.__name__

    @property
    def is_apart(self) -> bool:
        """Whether it needs a worker of its own: it may change the whole process, or make it large."""
        return self.is_alone or bool(self.package or self.environment) or self.prepare is not None


TRIALS: dict[str, Trial] = {}

HTTP, DATABASES, STANDARD, COMPUTING = "HTTP and RPC", "Databases", "The standard library", "What computes"
CLIENTS = "One client for two hundred jobs"


def trial(name: str, group: str, **what: Any) -> Callable[[Callable[[float], Any]], Callable[[float], Any]]:
    """Register a function as the trial of a driver."""

    def register(call: Callable[[float], Any]) -> Callable[[float], Any]:
        TRIALS[call.__name__] = Trial(name, call, group, **what)
        return call

    return register


def server(name: str) -> str:
    """Where a server is."""
    return os.environ[SERVER_VARIABLE.format(name.upper())]


def host_and_port(name: str) -> tuple[str, int]:
    """Where a server is, in two parts."""
    host, _, port = server(name).rpartition(":")
    return host, int(port)


# -- HTTP and RPC: the server answers after the seconds that the path names


def url(wait_s: float) -> str:
    """A page that takes so long."""
    return f"http://{server('http')}/wait/{wait_s}"


@trial("`requests`", HTTP, package="requests", servers=("http",))
def with_requests(wait_s: float) -> None:
    import requests

    requests.get(url(wait_s), timeout=10).raise_for_status()


@trial("`urllib3`", HTTP, package="urllib3", servers=("http",))
def with_urllib3(wait_s: float) -> None:
    import urllib3

    urllib3.request("GET", url(wait_s), timeout=10)


@trial("`urllib.request`", HTTP, servers=("http",))
def with_urllib(wait_s: float) -> None:
    import urllib.request

    urllib.request.urlopen(url(wait_s), timeout=10).read()


@functools.cache
def httpx_client() -> Any:
    """One for all jobs: to make one reads all the certificates of the system."""
    import httpx

    return httpx.Client(timeout=10)


@trial("`httpx.Client`", HTTP, package="httpx", servers=("http",))
def with_httpx(wait_s: float) -> None:
    httpx_client().get(url(wait_s)).raise_for_status()


@functools.cache
def httpx_async_client() -> Any:
    import httpx

    return httpx.AsyncClient(timeout=10)


@trial("`httpx.AsyncClient`, async actor", HTTP, package="httpx", servers=("http",))
async def with_httpx_async(wait_s: float) -> None:
    (await httpx_async_client().get(url(wait_s))).raise_for_status()


@trial("`aiohttp`, async actor", HTTP, package="aiohttp", servers=("http",))
async def with_aiohttp(wait_s: float) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url(wait_s)) as answer:
        await answer.read()


@functools.cache
def s3() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://{server('http')}",
        region_name="nowhere",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=Config(s3={"addressing_style": "path"}),
    )


@trial("`boto3`", HTTP, package="boto3", servers=("http",))
def with_boto3(wait_s: float) -> None:
    s3().get_object(Bucket="wait", Key=str(wait_s))["Body"].read()


@functools.cache
def grpc_method() -> Any:
    import grpc

    return grpc.insecure_channel(server("grpc")).unary_unary("/trial/wait")


@trial(
    "`grpc`",
    HTTP,
    package="grpcio",
    servers=("grpc",),
    lane="thread",
    remedy="`init_gevent()`, as in the next line",
)
def with_grpc(wait_s: float) -> None:
    grpc_method()(str(wait_s).encode(), timeout=10)


def init_grpc() -> None:
    """Have gRPC wait as gevent does."""
    from grpc.experimental import gevent

    gevent.init_gevent()


@trial("`grpc`, after `init_gevent()`", HTTP, package="grpcio", servers=("grpc",), prepare=init_grpc)
def with_grpc_and_gevent(wait_s: float) -> None:
    grpc_method()(str(wait_s).encode(), timeout=10)


@functools.cache
def grpc_async_method() -> Any:
    import grpc

    return grpc.aio.insecure_channel(server("grpc")).unary_unary("/trial/wait")


@trial("`grpc.aio`, async actor", HTTP, package="grpcio", servers=("grpc",), remedy="`grpc`, after `init_gevent()`")
async def with_grpc_async(wait_s: float) -> None:
    await grpc_async_method()(str(wait_s).encode(), timeout=10)


# -- databases: each job has a connection for itself, which was opened before


@contextlib.contextmanager
def kept(connect: Callable[[], Any]) -> Iterator[Any]:
    """A connection that nobody uses now; a new one if there is none."""
    free = CONNECTIONS.setdefault(connect, [])
    connection = free.pop() if free else connect()
    yield connection
    free.append(connection)


CONNECTIONS: dict[Callable[[], Any], list[Any]] = {}


def postgresql() -> str:
    host, port = host_and_port("postgresql")
    return f"host={host} port={port} user=trial dbname=postgres"


def psycopg_connection() -> Any:
    import psycopg

    return psycopg.connect(postgresql())


def psycopg_waits(wait_s: float) -> None:
    with kept(psycopg_connection) as connection:
        connection.execute("select pg_sleep(%s)", (wait_s,))


@trial("`psycopg` 3, binary", DATABASES, package="psycopg-binary", servers=("postgresql",))
def with_psycopg(wait_s: float) -> None:
    psycopg_waits(wait_s)


@trial(
    "`psycopg` 3, pure Python",
    DATABASES,
    package="psycopg",
    servers=("postgresql",),
    environment={"PSYCOPG_IMPL": "python"},
)
def with_pure_psycopg(wait_s: float) -> None:
    psycopg_waits(wait_s)


@trial("`psycopg` 3, async actor", DATABASES, package="psycopg-binary", servers=("postgresql",))
async def with_async_psycopg(wait_s: float) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(postgresql()) as connection:
        await connection.execute("select pg_sleep(%s)", (wait_s,))


def psycopg2_connection() -> Any:
    import psycopg2

    return psycopg2.connect(postgresql())


def psycopg2_waits(wait_s: float) -> None:
    with kept(psycopg2_connection) as connection:
        connection.cursor().execute("select pg_sleep(%s)", (wait_s,))


@trial(
    "`psycopg2`",
    DATABASES,
    package="psycopg2-binary",
    servers=("postgresql",),
    lane="thread",
    remedy="`psycogreen`, as in the next line",
)
def with_psycopg2(wait_s: float) -> None:
    psycopg2_waits(wait_s)


def patch_psycopg2() -> None:
    """Have psycopg2 wait as gevent does."""
    from psycogreen.gevent import patch_psycopg

    patch_psycopg()


@trial(
    "`psycopg2`, after `patch_psycopg()` of `psycogreen`",
    DATABASES,
    package="psycogreen",
    servers=("postgresql",),
    prepare=patch_psycopg2,
)
def with_green_psycopg2(wait_s: float) -> None:
    psycopg2_waits(wait_s)


@trial("`asyncpg`, async actor", DATABASES, package="asyncpg", servers=("postgresql",))
async def with_asyncpg(wait_s: float) -> None:
    import asyncpg

    host, port = host_and_port("postgresql")
    connection = await asyncpg.connect(host=host, port=port, user="trial", database="postgres")
    await connection.execute(f"select pg_sleep({wait_s})")
    await connection.close()


def pg8000_connection() -> Any:
    import pg8000.native

    host, port = host_and_port("postgresql")
    return pg8000.native.Connection("trial", host=host, port=port, database="postgres")


@trial("`pg8000`", DATABASES, package="pg8000", servers=("postgresql",))
def with_pg8000(wait_s: float) -> None:
    with kept(pg8000_connection) as connection:
        connection.run(f"select pg_sleep({wait_s})")


def pymysql_connection() -> Any:
    import pymysql

    host, port = host_and_port("mariadb")
    return pymysql.connect(host=host, port=port, user="trial")


@trial("`pymysql`", DATABASES, package="PyMySQL", servers=("mariadb",))
def with_pymysql(wait_s: float) -> None:
    with kept(pymysql_connection) as connection:
        connection.cursor().execute("select sleep(%s)", (wait_s,))


@trial(
    "`pymysql`, a new connection for each job",
    DATABASES,
    package="PyMySQL",
    servers=("mariadb",),
    remedy="keep connections; `ssl_disabled=True` on loopback",
)
def with_new_pymysql(wait_s: float) -> None:
    with pymysql_connection() as connection:
        connection.cursor().execute("select sleep(%s)", (wait_s,))


def mysqlclient_connection() -> Any:
    import MySQLdb

    host, port = host_and_port("mariadb")
    return MySQLdb.connect(host=host, port=port, user="trial")


@trial("`mysqlclient`", DATABASES, package="mysqlclient", servers=("mariadb",), lane="thread", remedy="`pymysql`")
def with_mysqlclient(wait_s: float) -> None:
    with kept(mysqlclient_connection) as connection:
        connection.cursor().execute("select sleep(%s)", (wait_s,))


def mysql_connector_connection() -> Any:
    import mysql.connector

    host, port = host_and_port("mariadb")
    # MariaDB has not the collation that it asks for by default.
    return mysql.connector.connect(
        host=host, port=port, user="trial", use_pure=True, collation="utf8mb4_general_ci", ssl_disabled=True
    )


@trial("`mysql-connector-python`, `use_pure=True`", DATABASES, package="mysql-connector-python", servers=("mariadb",))
def with_mysql_connector(wait_s: float) -> None:
    with kept(mysql_connector_connection) as connection:
        cursor = connection.cursor()
        cursor.execute(f"select sleep({wait_s})")
        cursor.fetchall()


@trial("`redis`", DATABASES, package="redis", servers=("redis",))
def with_redis(wait_s: float) -> None:
    import redis

    host, port = host_and_port("redis")
    with redis.Redis(host=host, port=port) as client:
        client.blpop(["nothing"], timeout=wait_s)


@trial("`redis.asyncio`, async actor", DATABASES, package="redis", servers=("redis",))
async def with_async_redis(wait_s: float) -> None:
    import redis.asyncio

    host, port = host_and_port("redis")
    async with redis.asyncio.Redis(host=host, port=port) as client:
        await client.blpop(["nothing"], timeout=wait_s)


@functools.cache
def mongo() -> Any:
    import pymongo

    return pymongo.MongoClient(*host_and_port("mongo"))


@trial("`pymongo`", DATABASES, package="pymongo", servers=("mongo",))
def with_pymongo(wait_s: float) -> None:
    mongo().admin.command("wait", float(wait_s))


@trial("`sqlite3`, which waits for a lock", DATABASES, servers=("folder",), lane="thread", remedy="a short `timeout`")
def with_sqlite3(wait_s: float) -> None:
    import sqlite3

    path = f"{server('folder')}/{os.getpid()}.db"
    holder = locked_database(path)
    with contextlib.closing(sqlite3.connect(path, timeout=wait_s)) as connection:
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
        else:
            raise AssertionError(f"{holder} holds no lock.")


@functools.cache
def locked_database(path: str) -> Any:
    import sqlite3

    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("begin exclusive")
    return connection


# -- the standard library


@trial("`time.sleep`", STANDARD)
def with_sleep(wait_s: float) -> None:
    time.sleep(wait_s)


@trial("`time.sleep`, async actor", STANDARD, remedy="`asyncio.sleep`")
async def with_sleep_in_a_coroutine(wait_s: float) -> None:
    time.sleep(wait_s)


# To start a program copies the worker's tables of memory, while which nothing else runs: a few, that wait for longer.
@trial("`subprocess.run`", STANDARD, jobs=4, wait_s=0.5)
def with_subprocess(wait_s: float) -> None:
    subprocess.run(["sleep", str(wait_s)], check=True)


@trial("`os.system`", STANDARD, lane="thread", remedy="`subprocess.run`")
def with_system(wait_s: float) -> None:
    os.system(f"sleep {wait_s}")


@trial("`threading.Event`, `Condition`, `queue.Queue`", STANDARD)
def with_event(wait_s: float) -> None:
    import threading

    threading.Event().wait(wait_s)


@trial("`select.select`, `selectors`", STANDARD)
def with_select(wait_s: float) -> None:
    import select
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        select.select([ours], [], [], wait_s)


@trial("`concurrent.futures.ThreadPoolExecutor`", STANDARD)
def with_thread_pool(wait_s: float) -> None:
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, wait_s).result()


def resolve() -> None:
    import socket

    socket.getaddrinfo("localhost", 80)


def slow_resolution(wait_s: float) -> None:
    """Have the system's function take so long in its thread, as with a name server that is slow."""
    import _socket

    from gevent.monkey import get_original

    sleep, getaddrinfo = get_original("time", "sleep"), _socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        sleep(wait_s)
        return getaddrinfo(*args, **kwargs)

    _socket.getaddrinfo = slow


@trial(
    "`socket.getaddrinfo`, gevent's default resolver",
    STANDARD,
    prepare=functools.partial(slow_resolution, 0.2),
    remedy="`GEVENT_RESOLVER=ares`",
)
def with_getaddrinfo(wait_s: float) -> None:
    resolve()


def look_up(wait_s: float) -> None:
    import socket
    import uuid

    socket.getaddrinfo(f"{uuid.uuid4()}.wait-{round(wait_s * 1000)}.test", 80, socket.AF_INET)


@trial(
    "`socket.getaddrinfo`, `GEVENT_RESOLVER=ares`",
    STANDARD,
    package="gevent",
    servers=("dns",),
    environment={"GEVENT_RESOLVER": "ares"},
)
def with_ares(wait_s: float) -> None:
    look_up(wait_s)


@trial(
    "`socket.getaddrinfo`, `GEVENT_RESOLVER=dnspython`",
    STANDARD,
    package="dnspython",
    servers=("dns",),
    remedy="`GEVENT_RESOLVER=ares`",
    environment={"GEVENT_RESOLVER": "dnspython"},
)
def with_dnspython(wait_s: float) -> None:
    look_up(wait_s)


def start(program: str, *arguments: str) -> None:
    """Start a program without waiting for anything."""
    from gevent.monkey import get_original

    # gevent's own would watch its end, which it can do in the hub's thread alone.
    get_original("os", "posix_spawn")(program, [program, *arguments], dict(os.environ))


def slow_file(wait_s: float) -> str:
    """A file that has something to read so many seconds after it was opened: a named pipe."""
    import uuid

    path = f"{server('folder')}/{uuid.uuid4()}"
    os.mkfifo(path)
    start("/bin/sh", "-c", f"exec 3>{path}; sleep {wait_s}; echo >&3")
    return path


@trial(
    "`open`, `read`: files that are slow", STANDARD, servers=("folder",), lane="thread", remedy="gevent's `threadpool`"
)
def with_file(wait_s: float) -> None:
    with open(slow_file(wait_s)) as file:
        file.read()


@trial(
    "`gevent.get_hub().threadpool.apply(read)`",
    STANDARD,
    package="gevent",
    servers=("folder",),
    remedy="a larger `maxsize`",
)
def with_file_in_a_thread(wait_s: float) -> None:
    import gevent

    def read(path: str) -> str:
        with open(path) as file:
            return file.read()

    gevent.get_hub().threadpool.apply(read, (slow_file(wait_s),))


@trial("`fcntl.flock`", STANDARD, servers=("folder",), lane="thread", remedy="`LOCK_NB` and `time.sleep`")
def with_flock(wait_s: float) -> None:
    import fcntl
    import uuid

    path = f"{server('folder')}/{uuid.uuid4()}"
    with open(path, "w") as holder, open(path, "w") as file:
        fcntl.flock(holder, fcntl.LOCK_EX)
        # The program that sleeps has the holder's lock as well, and it alone when we have closed ours.
        os.set_inheritable(holder.fileno(), True)
        start("/bin/sleep", str(wait_s))
        holder.close()
        fcntl.flock(file, fcntl.LOCK_EX)


@functools.cache
def slow_logger(wait_s: float) -> Any:
    import logging

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(wait_s)  # a socket that takes so long to be written to

    logger = logging.Logger("slow")
    logger.addHandler(Slow())
    return logger


@trial("`logging`, a handler that waits", STANDARD, remedy="`QueueHandler`")
def with_logging(wait_s: float) -> None:
    slow_logger(wait_s).error("Something happened.")


@trial(
    "`multiprocessing.Process`, `join`",
    STANDARD,
    is_alone=True,
    wait_s=2,
    jobs=4,
    remedy="see below",
)
def with_process(wait_s: float) -> None:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(wait_s,))
    process.start()
    process.join()


@trial(
    "`multiprocessing.Pool`",
    STANDARD,
    is_alone=True,
    wait_s=2,
    jobs=4,
    remedy="see below",
)
def with_process_pool(wait_s: float) -> None:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(time.sleep, (wait_s,))


@trial(
    "`concurrent.futures.ProcessPoolExecutor`",
    STANDARD,
    is_alone=True,
    wait_s=2,
    jobs=4,
    remedy="see below",
)
def with_process_executor(wait_s: float) -> None:
    import concurrent.futures
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(time.sleep, wait_s).result()


# -- what computes: as long as it takes


def repeat(wait_s: float, call: Callable[[], Any]) -> None:
    """Call it for so many seconds."""
    ends = time.monotonic() + wait_s
    while time.monotonic() < ends:
        call()


@trial("a loop in Python", COMPUTING, lane="process", jobs=4)
def with_a_loop(wait_s: float) -> None:
    repeat(wait_s, lambda: sum(range(10_000)))


@trial("`hashlib.scrypt`", COMPUTING, lane="thread", jobs=4)
def with_scrypt(wait_s: float) -> None:
    import hashlib

    repeat(wait_s, lambda: hashlib.scrypt(b"secret", salt=b"salt", n=2**14, r=8, p=1))


@trial("`numpy`, a sort", COMPUTING, package="numpy", lane="thread", jobs=4)
def with_numpy(wait_s: float) -> None:
    import numpy

    values = numpy.random.default_rng(1).random(500_000)
    repeat(wait_s, lambda: numpy.sort(values))


@trial("`lxml`, parsing", COMPUTING, package="lxml", lane="thread", jobs=4)
def with_lxml(wait_s: float) -> None:
    from lxml import etree

    text = b"<page>" + b"<part name='one'>two</part>" * 50_000 + b"</page>"
    repeat(wait_s, lambda: etree.fromstring(text))


# -- one client for many jobs: what it does when all of its connections are in use


@functools.cache
def requests_session() -> Any:
    import requests

    return requests.Session()


@trial("`requests.Session()`", CLIENTS, package="requests", servers=("http",), jobs=200, wait_s=1)
def with_requests_session(wait_s: float) -> None:
    requests_session().get(url(wait_s), timeout=10).raise_for_status()


@trial(
    "`httpx.Client()`",
    CLIENTS,
    package="httpx",
    servers=("http",),
    jobs=200,
    wait_s=1,
    remedy="several, as in the next line",
)
def with_one_httpx(wait_s: float) -> None:
    httpx_client().get(url(wait_s)).raise_for_status()


@functools.cache
def ten_httpx_clients() -> Any:
    import httpx

    return itertools.cycle([httpx.Client(timeout=10) for _ in range(10)])


# One is busy with its own queue when so many wait for a connection of it, more so with a larger limit.
@trial("ten of `httpx.Client()`, in turn", CLIENTS, package="httpx", servers=("http",), jobs=200, wait_s=1)
def with_ten_httpx(wait_s: float) -> None:
    next(ten_httpx_clients()).get(url(wait_s)).raise_for_status()


@functools.cache
def aiohttp_session() -> Any:
    import aiohttp

    return aiohttp.ClientSession()


@trial(
    "`aiohttp.ClientSession()`",
    CLIENTS,
    package="aiohttp",
    servers=("http",),
    jobs=200,
    wait_s=1,
    remedy="`connector=aiohttp.TCPConnector(limit=200)`",
)
async def with_one_aiohttp(wait_s: float) -> None:
    async with aiohttp_session().get(url(wait_s)) as answer:
        await answer.read()


@trial("`boto3.client()`", CLIENTS, package="boto3", servers=("http",), jobs=200, wait_s=1)
def with_one_boto3(wait_s: float) -> None:
    s3().get_object(Bucket="wait", Key=str(wait_s))["Body"].read()


@functools.cache
def redis_client() -> Any:
    import redis

    host, port = host_and_port("redis")
    return redis.Redis(host=host, port=port)


@trial(
    "`redis.Redis()`",
    CLIENTS,
    package="redis",
    servers=("redis",),
    jobs=200,
    wait_s=1,
    remedy="a `BlockingConnectionPool`, as in the next line",
)
def with_one_redis(wait_s: float) -> None:
    redis_client().blpop(["nothing"], timeout=wait_s)


@functools.cache
def redis_client_that_waits() -> Any:
    import redis

    host, port = host_and_port("redis")
    pool_class: Any = redis.BlockingConnectionPool
    return redis.Redis(connection_pool=pool_class(host=host, port=port, max_connections=50, timeout=20))


@trial(
    "`redis.BlockingConnectionPool(max_connections=50, timeout=20)`",
    CLIENTS,
    package="redis",
    servers=("redis",),
    jobs=200,
    wait_s=1,
)
def with_a_redis_that_waits(wait_s: float) -> None:
    redis_client_that_waits().blpop(["nothing"], timeout=wait_s)


@trial(
    "`pymongo.MongoClient()`",
    CLIENTS,
    package="pymongo",
    servers=("mongo",),
    jobs=200,
    wait_s=1,
    remedy="`maxPoolSize=200`",
)
def with_one_pymongo(wait_s: float) -> None:
    mongo().admin.command("wait", float(wait_s))


@functools.cache
def psycopg_pool() -> Any:
    import psycopg_pool as library

    return library.ConnectionPool(postgresql(), min_size=4, max_size=20, timeout=30, open=True)


@trial(
    "`psycopg_pool.ConnectionPool(max_size=20)`",
    CLIENTS,
    package="psycopg-pool",
    servers=("postgresql",),
    jobs=200,
    wait_s=1,
    remedy="as many as the server may have",
)
def with_psycopg_pool(wait_s: float) -> None:
    with psycopg_pool().connection() as connection:
        connection.execute("select pg_sleep(%s)", (wait_s,))


@functools.cache
def engine() -> Any:
    import sqlalchemy

    host, port = host_and_port("postgresql")
    return sqlalchemy.create_engine(f"postgresql+psycopg://trial@{host}:{port}/postgres")


@trial(
    "`sqlalchemy.create_engine()`",
    CLIENTS,
    package="SQLAlchemy",
    servers=("postgresql",),
    jobs=200,
    wait_s=1,
    remedy="`pool_size`, `max_overflow`",
)
def with_sqlalchemy(wait_s: float) -> None:
    import sqlalchemy

    with engine().connect() as connection:
        connection.execute(sqlalchemy.text("select pg_sleep(:wait)"), {"wait": wait_s})


@functools.cache
def twenty() -> Any:
    from gevent.lock import BoundedSemaphore

    return BoundedSemaphore(20)


@trial(
    "any client in `with gevent.lock.BoundedSemaphore(20)`",
    CLIENTS,
    package="gevent",
    servers=("http",),
    jobs=200,
    wait_s=1,
)
def with_a_semaphore(wait_s: float) -> None:
    with twenty():
        with_urllib(wait_s)
