"""A job that is added within the caller's transaction exists if and only if the transaction commits."""

import asyncio
import contextlib
import io
import sys
import threading
import types
import unittest
import urllib.parse
from datetime import datetime, timezone

import asyncpg
import pg8000.dbapi
import pg8000.native
import psycopg
import psycopg.rows
import psycopg2.extensions
import psycopg2.extras
import sqlalchemy
import sqlalchemy.ext.asyncio
import sqlalchemy.orm

from graphile_worker import Client, ConflictError, GraphileWorkerError, NewJob, PayloadError, UnsupportedError
from harness import SOON, DatabaseTest, until

AT = datetime(2030, 1, 1, 12, 30, 0, 250000, tzinfo=timezone.utc)
EVERYTHING = dict(
    queue="q", run_at=AT, max_attempts=3, priority=-2, key="k", key_mode="preserve_run_at", flags=["red", "blue"]
)
STORED = '{"n":1}|q|2030-01-01 12:30:00.25|3|-2|k|{"red": true, "blue": true}'
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class TransactionTest(DatabaseTest):
    def setUp(self):
        super().setUp()
        self.sql("create table public.users (name text)")

    def count(self):
        return self.value("select (select count(*) from public.users) || ' users, ' || count(*) || ' jobs' from jobs")

    def stored(self):
        return self.sql("select j.payload, q.queue_name, run_at at time zone 'UTC', max_attempts, priority, key, flags"
                        " from _private_jobs j left join _private_job_queues q on q.id = job_queue_id")

    def alchemy(self):
        """Returns the URL in SQLAlchemy's form."""
        return self.url.replace("postgres://", "postgresql+psycopg://", 1)


