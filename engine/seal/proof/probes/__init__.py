"""The ways out of a sealed process, each tried once from within. The standard library alone: it runs inside the seal,
in an interpreter of its own, beside the trainer.

Nothing here aims anywhere but at doors of this machine that its caller opened for it (`aims`); whether a route leads
out of the machine is read from the kernel elsewhere, and not tried. And nothing here has an effect that outlasts it,
also where nothing refuses it: what cannot be tried in such a way is not tried.
"""
