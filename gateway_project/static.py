"""The console's styles and scripts, as production serves them. Room: gateway_project.

``collectstatic`` copies them into STATIC_ROOT under names that hold a hash of their content, compressed as well:
browsers keep them for ever, and a new version is never shown in old clothes. ``check --deploy`` says when that was not
done; until then the packages' own files are served.
"""

from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from whitenoise.storage import CompressedManifestStaticFilesStorage

COLLECT = "python manage.py collectstatic --noinput"


class CollectedFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # untyped
    """Names a file that was not collected as it is: a page without its styles is better than none."""

    def stored_name(self, name: str) -> str:
        try:
            return str(super().stored_name(name))
        except ValueError:
            return name


def uncollected() -> list[str]:
    """The names of files that STATIC_ROOT lacks or has with another content; all of them before the first time."""
    root = Path(settings.STATIC_ROOT)
    storage = CollectedFiles()
    missing: list[str] = []
    seen: set[str] = set()
    for finder in get_finders():
        for name, source in finder.list([]):
            # Of two files of one name the first is taken, as collectstatic does.
            if name in seen:
                continue
            seen.add(name)
            if name not in storage.hashed_files or not _is_same(Path(source.path(name)), root / name):
                missing.append(name)
    return missing


def _is_same(source: Path, copy: Path) -> bool:
    try:
        return copy.stat().st_size == source.stat().st_size and copy.read_bytes() == source.read_bytes()
    except OSError:
        return False