class PsycopgTest(TransactionTest):
    def connect(self, **options):
        connection = psycopg.connect(self.url, **options)
        self.addCleanup(connection.close)
        return connection

    def test_a_job_exists_once_the_transaction_commits(self):
        connection = self.connect()
        connection.execute("insert into users values ('Ada')")
        id = self.client.add_job("greet", {"name": "Ada"}, connection=connection)
        self.assertEqual(self.count(), "0 users, 0 jobs")
        connection.commit()
        self.assertEqual(self.count(), "1 users, 1 jobs")
        self.assertEqual(self.client.job(id)["payload"], {"name": "Ada"})

    def test_a_job_disappears_when_the_transaction_rolls_back(self):
        with self.assertRaises(ZeroDivisionError), self.connect() as connection:
            connection.execute("insert into users values ('Ada')")
            self.client.add_job("greet", {"name": "Ada"}, connection=connection)
            1 / 0
        self.assertEqual(self.count(), "0 users, 0 jobs")

    def test_every_option_is_stored_as_without_a_transaction(self):
        with self.connect() as connection:
            self.client.add_job("greet", {"n": 1}, **EVERYTHING, connection=connection)
        mine = self.stored()
        self.sql("delete from _private_jobs")
        self.client.add_job("greet", {"n": 1}, **EVERYTHING)
        self.assertEqual((mine, self.stored()), ([STORED], [STORED]))

    def test_a_trace_context_is_stored_as_without_a_transaction(self):
        for payload in ({"n": 1}, {"_trace": {"x": 1}}):
            with self.connect() as connection:
                self.client.add_job("greet", payload, traceparent=TRACE, connection=connection)
            self.client.add_job("greet", payload, traceparent=TRACE)
        self.assertEqual(self.value("select count(distinct payload::jsonb) from _private_jobs"), "2")
        with self.assertRaises(GraphileWorkerError), self.connect() as connection:
            self.client.add_job("greet", [1], traceparent=TRACE, connection=connection)

    def test_cursors_and_every_row_factory_work(self):
        with self.connect() as connection, connection.cursor() as cursor:
            self.client.add_job("greet", connection=cursor)
        as_object = psycopg.rows.kwargs_row(types.SimpleNamespace)
        for factory in (psycopg.rows.dict_row, psycopg.rows.namedtuple_row, as_object):
            with self.connect(row_factory=factory) as connection:
                self.assertGreater(self.client.add_job("greet", connection=connection), 0)
        with self.connect(autocommit=True) as connection:
            self.client.add_job("greet", connection=connection)
        self.assertEqual(self.count(), "0 users, 5 jobs")

    def test_many_jobs_are_added_in_one_transaction(self):
        with self.connect() as connection:
            ids = self.client.add_jobs((NewJob("t", n) for n in range(10)), connection=connection)
        self.assertEqual([self.client.job(id)["payload"] for id in ids], list(range(10)))

    def test_payloads_and_percent_signs_are_stored_unchanged(self):
        payloads = ["%s %(x)s 100%", ":name ::text $1", "\u20ac\U0001f980'\"\\", None, [1, {"a": [True]}], {}]
        with self.connect() as connection:
            ids = self.client.add_jobs([NewJob("t", payload) for payload in payloads], connection=connection)
        self.assertEqual([self.client.job(id)["payload"] for id in ids], payloads)

    def test_an_invalid_job_is_refused_before_anything_is_sent(self):
        connection = self.connect()
        with self.assertRaises(PayloadError):
            self.client.add_job("t", object(), connection=connection)
        with self.assertRaises(GraphileWorkerError):
            self.client.add_job("t" * 129, connection=connection)
        self.assertEqual(connection.info.transaction_status, psycopg.pq.TransactionStatus.IDLE)

    def test_the_clients_schema_is_used(self):
        with Client(self.url, schema="other") as client, self.connect() as connection:
            client.migrate()
            client.add_job("t", connection=connection)
            self.assertEqual(connection.execute("select count(*) from other.jobs").fetchone(), (1,))

    def test_errors_are_the_drivers_own(self):
        self.sql("drop schema graphile_worker cascade")
        with self.assertRaises(psycopg.errors.InvalidSchemaName):
            self.client.add_job("t", connection=self.connect())

    def raced(self, isolation):
        """Adds a job whose key is being claimed; returns the id of the claimed job, and the result of the add.

        The adder waits for the claim's row lock. The job is then locked, so the adder's statement returns no row.
        """
        first = self.client.add_job("t", 1, key="k")
        claim, adder = self.connect(), self.connect()
        adder.isolation_level = isolation
        claim.execute("update graphile_worker._private_jobs set locked_by = 'w', locked_at = now(), attempts = 1")
        if isolation is not psycopg.IsolationLevel.READ_COMMITTED:
            adder.execute("select 1 from graphile_worker.jobs").fetchall()  # takes its snapshot before the claim
        answers = []

        def add():
            try:
                answers.append(self.client.add_job("t", 2, key="k", connection=adder))
                adder.commit()
            except Exception as error:
                answers.append(error)

        thread = threading.Thread(target=add)
        thread.start()
        pid = adder.info.backend_pid
        until(lambda: self.value(f"select count(*) from pg_locks where pid = {pid} and not granted") == "1")
        claim.commit()
        thread.join(SOON)
        return first, answers[0]

    def test_a_job_is_added_while_a_worker_claims_its_key(self):
        first, second = self.raced(psycopg.IsolationLevel.READ_COMMITTED)
        self.assertIsInstance(second, int)
        self.assertNotEqual(first, second)
        self.assertEqual(self.sql("select payload from _private_jobs order by id"), ["1", "2"])

    def test_a_repeatable_read_add_fails_if_it_cannot_see_the_claim(self):
        _, answer = self.raced(psycopg.IsolationLevel.REPEATABLE_READ)
        self.assertIsInstance(answer, (ConflictError, psycopg.errors.SerializationFailure))
        self.assertEqual(self.sql("select payload from _private_jobs"), ["1"])

    def test_an_async_connection_needs_add_job_async(self):
        async def main():
            async with await psycopg.AsyncConnection.connect(self.url) as connection:
                with self.assertRaisesRegex(UnsupportedError, "add_job_async"):
                    self.client.add_job("t", connection=connection)
                await self.client.add_job_async("t", {"n": 1}, **EVERYTHING, connection=connection)
                self.assertEqual(self.count(), "0 users, 0 jobs")
            self.assertEqual(self.stored(), [STORED])
            with self.assertRaises(ZeroDivisionError):
                async with await psycopg.AsyncConnection.connect(self.url) as connection:
                    await self.client.add_jobs_async([NewJob("t"), NewJob("t")], connection=connection)
                    1 / 0
            self.assertEqual(self.count(), "0 users, 1 jobs")

        asyncio.run(main())


