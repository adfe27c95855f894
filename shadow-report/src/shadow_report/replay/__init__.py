"""`shadow-report replay`: stored primary calls again, to a candidate, under their own pair ids."""

from shadow_report.replay.command import replay_command

__all__ = ["replay_command"]
