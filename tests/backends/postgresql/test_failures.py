"""What goes wrong on the way to a database, and in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.backends.postgresql.conftest import blocked
from tests.backends.postgresql.test_statements import path_info
from tests.ports import free_port
from tests.postgresql import Server
from tvix_store.backends.postgresql import Settings, database, open_offer
from tvix_store.errors import (
    CorruptError,
    DeniedError,
    DiskFullError,
    ExhaustedError,
    InvalidError,
    NoStoreError,
    RemoteError,
    StoreError,
    UnauthenticatedError,
    UnavailableError,
)
from tvix_store.model.directory import SizeRule
from tvix_store.services.offer import Offer
from tvix_store.services.path_infos import PathInfoService
from tvix_store.testing.content import stream
from tvix_store.testing.contracts.directories import leaf

Fails = Callable[[str, int], Any]


def infos_of(offer: Offer) -> PathInfoService:
    assert offer.path_infos is not None
    return offer.path_infos


@pytest.fixture
def fails(sql: Any) -> Fails:
    """Let the server fail the next inserts of path infos, with a SQLSTATE."""

    async def fails(state: str, times: int) -> None:
        await sql.execute(f"""
            CREATE SEQUENCE tries;
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF; RETURN NEW;
            END $$;
            CREATE TRIGGER fail BEFORE INSERT ON path_infos FOR EACH ROW EXECUTE FUNCTION fail();
        """)

    return fails


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_work_that_met_other_work_is_done_again(offer: Offer, fails: Fails, state: str) -> None:
    await fails(state, 4)
    info = path_info("again")
    assert await infos_of(offer).put(info) == info
    assert [each async for each in infos_of(offer).list()] == [info]


async def test_work_that_always_meets_other_work_ends(offer: Offer, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LONGEST_PAUSE", 0.001)
    await fails("40001", 10**6)
    with pytest.raises(UnavailableError, match="too much other work is in the way"):
        await infos_of(offer).put(path_info("never"))


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", DiskFullError),
        ("42501", DeniedError),
        ("25006", DeniedError),
        ("XX001", CorruptError),
        ("57014", UnavailableError),
    ],
)
async def test_a_refusal_of_the_server_is_an_error_of_its_kind(
    offer: Offer, fails: Fails, settings: Settings, state: str, kind: type[StoreError]
) -> None:
    await fails(state, 1)
    with pytest.raises(StoreError) as caught:
        await infos_of(offer).put(path_info("refused"))
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{settings.name}: ")
    assert "\n" not in str(caught.value)
    await infos_of(offer).put(path_info("refused"))


async def test_another_failure_tells_what_the_server_said(offer: Offer, fails: Fails) -> None:
    await fails("P0001", 1)
    with pytest.raises(RemoteError, match=r"postgres: no \(SQLSTATE P0001\)"):
        await infos_of(offer).put(path_info("failed"))


async def test_a_statement_that_waits_too_long_is_given_up(offer: Offer, settings: Settings, sql: Any) -> None:
    info = path_info("locked")
    await infos_of(offer).put(info)
    short = await open_offer(replace(settings, timeout=1))
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM path_infos FOR UPDATE")
        with pytest.raises(UnavailableError, match="took too long"):
            await infos_of(short).put(info)
    assert await infos_of(short).put(info) == info
    await short.close()


async def test_who_waits_for_a_connection_is_told_that_there_are_few(
    offer: Offer, settings: Settings, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = path_info("locked")
    await infos_of(offer).put(info)
    narrow = await open_offer(replace(settings, pool=1))
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM path_infos FOR UPDATE")
        waiting = asyncio.create_task(infos_of(narrow).put(info))
        await blocked(sql)
        monkeypatch.setattr(database, "_WAIT", 0.1)
        with pytest.raises(UnavailableError, match=r"all 1 connections are at work; \?pool=NUMBER allows more"):
            await narrow.check()
    assert await waiting == info
    await narrow.close()


async def test_close_ends_what_hangs_also_when_it_is_cancelled(
    offer: Offer, settings: Settings, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_CLOSE", 0.1)
    info = path_info("locked")
    await infos_of(offer).put(info)
    for is_cancelled in (False, True):
        hanging = await open_offer(settings)
        async with sql.transaction():
            await sql.execute("SELECT 1 FROM path_infos FOR UPDATE")
            waiting = asyncio.create_task(infos_of(hanging).put(info))
            await blocked(sql)
            closing = asyncio.ensure_future(hanging.close())
            if is_cancelled:
                await asyncio.sleep(0.02)
                closing.cancel()
            await asyncio.wait([closing])
            with pytest.raises(UnavailableError):
                await waiting


async def test_a_restart_is_not_noticed(server: Server, offer: Offer) -> None:
    infos = [path_info(f"{n}") for n in range(30)]
    await infos_of(offer).put(infos[0])
    server.end()
    server.start()
    assert await infos_of(offer).get(infos[0].store_path.output_hash) == infos[0]
    putting = asyncio.gather(*map(infos_of(offer).put, infos))
    await asyncio.sleep(0.01)
    server.crash()
    server.start()
    assert list(await putting) == infos
    assert {each.store_path async for each in infos_of(offer).list()} == {each.store_path for each in infos}


async def test_a_server_that_is_away_is_told_in_one_line(server: Server, offer: Offer, settings: Settings) -> None:
    server.end()
    try:
        for work in (offer.check(), open_offer(settings)):
            with pytest.raises(UnavailableError, match=rf"^{settings.name}: the server is not there: "):
                await work
    finally:
        server.start()
    await offer.check()


async def test_nobody_answers_at_a_port(settings: Settings) -> None:
    dsn = settings.dsn.replace("127.0.0.1:", f"127.0.0.1:{free_port()}#").partition("#")[0] + "/postgres"
    with pytest.raises(UnavailableError, match="the server is not there"):
        await open_offer(replace(settings, dsn=dsn))


async def test_a_wrong_password_is_told_and_not_shown(server: Server, settings: Settings, offer: Offer, sql: Any) -> None:
    await sql.execute("DROP ROLE IF EXISTS strict; CREATE ROLE strict LOGIN PASSWORD 'right'")
    dsn = settings.dsn.replace("nix@", "strict:secret@")
    with pytest.raises(UnauthenticatedError, match="the password is wrong, or missing") as caught:
        await open_offer(replace(settings, dsn=dsn))
    assert "secret" not in str(caught.value)
    with pytest.raises(DeniedError, match="the user lacks a right"):
        await open_offer(replace(server.settings(), dsn=settings.dsn.replace("nix@", "strict:right@")))


async def test_a_password_that_is_changed_is_no_fault_of_a_client(settings: Settings, sql: Any) -> None:
    await sql.execute("DROP ROLE IF EXISTS strict; CREATE ROLE strict SUPERUSER LOGIN PASSWORD 'right'")
    offer = await open_offer(replace(settings, dsn=settings.dsn.replace("nix@", "strict:right@")))
    await sql.execute("ALTER ROLE strict PASSWORD 'other'")
    await sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'strict'")
    with pytest.raises(UnavailableError, match="the password is wrong, or missing"):
        await infos_of(offer).get(bytes(20))
    await offer.close()
    await sql.execute("DROP OWNED BY strict; DROP ROLE strict")


async def test_who_may_only_read_reads(settings: Settings, offer: Offer, sql: Any) -> None:
    info = path_info("read")
    await infos_of(offer).put(info)
    await sql.execute(f"""
        DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN;
        GRANT USAGE ON SCHEMA {settings.schema} TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA {settings.schema} TO reader;
    """)
    reader = await open_offer(replace(settings, dsn=settings.dsn.replace("nix@", "reader@")))
    assert await infos_of(reader).get(info.store_path.output_hash) == info
    with pytest.raises(DeniedError, match="the user lacks a right"):
        await infos_of(reader).put(path_info("write"))
    await reader.close()
    # As a replica does.
    await sql.execute(f"GRANT INSERT ON ALL TABLES IN SCHEMA {settings.schema} TO reader")
    await sql.execute("ALTER ROLE reader SET default_transaction_read_only = on")
    replica = await open_offer(replace(settings, dsn=settings.dsn.replace("nix@", "reader@")))
    assert await infos_of(replica).get(info.store_path.output_hash) == info
    with pytest.raises(DeniedError, match="the server can only be read; it may be a replica"):
        await infos_of(replica).put(path_info("write"))
    await replica.close()
    await sql.execute("DROP OWNED BY reader; DROP ROLE reader")


async def test_there_is_no_database_or_no_store(settings: Settings) -> None:
    with pytest.raises(NoStoreError, match="there is no such database; make it with createdb"):
        await open_offer(replace(settings, dsn=settings.dsn.replace("/postgres", "/nope")))
    with pytest.raises(NoStoreError, match=f"there is no store in the schema {settings.schema} of {settings.name}"):
        await open_offer(settings, create=False)


async def test_a_store_of_a_newer_version_is_left_alone(settings: Settings, offer: Offer, sql: Any) -> None:
    await sql.execute("UPDATE store SET version = 99")
    with pytest.raises(UnavailableError, match="of version 99, made by a newer tvix-store; this one knows up to 1"):
        await open_offer(settings)
    assert await sql.fetchval("SELECT version FROM store") == 99


async def test_a_store_is_for_one_store_directory_and_one_size_rule(settings: Settings) -> None:
    made = await open_offer(settings, store_dir="/other", size_rule=SizeRule.SNIX)
    await made.close()
    again = await open_offer(settings)
    assert (again.store_dir, again.size_rule) == ("/other", SizeRule.SNIX)
    await again.close()
    with pytest.raises(InvalidError, match="holds paths of /other, not of /nix/store"):
        await open_offer(settings, store_dir="/nix/store")
    with pytest.raises(InvalidError, match="was made with size_rule=snix"):
        await open_offer(settings, size_rule=SizeRule.DOCUMENTED)


async def test_damaged_rows_are_found(offer: Offer, sql: Any) -> None:
    info = path_info("damaged")
    await infos_of(offer).put(info)
    directories = offer.directories
    assert directories is not None
    digest = await directories.put(stream([leaf("damaged")]))
    await sql.execute("UPDATE directories SET encoded = '\\x00'")
    with pytest.raises(CorruptError, match="the database has other bytes for directory"):
        await directories.get(digest)
    await sql.execute("UPDATE path_infos SET output_hash = '\\x0000000000000000000000000000000000000000'")
    with pytest.raises(CorruptError, match="the path info of another path"):
        await infos_of(offer).get(bytes(20))


async def test_a_graph_that_is_too_large_is_refused(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.services.held_graphs.MAX_GRAPH", 1000)
    assert offer.directories is not None
    with pytest.raises(ExhaustedError, match="put fewer at a time"):
        await offer.directories.put(stream([leaf("a"), leaf("b")]))
