"""The door is the only one: whoever goes around it is found in the source, before a tenant is.

import-linter holds which modules of the room others may import; here is what imports do not show.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps

from tests.support.gateway import ROOT

# The modules that ask the database for tenant rows; everybody else asks them, through tenants.access.
INSIDE = {
    f"tenants/{name}.py"
    for name in (
        "scope", "changes", "conduct", "api_keys", "audit", "terminal", "presence",
        "seeds", "demo", "load_users", "tokens",
    )
}  # fmt: skip
INSIDE_FOLDERS = ("tenants/models/", "tenants/migrations/")
# What other rooms import of this one.
PUBLIC = {"access", "bodies", "pages", "tokens", "problems", "demo", "load_users", "demo_symbols"}
NOT_THE_PRODUCT = {"tests", "docs", "deploy", "benchmarks", "clients"}
MODELS = {model.__name__ for model in apps.get_app_config("tenants").get_models()}
RELATED = {
    relation.get_accessor_name()
    for model in apps.get_app_config("tenants").get_models()
    for relation in model._meta.related_objects
    if relation.related_model._meta.app_label == "tenants" and relation.one_to_many
}
MANAGERS = {"objects", "_default_manager", "_base_manager"}
# Those that a dictionary or a list does not have.
QUERIES = {"all", "filter", "exclude", "create", "bulk_create", "get_or_create", "exists", "values_list", "order_by"}


def product_files() -> Iterator[Path]:
    for folder in sorted(ROOT.iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in NOT_THE_PRODUCT:
            yield from sorted(folder.rglob("*.py"))
    yield ROOT / "manage.py"


def is_inside(path: str) -> bool:
    return path in INSIDE or path.startswith(INSIDE_FOLDERS)


class Look(ast.NodeVisitor):
    """Collects (line, what) of each way to tenant rows that is not the door."""

    def __init__(self, source: str) -> None:
        self.found: list[tuple[int, str]] = []
        self._is_about_tenants = "tenants_" in source or "tenants.models" in source
        # Local name -> model; names that hold what get_user_model() gave.
        self._names: dict[str, str] = {}
        self._is_guarded = False
        self.visit(ast.parse(source))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").partition(".")[0] == "tenants":
            self._names.update({item.asname or item.name: item.name for item in node.names if item.name in MODELS})

    def visit_Assign(self, node: ast.Assign) -> None:
        if model := self._model(node.value):
            self._names.update({target.id: model for target in node.targets if isinstance(target, ast.Name)})
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self._is_guarded
        # It asks which rows are a tenant's before it takes any.
        self._is_guarded = outer or any(
            isinstance(part, ast.Name) and part.id == "is_tenant_model" for part in ast.walk(node)
        )
        self.generic_visit(node)
        self._is_guarded = outer

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in MANAGERS:
            model = self._model(node.value)
            # What a variable holds is not known: it may be a tenant's model.
            is_any = node.attr != "objects" and not self._is_guarded and not _is_other_class(node.value)
            if model or is_any:
                self._note(node, f"{model or 'any model'}.{node.attr}")
        if node.attr in QUERIES and isinstance(node.value, ast.Attribute) and node.value.attr in RELATED:
            self._note(node, f".{node.value.attr}.{node.attr}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if called in ("raw", "cursor", "extra") and self._is_about_tenants:
            self._note(node, f".{called}(")
        if called == "get_model" and any(isinstance(arg, ast.Constant) and _names_us(arg.value) for arg in node.args):
            self._note(node, "get_model")
        self.generic_visit(node)

    def _model(self, node: ast.expr) -> str:
        """The tenant model that an expression is, by name, or nothing."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return node.attr if node.attr in MODELS else ""
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            return "User" if name == "get_user_model" else ""
        return ""

    def _note(self, node: ast.expr, what: str) -> None:
        self.found.append((node.lineno, what))


def _names_us(value: object) -> bool:
    return isinstance(value, str) and value.partition(".")[0] == "tenants"


def _is_other_class(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id[:1].isupper()


def test_no_module_goes_around_the_door() -> None:
    found = []
    for path in product_files():
        name = path.relative_to(ROOT).as_posix()
        if not is_inside(name):
            found += [f"{name}:{line} {what}" for line, what in Look(path.read_text("utf-8")).found]
    assert found == [], "go through tenants.access: find(actor, Model, ...) or visible(actor, Model)"


def test_other_rooms_import_the_public_modules_only() -> None:
    found = set()
    for path in product_files():
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("tenants/"):
            found |= {f"{name} {module}" for module in imported(path.read_text("utf-8")) if module not in PUBLIC}
    assert found == set(), "tenants.access is the door"


def imported(source: str) -> set[str]:
    """The modules of this room that a source imports, by the part after ``tenants.``."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[2] for alias in node.names if _names_us(alias.name)}
        elif isinstance(node, ast.ImportFrom) and _names_us(node.module):
            inner = (node.module or "").partition(".")[2]
            modules |= {inner} if inner else {alias.name for alias in node.names}
    return modules


def test_inside_is_what_is_there() -> None:
    assert {name for name in INSIDE if not (ROOT / name).is_file()} == set()
    assert {"accounts", "active_pairs", "api_keys", "bans", "users"} <= RELATED
    seen = {path.relative_to(ROOT).as_posix() for path in product_files()}
    assert {"tenants/access.py", "streaming/access.py", "events/outbox.py", "gateway_project/urls.py"} <= seen


@pytest.mark.parametrize(
    "source",
    [
        "from tenants.models import User\nUser.objects.all()",
        "from tenants.models import User as Person\nPerson.objects.get()",
        "from tenants.access import Company\nCompany.objects.get()",
        "from tenants.models.users import MT5Account\nMT5Account._base_manager.all()",
        "from tenants import models\nmodels.Ban.objects.all()",
        "import tenants.models\ntenants.models.ApiKey._default_manager.all()",
        "from django.contrib.auth import get_user_model\nget_user_model().objects.get()",
        "from django.contrib import auth\nPerson = auth.get_user_model()\nPerson.objects.get()",
        "apps.get_model('tenants', 'User')",
        "apps.get_model('tenants.User')",
        "def rows(model):\n    return model._default_manager.all()",
        "type(row)._base_manager.get(pk=1)",
        "company.users.filter(is_active=True)",
        "request.user.accounts.all()",
        "connection.cursor().execute('DELETE FROM tenants_user')",
        "from tenants.models import User\nrows = manager.raw('SELECT 1')",
    ],
)
def test_way_around_the_door_is_found(source: str) -> None:
    assert Look(source).found


@pytest.mark.parametrize(
    "source",
    [
        "from tenants.access import find\nfind(actor, User, pk=1)",
        "from events.models import OutboxEvent\nOutboxEvent.objects.all()\nOutboxEvent._default_manager.all()",
        "connection.cursor().execute('SELECT 1')",
        "def rows(model):\n    if is_tenant_model(model):\n        return 1\n    return model._default_manager.all()",
        "self.users.get(1)",
        "apps.get_model('usage', 'CompanyMonth')",
    ],
)
def test_other_rooms_own_rows_are_their_own(source: str) -> None:
    assert Look(source).found == []


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from tenants import access", {"access"}),
        ("from tenants.models.users import User", {"models.users"}),
        ("import tenants.changes as door", {"changes"}),
        ("from streaming import access", set()),
    ],
)
def test_import_of_the_room_is_seen(source: str, modules: set[str]) -> None:
    assert imported(source) == modules
