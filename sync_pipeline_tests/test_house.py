"""The house rules that can be checked: who imports whom, where settings are told, and that everything loads."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from sync_pipeline.settings import KNOWN, PREFIXES, describe

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "sync_pipeline"

MAY_IMPORT: dict[str, frozenset[str]] = {
    "__init__": frozenset({"memory"}),
    "memory": frozenset(),
    "__main__": frozenset({"cli"}),
    "domain": frozenset(),
    "salesforce": frozenset({"domain"}),
    "book": frozenset({"domain"}),
    "staging": frozenset({"domain"}),
    "notify": frozenset({"domain"}),
    "engine": frozenset({"domain", "salesforce", "book", "staging", "notify"}),
    "simulated_org": frozenset(),
    "settings": frozenset({"domain"}),
    "wiring": frozenset({"domain", "salesforce", "book", "staging", "engine", "simulated_org", "settings"}),
    "defs": frozenset({"domain", "salesforce", "book", "staging", "engine", "settings", "wiring"}),
    "cli": frozenset(
        {"domain", "salesforce", "book", "staging", "notify", "engine", "simulated_org", "settings", "wiring", "memory"}
    ),
    "definitions": frozenset({"defs", "settings"}),
}
"""Rooms, and the rooms they may know of besides themselves."""

THIRD_PARTIES: dict[str, frozenset[str]] = {
    "dagster": frozenset({"defs", "definitions"}),
    "duckdb": frozenset({"staging", "simulated_org"}),
    "sqlite3": frozenset({"book", "simulated_org"}),
    "sqlalchemy": frozenset({"book"}),
    "alembic": frozenset({"book"}),
    "psycopg2": frozenset({"book"}),
    "httpx": frozenset({"salesforce", "simulated_org", "wiring"}),
    "rich": frozenset({"cli"}),
    "apprise": frozenset({"notify"}),
    "urllib.request": frozenset({"notify"}),
}
"""Packages that belong to some rooms alone."""

NO_NOUN = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "manager", "shared", "tools"})
VARIABLE = re.compile(rf"\b(?:{'|'.join(PREFIXES)})[A-Z_]*[A-Z]\b")


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement. ``module`` is absolute; ``is_at_load`` when it happens while the file is imported."""

    file: str
    line: int
    module: str
    is_at_load: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room of one of our modules, ``None`` for anybody else's."""
    parts = module.split(".")
    if parts[0] != "sync_pipeline":
        return None
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for file in files() for found in imports_of(file))


