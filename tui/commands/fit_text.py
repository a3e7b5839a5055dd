"""What `finetui fit` prints: a plan as a table with memory bars, then each profile in words; and the wider views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from profiles.problem import printable
from tui import plan_words as words
from tui.commands.output import table
from tui.format import bytes_text, compact_text, share_text
from tui.memory_shares import LETTERS, lettered_bar
from tui.plan_views import HERE, smallest

if TYPE_CHECKING:
    from profiles.geometry import Geometry
    from profiles.planner import Plan, Profile
    from tui.plan_views import ViewRow

_BAR_WIDTHS = (12, 40)


def plan_lines(plan: Plan, replayed: Mapping[str, Any], columns: int) -> list[str]:
    geometry, holders = plan.geometry, words.holder_words(plan)
    lines = [
        f"{printable(geometry.path.name if geometry.source != 'catalogue' else geometry.path)} · "
        f"{words.model_words(geometry)} · {words.job_words(plan)}",
        f"{words.free_words(plan)} · {words.budget_words(plan)}",
        *([f"in use: {' · '.join(holders)}"] if holders else []),
        *(f"note: {note}" for note in (*plan.notes, *plan.hardware.notes)),
        "",
        *_profile_table(plan, columns),
        "",
    ]
    for profile in plan.profiles:
        lines += _profile_lines(profile, geometry, replayed.get(profile.name))
    legend = [f"{letter} {name}" for name, letter in LETTERS.items() if name not in ("ours", "used")]
    return [*lines, f"bars: {', '.join(legend)}, · free"]


def _profile_table(plan: Plan, columns: int) -> list[str]:
    with_time = bool(plan.job.rows)
    header = ["profile", "method", "memory", "peak", "headroom", "tok/s", *(["time"] if with_time else []), "trained"]
    rows = []
    for profile in plan.profiles:
        glyph = words.FITS if profile.fits else words.NO_FIT
        row = [f"{glyph} {profile.name}", words.method_words(profile.settings), "", bytes_text(profile.peak_bytes)]
        row += [bytes_text(profile.headroom_bytes), words.rate_words(profile)]
        row += [words.time_words(profile)] if with_time else []
        rows.append([*row, compact_text(profile.trainable_parameters)])
    header[0] = "  profile"
    taken = max(len(line) for line in table(header, rows, right=header[3:])) - len("memory")
    bar_width = max(_BAR_WIDTHS[0], min(_BAR_WIDTHS[1], columns - taken))
    scale = words.bar_scale(plan, plan.profiles)
    for row, profile in zip(rows, plan.profiles, strict=True):
        parts = profile.estimate.components
        row[2] = lettered_bar(parts, scale.total_bytes, bar_width, others_bytes=scale.others_bytes, cut=scale.cut)
    return table(header, rows, right=header[3:])


def _profile_lines(profile: Profile, geometry: Geometry, replayed: Mapping[str, Any] | None) -> list[str]:
    settings = profile.settings
    error = share_text(round(profile.estimate.error_share, 2))
    lines = [
        f"{profile.name}: {words.room_words(profile)}",
        f"  {' · '.join(words.settings_words(settings))}",
        f"  {words.trained_words(profile, geometry)} · peak during {profile.estimate.phase}, ±{error}",
        *(f"  {sentence}" for sentence in profile.why),
    ]
    if replayed is not None:
        lines.append(f"  replay: {_replay_text(replayed, profile)}")
    return [*lines, ""]


def _replay_text(replayed: Mapping[str, Any], profile: Profile) -> str:
    if "problem" in replayed:
        return f"not possible: {replayed['problem']['what']}"
    return words.replay_words(replayed["allocated_bytes"], replayed["phases"], profile.estimate)


def view_lines(title: str, facts: Sequence[str], rows: Sequence[ViewRow]) -> list[str]:
    """Models or cards, a row each and a column a method; of cards also the smallest that each method fits on."""
    header = [title, *facts, *words.METHODS]
    cells = [[row.name, *row.facts, *(_cell(row.profiles.get(method)) for method in words.METHODS)] for row in rows]
    lines = [f"peak memory of the best settings of each method; {words.FITS} fits, {words.NO_FIT} does not fit"]
    lines += table(header, cells, right=(facts[0], *words.METHODS))
    if any(row.name == HERE for row in rows):
        enough = smallest(rows)
        lines.append("")
        for method in words.METHODS:
            row = enough.get(method)
            answer = f"from {row.facts[0]} on, such as {row.name}" if row else "on no single card of the catalogue"
            lines.append(f"{method:<8} {answer}")
    return lines


def _cell(profile: Profile | None) -> str:
    if profile is None:
        return "-"
    return f"{words.FITS if profile.fits else words.NO_FIT} {bytes_text(profile.peak_bytes):>9}"