class SqlAlchemyTest(TransactionTest):
    def setUp(self):
        super().setUp()
        self.engine = sqlalchemy.create_engine(self.alchemy())
        self.addCleanup(self.engine.dispose)

    def test_a_job_commits_and_rolls_back_with_the_connection(self):
        with self.engine.begin() as connection:
            connection.execute(sqlalchemy.text("insert into users values ('Ada')"))
            self.client.add_job("greet", {"n": 1}, **EVERYTHING, connection=connection)
            self.assertEqual(self.count(), "0 users, 0 jobs")
        self.assertEqual(self.stored(), [STORED])
        with self.assertRaises(ZeroDivisionError), self.engine.begin() as connection:
            self.client.add_job("greet", connection=connection)
            1 / 0
        self.assertEqual(self.count(), "1 users, 1 jobs")

    def test_a_job_commits_and_rolls_back_with_the_session(self):
        class Base(sqlalchemy.orm.DeclarativeBase):
            pass

        class User(Base):
            __tablename__ = "users"
            name = sqlalchemy.Column(sqlalchemy.Text, primary_key=True)

        with sqlalchemy.orm.Session(self.engine) as session:
            session.add(User(name="Ada"))
            self.client.add_job("greet", {"name": ":x"}, connection=session)
            session.commit()
            session.add(User(name="Grace"))
            self.client.add_job("greet", connection=session)
            session.rollback()
        self.assertEqual(self.count(), "1 users, 1 jobs")
        scoped = sqlalchemy.orm.scoped_session(sqlalchemy.orm.sessionmaker(self.engine))
        self.client.add_job("greet", connection=scoped)
        scoped.commit()
        scoped.remove()
        self.assertEqual(self.count(), "1 users, 2 jobs")

    def test_async_connections_and_sessions_work(self):
        async def main():
            engine = sqlalchemy.ext.asyncio.create_async_engine(self.alchemy())
            async with engine.begin() as connection:
                await self.client.add_job_async("greet", {"n": 1}, **EVERYTHING, connection=connection)
            self.assertEqual(self.stored(), [STORED])
            async with sqlalchemy.ext.asyncio.AsyncSession(engine) as session:
                await self.client.add_job_async("greet", connection=session)
                await session.rollback()
                await self.client.add_job_async("greet", connection=session)
                await session.commit()
                with self.assertRaisesRegex(UnsupportedError, "add_job_async"):
                    self.client.add_job("greet", connection=session)
            await engine.dispose()
            self.assertEqual(self.count(), "0 users, 2 jobs")

        asyncio.run(main())


class Row(dict):
    """A row of an unexpected shape: it is not a tuple, and has none of the job's fields or keys."""

    def __init__(self, *_, **__):
        super().__init__(nothing=None)


