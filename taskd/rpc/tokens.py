"""`TokenService`: who a token is, for a gateway; and the gateway's side of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc

from taskd.domain.model import Role, User
from taskd.domain.token import Token
from taskd.errors import Fault, Invalid, TaskdError, Unauthenticated, Unavailable
from taskd.rpc.messages import time_of, timestamp
from taskd.rpc.upstream import ANSWER_WITHIN, answered, metadata_of
from taskd.service.ports import Tokens
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TokenServiceStub

MOST = 1000
"""Tokens of one call."""

DIGEST = 32

ROLES: Mapping[Role, pb.Role.ValueType] = {
    Role.USER: pb.ROLE_USER,
    Role.WORKER: pb.ROLE_WORKER,
    Role.METRICS: pb.ROLE_METRICS,
    Role.ADMIN: pb.ROLE_ADMIN,
}
_ROLE_OF = {number: role for role, number in ROLES.items()}


class TokenCalls:
    """The call of `TokenService`.

    Args:
        tokens: those that there are.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def find_tokens(self, user: User, request: pb.FindTokensRequest) -> pb.FindTokensResponse:
        if len(request.digests) > MOST:
            raise Invalid([Fault("digests", f"must have at most {MOST} items")])
        faults = [
            Fault(f"digests[{number}]", f"must be {DIGEST} bytes")
            for number, digest in enumerate(request.digests)
            if len(digest) != DIGEST
        ]
        if faults:
            raise Invalid(faults)
        return pb.FindTokensResponse(tokens=map(_message, await self._tokens.find(list(request.digests))))


class RemoteTokens:
    """Implements `ports.Tokens` by asking.

    Args:
        channel: to the service; whoever made it closes it.
        user: who asks: an admin there.
    """

    def __init__(self, channel: grpc.aio.Channel, user: User) -> None:
        self._stub = TokenServiceStub(channel)
        self._user = user

    async def find(self, digests: Sequence[bytes]) -> Sequence[Token]:
        """Return those of these tokens that are good; see `ports.Tokens`."""
        try:
            return await self.ask(digests)
        except Unavailable:
            raise
        except TaskdError as error:
            # Whatever it is, it is not the fault of who shows a token here.
            why = "refuses TASKD_UPSTREAM_TOKEN" if isinstance(error, Unauthenticated) else "does not say who calls"
            raise Unavailable(f"the upstream {why}: {error}") from error

    async def ask(self, digests: Sequence[bytes]) -> Sequence[Token]:
        """Return the same.

        Raises:
            TaskdError: what the upstream answers.
        """
        try:
            answer = await self._stub.FindTokens(
                pb.FindTokensRequest(digests=digests), timeout=ANSWER_WITHIN, metadata=tuple(metadata_of(self._user))
            )
        except grpc.aio.AioRpcError as error:
            raise answered(error) from error
        return [_token(message) for message in answer.tokens if message.role in _ROLE_OF]


def _message(token: Token) -> pb.Token:
    message = pb.Token(digest=token.digest, user=token.user, role=ROLES[token.role])
    if token.expires_at is not None:
        message.expires_at.CopyFrom(timestamp(token.expires_at))
    return message


def _token(message: pb.Token) -> Token:
    expires = time_of(message.expires_at) if message.HasField("expires_at") else None
    return Token(message.digest, message.user, _ROLE_OF[message.role], expires)
