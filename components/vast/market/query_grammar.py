"""The grammar of `vastai search offers`, as the official client has it, without the client. Pure.

Its module of the grammar needs the standard library alone. `import vastai` would load the client
and `requests` with it, before anything is asked of the market. So the one file is loaded by its
path, and `sys.modules` does not know it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

GRAMMAR = Path("api") / "query.py"
"""Where the package `vastai` has it."""


def _load() -> ModuleType:
    """Run the official client's module of the grammar.

    Raises:
        ModuleNotFoundError: if `vastai` is not installed, or has no such module any more.
    """
    package = importlib.util.find_spec("vastai")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / GRAMMAR
        spec = importlib.util.spec_from_file_location("vastai_grammar", path)
        if path.is_file() and spec and spec.loader:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ModuleNotFoundError(f"vastai/{GRAMMAR} is not installed: run `make setup`")


_grammar = _load()

parse_query = _grammar.parse_query
"""Add a text's conditions to a query: `parse_query(text, query, fields, alias)`."""
offers_fields = _grammar.offers_fields
"""Fields of an offer that a query may name."""
offers_alias = _grammar.offers_alias
"""Other names of some fields."""
offers_mult = _grammar.offers_mult
"""What a query's number of a field is multiplied with."""
