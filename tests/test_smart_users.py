"""Users and passwords: who can be added, which passwords are good enough, and how they are kept."""

import asyncio
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from smart_auth.passwords import LONGEST, MOST_WAITING, Busy, Passwords, one_time, problem
from smart_auth.users import ROLES, SECOND_FACTOR_ROLES, UserError, Users
from tests.conftest import RunWithDb

GOOD = "vier wilde Esel tanzen"


def test_a_user_is_added_found_and_listed(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        users = Users(db)
        added = await users.add(" Rolf.Referrer ", "referrer", "Practitioner/4711", "hash")
        await users.add("ada", "admin", "Practitioner/1", "hash", must_change_password=True)
        found = await users.get("ROLF.referrer")
        assert found is not None
        assert (found.name, found.role, found.fhir_user) == ("rolf.referrer", "referrer", "Practitioner/4711")
        assert (found.disabled, found.second_factor, found.must_change_password) == (False, False, False)
        assert found.registration == added.registration
        assert [u.name for u in await users.list()] == ["ada", "rolf.referrer"]
        assert await users.get("nobody") is None

    run_with_db(scenario)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_of_the_contract_can_be_given(run_with_db: RunWithDb[Any], role: str) -> None:
    async def scenario(db: Any) -> None:
        user = await Users(db).add("somebody", role, "Practitioner/1", "hash")
        assert user.needs_second_factor == (role in SECOND_FACTOR_ROLES)

    run_with_db(scenario)
    assert frozenset({"admin", "interface-admin"}) == SECOND_FACTOR_ROLES


def test_of_two_who_add_the_same_name_at_once_one_succeeds(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> list[Any]:
        adding = (Users(db).add("twin", "auditor", f"Practitioner/{n}", "hash") for n in range(4))
        return await asyncio.gather(*adding, return_exceptions=True)

    results = run_with_db(scenario)
    assert sum(isinstance(r, UserError) for r in results) == 3


def test_what_ends_grants_changes_the_stamp_and_nothing_else_does(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        users = Users(db)
        stamps = [(await users.add("u", "scheduler", "Practitioner/1", "hash")).security_stamp]
        registration = (await users.list())[0].registration
        await users.rehash("u", "hash", "newer hash")
        assert (await users.list())[0].security_stamp == stamps[0]
        for changed in (
            await users.set_password("u", "other hash"),
            await users.change("u", role="auditor"),
            await users.change("u", fhir_user="Practitioner/2"),
            await users.disable("u"),
            await users.disable("u", disabled=False),
        ):
            stamps.append(changed.security_stamp)
            assert changed.registration == registration
        assert len(set(stamps)) == 6

    run_with_db(scenario)


def test_a_password_that_was_changed_meanwhile_is_not_rehashed_over(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> Any:
        await Users(db).add("u", "scheduler", "Practitioner/1", "first")
        await Users(db).set_password("u", "second")
        await Users(db).rehash("u", "first", "first again")
        return await Users(db).password_of("u")

    assert run_with_db(scenario)[1] == "second"


def test_passwords_are_argon2id_with_a_salt_of_their_own() -> None:
    async def scenario() -> list[str]:
        return [await Passwords().hash(GOOD) for _ in range(2)]

    first, second = asyncio.run(scenario())
    assert first != second
    parameters = extract_parameters(first)
    assert parameters.type is Type.ID
    # RFC 9106 4: the second recommended choice, 64 MiB.
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (65536, 3, 4)
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)


def test_the_right_password_is_right_and_all_else_is_not() -> None:
    async def scenario() -> None:
        checked = Passwords()
        encoded = await checked.hash(GOOD)
        assert (await checked.check(encoded, GOOD)).right
        for wrong in (GOOD.upper(), f"{GOOD} ", "", GOOD + "x" * 100_000):
            assert not (await checked.check(encoded, wrong)).right
        assert not (await checked.check(None, GOOD)).right
        assert not (await checked.check("no hash at all", GOOD)).right

    asyncio.run(scenario())


def test_a_password_is_the_same_on_every_keyboard() -> None:
    async def scenario() -> bool:
        checked = Passwords()
        return (
            await checked.check(await checked.hash("Gr\u00fc\u00dfe aus Musterstadt"), "Gru\u0308\u00dfe aus Musterstadt")
        ).right

    assert asyncio.run(scenario())


def test_a_hash_with_older_parameters_is_renewed_and_one_of_today_is_not() -> None:
    async def scenario() -> None:
        weak, today = Passwords(PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)), Passwords()
        old = await weak.hash(GOOD)
        verdict = await today.check(old, GOOD)
        assert verdict.right
        assert verdict.rehashed is not None
        assert extract_parameters(verdict.rehashed).memory_cost == 65536
        assert (await today.check(old, "wrong password")).rehashed is None
        assert (await today.check(verdict.rehashed, GOOD)).rehashed is None

    asyncio.run(scenario())


def test_hashing_does_not_hold_up_the_event_loop() -> None:
    async def scenario() -> int:
        ticks = 0
        hashing = asyncio.gather(*(Passwords().hash(GOOD) for _ in range(3)))
        while not hashing.done():
            await asyncio.sleep(0)
            ticks += 1
        return ticks

    assert asyncio.run(scenario()) > 20


def test_more_passwords_than_can_wait_are_sent_away() -> None:
    async def scenario() -> list[Any]:
        cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1))
        return await asyncio.gather(*(cheap.hash(GOOD) for _ in range(MOST_WAITING + 5)), return_exceptions=True)

    results = asyncio.run(scenario())
    assert sum(isinstance(r, Busy) for r in results) == 5


