"""Under which circumstances a run learns (settings, data, base, libraries, device), and what of them changed."""

from engine.run.circumstances.base_files import BaseReading, base_circumstances
from engine.run.circumstances.changed import Change, changes, changes_text
from engine.run.circumstances.checking import (
    changes_before_resume,
    goes_on_anyway,
    refuse_changes,
    require_same,
    require_same_settings,
)
from engine.run.circumstances.present import circumstances_of, data_circumstances, version_circumstances
from engine.run.circumstances.spec_fields import needs_new_data

__all__ = [
    "BaseReading",
    "Change",
    "base_circumstances",
    "changes",
    "changes_before_resume",
    "changes_text",
    "circumstances_of",
    "data_circumstances",
    "goes_on_anyway",
    "needs_new_data",
    "refuse_changes",
    "require_same",
    "require_same_settings",
    "version_circumstances",
]
