"""Which roles may make which calls."""

from __future__ import annotations

import pytest

from taskd.domain.access import Access, may, require
from taskd.domain.model import Role, User
from taskd.errors import Forbidden

ALLOWED = {
    Access.OPEN: {"user", "worker", "metrics", "admin"},
    Access.KNOWN: {"user", "worker", "metrics", "admin"},
    Access.TASKS: {"user", "admin"},
    Access.WORK: {"worker", "admin"},
    Access.METRICS: {"metrics", "admin"},
    Access.ADMIN: {"admin"},
}


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("role", Role)
def test_a_role_may_make_its_own_calls_only(role: Role, access: Access) -> None:
    user = User("ann", role)
    assert may(user, access) is (role.value in ALLOWED[access])
    if may(user, access):
        require(user, access)
    else:
        with pytest.raises(Forbidden, match=f"the token's role is {role.value}"):
            require(user, access)


@pytest.mark.parametrize("access", Access)
def test_who_is_taken_at_their_word_may_make_every_call(access: Access) -> None:
    require(User("ann", trusted=True), access)


def test_only_admins_see_all() -> None:
    assert {role for role in Role if User("ann", role).sees_all} == {Role.ADMIN}
    assert not User("ann", trusted=True).sees_all