def imports_of(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    later = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(outer)
        for node in ast.walk(outer)
    }
    name = str(file.relative_to(PROJECT))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively; write the whole name"
            # `from sync_pipeline.domain import keys` imports the module, not a name in it.
            modules = [module_imported(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module in dict.fromkeys(modules):
            yield Import(file=name, line=node.lineno, module=module, is_at_load=id(node) not in later)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def module_imported(module: str, name: str) -> str:
    place = PROJECT.joinpath(*module.split("."), name)
    is_module = place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
    return f"{module}.{name}" if is_module else module


# who imports whom


def test_every_room_is_known() -> None:
    rooms = {room_of(module_of(file)) for file in files()}

    assert rooms <= set(MAY_IMPORT), "a new room needs a line in MAY_IMPORT that says whom it may know"


def test_imports_go_downwards_only() -> None:
    upwards = []
    for found in imports():
        source, target = room_of(module_of(PROJECT / found.file)), room_of(found.module)
        if source is not None and target is not None and target != source and target not in MAY_IMPORT[source]:
            upwards.append(str(found))

    assert upwards == []


def test_no_room_is_above_itself() -> None:
    for room, below in MAY_IMPORT.items():
        assert room not in below
        assert not any(room in MAY_IMPORT[other] for other in below)


def test_no_modules_import_each_other_in_a_circle() -> None:
    ours = {module_of(file) for file in files()}
    graph: dict[str, set[str]] = {module: set() for module in ours}
    for found in imports():
        if found.is_at_load and found.module in ours:
            graph[module_of(PROJECT / found.file)].add(found.module)

    # What imports nothing that is left can be taken away; a circle is what remains.
    while free := {module for module, below in graph.items() if not below & set(graph) - {module}}:
        for module in free:
            del graph[module]
    assert graph == {}


def test_third_parties_stay_in_their_rooms() -> None:
    astray = [
        str(found)
        for found in imports()
        if (rooms := THIRD_PARTIES.get(found.module.split(".")[0])) is not None
        and room_of(module_of(PROJECT / found.file)) not in rooms
    ]

    assert astray == []


def test_the_simulated_org_borrows_nothing() -> None:
    """A witness who shares our mistakes proves nothing."""
    ours = {found.module for found in imports() if found.file.startswith("sync_pipeline/simulated_org/")}

    assert {room_of(module) for module in ours} <= {None, "simulated_org"}


def test_everything_has_a_noun() -> None:
    nameless = [str(file.relative_to(PROJECT)) for file in files() if NO_NOUN & set(file.with_suffix("").parts)]

    assert nameless == []


# settings


def test_only_settings_reads_the_environment() -> None:
    """Besides, ``memory.py`` tells an allocator by the environment, because there is no other way."""
    readers = [
        f"{file.relative_to(PROJECT)}:{node.lineno}"
        for file in files()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "EnvVar")
        if file.name not in ("reading.py", "memory.py")
    ]

    assert readers == []


def test_every_variable_that_is_named_anywhere_is_a_setting() -> None:
    told = [*files(), *PACKAGE.rglob("*.toml"), *PACKAGE.rglob("*.sql"), PROJECT / "dagster.yaml", PROJECT / "Makefile"]
    told += [file for file in [PROJECT / "README.md"] if file.exists()]

    unknown = {
        f"{file.relative_to(PROJECT)}: {name}"
        for file in told
        for name in VARIABLE.findall(file.read_text(encoding="utf-8"))
        if name not in KNOWN
    }

    assert unknown == set()


def test_every_setting_is_documented_with_its_default() -> None:
    readme = PROJECT / "README.md"
    rows = [f"| `{row.variable}` | {row.why} | {row.unit} | {row.default} |" for row in describe()]
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if not any(f"| `{row.variable}` |" in text for row in describe()):
        pytest.skip("README.md has no table of settings yet; these are its rows:\n" + "\n".join(rows))

    missing = [row for row in rows if row not in text]

    assert missing == [], "rows that README.md lacks or tells otherwise"


# the project as a whole


def test_the_definitions_load_without_any_setting() -> None:
    import dagster as dg

    from sync_pipeline.definitions import defs

    dg.Definitions.validate_loadable(defs)

    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert {"opportunity_ranges", "opportunities_synced", "sync_reconciliation"} <= keys


def test_more_runs_are_allowed_than_lanes_so_that_a_stop_never_queues() -> None:
    runs = yaml.safe_load((PROJECT / "dagster.yaml").read_text(encoding="utf-8"))["concurrency"]["runs"]
    lanes, one_run_per_range = runs["tag_concurrency_limits"]

    assert runs["max_concurrent_runs"] == lanes["limit"] + 4
    assert (lanes["key"], one_run_per_range["key"]) == ("dagster/partition", "dagster/partition")
    assert (one_run_per_range["limit"], one_run_per_range["value"]) == (1, {"applyLimitPerUniqueValue": True})


def test_one_file_alone_names_the_code_location() -> None:
    """A block of Dagster's in pyproject.toml would silently switch workspace.yaml off."""
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]

    assert {"dagster", "dg"} & set(tools) == set()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-postgres.lock", "requirements-test.lock"])
def test_every_locked_requirement_is_pinned_and_hashed_and_names_no_place(lock: str) -> None:
    text = (PROJECT / lock).read_text(encoding="utf-8")

    entries = text.replace("\\\n", " ").splitlines()
    assert [entry for entry in entries if not re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:", entry)] == []
    assert "://" not in text


def test_what_the_project_needs_is_locked() -> None:
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = document["project"]["dependencies"] + document["dependency-groups"]["build"]

    for lock, needed in (
        ("requirements.lock", runtime),
        ("requirements-postgres.lock", runtime + document["dependency-groups"]["postgres"]),
        ("requirements-test.lock", runtime + document["dependency-groups"]["test"]),
    ):
        pinned = set(re.findall(r"(?m)^([a-z0-9-]+)", (PROJECT / lock).read_text(encoding="utf-8")))
        assert {re.split(r"[\[<>=]", requirement)[0] for requirement in needed} <= pinned


def test_all_locks_are_of_one_resolution() -> None:
    """What is tested is what is installed, with PostgreSQL and without."""
    pinned = {
        lock: dict(
            re.findall(r"(?m)^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", (PROJECT / lock).read_text(encoding="utf-8"))
        )
        for lock in ("requirements.lock", "requirements-postgres.lock", "requirements-test.lock")
    }

    assert pinned["requirements.lock"].items() <= pinned["requirements-postgres.lock"].items()
    assert pinned["requirements-postgres.lock"].items() <= pinned["requirements-test.lock"].items()


def test_no_file_names_a_package_registry() -> None:
    hosts = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "--extra-" + "index-url", "--find-" + "links "]

    naming = {f"{file}: {host}" for file in project_files() for host in hosts if host in text_of(PROJECT / file)}

    assert naming == set()


def project_files() -> list[str]:
    """Files under version control or about to be; without a repository, those of the package and beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (PROJECT / name).is_file()]
    return [str(file.relative_to(PROJECT)) for file in [*PROJECT.glob("*"), *files()] if file.is_file()]


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:  # a picture
        return ""