class EveryConnectionTest(TransactionTest):
    """Kinds of connections, each with its own rows and cursors."""

    @contextlib.contextmanager
    def kinds(self):
        """Yields connections by name: the argument for the client, and the function that commits its transaction."""
        with contextlib.ExitStack() as stack:
            kinds = {}

            def psycopg3(name, use=lambda connection: connection, **options):
                connection = stack.enter_context(contextlib.closing(psycopg.connect(self.url, **options)))
                kinds[f"psycopg {name}"] = given, _ = use(connection), connection.commit
                stack.callback(given.close)

            rows = psycopg.rows
            for factory in (rows.tuple_row, rows.dict_row, rows.namedtuple_row, rows.scalar_row, rows.class_row(Row),
                            rows.kwargs_row(Row), rows.args_row(Row)):
                psycopg3(getattr(factory, "__name__", "?") + str(len(kinds)), row_factory=factory)
            for factory in (psycopg.ClientCursor, psycopg.RawCursor):
                psycopg3(factory.__name__, cursor_factory=factory, row_factory=rows.scalar_row)
            psycopg3("a cursor", lambda connection: connection.cursor(row_factory=rows.scalar_row))
            psycopg3("a cursor of the server", lambda connection: connection.cursor("named", row_factory=rows.scalar_row))
            psycopg3("a raw cursor", psycopg.RawCursor)
            psycopg3("no prepared statements", prepare_threshold=None)

            def psycopg_2(name, use=lambda connection: connection, **options):
                connection = stack.enter_context(contextlib.closing(psycopg2.connect(self.url, **options)))
                kinds[f"psycopg2 {name}"] = use(connection), connection.commit

            for cursor in (None, psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor,
                           psycopg2.extras.NamedTupleCursor, BrokenCursor):
                psycopg_2(str(cursor), cursor_factory=cursor)
            psycopg_2("LoggingConnection", connection_factory=QuietConnection)
            psycopg_2("a cursor", lambda connection: connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor))
            psycopg_2("a cursor of the server", lambda connection: connection.cursor("named"))

            for driver in ("psycopg", "psycopg2", "pg8000"):
                url = self.url.replace("postgres://", f"postgresql+{driver}://", 1)
                engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
                raw = stack.enter_context(contextlib.closing(engine.raw_connection()))
                kinds[f"SQLAlchemy raw_connection, {driver}"] = raw, raw.commit
                connection = stack.enter_context(engine.connect())
                kinds[f"SQLAlchemy connection, {driver}"] = connection, connection.commit
                streaming = stack.enter_context(engine.connect()).execution_options(stream_results=True)
                kinds[f"SQLAlchemy connection that streams, {driver}"] = streaming, streaming.commit
                session = stack.enter_context(sqlalchemy.orm.Session(engine))
                kinds[f"SQLAlchemy session, {driver}"] = session, session.commit
                scoped = sqlalchemy.orm.scoped_session(sqlalchemy.orm.sessionmaker(engine))
                stack.callback(scoped.remove)
                kinds[f"SQLAlchemy scoped session, {driver}"] = scoped, scoped.commit

            at = urllib.parse.urlsplit(self.url)
            connection = stack.enter_context(
                contextlib.closing(pg8000.dbapi.connect(at.username, at.hostname, at.path[1:], at.port))
            )
            kinds["pg8000"] = connection, connection.commit
            kinds["pg8000 a cursor"] = connection.cursor(), connection.commit
            yield kinds

    @contextlib.asynccontextmanager
    async def awaited_kinds(self):
        """The same for async connections, with the function that rolls the transaction back."""
        async with contextlib.AsyncExitStack() as stack:
            kinds = {}

            async def psycopg3(name, use=lambda connection: connection, **options):
                connection = await psycopg.AsyncConnection.connect(self.url, **options)
                stack.push_async_callback(connection.close)
                kinds[f"psycopg {name}"] = given, _ = use(connection), connection.commit
                stack.push_async_callback(given.close)

            rows = psycopg.rows
            for factory in (rows.scalar_row, rows.class_row(Row), rows.dict_row):
                await psycopg3(getattr(factory, "__name__", "?") + str(len(kinds)), row_factory=factory)
            for factory in (psycopg.AsyncClientCursor, psycopg.AsyncRawCursor):
                await psycopg3(factory.__name__, cursor_factory=factory, row_factory=rows.scalar_row)
            await psycopg3("a cursor", lambda connection: connection.cursor(row_factory=rows.scalar_row))
            await psycopg3("a cursor of the server", lambda connection: connection.cursor("named"))

            for record in (asyncpg.Record, StrangeRecord):
                connection = await asyncpg.connect(self.url, record_class=record)
                stack.push_async_callback(connection.close)
                transaction = connection.transaction()
                await transaction.start()
                kinds[f"asyncpg {record.__name__}"] = connection, transaction.commit
            pool = await stack.enter_async_context(asyncpg.create_pool(self.url, min_size=1))
            connection = await stack.enter_async_context(pool.acquire())
            transaction = connection.transaction()
            await transaction.start()
            kinds["asyncpg of a pool"] = connection, transaction.commit

            for driver in ("psycopg", "asyncpg"):
                url = self.url.replace("postgres://", f"postgresql+{driver}://", 1)
                engine = sqlalchemy.ext.asyncio.create_async_engine(url, poolclass=sqlalchemy.pool.NullPool)
                connection = await stack.enter_async_context(engine.connect())
                kinds[f"SQLAlchemy connection, {driver}"] = connection, connection.commit
                session = await stack.enter_async_context(sqlalchemy.ext.asyncio.AsyncSession(engine))
                kinds[f"SQLAlchemy session, {driver}"] = session, session.commit
                connection = await stack.enter_async_context(engine.connect())
                raw = await connection.get_raw_connection()
                await connection.begin()
                if driver == "psycopg":
                    kinds[f"SQLAlchemy get_raw_connection, {driver}"] = raw, raw.driver_connection.commit
            yield kinds

    def test_custom_rows_and_cursors_work(self):
        with self.kinds() as kinds:
            for number, (name, (connection, commit)) in enumerate(kinds.items()):
                with self.subTest(kind=name):
                    id = self.client.add_job("greet", {"n": 1}, flags=["red"], run_at=AT, connection=connection)
                    self.assertEqual(self.count(), f"0 users, {number} jobs")
                    commit()
                    self.assertEqual(self.client.job(id)["payload"], {"n": 1})

    def test_custom_rows_and_cursors_of_async_connections_work(self):
        async def main():
            async with self.awaited_kinds() as kinds:
                for number, (name, (connection, commit)) in enumerate(kinds.items()):
                    with self.subTest(kind=name):
                        with self.assertRaisesRegex(UnsupportedError, "add_job_async"):
                            self.client.add_job("greet", connection=connection)
                        id = await self.client.add_job_async("greet", {"n": 1}, run_at=AT, connection=connection)
                        self.assertEqual(self.count(), f"0 users, {number} jobs")
                        await commit()
                        self.assertEqual(self.client.job(id)["payload"], {"n": 1})

        asyncio.run(main())

    def test_engines_pools_and_async_connections_are_refused(self):
        at = urllib.parse.urlsplit(self.url)

        async def main():
            engine = sqlalchemy.create_engine(self.alchemy())
            awaited = sqlalchemy.ext.asyncio.create_async_engine(self.alchemy())
            native = pg8000.native.Connection(at.username, at.hostname, at.path[1:], at.port)
            asynchronous = psycopg2.connect(self.url, async_=True)
            psycopg2.extras.wait_select(asynchronous)
            async with asyncpg.create_pool(self.url, min_size=1) as pool:
                for connection in (engine, awaited, sqlalchemy.orm.sessionmaker(engine), native, asynchronous, pool):
                    with self.subTest(kind=type(connection)):
                        with self.assertRaisesRegex(TypeError, type(connection).__qualname__):
                            self.client.add_job("greet", connection=connection)
                        with self.assertRaisesRegex(UnsupportedError, type(connection).__qualname__):
                            await self.client.add_job_async("greet", connection=connection)
            native.close(), asynchronous.close(), engine.dispose()
            await awaited.dispose()

        asyncio.run(main())
        self.assertEqual(self.count(), "0 users, 0 jobs")

    def test_a_schemas_name_is_never_read_as_a_parameter(self):
        with self.kinds() as kinds:
            for schema in (":jobs", "a::b:c", "100%", "%s", "%(payload)s", "{x}", "\\:x", 'a":b', "?", ":identifier"):
                with Client(self.url, schema=schema) as client:
                    client.migrate()
                    for name, (connection, commit) in kinds.items():
                        with self.subTest(schema=schema, kind=name):
                            id = client.add_job("greet", {"n": 1}, connection=connection)
                            commit()
                            self.assertEqual(client.job(id)["payload"], {"n": 1})

    def test_every_paramstyle_of_pg8000_works_or_is_refused(self):
        with Client(self.url, schema="a:b%c") as client, self.kinds() as kinds:
            client.migrate()
            connection, commit = kinds["pg8000"]
            usual = pg8000.dbapi.paramstyle
            try:
                for style in ("format", "named", "pyformat", "qmark", "numeric"):
                    pg8000.dbapi.paramstyle = style
                    if style in ("qmark", "numeric"):
                        with self.assertRaises(UnsupportedError):
                            client.add_job("t", connection=connection)
                    else:
                        client.add_job("t", connection=connection)
            finally:
                pg8000.dbapi.paramstyle = usual
            commit()
            self.assertEqual(client.stats()["total"], 3)


