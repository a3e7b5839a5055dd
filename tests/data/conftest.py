"""No library may call out: the switches are set before a test module imports one."""

from hypothesis import settings

from engine.offline import set_offline

set_offline()
# How long an example takes says nothing on a shared machine.
settings.register_profile("finetui", deadline=None)
settings.load_profile("finetui")