@pytest.mark.parametrize(
    "password",
    [GOOD, "correct horse battery", "4839204857261098", "Xq7-mmRt9!zLp", "пять тихих рыб поют", "夜のパンダが静かに踊る森の中"],
)
def test_a_good_password_is_taken(password: str) -> None:
    assert problem(password, "rolf.referrer") is None


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "at least 12"), ("elevenchars", "at least 12"), ("x" * (LONGEST + 1), "at most"),
        ("rolf.referrer", "user name"), ("Rolf.Referrer2026!", "user name"), ("rolf.referrerrolf.referrer", "user name"),
        ("Password2026!", "first that would be tried"), ("P@ssw0rd!!!!!!", "first that would be tried"),
        ("welcomehospital", "first that would be tried"), ("Summer2026!!!", "first that would be tried"),
        ("Radiology-2026", "first that would be tried"), ("  letmein letmein  ", "first that would be tried"),
        ("abcdefghijklmn", "row of keys"), ("123456789012", "row of keys"), ("qwertyuiop12", "row of keys"),
        ("zyxwvutsrqponm", "row of keys"), ("1qaz2wsx3edc4rfv", "row of keys"), ("aaaaaaaaaaaaaaaa", "row of keys"),
        ("abababababababab", "row of keys"),
    ],
)  # fmt: skip
def test_a_bad_password_is_refused_with_the_reason(password: str, said: str) -> None:
    assert said in str(problem(password, "rolf.referrer"))


def test_one_time_passwords_are_good_enough_themselves() -> None:
    made = {one_time() for _ in range(100)}
    assert len(made) == 100
    assert all(problem(password, "rolf.referrer") is None for password in made)
    assert not set("".join(made)) & set("il1o0")  # what is misread when it is read out


def test_no_password_leads_the_list_of_words_astray() -> None:
    """It is one regular expression: one that runs away would not come back from these."""
    for text in ("the" * 85, "abcabcd" * 36 + "x", "testtesting" * 23 + "\u00e9", "inisintoin" * 25 + "q"):
        problem(text, "u")
    assert problem("the" * 85, "u") is not None
