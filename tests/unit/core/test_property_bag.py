from __future__ import annotations

from typing import Any

import pulumi
from hypothesis import given
from hypothesis import strategies as st
from pulumi.output import Unknown

from components.core.property_bag import changed, contains_unknowns

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.builds(Unknown)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_is_known_if_pulumi_says_so(value: Any):
    assert contains_unknowns(value) == pulumi.contains_unknowns(value)


def test_what_is_not_known_yet_counts_as_changed():
    olds = {"same": 1, "other": 1, "later": 1}
    news = {"same": 1, "other": 2, "later": [Unknown()]}
    assert changed(olds, news, ["same", "other", "later", "nowhere"]) == ["other", "later"]
