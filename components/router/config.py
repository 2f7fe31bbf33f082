"""The files that HAProxy (2.6 or newer) is started with. Pure.

A request passes two stages in one process. The first checks the key and the route, and chooses a
member. The second belongs to one member: it puts that member's own key into the request and speaks
TLS with it. HAProxy cannot set a header once it has chosen a server, so the stages are joined by a
socket that nobody else can open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from components.core.keys import machine_message
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import Gate
from components.tls.certificates import machine_name

CONFIGURATION = "haproxy.cfg"
KEYS = "keys.map"
METRICS_KEYS = "metrics.map"
"""Keys that open the counters alone; there is no such file where the stack asks for none."""
ROUTES = "routes.map"
AUTHORITY = "ca.pem"
"""Whom the router believes: the stack's authorities. Others write it."""
CERTIFICATE = "router.pem"
"""The router's certificate and its key, which is made at the router. Others write it."""
CLIENT = "client.pem"
"""With which the router asks, where clients show a certificate. Others write it."""
CONTROL = "control.sock"
HANDOVER = "next.sock"

VERSION_PATH = "/router/version"
"""Where the router says which files it has; no route of a machine's."""

FOREVER = 10**15
"""Seconds since 1970, for a key that does not end."""

BUFFER_BYTES = 131_072
"""Of a request, what is kept to repeat it and to find out its conversation. A connection takes
two of them while it has something to pass on."""

