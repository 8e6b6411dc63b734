"""Who may call what: one table, and the interceptor that holds to it.

A client that comes with a certificate is who that says; one that comes by the token port, who its
token says. Over plaintext nobody is known: there is no `Access`, and nothing is refused.
"""

import inspect
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import grpc
from cryptography.x509 import load_pem_x509_certificate
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from cloud_recognizer.caller import Caller, expired
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.status import aborting
from cloud_recognizer.tokens import Tokens
from mien.errors import UnauthenticatedError, WrongRoleError
from mien.identity import Identity, Role
from mien.v1 import bundle_pb2, recognition_pb2

RECOGNITION: Final = recognition_pb2.DESCRIPTOR.services_by_name["RecognitionService"].full_name
_BUNDLES: Final = bundle_pb2.DESCRIPTOR.services_by_name["BundleService"].full_name
_EVERYONE: Final = frozenset(Role)
_BACKEND: Final = frozenset({Role.CONSUMER, Role.OPERATOR})
_OPERATOR: Final = frozenset({Role.OPERATOR})

# Full method → roles. What does not stand here nobody may call.
ROLES: Final[Mapping[str, frozenset[Role]]] = {
    f"/{RECOGNITION}/StreamFaces": frozenset({Role.DEVICE}),
    f"/{RECOGNITION}/Recognize": _BACKEND,
    f"/{RECOGNITION}/WatchRecognitions": _BACKEND,
    f"/{RECOGNITION}/ReportLabels": _BACKEND,
    f"/{RECOGNITION}/Reconstruct": _OPERATOR,  # makes faces viewable
    f"/{_BUNDLES}/ListBundles": _EVERYONE,
    f"/{_BUNDLES}/DownloadEncoder": _EVERYONE,
    f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": _OPERATOR,
}
# Says nothing but whether we serve, and is asked by what has no identity: load balancers, kubelets.
PUBLIC: Final = frozenset({f"/{health.SERVICE_NAME}/Check", f"/{health.SERVICE_NAME}/Watch"})

Context = grpc.aio.ServicerContext[Any, Any]


class Access:
    """Says who calls, and whether they may. tokens: None where none are taken."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def check(self, context: Context, method: str) -> None:
        """Raises UnauthenticatedError, WrongRoleError and IdentityExpiredError."""
        if method in PUBLIC:
            return
        identity = self.caller(context).identity
        if identity.role not in ROLES.get(method, frozenset()):
            wanted = sorted(role.value for role in ROLES.get(method, frozenset()))
            raise WrongRoleError(
                f"{method} is for the role {' or '.join(wanted) or '(nobody)'}, and the caller's "
                f"is {identity.role.value}"
            )

    def caller(self, context: Context) -> Caller:
        """Who calls. Raises UnauthenticatedError and IdentityExpiredError."""
        ends_unix_s = _ends_unix_s(context)
        if ends_unix_s <= time.time():
            raise expired()  # the handshake was before that, and a connection may last
        # Only set where the certificate holds exactly one URI, as the standard asks for.
        uris = list(context.auth_context().get("peer_spiffe_id", ()))
        if uris:
            return Caller(_identity(uris[0]), ends_unix_s)
        token = _bearer(context)
        if self._tokens is None or token is None:
            raise UnauthenticatedError(
                "nothing says who calls: a certificate must hold one URI spiffe://mien/ROLE/NAME"
                + (", or the metadata a token (authorization: Bearer …)" if self._tokens else "")
            )
        caller = self._tokens.caller(token)
        return Caller(caller.identity, min(caller.ends_unix_s, ends_unix_s))


def caller_of(access: Access | None, context: Context) -> Caller | None:
    """Who calls; None over plaintext, where nobody is known. Raises as `Access.caller` does."""
    return None if access is None else access.caller(context)


def share_of(access: Access | None, context: Context) -> str | None:
    """Whom a call counts for, where one may have a part only: an identity, else an address.

    None over plaintext: behind a proxy all callers have its address. Raises as `Access.caller`.
    """
    if access is None:
        return None
    try:
        return access.caller(context).identity.uri
    except UnauthenticatedError:  # what is public needs no identity
        return context.peer().rpartition(":")[0]


class Guard(grpc.aio.ServerInterceptor):
    """Ends calls that `Access` refuses before anything of the service sees them."""

    def __init__(self, access: Access, metrics: Metrics) -> None:
        self._access = access
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, behind the check; as it is for what has none."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if isinstance(method, bytes):
            method = method.decode()
        kind = f"{_side(handler.request_streaming)}_{_side(handler.response_streaming)}"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            self._guarded(getattr(handler, kind), method),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _guarded(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def check(context: Context) -> None:
            async with aborting(context, self._metrics):
                self._access.check(context, method)

        async def call(request: Any, context: Context) -> Any:
            await check(context)
            return await behaviour(request, context)

        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            await check(context)
            async for response in behaviour(request, context):
                yield response

        return generate if inspect.isasyncgenfunction(behaviour) else call


def _side(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _identity(uri: bytes) -> Identity:
    try:
        return Identity.from_uri(uri.decode())
    except ValueError as error:
        raise UnauthenticatedError(f"the certificate's URI says no role: {error}") from None


def _ends_unix_s(context: Context) -> float:
    """The end of the connection's certificate, infinite where there is none."""
    shown = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return math.inf if shown is None else _end_of(shown)


@lru_cache(1024)  # the calls of a connection show the same one
def _end_of(certificate: bytes) -> float:
    return load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()


def _bearer(context: Context) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
    return None
