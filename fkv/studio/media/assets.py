"""The text files of the page: templates, scripts, styles."""

from __future__ import annotations

from fkv import resources

ASSETS = resources.asset("studio")


def page_asset(name: str) -> str:
    """A text file of the page. Raises ValueError that names a missing one."""
    try:
        return (ASSETS / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"assets/studio/{name} cannot be read ({error.strerror}); restore it from the repository"
        ) from None
