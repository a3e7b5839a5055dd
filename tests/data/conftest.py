"""No library may call out: the switches are set before a test module imports one."""

from engine.offline import set_offline

set_offline()