class BrokenCursor(psycopg2.extensions.cursor):
    """Its rows have none of the job's fields."""

    def fetchone(self):
        return super().fetchone() and Row()


class QuietConnection(psycopg2.extras.LoggingConnection):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.initialize(io.BytesIO())


class StrangeRecord(asyncpg.Record):
    def __getitem__(self, key):
        raise LookupError(key)


class OtherDriversTest(TransactionTest):
    """Drivers that are not installed: fakes record the statements that they receive."""

    def driver(self, package, paramstyle=None, **methods):
        """Makes a connection whose class belongs to a package with this name."""
        module = types.ModuleType(package)
        if paramstyle:
            module.paramstyle = paramstyle
        sys.modules[package] = module
        self.addCleanup(sys.modules.pop, package)
        self.sent = []
        connection = type("Connection", (), {"__module__": f"{package}.connections", **methods})()
        return connection

    def cursor(self, rows=((7, "t"),)):
        test, answers = self, iter(rows)

        class Cursor:
            def execute(self, sql, parameters):
                test.sent.append((sql, parameters))

            def fetchone(self):
                return next(answers)

        return lambda connection: Cursor()

    def test_a_driver_of_the_style_format_gets_a_sequence(self):
        connection = self.driver("pg_like", "format", cursor=self.cursor())
        self.assertEqual(self.client.add_job("t", {"n": 1}, connection=connection), 7)
        ((sql, parameters),) = self.sent
        self.assertEqual((sql.count("%s"), len(parameters), parameters[:2]), (9, 9, ("t", '{"n":1}')))

    def test_a_driver_of_the_style_named_gets_names(self):
        connection = self.driver("named_like", "named", cursor=self.cursor())
        self.client.add_job("t", connection=connection)
        ((sql, parameters),) = self.sent
        self.assertIn(":identifier", sql)
        self.assertEqual(parameters["identifier"], "t")

    def test_django_gets_the_style_format(self):
        connection = self.driver("django", cursor=self.cursor())
        self.client.add_job("t", connection=connection)
        self.assertIsInstance(self.sent[0][1], tuple)

    def test_asyncpg_gets_positional_parameters(self):
        async def fetchrow(connection, sql, *parameters):
            self.sent.append((sql, parameters))
            return {"id": 9}

        connection = self.driver("asyncpg", fetchrow=fetchrow)
        self.assertEqual(asyncio.run(self.client.add_job_async("t", run_at=AT, connection=connection)), 9)
        ((sql, parameters),) = self.sent
        self.assertIn("$9", sql)
        self.assertEqual(parameters[3], AT)

    def test_a_result_without_a_row_is_retried(self):
        connection = self.driver("pg_like", "format", cursor=self.cursor([None, None, (5,)]))
        self.assertEqual(self.client.add_job("t", key="k", connection=connection), 5)
        connection = self.driver("pg_never", "format", cursor=self.cursor([None] * 20))
        with self.assertRaisesRegex(ConflictError, "key 'k'") as caught:
            self.client.add_job("t", key="k", connection=connection)
        self.assertEqual((caught.exception.status, len(self.sent)), ("GW_ERR_CONFLICT", 20))

    def test_an_unknown_connection_is_refused_by_its_type(self):
        for connection in (object(), 5, self.driver("mysql_like", "qmark", cursor=self.cursor())):
            with self.assertRaisesRegex(UnsupportedError, type(connection).__qualname__):
                self.client.add_job("t", connection=connection)


if __name__ == "__main__":
    unittest.main()