ENVIRONMENT: Mapping[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
"""What HAProxy is started with, bytes for glibc's `mallopt(3)`; another libc reads none of it.

By default glibc returns freed buffers of this size to the kernel, and each request faults them in
again: 17 pages, a third of the router's CPU. So a worker keeps up to 64 MiB a thread instead."""

PLACES = 2**20
"""Ids that differ by this share a place: HAProxy's ring is made of `id * 4096` in 32 bits."""

WEIGHT = 16
"""Of a member: HAProxy gives it 16 places on the ring for each."""

NOT_SERVED = '{"error":{"message":"%s","type":"ServiceUnavailable","param":null,"code":%d}}'
"""In the shape of vLLM's refusals, since clients show the message of that alone."""


SEVERAL_KEYS = '{"error":"Several keys"}'
"""Of 400: which of them counts, a machine might decide otherwise."""


def render(inputs: RouterInputs) -> dict[str, str]:
    """Write the router's files, by name; none of them has a secret."""
    metrics = {METRICS_KEYS: _ends(inputs.metrics_digests)} if inputs.metrics_digests else {}
    return {
        CONFIGURATION: _configuration(inputs),
        KEYS: _ends(inputs.key_digests),
        **metrics,
        ROUTES: "".join(f"{path} {method}\n" for path, method in _routes(inputs.gate).items()),
    }


def ring_ids(members: Iterable[Member]) -> dict[int, int]:
    """Give each contract an id of HAProxy's, which places it on the ring.

    It is the contract's own as far as the ring can tell ids apart, so a member keeps its place
    whoever comes and goes. Of two that would share one, the later contract takes the next.
    """
    given: dict[int, int] = {}
    for contract in sorted(member.contract for member in members):
        place = contract % PLACES or PLACES
        while place in given.values():
            place = place % PLACES + 1
        given[contract] = place
    return given


def _configuration(inputs: RouterInputs) -> str:
    places = ring_ids(inputs.members)
    sections = [
        _global(inputs),
        _defaults(),
        _clients(inputs),
        _replicas(inputs, places),
        _next(inputs),
        *(section for member in inputs.members for section in _member(inputs, member)),
    ]
    return "\n".join(_section(*lines) for lines in sections)


def _section(head: str, *lines: str) -> str:
    return "".join([f"{head}\n", *(f"    {line}\n" for line in lines)])


def _ends(keys: Iterable[KeyDigest]) -> str:
    """Write a map: a digest, and the second since 1970 from which on its key is refused."""
    return "".join(f"{key.digest} {FOREVER if key.ends is None else key.ends}\n" for key in keys)


def _routes(gate: Gate) -> dict[str, str]:
    return {**gate.unguarded, **gate.guarded}


def _global(inputs: RouterInputs) -> list[str]:
    return [
        "global",
        "log stdout format raw local0 info",
        f"stats socket {inputs.folder}/{CONTROL} mode 600 level admin expose-fd listeners",
        # A reload leaves the previous worker until its answers end, and this long at most.
        f"hard-stop-after {inputs.old_worker_seconds}s",
        f"nbthread {inputs.threads}",
        # Each request is a connection of both stages.
        f"maxconn {2 * inputs.connections + 100}",
        f"tune.bufsize {BUFFER_BYTES}",
        "tune.maxrewrite 4096",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
        "ssl-default-server-options ssl-min-ver TLSv1.2",
        # HAProxy's own client asks nobody here. Each start would read the system's authorities
        # for it, which takes longer than all the rest.
        f"httpclient.ssl.ca-file {_file(inputs, AUTHORITY)}",
    ]


def _defaults() -> list[str]:
    return [
        "defaults",
        "mode http",
        "log global",
        "option dontlognull",
        "option dontlog-normal",
        "option clitcpka",
        "option srvtcpka",
        "timeout connect 5s",
        # The longest silence, not the longest answer.
        "timeout client 1h",
        "timeout server 1h",
        "timeout http-request 30s",
        "timeout http-keep-alive 60s",
        "timeout queue 60s",
        "timeout check 3s",
        *(
            f"http-error status {status} content-type application/json string '{body}'"
            for status, body in (
                (502, NOT_SERVED % ("A machine broke off.", 502)),
                (503, NOT_SERVED % ("No machine serves.", 503)),
                (504, NOT_SERVED % ("A machine did not answer.", 504)),
            )
        ),
    ]


def _clients(inputs: RouterInputs) -> list[str]:
    gate = inputs.gate
    asks = f" ca-file {_file(inputs, AUTHORITY)} verify required" * inputs.client_certificates
    until = f"var(txn.key),{_end_in(inputs, KEYS)}"
    # HTTP/2 is not offered: HAProxy 2.6 resets a stream that it refuses before its body has come.
    bind = (
        f"bind {_socket(inputs.listen, inputs.port)} ssl"
        f" crt {_file(inputs, CERTIFICATE)}{asks} alpn http/1.1"
    )
    return [
        "frontend clients",
        bind,
        # By it, the previous worker hands over what comes to it after a reload.
        f"bind unix@{inputs.folder}/{HANDOVER} mode 600",
        f"maxconn {inputs.connections}",
        # After a reload, an idle connection would be closed under the request that just comes. So
        # the previous worker takes one more, and hands it to the one that knows members and keys.
        "option idle-close-on-response",
        "http-request allow if { stopping }",
        "acl several_keys req.fhdr_cnt(authorization) gt 1",
        "acl several_keys req.fhdr_cnt(x-api-key) gt 1",
        f"http-request {_answer(400, SEVERAL_KEYS)} if several_keys",
        # Who asks: the digest of the key is known here, never the key.
        "acl has_key var(txn.key) -m found",
        "acl allowed date,neg,add(txn.until) gt 0",
        "http-request set-var(txn.key) http_auth_bearer",
        f"http-request set-var(txn.until) {until} if has_key",
        "http-request set-var(txn.key) req.fhdr(x-api-key) if !allowed",
        f"http-request set-var(txn.until) {until} if !allowed has_key",
        # What is asked for: the gate's own table.
        f"http-request set-var(txn.method) path,map_str({_file(inputs, ROUTES)})",
        "acl known var(txn.method) -m found",
        "acl right_method method,strcmp(txn.method) eq 0",
        "acl somebody_serves nbsrv(replicas) gt 0",
        *(f"acl unguarded path -m str {path}" for path in gate.unguarded),
        f"http-request {_answer(200, '{}')} if unguarded right_method somebody_serves",
        (
            f"http-request {_answer(503, NOT_SERVED % ('No machine serves.', 503))}"
            " if unguarded right_method"
        ),
        *_counters(inputs),
        f"http-request {_answer(401, gate.unauthorized)} if !allowed",
        *_version(inputs),
        f"http-request {_answer(404, gate.not_found)} if !known",
        f"http-request {_answer(405, gate.method_not_allowed)} if !right_method",
        "http-request use-service prometheus-exporter if { path -m str /metrics }",
        'http-request set-header authorization "Bearer %[var(txn.key)]"',
        "http-request del-header x-api-key",
        "http-request del-header x-forwarded-for",
        "http-request unset-var(txn.key)",
        "use_backend next if { stopping }",
        "default_backend replicas",
    ]


def _counters(inputs: RouterInputs) -> list[str]:
    """Let a key of theirs open the counters; for anything else it is an unknown key."""
    if not inputs.metrics_digests:
        return []
    end = _end_in(inputs, METRICS_KEYS)
    is_read = "{ method GET } { path -m str /metrics }"
    return [
        "acl may_read date,neg,add(txn.reads_until) gt 0",
        f"http-request set-var(txn.reads_until) http_auth_bearer,{end} if {is_read}",
        f"http-request set-var(txn.reads_until) req.fhdr(x-api-key),{end} if {is_read} !may_read",
        "http-request use-service prometheus-exporter if may_read",
    ]


def _end_in(inputs: RouterInputs, name: str) -> str:
    """Write how the end of a key is looked up in one of the maps."""
    return f"sha2(256),hex,lower,map_str_int({_file(inputs, name)})"


def _version(inputs: RouterInputs) -> list[str]:
    """Let who has a key see which files serve: a reload is over when they are the new ones."""
    if not inputs.version:
        return []
    body = f'{{"version":"{inputs.version}"}}'
    return [f"http-request {_answer(200, body)} if METH_GET {{ path -m str {VERSION_PATH} }}"]


def _file(inputs: RouterInputs, name: str) -> str:
    """Where a file lies. Those of one version lie together, so that renaming one changes all."""
    return "/".join([inputs.folder, *([inputs.version] if inputs.version else []), name])


def _answer(status: int, body: str) -> str:
    return f"return status {status} content-type application/json string '{body}'"


def _replicas(inputs: RouterInputs, places: dict[int, int]) -> list[str]:
    return [
        "backend replicas",
        # The request is kept as it comes, so that it can be repeated elsewhere.
        "option http-buffer-request",
        *(_BY_CONVERSATION if inputs.routing == "conversation" else ("balance leastconn",)),
        *_HEALTH_CHECK,
        "retries 3",
        "retry-on conn-failure empty-response 503",
        "option redispatch 1",
        "http-reuse always",
        # Idle joints would keep the previous worker after a reload.
        "default-server maxconn 512 pool-purge-delay 1s",
        *(
            f"server {_name(member)} {_joint(inputs, member)} id {places[member.contract]}"
            f" weight {_weight(member)} track {_name(member)}/{_name(member)}"
            for member in inputs.members
        ),
    ]


def _next(inputs: RouterInputs) -> list[str]:
    """Write where the previous worker sends what comes to it: the worker that took its place."""
    return [
        "backend next",
        "retries 3",
        f"server worker unix@{inputs.folder}/{HANDOVER}",
    ]


_HEALTH_CHECK = (
    "option httpchk",
    "http-check send meth GET uri /health",
    "http-check expect status 200",
    # What a gate answers while its server drains.
    "http-check disable-on-404",
)

_BY_CONVERSATION = (
    "balance hash var(txn.conversation)",
    "hash-type consistent sdbm avalanche",
    # No `hash-balance-factor`: it counts in whole requests, so a few in flight would leave their
    # member.
    # A conversation is its head, which all its requests repeat: system prompt and first question.
    "http-request set-var(txn.role) req.body,json_query('$.messages[0].role')",
    "http-request set-var(txn.first) req.body,json_query('$.messages[0].content')",
    (
        "http-request set-var(txn.first) req.body,json_query('$.messages[0].content[0].text')"
        " if !{ var(txn.first) -m found }"
    ),
    "http-request set-var(txn.second) str() if !{ var(txn.role) -m str system developer }",
    (
        "http-request set-var(txn.second) req.body,json_query('$.messages[1].content')"
        " if !{ var(txn.second) -m found }"
    ),
    (
        "http-request set-var(txn.second) req.body,json_query('$.messages[1].content[0].text')"
        " if !{ var(txn.second) -m found }"
    ),
    (
        "http-request set-var(txn.conversation) var(txn.first),concat(|,txn.second)"
        " if { var(txn.first) -m found } { var(txn.second) -m found }"
    ),
    # A head that does not fit into the buffer is no JSON yet: its beginning stands for it.
    (
        "http-request set-var(txn.conversation) req.body,bytes(0,2048)"
        " if !{ var(txn.conversation) -m found }"
    ),
    # The client's own word wins.
    "http-request set-var(txn.hint) req.body,json_query('$.prompt_cache_key')",
    "http-request set-var(txn.conversation) var(txn.hint) if { var(txn.hint) -m found }",
    (
        "http-request set-var(txn.conversation) req.fhdr(x-session-id)"
        " if { req.fhdr(x-session-id) -m found }"
    ),
    "http-request unset-var(txn.first)",
    "http-request unset-var(txn.second)",
)


def _member(inputs: RouterInputs, member: Member) -> Iterable[Sequence[str]]:
    """Write the second stage of one member: its key, then TLS with the name that is its own."""
    name = _name(member)
    message = machine_message(member.scope or inputs.scope, member.contract)
    yield [
        f"frontend to_{name}",
        f"bind {_joint(inputs, member)} mode 600",
        "http-request set-var(txn.client) http_auth_bearer,base64",
        (
            "http-request set-header authorization"
            f' "Bearer %[str({message}),hmac(sha256,txn.client),hex,lower]"'
        ),
        "http-request unset-var(txn.client)",
        f"default_backend {name}",
    ]
    check = inputs.check_milliseconds
    shows = f" crt {_file(inputs, CLIENT)}" * inputs.client_certificates
    yield [
        f"backend {name}",
        *_HEALTH_CHECK,
        "retries 1",
        "retry-on conn-failure empty-response",
        # Each new connection is a TLS handshake over the internet.
        "http-reuse always",
        (
            f"server {name} {_socket(member.address, member.port)}"
            # The authority signs for all members: without the name each would be believed for each.
            f" ssl verify required ca-file {_file(inputs, AUTHORITY)}"
            f" verifyhost {machine_name(member.contract)}{shows} alpn http/1.1"
            f" check check-ssl inter {check}ms fastinter {max(check // 2, 25)}ms fall 2 rise 2"
            # Of connections alone: else a request that fails on each server would eject them all.
            " observe layer4 error-limit 5 on-error mark-down"
            # Below uvicorn's 5 s, after which it closes an idle connection.
            " pool-purge-delay 4s"
        ),
    ]


def _name(member: Member) -> str:
    return f"i{member.contract}"


def _weight(member: Member) -> int:
    return WEIGHT if member.state == "serving" else 0


def _joint(inputs: RouterInputs, member: Member) -> str:
    return f"unix@{inputs.folder}/{_name(member)}.sock"


def _socket(ip: str, port: int) -> str:
    return f"ipv6@[{ip}]:{port}" if ":" in ip else f"ipv4@{ip}:{port}"
