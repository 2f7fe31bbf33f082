from __future__ import annotations

import pytest

from components.on_host import key_gate
from components.router.routes import GATE, gate_of, own_gate

SOURCE = GATE.read_text()


def test_it_is_the_table_of_the_gate_that_is_pushed():
    gate = own_gate()
    assert (gate.unguarded, gate.guarded) == (key_gate.OPEN, key_gate.GUARDED)
    assert gate.unauthorized.encode() == key_gate.UNAUTHORIZED[1]
    assert gate.not_found.encode() == key_gate.NOT_FOUND[1]
    assert gate.method_not_allowed.encode() == key_gate.METHOD_NOT_ALLOWED[1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("GUARDED = {", "ROUTES = {", "no table 'GUARDED'"),
        ("NOT_FOUND = (", "MISSING = (", "no table 'NOT_FOUND'"),
        ('"/v1/models"', '"/v1/mod els"', "pattern"),
        ('"/v1/models"', '"/v1/models\\n"', "pattern"),
        ('"/v1/models": "GET"', '"/v1/models": "get"', "pattern"),
        ('"Not Found"', '"Not \\x27Found"', "pattern"),
    ],
)
def test_what_is_no_table_of_routes_is_refused(old, new, says):
    assert old in SOURCE
    with pytest.raises(ValueError, match=says):
        gate_of(SOURCE.replace(old, new))
